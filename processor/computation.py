"""decode → window → infer → select: plain computation over a batch. No I/O, no clock, no globals.

Because of that the same messages give the same samples live, in a replay and after a crash.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from processor.answers import ask, join
from processor.context import Beside, Context, needed
from processor.exchange.recent import RecentWindows
from processor.intake import Intake, Taken, dead_letter
from processor.memories import Remembered
from processor.protocols import Model
from processor.samples import Candidates
from processor.selection import Judgement, Selection
from processor.shadow.judge import Shadow
from processor.types import (
    MODEL_SLOT,
    DeadLetter,
    Images,
    Message,
    Predictions,
    Readings,
    Reason,
    Sample,
    StreamName,
    Verdicts,
    Windows,
)
from processor.windows import LookBack, Past, WindowBuffer

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
        outgoing: those and the windows that are sent beside them, in order.
        dead_letters: messages that could not be used, and those whose window the model failed on.
        names: the streams of the windows, by slot.
        remembered: what sources and the filter's conditions remember, where it changed.
    """

    taken: Taken
    past: Past | None
    windows: Windows
    predictions: Predictions
    judgement: Judgement
    samples: list[Sample]
    outgoing: list[Sample]
    dead_letters: list[DeadLetter]
    names: dict[int, StreamName]
    remembered: Sequence[Remembered] = ()


