"""decode → window → infer → select: plain computation over a batch. No I/O, no clock, no globals.

Because of that the same messages give the same samples live, in a replay and after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from processor.errors import ModelError
from processor.events import event_id, inference, sample_event, uniform
from processor.intake import Intake, Taken, dead_letter
from processor.memories import Remembered
from processor.protocols import Model
from processor.selection import Judgement, Selection
from processor.topics import encode_stream
from processor.types import DeadLetter, Message, Predictions, Readings, Sample, StreamName, Verdicts, Windows
from processor.windows import Past, WindowBuffer

_LARGEST_PART: Final = 16 << 20
"""Bytes that the windows of a batch may take at once: a small message can hold many readings, each of them in many."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a batch.

    Attributes:
        taken: its readings and dead letters.
        past: the readings' places in their streams, for the journal; None where no window looks back.
        windows: the W complete windows that the model could judge; where they would have taken too much room at once,
            only the newest reading of each.
        predictions: the model's answers.
        judgement: the filter's verdicts.
        samples: the accepted windows, ready for the outbox, in order.
        dead_letters: messages that could not be used, and those whose window the model failed on.
        names: the streams of the windows, by slot.
        remembered: what the filter's conditions remember, where it changed.
    """

    taken: Taken
    past: Past | None
    windows: Windows
    predictions: Predictions
    judgement: Judgement
    samples: list[Sample]
    dead_letters: list[DeadLetter]
    names: dict[int, StreamName]
    remembered: Sequence[Remembered] = ()


class Computation:
    """Intake, windows, model and filter of one processor. Used by one thread.

    Attributes:
        windows: every stream's.
        model: judges windows.
        selection: the filter in force; replaced when it changes.
        revision: the filter's.
        paused: whether every window is refused, as `disabled`.
    """

    def __init__(
        self,
        processor: str,
        *,
        intake: Intake,
        windows: WindowBuffer,
        model: Model,
        selection: Selection,
        revision: int,
        paused: bool = False,
        fields: Mapping[str, Sequence[str]],
        samples: bool = True,
    ) -> None:
        """Put the parts together.

        Args:
            processor: its id.
            intake: decodes messages.
            windows: every stream's.
            model: judges windows.
            selection: the filter in force.
            revision: the filter's.
            paused: whether every window is refused.
            fields: each source's, by its name.
            samples: whether accepted windows become samples; for who only counts, making them takes too long.
        """
        self.windows = windows
        self.model = model
        self.selection = selection
        self.revision = revision
        self.paused = paused
        self._processor = processor
        self._intake = intake
        self._fields = fields
        self._makes_samples = samples

    def run(self, messages: Sequence[Message]) -> Outcome:
        """Carry a batch from messages to samples."""
        taken = self._intake.take(messages)
        count = len(taken.origin)
        shape = self.windows.shape
        most = max(1, _LARGEST_PART // (8 * shape.size * (shape.channels + 1)))
        parts = []
        for start in range(0, max(count, 1), most):
            part = self._carry(messages, taken, slice(start, start + most))
            parts.append(part if count <= most else _without_past(part))
        self.windows.release()
        outcome = parts[0] if len(parts) == 1 else _together(taken, parts)
        return replace(outcome, remembered=self.selection.memories.changes())

    def _carry(self, messages: Sequence[Message], taken: Taken, part: slice) -> Outcome:
        """Carry a part of a batch's readings to samples."""
        readings = taken.readings
        windows, completed_by, past = self.windows.append(
            Readings(readings.slots[part], readings.times[part], readings.values[part])
        )
        predictions, failures = self._infer(windows)
        dead_letters = taken.dead_letters if part.start == 0 else []
        if failures:
            origin = taken.origin[part][completed_by]
            dead_letters = dead_letters + [
                dead_letter(messages[origin[row]], "model", f"{self.model.name}: {error}")
                for row, error in failures.items()
            ]
            judged = np.ones(len(windows), np.bool_)
            judged[list(failures)] = False
            windows = Windows(windows.slots[judged], windows.times[judged], windows.values[judged])
        identifiers: dict[int, str] = {}
        names = {slot: name for slot in windows.slots.tolist() if (name := self.windows.names[slot])}

        def identify(row: int) -> str:
            known = identifiers.get(row)
            if known is None:
                source, key = names[int(windows.slots[row])]
                known = event_id(self._processor, source, key, windows.times[row], windows.values[row])
                identifiers[row] = known
            return known

        judgement = self.selection.judge(
            windows, predictions, names, lambda row, rule: uniform(identify(row), rule), paused=self.paused
        )
        samples = [
            self._sample(
                windows,
                row,
                name=names[int(windows.slots[row])],
                identifier=identify(row),
                answer=inference(predictions, row),
                verdicts=judgement.verdicts,
            )
            for row in (np.flatnonzero(judgement.verdicts.rule >= 0).tolist() if self._makes_samples else ())
        ]
        return Outcome(taken, past, windows, predictions, judgement, samples, dead_letters, names)

    def _infer(self, windows: Windows) -> tuple[Predictions, dict[int, ModelError]]:
        """Return the model's answers, and by row what it said of windows that it gave none for."""
        try:
            return self.model.infer(windows.values), {}
        except ModelError as error:
            if len(windows) == 1:
                return self.model.infer(windows.values[:0]), {0: error}
        # One window of many upsets the model: find it, so that the others are judged.
        answers = [self.model.infer(windows.values[:0])]
        failures: dict[int, ModelError] = {}
        for row in range(len(windows)):
            try:
                answers.append(self.model.infer(windows.values[row : row + 1]))
            except ModelError as error:
                failures[row] = error
        return _join(answers), failures

    def _sample(
        self,
        windows: Windows,
        row: int,
        *,
        name: StreamName,
        identifier: str,
        answer: dict[str, Any],
        verdicts: Verdicts,
    ) -> Sample:
        rule = self.selection.document.rules[int(verdicts.rule[row])]
        stream = encode_stream(name.key)
        event = sample_event(
            identifier=identifier,
            processor=self._processor,
            source=name.source,
            stream=name.key,
            fields=self._fields[name.source],
            times=windows.times[row],
            values=windows.values[row],
            answer=answer,
            selection=self.selection.explanation(verdicts, row, self.revision),
            model={"name": self.model.name, "sha256": self.model.sha256},
        )
        label = answer["label"] or ""
        return Sample(
            identifier, rule.name, label, stream, self.model.name, int(windows.ends[row]), rule.priority, event
        )


