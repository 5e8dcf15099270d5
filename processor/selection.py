"""The filter over a batch of windows: which to keep, by which rule, and why not the others.

Every rule is tried on every window, because the chance of being kept counts all rules that would have taken it. A
rule's conditions run in one order, the order of `Reason`; each narrows the windows that are still in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from processor import measures, topics
from processor.filter import FilterDocument, Rule
from processor.schedule import Schedule
from processor.types import Flags, Floats, Ints, Predictions, Reason, StreamName, Verdicts, Windows

# As plain numbers: to look up a member of an enum takes longer than to compare a batch with it.
_NO_RULE, _SCHEDULE, _BAND, _ACCEPTED = map(int, (Reason.NO_RULE, Reason.SCHEDULE, Reason.BAND, Reason.ACCEPTED))


@dataclass(frozen=True, slots=True)
class Judgement:
    """Verdicts and what the metrics show of how they came about.

    Attributes:
        verdicts: one row a window.
        scores: by rule, (W,) its measure for every window; None for a rule without a measure.
    """

    verdicts: Verdicts
    scores: list[Floats | None]


class Selection:
    """One filter, made ready for arrays. Used by one thread."""

    def __init__(
        self, document: FilterDocument, labels: Sequence[str], fields: Sequence[tuple[str, Sequence[str]]]
    ) -> None:
        """Prepare a filter that was checked against the model and the sources.

        Args:
            document: the filter.
            labels: of the model, in the order of its probabilities.
            fields: each source's name and its fields.
        """
        self.document = document
        self.schedule = Schedule(document.schedule)
        self._rules = [_Rule(rule, labels, fields) for rule in document.rules]

    def judge(
        self,
        windows: Windows,
        predictions: Predictions,
        names: Mapping[int, StreamName],
        uniform: Callable[[int, str], float],
        *,
        paused: bool = False,
    ) -> Judgement:
        """Judge W windows.

        Args:
            windows: the windows.
            predictions: the model's answers for them.
            names: the windows' streams, by slot.
            uniform: the number in [0, 1) of a row and a rule's name, on which sampling is decided.
            paused: refuse them all as `disabled`.
        """
        count = len(windows)
        reason = np.full(count, _NO_RULE, np.uint8)
        rule = np.full(count, -1, np.int64)
        score = np.full(count, np.nan)
        probability = np.zeros(count)
        verdicts = Verdicts(rule, reason, score, probability)
        scores = [one.score(predictions) for one in self._rules]
        if paused or not self.document.enabled:
            reason[:] = Reason.DISABLED
            return Judgement(verdicts, scores)
        active = self.schedule.active(windows.ends)
        chance = np.zeros(count)  # that one of the rules that would take the window samples it
        for index, one in enumerate(self._rules):
            stage, taken = one.judge(windows, predictions, names, scores[index], uniform, active)
            np.maximum(reason, stage, out=reason)
            mine = (rule < 0) & (stage == _ACCEPTED)
            rule[mine] = index
            own = scores[index]
            if own is not None:
                score[mine] = own[mine]
            chance[taken] += one.rule.sample * (1.0 - chance[taken])
        reason[~active] = _SCHEDULE
        np.copyto(probability, chance, where=rule >= 0)
        return Judgement(verdicts, scores)

    def is_active(self, time: int) -> bool:
        """Whether the filter's schedule is active at `time`, ns since the Unix epoch."""
        return bool(self.schedule.active(np.array([time], np.int64))[0])

    def explanation(self, verdicts: Verdicts, row: int, revision: int) -> dict[str, Any]:
        """Return an accepted window's `selection`, as it stands in its event."""
        rule = self.document.rules[int(verdicts.rule[row])]
        score = float(verdicts.score[row])
        explanation: dict[str, Any] = {
            "rule": rule.name,
            "measure": rule.measure,
            "score": None if np.isnan(score) else score,
            "band": None if rule.band is None else [rule.band.min, rule.band.max],
            "probability": float(verdicts.probability[row]),
            "filter_revision": revision,
            "tags": dict(rule.tags),
        }
        if rule.outside:
            explanation["outside"] = True
        return explanation