class Computation:
    """Intake, windows, model and filter of one model slot. Used by one thread.

    Attributes:
        windows: every stream's.
        model: judges windows.
        shadow: judges a part of them beside it; None: there is none.
        revision: the filter's.
        paused: whether every window is refused, as `disabled`.
        recent: the newest windows, for who wants to try another model on them.
    """

    def __init__(
        self,
        processor: str,
        *,
        slot: str = MODEL_SLOT,
        intake: Intake,
        windows: WindowBuffer,
        model: Model,
        selection: Selection,
        revision: int,
        shadow: Shadow | None = None,
        paused: bool = False,
        fields: Mapping[str, Sequence[str]],
        samples: bool = True,
    ) -> None:
        """Put the parts together.

        Args:
            processor: its id.
            slot: the model's name in it.
            intake: decodes messages.
            windows: every stream's.
            model: judges windows.
            selection: the filter in force.
            revision: the filter's.
            shadow: judges a part of the windows beside the model; None: there is none.
            paused: whether every window is refused.
            fields: each source's, by its name.
            samples: whether accepted windows become samples; for who only counts, making them takes too long.
        """
        self.windows = windows
        self.model = model
        self.shadow = shadow
        self.revision = revision
        self.paused = paused
        self.recent = RecentWindows()
        self._processor = processor
        self._slot = slot
        self._intake = intake
        self._fields = fields
        self._makes_samples = samples
        self.selection = selection
        if selection.context is not None:
            selection.context.retain([name for _, name in windows.streams()])

    @property
    def selection(self) -> Selection:
        """The filter in force."""
        return self._selection

    @selection.setter
    def selection(self, selection: Selection) -> None:
        self._selection = selection
        self.windows.keep(self._look_back(selection))
        if selection.context is not None:
            selection.context.use(selection.document, self.windows.shape)

    def _look_back(self, selection: Selection) -> LookBack:
        history, follow = needed(selection.document, self.windows.shape.step)
        return self.windows.looking_back(history, follow=follow)

    def resize(self, size: int, model: Model, shadow: Shadow | None = None) -> None:
        """Have windows of another size, empty, and the models that judge them. Between two batches."""
        self.windows.begin_anew(size)
        self.model = model
        self.recent.clear()
        self.shadow = shadow
        context = self.selection.context
        if context is not None:
            context.retain(())
            context.use(self.selection.document, self.windows.shape)

    def exchange(self, model: Model, shadow: Shadow | None, selection: Selection) -> None:
        """Have other models judge the windows to come, and the filter made ready for them. Between two batches."""
        self.model = model
        self.shadow = shadow
        self.selection = selection

    def memory(self, selection: Selection) -> dict[str, Any]:
        """Return what has to be on disk, as JSON holds it, before a filter is in force."""
        return {"memories": selection.memories.meta(), "look_back": list(self._look_back(selection))}

    def run(self, messages: Sequence[Message]) -> Outcome:
        """Carry a batch from messages to samples."""
        taken = self._intake.take(messages)
        count = len(taken.origin)
        most = self._most_windows
        parts = []
        for start in range(0, max(count, 1), most):
            part = self._carry(messages, taken, slice(start, start + most))
            parts.append(part if count <= most else _without_past(part))
        if self.selection.context is not None:
            self.selection.context.forget(self.windows.gone)
        self.windows.release()
        outcome = parts[0] if len(parts) == 1 else _together(taken, parts)
        return replace(outcome, remembered=[*self._intake.memory.changes(), *self.selection.memories.changes()])

    @property
    def seconds_per_window(self) -> float:
        """About what a window takes in its models, in a call as large as they get."""
        shadow = 0.0 if self.shadow is None else self.shadow.model.seconds_per_window
        return self.model.seconds_per_window + shadow

    @property
    def _most_windows(self) -> int:
        """Windows that are made at once, at most."""
        shape = self.windows.shape
        return max(1, _LARGEST_PART // (8 * shape.size * (shape.channels + 1)))

    def _carry(self, messages: Sequence[Message], taken: Taken, part: slice) -> Outcome:
        """Carry a part of a batch's readings to samples."""
        readings = taken.readings
        windows, completed_by, past = self.windows.append(
            Readings(readings.slots[part], readings.times[part], readings.values[part])
        )
        origin = taken.origin[part][completed_by]  # of what completed each window
        if readings.pixels is not None:  # they never enter the buffer: a window of images is its newest reading
            pixels = readings.pixels[part]
            pixels = pixels if len(windows) == len(pixels) else pixels[completed_by]
            windows = replace(windows, images=Images(pixels, [messages[index].payload for index in origin.tolist()]))
        predictions, failures = ask(self.model, windows.seen)
        dead_letters = taken.dead_letters if part.start == 0 else []
        if failures:
            dead_letters = dead_letters + [
                dead_letter(messages[origin[row]], "model", f"{self.model.name}: {error}")
                for row, error in failures.items()
            ]
        found = self._candidates(windows, predictions, failures)
        predictions = found.predictions
        self.recent.add(found.windows.seen, predictions, self.model.sha256)
        judgement = self.selection.judge(found.windows, predictions, found.names, found.uniform, paused=self.paused)
        rules = self.selection.document.rules
        accepted_rows = np.flatnonzero(judgement.verdicts.rule >= 0).tolist() if self._makes_samples else ()
        samples = {
            row: found.sample(
                row,
                rules[int(judgement.verdicts.rule[row])],
                self.selection.explanation(judgement.verdicts, row, self.revision),
            )
            for row in accepted_rows
        }
        accepted = outgoing = list(samples.values())
        if self.selection.context is not None and self._makes_samples:
            outgoing = self._with_context(
                self.selection.context, windows, failures, found=found, judgement=judgement, samples=samples
            )
        return Outcome(
            taken, past, found.windows, predictions, judgement, accepted, outgoing, dead_letters, dict(found.names)
        )

    def _candidates(self, windows: Windows, predictions: Predictions, failures: Collection[int]) -> Candidates:
        """Return the windows that the model gave an answer for."""
        if failures:
            judged = np.ones(len(windows), np.bool_)
            judged[list(failures)] = False
            windows = windows.take(np.flatnonzero(judged))
        if self.shadow is not None:
            predictions = self.shadow.judge(windows, predictions)
        names = {slot: name for slot in set(windows.slots.tolist()) if (name := self.windows.names[slot])}
        return Candidates(self._processor, self._fields, self.model, windows, predictions, names=names, slot=self._slot)

    def _with_context(
        self,
        context: Context,
        windows: Windows,
        failures: Collection[int],
        *,
        found: Candidates,
        judgement: Judgement,
        samples: Mapping[int, Sample],
    ) -> list[Sample]:
        """Return samples with the windows that are sent beside them.

        Args:
            context: of the filter.
            windows: all that were completed; their places are the window buffer's.
            failures: those of them that the model gave no answer for.
            found: the others.
            judgement: of the latter.
            samples: by their rows among the latter.
        """
        rules, verdicts = self.selection.document.rules, judgement.verdicts
        outgoing: list[Sample | None] = []
        earlier: list[tuple[int, int, int, Beside]] = []  # where in `outgoing`, beside which window, rule, and what
        row = -1
        for position, (slot, place) in enumerate(
            zip(windows.slots.tolist(), self.windows.places.tolist(), strict=True)
        ):
            name = self.windows.names[slot]
            if name is None:
                raise ValueError(f"slot {slot} has no stream")
            context.follow(name, place)
            if position in failures:
                continue
            row += 1
            sample = samples.get(row)
            if sample is not None:
                rule = int(verdicts.rule[row])
                for steps in context.sample(name, place, sample.rule, sample.id):
                    earlier.append((len(outgoing), position, rule, Beside(sample.id, sample.rule, -steps)))
                    outgoing.append(None)
                outgoing.append(sample)
            elif verdicts.reason[row] != Reason.DISABLED and (beside := context.beside(name, place)):
                rule = next(index for index, one in enumerate(rules) if one.name == beside.rule)
                score = judgement.scores[rule]
                outgoing.append(self._beside(found, row, rule, None if score is None else score[row], beside))
        most = self._most_windows
        for start in range(0, len(earlier), most):
            self._fill_in(outgoing, earlier[start : start + most])
        return [sample for sample in outgoing if sample is not None]

    def _fill_in(self, outgoing: list[Sample | None], wanted: Sequence[tuple[int, int, int, Beside]]) -> None:
        """Put windows that ended before samples, as far as their readings are known, into the places left for them."""
        rows = np.array([position for _, position, _, _ in wanted])
        known, windows = self.windows.earlier(rows, np.array([-beside.offset for *_, beside in wanted]))
        predictions, failures = ask(self.model, windows.seen)
        found = self._candidates(windows, predictions, failures)
        scores = self.selection.scores(found.predictions)
        left = [one for one, is_known in zip(wanted, known.tolist(), strict=True) if is_known]
        answered = [one for number, one in enumerate(left) if number not in failures]
        for row, (place, _, rule, beside) in enumerate(answered):
            score = scores[rule]
            outgoing[place] = self._beside(found, row, rule, None if score is None else score[row], beside)

    def _beside(self, found: Candidates, row: int, rule: int, score: float | None, beside: Beside) -> Sample:
        explanation = self.selection.context_explanation(rule, score, self.revision, beside)
        return found.sample(row, self.selection.document.rules[rule], explanation)


def _without_past(part: Outcome) -> Outcome:
    """Return a part with only the newest reading of each window: what came before is what takes the room."""
    windows = part.windows
    newest = Windows(windows.slots, windows.times[:, -1:].copy(), windows.values[:, -1:].copy(), windows.images)
    return replace(part, windows=newest)


def _together(taken: Taken, parts: Sequence[Outcome]) -> Outcome:
    """Return a batch's parts as one."""
    pasts = [part.past for part in parts if part.past is not None]
    verdicts = [part.judgement.verdicts for part in parts]
    scores = _by_rule([part.judgement.scores for part in parts])
    reached = _by_rule([part.judgement.reached for part in parts])
    return Outcome(
        taken,
        Past(*_columns(pasts, "streams", "counts", "times", "values")) if pasts else None,
        Windows.joined([part.windows for part in parts]),
        join([part.predictions for part in parts]),
        Judgement(
            Verdicts(*_columns(verdicts, "rule", "reason", "score", "probability")),
            scores,
            reached,
        ),
        [sample for part in parts for sample in part.samples],
        [sample for part in parts for sample in part.outgoing],
        [letter for part in parts for letter in part.dead_letters],
        {slot: name for part in parts for slot, name in part.names.items()},
    )


def _by_rule(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """Return what each rule says of the windows of all parts; None where it says nothing."""
    return [None if of_rule[0] is None else np.concatenate(of_rule) for of_rule in zip(*parts, strict=True)]


def _columns(parts: Sequence[object], *names: str) -> list[Any]:
    return [np.concatenate([getattr(part, name) for part in parts]) for name in names]
