"""`mlade suggest`: the band, share or sampling with which a filter keeps about as many windows as are wanted.

One pass over the recording collects the scores of the windows that a rule could keep, beside what the filter's other
rules keep anyway. From these follows how far its band has to reach. Then the changed filter is replayed: what it keeps
is what is told, and where conditions that remember (dedup, limit, cooldown) took more than their share, the next pass
asks for more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, Context
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from processor.computation import Outcome
from processor.errors import MladeError
from processor.filter import FilterDocument, Rule, to_plain, validate_filter
from processor.forecast import DAY
from processor.replay import Candidate, Replay
from processor.thinning import Thinned
from processor.types import Floats, OutputKind

Form = Literal["band", "share", "sample"]
Run = Callable[[Sequence[Candidate], Callable[[Sequence[Outcome]], None]], Replay]
"""Replays filters side by side, giving what came of each piece, and returns the replay."""

_SCORES_KEPT: Final = 1 << 20
_PASSES: Final = 5
"""Replays of a suggestion at most."""
_CLOSE: Final = 0.03
"""A suggestion that is off by no more than this part, or by one window, is taken."""
_FAR: Final = 0.1
"""A band that is off by more, because many windows have the same score, gives way to a share."""
_SECONDS: Final = {"": None, "day": DAY, "hour": 3600}
_PER: Final = {"": "of the recording", "day": "a day", "hour": "an hour"}
_HALF: Final = 0.5
_BAND: Final = ("band", "outside")
_LATER: Final = ("keep", "dedup", "sample", "cooldown", "limit", "context")
"""What a rule tests after its band."""


class Unreachable(MladeError):
    """No band or share keeps that many; the text says why."""


class Target(NamedTuple):
    """How many windows are wanted."""

    number: float
    per: Literal["", "day", "hour"]
    """Empty: of the recording."""

    def __str__(self) -> str:
        """Return it as it is said."""
        return f"{self.number:,.12g} {self.unit}"

    @property
    def unit(self) -> str:
        """What the number is of."""
        return _PER[self.per]


def parse_target(text: str) -> Target:
    """Return what `100`, `100/day` or `100/hour` means.

    Raises:
        ValueError: it means nothing.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(?:/(day|hour))?", text)
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"found {text!r}, expected a number of samples, such as 500, 100/day or 10/hour")
    per: Literal["", "day", "hour"] = "day" if found[2] == "day" else "hour" if found[2] else ""
    return Target(float(found[1]), per)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A filter that keeps about what is wanted.

    Attributes:
        plain: the whole filter, ready to be written.
        rule: the index of the rule that was changed or added.
        form: what of it was set.
        replay: of this filter.
        kept: what it keeps, in the target's terms.
        remarks: sentences on what stands in the way of the wanted number, or was noticed.
    """

    plain: dict[str, Any]
    rule: int
    form: Form
    replay: Replay
    kept: float
    remarks: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Found:
    """What the first pass found.

    Attributes:
        scores: (N,) of windows that only this rule can keep, thinned; for a rule without a measure all 0.
        stride: each stands for so many.
        others: what the other rules keep, in the target's terms.
        factor: from a window of this rule in the recording to the target's terms.
    """

    scores: Floats
    stride: int
    others: float
    factor: float


def suggest(
    run: Run,
    document: FilterDocument,
    kind: OutputKind,
    target: Target,
    *,
    rule: str | None = None,
    share: bool = False,
) -> Suggestion:
    """Find a filter that keeps about `target`.

    Args:
        run: replays the recording, once for each call.
        document: the filter to change; one without rules gets one.
        kind: of the model's output.
        target: how many windows the filter as a whole should keep.
        rule: the name of the rule to change; None: the first with a measure, else the first.
        share: set an adaptive share rather than a band.

    Raises:
        Unreachable: that is not possible with this rule on this recording.
    """
    plain = to_plain(document)
    if not plain["rules"]:
        plain["rules"] = [{"name": "ambiguous", "measure": "value" if kind == "value" else "confidence"}]
    index = _chosen(plain["rules"], rule)
    chosen = validate_filter(plain).rules[index]
    form: Form = "sample" if chosen.measure is None else "share" if share or chosen.keep is not None else "band"
    if form == "sample" and share:
        raise Unreachable(f"The rule {chosen.name} has no measure, so it has no share of the most extreme scores.")
    found = _look(run, plain, index, target)
    wanted = target.number - found.others
    if wanted <= 0:
        raise Unreachable(
            f"The other rules keep {_told(found.others, target)} already, and {target} are wanted; tighten them "
            "first, or choose another rule with --rule."
        )
    there = len(found.scores) * found.stride * chosen.sample
    remarks = []
    need = wanted / found.factor
    if need >= there and form != "sample":
        most = _rounded_down(there * found.factor + found.others)
        remarks.append(f"No more than {target._replace(number=most)} can be had of this rule.")
    elif found.factor > _FAR * target.number:
        one = target._replace(number=_few_digits(found.factor))
        remarks.append(f"One window of this recording stands for {one}; a longer recording tells more.")
    if form == "band" and _misses(chosen, found, need):
        form = "share"
        remarks.append("Too many windows have the same score for a band, so it is a share.")
    return _settle(_Task(run, plain, index, form, target), found, remarks)


def _chosen(rules: Sequence[dict[str, Any]], name: str | None) -> int:
    for index, rule in enumerate(rules):
        if rule["name"] == name or (name is None and "measure" in rule):
            return index
    if name is not None:
        known = ", ".join(rule["name"] for rule in rules)
        raise Unreachable(f"The filter has no rule {name!r}; it has {known}.")
    return 0


def _look(run: Run, plain: dict[str, Any], index: int, target: Target) -> _Found:
    """Replay the rule with no conditions but those before the one that is looked for, beside the filter without it."""
    rules = plain["rules"]
    dropped = _LATER if "keep" in rules[index] else _BAND + _LATER
    open_rule = {key: value for key, value in rules[index].items() if key not in dropped}
    alone = validate_filter({**plain, "rules": [open_rule]})
    without = validate_filter({**plain, "rules": [rule for at, rule in enumerate(rules) if at != index]})
    scores = Thinned(_SCORES_KEPT)

    def take(outcomes: Sequence[Outcome]) -> None:
        mine, others = outcomes
        only = (mine.judgement.verdicts.rule == 0) & (others.judgement.verdicts.rule < 0)
        own = mine.judgement.scores[0]
        candidates = np.zeros(int(only.sum())) if own is None else own[only]
        scores.add(candidates[~np.isnan(candidates)])

    replay = run((Candidate("rule", alone), Candidate("others", without)), take)
    columns = scores.columns()
    if not columns or not len(columns[0]):
        raise Unreachable(
            f"No window of the recording is for rule {open_rule['name']} alone: look at its schedule and where, at "
            "enabled, and at the rules beside it."
        )
    factors = _factors(replay, target)
    others = float((replay.sides[1].by_rule * factors[1]).sum())
    (factor,) = factors[0]
    if not 0 < factor < np.inf:
        raise Unreachable(
            f"The recording is too short to say what {target.number:g} a {target.per} are; give a number."
        )
    return _Found(columns[0], scores.stride, others, float(factor))


def _factors(replay: Replay, target: Target) -> list[Floats]:
    """Return for each side (R,) from windows that a rule kept of the recording to the target's terms."""
    seconds = _SECONDS[target.per]
    if seconds is None:
        return [np.ones(len(side.by_rule)) for side in replay.sides]
    return [replay.factors(side) * (seconds / DAY) for side in replay.sides]


