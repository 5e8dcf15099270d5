"""One rule of a filter, made ready: its conditions in the contract's order.

What depends on the window alone is decided for a batch at once; what depends on the windows kept before, one window
after another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from processor import measures, topics
from processor.conditions.dedup import NearDuplicates
from processor.conditions.keep import AdaptiveBand
from processor.conditions.limit import SlidingLimit
from processor.filter import Cooldown, Dedup, Keep, Limit, Rule
from processor.memories import Memories
from processor.pictures import brightness
from processor.schedule import Schedule
from processor.types import Flags, Floats, Ints, Predictions, Reason, StreamName, Windows

# As plain numbers: to look up a member of an enum takes longer than to compare a batch with it.
ACCEPTED: Final = int(Reason.ACCEPTED)
SCHEDULE: Final = int(Reason.SCHEDULE)
SAMPLED_OUT: Final = int(Reason.SAMPLED_OUT)
_WHERE, _BAND, _KEEP, _DEDUP, _COOLDOWN, _LIMIT = map(
    int, (Reason.WHERE, Reason.BAND, Reason.KEEP, Reason.DEDUP, Reason.COOLDOWN, Reason.LIMIT)
)
_STREAMS: Final = 100_000
"""Streams whose match with `where.streams` is remembered; with more, all are forgotten and found again."""


Stages = NDArray[np.uint8]
"""A `Reason` each."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What rules are tried on.

    Attributes:
        windows: W windows.
        predictions: the model's answers for them.
        names: the windows' streams, by slot.
        uniform: the number in [0, 1) of a row and a text.
        active: (W,) whether the filter's schedule is active.
    """

    windows: Windows
    predictions: Predictions
    names: Mapping[int, StreamName]
    uniform: Callable[[int, str], float]
    active: Flags

    def label(self, row: int) -> str:
        """Return a window's predicted label; empty where the model gave none."""
        probabilities = self.predictions.probabilities
        if probabilities is None or np.isnan(probabilities[row]).any():
            return ""
        return self.predictions.labels[int(probabilities[row].argmax())]

    def stream(self, row: int) -> str:
        """Return the key of a window's stream, with its source: no other stream's is the same."""
        name = self.names[int(self.windows.slots[row])]
        return f"{name.source}/{name.key}"


