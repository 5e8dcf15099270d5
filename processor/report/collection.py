"""What a report needs to know, collected while a recording is replayed. Bounded, however long the recording is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from processor.computation import Outcome
from processor.replay import Replay, Side
from processor.report.timeline import Timeline
from processor.thinning import Thinned
from processor.types import Flags, Floats, Ints, OutputKind, Pixels, Predictions, Reason, StreamName, Times

_SCORES: Final = 100_000
"""Windows whose scores are kept for the histograms; of more, every second, every fourth and so on."""
_STREAMS: Final = 10_000
"""Streams that are counted by name; those that come later are counted together."""
_SHOWN: Final = 6
"""Samples of a kind that are drawn."""
_POINTS: Final = 200
"""Readings of a sample that are drawn."""
_CHANNELS: Final = 12
"""Channels of a sample that are drawn."""
_PICTURE: Final = 200
"""Pixels of a side of an image that is drawn, at most."""
_BLOCK: Final = 4096
"""Bytes in which IoT Hub meters a message."""

OTHERS: Final = "(others)"


class Shown(NamedTuple):
    """A kept sample, as it is drawn."""

    certainty: float
    """Confidence; where there are no probabilities, the value."""
    stream: str
    label: str
    rule: str
    times: Times
    values: Floats
    picture: str = ""
    """Of an image: a small copy of what the model saw, as a data URL."""


class Measured(NamedTuple):
    """A measure of which there is a histogram."""

    name: str
    label: str | None


@dataclass(slots=True)
class Count:
    """Windows of one kind, and how many of them were kept."""

    windows: int = 0
    kept: int = 0


class Half:
    """What is collected of one filter.

    Attributes:
        side: the filter, and its counts.
        timeline: what became of the windows of each stretch of time: first kept by each rule, then by reason.
        by_label: by predicted label.
        by_stream: by stream; those beyond a bound together.
        scores: thinned rows: label, accepted, and a column of each of `measures`.
        measures: of the filter's rules, each once.
        most, least: the samples that the model is most and least certain of; the most extreme first.
        messages: as IoT Hub meters them, in blocks of 4 KiB.
    """

    def __init__(self, side: Side, labels: Sequence[str]) -> None:
        """Prepare."""
        self.side = side
        self.timeline = Timeline(len(side.document.rules) + len(Reason))
        self.by_label = {label: Count() for label in labels}
        self.by_stream: dict[str, Count] = {}
        self.scores = Thinned(_SCORES)
        self.most: list[Shown] = []
        self.least: list[Shown] = []
        self.messages = 0
        rules = side.document.rules
        self._first_of = {
            Measured(rule.measure, rule.label): index
            for index, rule in reversed(list(enumerate(rules)))
            if rule.measure is not None
        }
        self.measures = sorted(self._first_of, key=self._first_of.__getitem__)
        self._labels = labels

    def add(self, outcome: Outcome) -> None:
        """Take what came of a piece of the recording."""
        self.messages += sum(-(-len(sample.event) // _BLOCK) for sample in outcome.outgoing)
        if not len(outcome.windows):
            return
        verdicts = outcome.judgement.verdicts
        accepted: Flags = verdicts.rule >= 0
        rules = len(self.side.document.rules)
        kind = np.where(accepted, verdicts.rule, rules + verdicts.reason.astype(np.int64))
        self.timeline.add(outcome.windows.ends, kind)
        labels = _labels(outcome.predictions)
        for label in np.unique(labels[labels >= 0]).tolist():
            count = self.by_label[self._labels[label]]
            count.windows += int((labels == label).sum())
            count.kept += int((accepted & (labels == label)).sum())
        self._count_streams(outcome, accepted)
        scores = [outcome.judgement.scores[self._first_of[measure]] for measure in self.measures]
        self.scores.add(labels, accepted, *(score for score in scores if score is not None))
        rows = np.flatnonzero(accepted)
        if len(rows):
            self._look_at(outcome, rows, labels)

    def _count_streams(self, outcome: Outcome, accepted: Flags) -> None:
        slots, inverse = np.unique(outcome.windows.slots, return_inverse=True)
        windows = np.bincount(inverse, minlength=len(slots)).tolist()
        kept = np.bincount(inverse, weights=accepted, minlength=len(slots)).tolist()
        for slot, of_windows, of_kept in zip(slots.tolist(), windows, kept, strict=True):
            name = _stream(outcome.names[slot])
            if name not in self.by_stream and len(self.by_stream) >= _STREAMS:
                name = OTHERS
            count = self.by_stream.setdefault(name, Count())
            count.windows += of_windows
            count.kept += int(of_kept)

    def _look_at(self, outcome: Outcome, rows: Ints, labels: Ints) -> None:
        """Keep samples that are more extreme than those that were kept so far."""
        certainty = _certainty(outcome.predictions)
        rows = rows[np.isfinite(certainty[rows])]
        rows = rows[np.argsort(certainty[rows], kind="stable")]
        for extreme, best, sign in ((rows[:_SHOWN], self.least, 1.0), (rows[::-1][:_SHOWN], self.most, -1.0)):
            for row in extreme.tolist():
                if len(best) == _SHOWN and sign * certainty[row] >= sign * best[-1].certainty:
                    break
                best.append(self._shown(outcome, row, float(certainty[row]), labels))
                best.sort(key=lambda shown: sign * shown.certainty)
                del best[_SHOWN:]

    def _shown(self, outcome: Outcome, row: int, certainty: float, labels: Ints) -> Shown:
        windows = outcome.windows
        values = windows.values[row][:, :_CHANNELS]
        step = -(-len(values) // _POINTS)
        return Shown(
            certainty,
            _stream(outcome.names[int(windows.slots[row])]),
            self._labels[labels[row]] if labels[row] >= 0 else "",
            self.side.document.rules[int(outcome.judgement.verdicts.rule[row])].name,
            windows.times[row][::step].copy(),
            values[::step].copy(),
            "" if windows.images is None else _picture(windows.images.pixels[row]),
        )


class Collection:
    """What is collected of all filters.

    Attributes:
        kind: of the model's output.
        fields: of the sources, by their names.
        halves: one a filter.
    """

    def __init__(self, replay: Replay, kind: OutputKind, labels: Sequence[str], fields: dict[str, list[str]]) -> None:
        """Prepare for a fresh replay.

        Args:
            replay: whose outcomes will come.
            kind: of the model's output.
            labels: of the model.
            fields: of each source.
        """
        self.kind = kind
        self.fields = fields
        self.halves = [Half(side, labels) for side in replay.sides]

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Take what came of a piece of the recording, one outcome a filter."""
        for half, outcome in zip(self.halves, outcomes, strict=True):
            half.add(outcome)


def _picture(pixels: Pixels) -> str:
    from processor.thumbnails import of_pixels  # noqa: PLC0415 - Pillow takes 5 MB, and a while to load

    return of_pixels(pixels, _PICTURE)


def _stream(name: StreamName) -> str:
    return f"{name.source}: {name.key}"


def _labels(predictions: Predictions) -> Ints:
    """Return (N,) the predicted labels' indices; -1 where there is none."""
    chances = predictions.probabilities
    if chances is None:
        return np.full(len(predictions), -1)
    found: Ints = chances.argmax(axis=1)
    found[np.isnan(chances).any(axis=1)] = -1
    return found


def _certainty(predictions: Predictions) -> Floats:
    """Return (N,) how certain the model is: its confidence; where it has none, its value."""
    if predictions.probabilities is not None:
        confidence: Floats = predictions.probabilities.max(axis=1)
        return confidence
    return np.zeros(len(predictions)) if predictions.value is None else predictions.value