@dataclass(frozen=True, slots=True)
class _Task:
    """What is to be set, and how it is tried."""

    run: Run
    plain: dict[str, Any]
    index: int
    form: Form
    target: Target


def _settle(task: _Task, found: _Found, remarks: list[str]) -> Suggestion:
    """Set the rule, replay the filter, and ask for more or fewer where conditions that remember need it."""
    run, plain, index, form, target = task.run, task.plain, task.index, task.form, task.target
    rule = validate_filter(plain).rules[index]
    wanted = (target.number - found.others) / found.factor
    need = wanted / rule.sample if form != "sample" else wanted
    best: Suggestion | None = None
    tried: set[str] = set()
    for _ in range(_PASSES):
        changed = [*plain["rules"]]
        changed[index] = changed[index] | _settings(rule, form, found, need)
        changed[index] = {key: value for key, value in changed[index].items() if value is not None}
        if repr(changed[index]) in tried:
            break
        tried.add(repr(changed[index]))
        candidate = {**plain, "rules": changed}
        replay = run((Candidate("suggested", validate_filter(candidate)),), lambda _outcomes: None)
        (factors,) = _factors(replay, target)
        kept = float((replay.sides[0].by_rule * factors).sum())
        if best is None or abs(kept - target.number) < abs(best.kept - target.number):
            best = Suggestion(candidate, index, form, replay, kept, remarks)
        error = kept - target.number
        if abs(error) <= max(_CLOSE * target.number, found.factor):
            break
        got = max((kept - found.others) / found.factor, _HALF)
        need = min(need * min(wanted / got, 10.0), len(found.scores) * found.stride * 10.0)
    if best is None:
        raise Unreachable(f"Nothing could be tried for rule {rule.name}.")
    if abs(best.kept - target.number) > max(_FAR * target.number, found.factor) and not remarks:
        remarks.append(f"That is as near to {target} as this rule gets: look at its other conditions.")
    return best