class ReadyRule:
    """One rule, made ready for batches. Used by one thread.

    Attributes:
        rule: as it was written.
        is_plain: whether no condition depends on which windows were kept.
        asks_shadow: whether it measures what only windows have that the shadow judged.
    """

    def __init__(
        self,
        rule: Rule,
        labels: Sequence[str],
        fields: Sequence[tuple[str, Sequence[str]]],
        memories: Memories,
    ) -> None:
        """Prepare a rule that was checked against the model and the sources.

        Args:
            rule: the rule.
            labels: of the model, in the order of its probabilities.
            fields: each source's name and its fields.
            memories: where its conditions get what they remember.
        """
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
        self._keep = None if rule.keep is None else _adaptive_band(rule, rule.keep, memories)
        self._dedup = None if rule.dedup is None else _near_duplicates(rule, rule.dedup, fields, memories)
        self._cooldown = rule.cooldown and _Counted.of(rule.cooldown, 1, rule.cooldown.duration, rule.name, memories)
        self._limit = rule.limit and _Counted.of(rule.limit, rule.limit.max, rule.limit.per, rule.name, memories)
        self.asks_shadow = rule.measure == "disagreement"
        self.is_plain = self._dedup is None and self._cooldown is None and self._limit is None

    def score(self, predictions: Predictions) -> Floats | None:
        """Return the rule's measure for every window; None when it has none."""
        return None if self.rule.measure is None else measures.compute(self.rule.measure, predictions, self._label)

    def sift(self, batch: Batch, score: Floats | None) -> tuple[Stages, Flags]:
        """Apply the conditions that do not depend on what was kept; `keep` depends on scores alone. Once a batch.

        Returns:
            (W,) how far each window came, ACCEPTED where it passed all of them; and where that is so.
        """
        windows = batch.windows
        stage = np.full(len(windows), ACCEPTED, np.uint8)
        inside = batch.active.copy()

        def keep(passes: Flags, reason: int) -> None:
            stage[inside & ~passes] = reason
            np.logical_and(inside, passes, out=inside)

        if self._schedule is not None:
            keep(self._schedule.active(windows.ends), SCHEDULE)
        if self._labels is not None:
            keep(_of_labels(batch.predictions, self._labels), _WHERE)
        if self.rule.where.streams:
            keep(self._of_streams(windows.slots, batch.names), _WHERE)
        if self.rule.where.fields:
            keep(self._of_fields(windows, batch.names), _WHERE)
        if self.asks_shadow and score is not None:
            keep(~np.isnan(score), _BAND)
        if self.rule.band is not None and score is not None:
            keep(self._in_band(score), _BAND)
        if self._keep is not None and score is not None:
            keep(self._is_extreme(self._keep, batch, score, inside), _KEEP)
        stage[~batch.active] = SCHEDULE
        return stage, inside

    def sampled(self, batch: Batch, inside: Flags) -> Flags:
        """Return which of the windows that came so far are in the rule's sample."""
        if self.rule.sample >= 1.0:
            return inside
        sampled = np.zeros(len(inside), np.bool_)
        for row in np.flatnonzero(inside).tolist():
            sampled[row] = self._is_sampled(batch, row)
        return sampled

    def _is_sampled(self, batch: Batch, row: int) -> bool:
        return self.rule.sample >= 1.0 or batch.uniform(row, self.rule.name) < self.rule.sample

    def start(self, batch: Batch, inside: Flags) -> None:
        """Prepare for `decide`, which is then called for all windows that passed all before, in order."""
        if self._dedup is not None:
            images = batch.windows.images
            seen = batch.windows.values[inside] if images is None else brightness(images.pixels, np.flatnonzero(inside))
            self._dedup.start(seen)

    def decide(self, batch: Batch, row: int) -> tuple[int, bool]:
        """Apply dedup, the sampling and what comes after it to the next window that passed all before.

        Returns:
            How far it came; and whether every condition but the sampling accepts it.
        """
        if self._dedup is not None and self._dedup.is_near():
            return _DEDUP, False
        counted = [(one, reason) for one, reason in ((self._cooldown, _COOLDOWN), (self._limit, _LIMIT)) if one]
        if not self._is_sampled(batch, row):
            return SAMPLED_OUT, all(one.would_accept(batch, row) for one, _ in counted)
        for one, reason in counted:
            if not one.accepts(batch, row):
                return reason, False
        return ACCEPTED, True

    def spend(self, batch: Batch, row: int) -> None:
        """Take note that the window about which `decide` was asked last is kept, as this rule's sample."""
        if self._dedup is not None:
            self._dedup.keep()
        for one in (self._cooldown, self._limit):
            if one:
                one.spend(batch, row)

    def _of_streams(self, slots: Ints, names: Mapping[int, StreamName]) -> Flags:
        unique, inverse = np.unique(slots, return_inverse=True)
        return np.array([self._is_wanted(names[slot]) for slot in unique.tolist()], np.bool_)[inverse]

    def _is_wanted(self, name: StreamName) -> bool:
        wanted = self._streams.get(name)
        if wanted is None:
            if len(self._streams) > _STREAMS:
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

    def _is_extreme(self, band: AdaptiveBand, batch: Batch, score: Floats, inside: Flags) -> Flags:
        rows = np.flatnonzero(inside)
        passes = np.zeros(len(inside), np.bool_)
        tie = f"{self.rule.name}/keep"
        passes[rows] = band.judge(score[rows], lambda position: batch.uniform(int(rows[position]), tie))
        return passes


def _adaptive_band(rule: Rule, keep: Keep, memories: Memories) -> AdaptiveBand:
    says = json.dumps([keep.share, keep.of, keep.over, rule.measure, rule.label])
    return memories.take(rule.name, "keep", says, lambda: AdaptiveBand(keep.share, keep.of, keep.over))


def _near_duplicates(
    rule: Rule, dedup: Dedup, fields: Sequence[tuple[str, Sequence[str]]], memories: Memories
) -> NearDuplicates:
    says = json.dumps([dedup.distance, dedup.memory, [list(names) for _, names in fields]])
    return memories.take(rule.name, "dedup", says, lambda: NearDuplicates(dedup.distance, dedup.memory))


@dataclass(frozen=True, slots=True)
class _Counted:
    """A cooldown or a limit, with what each of its keys is."""

    counts: SlidingLimit
    key: Callable[[Batch, int], str]

    @classmethod
    def of(cls, condition: Cooldown | Limit, most: int, per: int, rule: str, memories: Memories) -> _Counted:
        kind = "cooldown" if isinstance(condition, Cooldown) else "limit"
        counts = memories.take(rule, kind, json.dumps([most, per, condition.by]), lambda: SlidingLimit(most, per))
        return cls(counts, {"rule": _same, "label": Batch.label, "stream": Batch.stream}[condition.by])

    def accepts(self, batch: Batch, row: int) -> bool:
        return self.counts.accepts(self.key(batch, row), int(batch.windows.ends[row]))

    def would_accept(self, batch: Batch, row: int) -> bool:
        return self.counts.would_accept(self.key(batch, row), int(batch.windows.ends[row]))

    def spend(self, batch: Batch, row: int) -> None:
        self.counts.spend(self.key(batch, row))


def _same(_batch: Batch, _row: int) -> str:
    return ""


def _of_labels(predictions: Predictions, wanted: Flags) -> Flags:
    """Return whether each predicted label is wanted; a model that gave no number gave no label."""
    probabilities = predictions.probabilities
    if probabilities is None:
        return np.zeros(len(predictions), np.bool_)
    passes: Flags = wanted[probabilities.argmax(axis=1)]
    passes[np.isnan(probabilities).any(axis=1)] = False
    return passes