class _Rule:
    """One rule, made ready."""

    def __init__(self, rule: Rule, labels: Sequence[str], fields: Sequence[tuple[str, Sequence[str]]]) -> None:
        self.rule = rule
        self._schedule = None if rule.schedule is None else Schedule(rule.schedule)
        self._label = labels.index(rule.label) if rule.label is not None else None
        self._labels = np.isin(np.array(labels, object), list(rule.where.labels)) if rule.where.labels else None
        self._streams: dict[StreamName, bool] = {}
        self._fields = {
            source: [(names.index(field), limits) for field, limits in rule.where.fields.items() if field in names]
            for source, names in fields
            if all(field in names for field in rule.where.fields)
        }

    def score(self, predictions: Predictions) -> Floats | None:
        """Return the rule's measure for every window; None when it has none."""
        return None if self.rule.measure is None else measures.compute(self.rule.measure, predictions, self._label)

    def judge(  # noqa: PLR0917 - one row of the table in `Selection.judge`
        self,
        windows: Windows,
        predictions: Predictions,
        names: Mapping[int, StreamName],
        score: Floats | None,
        uniform: Callable[[int, str], float],
        active: Flags,
    ) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], Flags]:
        """Return how far each window came, and which pass every condition but the sampling."""
        stage = np.full(len(windows), _ACCEPTED, np.uint8)
        inside = active.copy()

        def keep(passes: Flags, reason: int) -> None:
            stage[inside & ~passes] = reason
            np.logical_and(inside, passes, out=inside)

        if self._schedule is not None:
            keep(self._schedule.active(windows.ends), Reason.SCHEDULE)
        if self._labels is not None:
            keep(_of_labels(predictions, self._labels), Reason.WHERE)
        if self.rule.where.streams:
            keep(self._of_streams(windows.slots, names), Reason.WHERE)
        if self.rule.where.fields:
            keep(self._of_fields(windows, names), Reason.WHERE)
        if self.rule.band is not None and score is not None:
            keep(self._in_band(score), _BAND)
        taken = inside.copy()
        if self.rule.sample < 1.0:
            sampled = np.zeros(len(windows), np.bool_)
            for row in np.flatnonzero(inside).tolist():
                sampled[row] = uniform(row, self.rule.name) < self.rule.sample
            keep(sampled, Reason.SAMPLED_OUT)
        stage[~active] = _SCHEDULE
        return stage, taken

    def _of_streams(self, slots: Ints, names: Mapping[int, StreamName]) -> Flags:
        unique, inverse = np.unique(slots, return_inverse=True)
        return np.array([self._is_wanted(names[slot]) for slot in unique.tolist()], np.bool_)[inverse]

    def _is_wanted(self, name: StreamName) -> bool:
        wanted = self._streams.get(name)
        if wanted is None:
            if len(self._streams) > 100_000:  # noqa: PLR2004 - a bound on memory, no more
                self._streams.clear()
            wanted = any(topics.matches(text, name.key) for text in self.rule.where.streams)
            self._streams[name] = wanted
        return wanted

    def _of_fields(self, windows: Windows, names: Mapping[int, StreamName]) -> Flags:
        newest = windows.values[:, -1]
        if len(self._fields) == 1 and all(name.source in self._fields for name in names.values()):
            return self._within(newest, next(iter(self._fields.values())))
        passes = np.zeros(len(windows), np.bool_)
        sources = np.array([names[slot].source for slot in windows.slots.tolist()], object)
        for source, limits in self._fields.items():
            rows = sources == source
            passes[rows] = self._within(newest[rows], limits)
        return passes

    @staticmethod
    def _within(newest: Floats, limits: Sequence[tuple[int, Any]]) -> Flags:
        passes = np.ones(len(newest), np.bool_)
        for column, limit in limits:
            if limit.min is not None:
                passes &= newest[:, column] >= limit.min
            if limit.max is not None:
                passes &= newest[:, column] <= limit.max
        return passes

    def _in_band(self, score: Floats) -> Flags:
        band = self.rule.band
        if band is None:
            return np.ones(len(score), np.bool_)
        low = -np.inf if band.min is None else band.min
        high = np.inf if band.max is None else band.max
        if self.rule.outside:  # written out, so that a score that is not a number is nowhere
            return (score < low) | (score > high)
        return (score >= low) & (score <= high)


def _of_labels(predictions: Predictions, wanted: Flags) -> Flags:
    """Return whether each predicted label is wanted; a model that gave no number gave no label."""
    probabilities = predictions.probabilities
    if probabilities is None:
        return np.zeros(len(predictions), np.bool_)
    passes: Flags = wanted[probabilities.argmax(axis=1)]
    passes[np.isnan(probabilities).any(axis=1)] = False
    return passes
