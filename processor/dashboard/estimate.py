"""What a rule would have kept of the last hour, from its processor's score histogram."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from processor.dashboard import words
from processor.told import RuleScores
from processor.types import Floats

_HOUR: Final = 3540
"""Seconds from which on it is called an hour."""
_MINUTE: Final = 60
_AFTER: Final = ("keep", "dedup", "cooldown", "limit")
"""Conditions that come after the band, and only take away."""


class Estimate(NamedTuple):
    """What a rule would have kept.

    Attributes:
        windows: judged in the time.
        kept: of them, by schedule, where, band and sample; about.
        seconds: that the time is long.
        less: names of conditions that keep less than that.
        inside: the part of all scores that lies in the band, whatever comes before it; 0 to 1.
        tested: whether the band was tested on any window.
    """

    windows: int
    kept: float
    seconds: int
    less: tuple[str, ...]
    inside: float
    tested: bool

    @property
    def share(self) -> float:
        """Of the windows; 0 to 1."""
        return self.kept / self.windows if self.windows else 0.0

    def sentence(self) -> str:
        """Return it in words."""
        span = "1 hour" if self.seconds >= _HOUR else words.span(self.seconds)
        time = span.removeprefix("1 ") if self.seconds >= _MINUTE else span
        if not self.windows:
            return f"No windows in the last {time} to try it on."
        if not self.tested:
            lie = f"Of all scores, {words.share(self.inside)} lie in it."
            return f"None of {words.count(self.windows)} windows of the last {time} came as far as this band. {lie}"
        about = "At most" if self.less else "About"
        what = f"{about} {words.share(self.share)} of the last {time}: {words.count(self.kept)}"
        note = f" {' and '.join(self.less).capitalize()} may keep less." if self.less else ""
        return f"{what} of {words.count(self.windows)} windows.{note}"


def estimate(scores: RuleScores, rule: Mapping[str, Any]) -> Estimate:
    """Return what a rule would have kept, with the conditions before its band as they are in force.

    Args:
        scores: of the rule that is in force.
        rule: a rule, as in a filter document, that measures the same.
    """
    reached = np.array(scores.reached, np.float64)
    every = np.zeros(len(reached))
    for counts in scores.by_label.values():
        every += np.resize(np.array(counts, np.float64), len(reached))
    inside = _inside(scores, rule)
    sample = rule.get("sample", 1.0)
    return Estimate(
        windows=scores.windows,
        kept=float((reached * inside).sum()) * (sample if isinstance(sample, int | float) else 1.0),
        seconds=scores.seconds,
        less=tuple(name for name in _AFTER if rule.get(name) is not None),
        inside=float((every * inside).sum() / max(every.sum(), 1.0)),
        tested=bool(reached.any()),
    )


def _inside(scores: RuleScores, rule: Mapping[str, Any]) -> Floats:
    """Return which part of each bin lies in the rule's band; the outer bins reach to infinity."""
    lower = scores.low + scores.width * np.arange(len(scores.reached))
    upper = lower + scores.width
    band = rule.get("band")
    low, high = (_end(band, key, otherwise) for key, otherwise in (("min", -np.inf), ("max", np.inf)))
    # A band that is closed on a bin's edge has, of the bin that begins there, no more than scores right on the edge.
    part: Floats = np.clip((np.minimum(upper, high) - np.maximum(lower, low)) / scores.width, 0.0, 1.0)
    if len(part) and high >= upper[-1]:
        part[-1] = 1.0 if low <= lower[-1] else part[-1]
    return 1.0 - part if rule.get("outside") is True else part


def _end(band: object, key: str, otherwise: float) -> float:
    value = band.get(key) if isinstance(band, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise
