"""The last hour in numbers, of a bounded size: what came and went by the minute, and scores by rule and label.

A page beside the processor can then show an hour at once, and tell what another band would have kept of it, without
having been there. Used by the pipeline thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from processor.filter import FilterDocument, Rule
from processor.protocols import Clock
from processor.types import Flags, Floats, Ints, OutputKind, Predictions

MINUTES: Final = 60
BINS: Final = 100
_SLOTS: Final = 12
"""Parts of the hour; the scores of a part are forgotten together."""
_SLOT_SECONDS: Final = 300
_RULES: Final = 8
"""Rules whose scores are counted: the first ones of the filter that measure something."""
_LABELS: Final = 32
"""Predicted labels that are counted each; the others together."""
_LABELS_TOLD: Final = 8
_OTHERS: Final = "other labels"
_OUTSIDE: Final = 0.02
"""Share of the scores that may lie outside of the bins before these grow twice as wide."""
_LARGEST: Final = 1e300
_WAITING: Final = 4096
"""Windows that may wait for the next look."""
_RAW: Final = ("score", "value")
"""Measures that know no bounds."""


class Bins:
    """`BINS` intervals of one width, each `[low, high)`; what lies outside counts in the outer ones.

    Attributes:
        low: lower edge of the first.
        width: of each; a power of two where the measure knows no bounds, else a hundredth.
    """

    def __init__(self, scores: Floats, *, bounded: bool) -> None:
        """Make bins for a measure.

        Args:
            scores: the first ones, at least one.
            bounded: whether they lie in [0, 1].
        """
        self._grows = not bounded
        self._seen = self._outside = 0
        if bounded:
            self.low, self.width = 0.0, 1 / BINS
            return
        lowest, highest = (float(edge) for edge in np.quantile(scores, (0.01, 0.99)))
        spread = highest - lowest or abs(highest) / 4 or 1.0
        self.width = 2.0 ** np.ceil(np.log2(spread * 4 / BINS))
        self.low = np.floor((lowest + highest) / 2 / self.width - BINS / 2) * self.width

    def find(self, scores: Floats) -> Ints:
        """Return the bin of each score."""
        if not self._grows:  # exact at the edges, as people write them
            return np.clip(_HUNDREDTHS.searchsorted(scores, side="right") - 1, 0, BINS - 1)
        places = np.floor((scores - self.low) / self.width)
        self._seen += len(scores)
        self._outside += int(((places < 0) | (places >= BINS)).sum())
        return np.clip(places, 0, BINS - 1).astype(np.int64)

    def grow(self, scores: Floats) -> Ints | None:
        """Make the bins twice as wide if they have proved too narrow; one step, so that an outlier costs one.

        Args:
            scores: the newest ones.

        Returns:
            Where each of the old bins is now; None where nothing changed.
        """
        if self._outside <= self._seen * _OUTSIDE:
            return None
        first = round(self.low / self.width)
        above = float(np.median(scores)) >= self.low + self.width * BINS / 2
        self.width *= 2
        begin = first // 2 - (0 if above else BINS // 2)
        self.low = begin * self.width
        self._seen = self._outside = 0
        return np.clip((first + np.arange(BINS)) // 2 - begin, 0, BINS - 1)


_HUNDREDTHS: Final = np.array([number / BINS for number in range(BINS + 1)])


class _Scores:
    """One rule's scores of the last hour: by predicted label, and of the windows that its band was tested on.

    Batches wait until they are told, or are many: numpy takes as long for one window as for a thousand.
    """

    def __init__(self, rule: Rule, says: str, labels: Sequence[str], now: float, *, bounded: bool) -> None:
        self.says = says
        self._bounded = bounded
        self._rule = rule
        self._labels = [*labels[:_LABELS], _OTHERS] if len(labels) > _LABELS else [*labels] or [""]
        self._counts = np.zeros((_SLOTS, len(self._labels) + 1, BINS), np.int64)  # the last row: the band was tested
        self._windows = np.zeros(_SLOTS, np.int64)
        self._bins: Bins | None = None
        self._since = now
        self._slot = int(now // _SLOT_SECONDS)
        self._waiting: list[tuple[Floats, Ints, Flags]] = []
        self._waiting_windows = 0

    def add(self, now: float, scores: Floats, labels: Ints, reached: Flags) -> None:
        self._turn(now)
        self._windows[self._slot % _SLOTS] += len(scores)
        # A measure that is a column of the probabilities must not keep all of them.
        self._waiting.append((scores if scores.base is None else scores.copy(), labels, reached))
        self._waiting_windows += len(scores)
        if self._waiting_windows >= _WAITING:
            self._put_in()

    def _put_in(self) -> None:
        """Put what waits into the bins."""
        if not self._waiting:
            return
        scores, labels, reached = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_windows = [], 0
        known = np.isfinite(scores)
        if not known.any():
            return
        scores = np.clip(scores[known], -_LARGEST, _LARGEST)
        if self._bins is None:
            self._bins = Bins(scores, bounded=self._bounded)
        places = self._bins.find(scores)
        rows = np.minimum(labels[known], len(self._labels) - 1)
        flat = np.bincount(rows * BINS + places, minlength=len(self._labels) * BINS)
        counts = self._counts[self._slot % _SLOTS]
        counts[:-1] += flat.reshape(-1, BINS)
        counts[-1] += np.bincount(places[reached[known]], minlength=BINS)
        moved = self._bins.grow(scores)
        if moved is not None:
            self._counts = self._counts @ (moved[:, np.newaxis] == np.arange(BINS)).astype(np.int64)

    def _turn(self, now: float) -> None:
        """Go on to the present part of the hour, and forget what is older than an hour."""
        current = int(now // _SLOT_SECONDS)
        if current == self._slot:
            return
        self._put_in()
        for slot in range(max(self._slot + 1, current - _SLOTS + 1), current + 1):
            self._counts[slot % _SLOTS] = 0
            self._windows[slot % _SLOTS] = 0
        self._slot = current

    def told(self, now: float) -> dict[str, Any]:
        self._turn(now)
        self._put_in()
        counts = self._counts.sum(axis=0)
        by_label = dict(zip(self._labels, counts[:-1], strict=True))
        most = sorted(by_label, key=lambda label: (label == _OTHERS, -int(by_label[label].sum())))
        shown = {label: by_label[label].tolist() for label in most[:_LABELS_TOLD] if by_label[label].any()}
        rest = [by_label[label] for label in most[_LABELS_TOLD:] if by_label[label].any()]
        if rest:
            shown[_OTHERS] = np.sum(rest, axis=0).tolist()
        covered = now - max(self._since, (self._slot - _SLOTS + 1) * _SLOT_SECONDS)
        return {
            "rule": self._rule.name,
            "measure": self._rule.measure,
            "label": self._rule.label,
            "seconds": round(covered),
            "windows": int(self._windows.sum()),
            "low": 0.0 if self._bins is None else float(self._bins.low),
            "width": 1 / BINS if self._bins is None else float(self._bins.width),
            "by_label": shown,
            "reached": counts[-1].tolist(),
        }


class LastHour:
    """What is told of the last hour. Used by the pipeline thread."""

    def __init__(self, clock: Clock) -> None:
        """Begin with nothing."""
        self._clock = clock
        self._minutes: dict[str, Ints] = {}
        self._minute = int(clock.monotonic() // 60)
        self._first = self._minute
        self._totals: dict[str, int] = {}
        self._scores: dict[str, _Scores] = {}
        self._document: FilterDocument | None = None

    def use(self, document: FilterDocument, labels: Sequence[str], kind: OutputKind) -> None:
        """Count for another filter, or model; a rule that still measures the same windows keeps its hour.

        Args:
            document: the filter in force.
            labels: the model's.
            kind: of its output.
        """
        self._document = document
        now = self._clock.monotonic()
        kept, self._scores = self._scores, {}
        for rule in document.rules:
            if rule.measure is None or len(self._scores) >= _RULES:
                continue
            says = _says(document, rule, labels)
            known = kept.get(rule.name)
            if known is None or known.says != says:
                raw = rule.measure in _RAW or (rule.measure == "disagreement" and kind != "probabilities")
                known = _Scores(rule, says, labels, now, bounded=not raw)
            self._scores[rule.name] = known

    def count(
        self,
        document: FilterDocument,
        predictions: Predictions,
        scores: Sequence[Floats | None],
        reached: Sequence[Flags | None],
    ) -> None:
        """Count a batch's W windows.

        Args:
            document: the filter that judged them.
            predictions: the model's answers.
            scores: by rule, (W,) its measure; None for a rule without one.
            reached: by rule, (W,) whether its band was tested on the window; None for a rule without a measure.
        """
        if document is not self._document:
            self.use(document, predictions.labels, predictions.kind)
        if not len(predictions) or not self._scores:
            return
        now = self._clock.monotonic()
        probabilities = predictions.probabilities
        labels = np.zeros(len(predictions), np.int64) if probabilities is None else probabilities.argmax(axis=1)
        for rule, own, tested in zip(document.rules, scores, reached, strict=True):
            one = self._scores.get(rule.name)
            if one is not None and own is not None and tested is not None:
                one.add(now, own, labels, tested)

    def take_totals(self, totals: Mapping[str, int]) -> None:
        """Count, into the present minute, how much counters have grown since they were last looked at."""
        self._turn()
        for name, total in totals.items():
            if name not in self._minutes:
                self._minutes[name] = np.zeros(MINUTES, np.int64)
            grown = total - self._totals.get(name, 0)
            self._minutes[name][self._minute % MINUTES] += max(grown, 0)
            self._totals[name] = total

    def _turn(self) -> None:
        """Forget minutes that are older than an hour."""
        current = int(self._clock.monotonic() // 60)
        for minute in range(max(self._minute + 1, current - MINUTES + 1), current + 1):
            for counts in self._minutes.values():
                counts[minute % MINUTES] = 0
        self._minute = current

    def told(self) -> dict[str, Any]:
        """Return it all as on the metrics topic; minutes oldest first, the last of them the present one."""
        self._turn()
        shown = np.arange(max(self._first, self._minute - MINUTES + 1), self._minute + 1) % MINUTES
        now = self._clock.monotonic()
        return {
            "minutes": {name: counts[shown].tolist() for name, counts in self._minutes.items()},
            "scores": [one.told(now) for one in self._scores.values()],
        }


def _says(document: FilterDocument, rule: Rule, labels: Sequence[str]) -> str:
    """Return what decides which windows a rule's band is tested on, and on which score."""
    before = rule.model_dump(mode="json", by_alias=True, include={"measure", "label", "where", "schedule"})
    schedule = None if document.schedule is None else document.schedule.model_dump(mode="json", by_alias=True)
    return json.dumps([document.enabled, schedule, before, list(labels[:_LABELS])])