def _without_past(part: Outcome) -> Outcome:
    """Return a part with only the newest reading of each window: what came before is what takes the room."""
    windows = part.windows
    newest = Windows(windows.slots, windows.times[:, -1:].copy(), windows.values[:, -1:].copy())
    return replace(part, windows=newest)


def _together(taken: Taken, parts: Sequence[Outcome]) -> Outcome:
    """Return a batch's parts as one."""
    pasts = [part.past for part in parts if part.past is not None]
    verdicts = [part.judgement.verdicts for part in parts]
    scores = zip(*(part.judgement.scores for part in parts), strict=True)
    return Outcome(
        taken,
        Past(*_columns(pasts, "streams", "counts", "times", "values")) if pasts else None,
        Windows(*_columns([part.windows for part in parts], "slots", "times", "values")),
        _join([part.predictions for part in parts]),
        Judgement(
            Verdicts(*_columns(verdicts, "rule", "reason", "score", "probability")),
            [None if of_rule[0] is None else np.concatenate(of_rule) for of_rule in scores],
        ),
        [sample for part in parts for sample in part.samples],
        [letter for part in parts for letter in part.dead_letters],
        {slot: name for part in parts for slot, name in part.names.items()},
    )


def _columns(parts: Sequence[object], *names: str) -> list[Any]:
    return [np.concatenate([getattr(part, name) for part in parts]) for name in names]


def _join(answers: Sequence[Predictions]) -> Predictions:
    """Return answers as one; the first may be for no window."""
    first = answers[0]
    return Predictions(
        first.kind,
        first.labels,
        None if first.probabilities is None else np.concatenate([answer.probabilities for answer in answers]),
        None if first.value is None else np.concatenate([answer.value for answer in answers]),
    )