def _settings(rule: Rule, form: Form, found: _Found, need: float) -> dict[str, Any]:
    """Return the keys of the rule with which it lets about `need` windows of the recording pass; None drops one."""
    if form == "band":
        return {"keep": None, "band": _Band(rule, found.scores).around(need / found.stride)}
    there = max(len(found.scores) * found.stride, 1)
    part = _few_digits(min(need / there, 1.0))
    if form == "sample":
        return {"sample": part}
    if rule.keep is not None:
        return {"keep": {"share": part, "of": rule.keep.of, "over": rule.keep.over}}
    of = "lowest" if rule.measure in ("confidence", "margin") else "highest"
    return {"band": None, "outside": None, "keep": {"share": part, "of": of}}


def _few_digits(part: float) -> float:
    return float(f"{part:.3g}")


def _rounded_down(count: float) -> float:
    """Return a number of few digits that is not more than there are."""
    return float(Context(prec=3, rounding=ROUND_DOWN).create_decimal(count))


def _told(count: float, target: Target) -> str:
    return str(target._replace(number=_few_digits(count)))


class _Band:
    """Which way a rule's band grows: from an end of the scores, or from a middle to both sides.

    A band that is there keeps its form: both ends around their middle, or the one end it has. Else it begins where the
    measure is least certain: low confidence and margin, high entropy, a probability or a score of one half, the highest
    values.
    """

    def __init__(self, rule: Rule, scores: Floats) -> None:
        self._outside = rule.outside
        self._middle: float | None = None
        band, measure = rule.band, rule.measure
        if band is not None and band.min is not None and band.max is not None:
            self._middle = (band.min + band.max) / 2
        elif band is None and measure in ("probability", "score") and scores.min() >= 0 and scores.max() <= 1:
            self._middle = _HALF
        upward = band.min is not None if band is not None else measure not in ("confidence", "margin")
        self._sign = -1.0 if upward else 1.0
        """Scores times this are the lower the sooner the band holds them."""

        far = self._sign * scores if self._middle is None else np.abs(scores - self._middle)
        self.distances: Floats = np.sort(-far if self._outside else far)
        """(N,) how far the band has to reach to hold each score, sorted."""

    def around(self, need: float) -> dict[str, float]:
        """Return the band that holds about `need` of the scores."""
        reach = _between(self.distances, _place(self.distances, need))
        reach = -reach if self._outside else reach
        if self._middle is None:
            return {"min" if self._sign < 0 else "max": self._sign * reach + 0.0}
        digits = 15
        return {"min": round(self._middle - reach, digits), "max": round(self._middle + reach, digits)}


def _place(ordered: Floats, need: float) -> int:
    """Return how many of the sorted numbers to hold: about `need`, at least 1, and equal ones together."""
    wanted = int(np.clip(round(need), 1, len(ordered)))
    equal = ordered[wanted - 1]
    low, high = int(np.searchsorted(ordered, equal)), int(np.searchsorted(ordered, equal, side="right"))
    return low if low and need - low < high - need else high


def _between(ordered: Floats, count: int) -> float:
    """Return the shortest decimal that at least `count` of the sorted numbers do not exceed, and the next one does."""
    last = float(ordered[count - 1])
    following = float(ordered[count]) if count < len(ordered) else last + max(abs(last), 1e-9) / 1000
    for digits in range(1, 17):
        for number in (round(last, digits), round((last + following) / 2, digits)):
            if last <= number < following:
                return number
    return last


def _misses(rule: Rule, found: _Found, need: float) -> bool:
    """Whether ties keep the band from holding about as many as needed, though there are enough."""
    if rule.outside or need / rule.sample > len(found.scores) * found.stride:
        return False
    need /= rule.sample
    count = _place(_Band(rule, found.scores).distances, need / found.stride) * found.stride
    return abs(count - need) > max(_FAR * need, found.stride)
