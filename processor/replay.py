"""The same selection over a recording: what would have been kept, and why the rest was not. Pure: no broker, no store.

Several filters can be tried side by side. Each has windows of its own and remembers for itself; the model, which takes
the most time, is asked once.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from processor.assembly import build_computation, make_windows, most_messages
from processor.computation import Outcome
from processor.division import Division
from processor.errors import ModelError
from processor.filter import FilterDocument
from processor.forecast import per_day
from processor.protocols import Model
from processor.sections import Broker
from processor.settings import Slot
from processor.shadow.agreement import Agreement
from processor.shadow.judge import Shadow
from processor.thinning import Thinned
from processor.types import NS, Array, Flags, Floats, Ints, Message, Predictions, Reason

_PAYLOAD_KEPT: Final = 64 << 10
_TIMES_KEPT: Final = 20_000
"""Windows whose times are kept to see when the schedule was active."""


class Candidate(NamedTuple):
    """A filter that is tried."""

    name: str
    document: FilterDocument


class Side:
    """What one filter makes of a recording.

    Attributes:
        name: the filter's.
        document: the filter.
        by_rule: (R,) accepted windows of each rule.
        by_reason: (10,) windows by `Reason`; the last is `ACCEPTED`.
        events: those that would be sent, samples and the windows beside them, where they are made.
        bytes: of these.
    """

    def __init__(self, candidate: Candidate, slot: Slot, model: Model, shadow: Shadow | None, *, samples: bool) -> None:
        """Prepare."""
        self.name, self.document = candidate
        self.by_rule: Ints = np.zeros(len(self.document.rules), np.int64)
        self.by_reason: Ints = np.zeros(len(Reason), np.int64)
        self.events = 0
        self.bytes = 0
        self.computation, _ = build_computation(
            slot, model, self.document, windows=make_windows(slot), shadow=shadow, samples=samples
        )

    @property
    def accepted(self) -> int:
        """Windows that were accepted."""
        return int(self.by_rule.sum())

    def rules(self) -> dict[str, int]:
        """Return accepted windows by the rules' names."""
        return {rule.name: int(count) for rule, count in zip(self.document.rules, self.by_rule, strict=True)}

    def reasons(self) -> dict[str, int]:
        """Return rejected windows by the reasons' names."""
        return {reason.label: int(self.by_reason[reason]) for reason in Reason if reason is not Reason.ACCEPTED}

    def run(self, messages: Sequence[Message]) -> Outcome:
        """Carry messages through, and count."""
        outcome = self.computation.run(messages)
        verdicts = outcome.judgement.verdicts
        self.by_rule += np.bincount(verdicts.rule + 1, minlength=len(self.by_rule) + 1)[1:]
        self.by_reason += np.bincount(verdicts.reason, minlength=len(Reason))
        self.events += len(outcome.outgoing)
        self.bytes += sum(len(sample.event) for sample in outcome.outgoing)
        return outcome


class Replay:
    """A recording on its way through one filter or several.

    Attributes:
        sides: one a filter.
        slot: which model's.
        messages: taken in.
        readings: decoded from them.
        windows: judged.
        ignored: messages that no source reads.
        dead_letters: messages, and parts of them, that could not be processed, by reason.
        first: time of the first arrival, ns since the Unix epoch; 0 before it.
        last: of the last one.
        shadow: the second model; None: there is none.
        agreement: of that with the model.
        overlap: (F, F) windows that both of two filters accepted.
        most: messages that may be given at once.
    """

    def __init__(
        self,
        slot: Slot,
        model: Model,
        candidates: Sequence[Candidate],
        *,
        shadow: Shadow | None = None,
        samples: bool = False,
    ) -> None:
        """Prepare.

        Args:
            slot: the model's part of the configuration; what other models' sources read is left to them.
            model: the configured one.
            candidates: the filters, which fit the model and the sources.
            shadow: the configured one; None: there is none.
            samples: whether the samples are made; counting goes without.
        """
        self.slot = slot.name
        self.messages = self.readings = self.windows = self.ignored = 0
        self.dead_letters: Counter[str] = Counter()
        self.first = self.last = 0
        self.overlap: Ints = np.zeros((len(candidates), len(candidates)), np.int64)
        self.agreement = Agreement()
        several = len(candidates) > 1
        models = [model] if shadow is None else [model, shadow.model]
        self._shared = [_AskedOnce(one) for one in models] if several else []
        self.most = max(1, most_messages(slot) // max(1, len(candidates)))
        self._division = Division.of(slot.settings)
        self._number = [one.name for one in slot.settings.slots].index(slot.name)
        self._longest = (slot.settings.broker or Broker()).max_payload
        self._times = Thinned(_TIMES_KEPT)
        asked: Model = self._shared[0] if several else model
        if shadow is not None and several:
            shadow = dataclasses.replace(shadow, model=self._shared[1])
        self.shadow = shadow
        self.sides = [Side(candidate, slot, asked, shadow, samples=samples) for candidate in candidates]

    @property
    def seconds(self) -> float:
        """How long was recorded, by arrival."""
        return (self.last - self.first) / NS

    def run(self, messages: Sequence[Message]) -> list[Outcome]:
        """Carry the next messages of the recording through each filter; return what came of them, one a filter."""
        if not messages:
            return []
        self._count_time(messages)
        messages = self._within_bounds(self._division.divide(messages)[self._number])
        for one in self._shared:
            one.forget()
        outcomes = [side.run(messages) for side in self.sides]
        self._count(messages, outcomes)
        return outcomes

    def _within_bounds(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return messages as the connection gives them: of one that is too large, the beginning."""
        if all([len(message.payload) <= self._longest for message in messages]):  # noqa: C419 - faster than a generator
            return messages
        return [
            replace(message, payload=message.payload[:_PAYLOAD_KEPT], oversize=len(message.payload))
            if len(message.payload) > self._longest
            else message
            for message in messages
        ]

    def _count_time(self, messages: Sequence[Message]) -> None:
        arrivals = (messages[0].arrival, messages[-1].arrival)
        self.first = min(self.first or arrivals[0], *arrivals)
        self.last = max(self.last, *arrivals)

    def _count(self, messages: Sequence[Message], outcomes: Sequence[Outcome]) -> None:
        some = outcomes[0]
        self.agreement.add(some.predictions)
        self.messages += len(messages)
        self.readings += len(some.taken.readings.slots)
        self.windows += len(some.windows)
        self.ignored += some.taken.ignored
        self.dead_letters.update(letter.reason for letter in some.dead_letters)
        if len(some.windows):
            self._times.add(some.windows.ends)
        accepted: list[Flags] = [outcome.judgement.verdicts.rule >= 0 for outcome in outcomes]
        if len(outcomes) == 1:
            self.overlap[0, 0] += int(accepted[0].sum())
        else:
            together = np.array(accepted, np.int64)
            self.overlap += together @ together.T

    def factors(self, side: Side) -> Floats:
        """Return (R,) by how much to multiply what each rule of a side accepted to have a day of it; see `per_day`."""
        columns = self._times.columns()
        return per_day(side.document, columns[0] if columns else np.empty(0, np.int64), self.seconds)

    def daily(self, side: Side) -> Floats:
        """Return (R,) how many windows each rule of a side would accept in a day; infinite where nobody can tell."""
        kept = side.by_rule > 0
        return np.multiply(side.by_rule, self.factors(side), where=kept, out=np.zeros(len(kept)))

    def as_json(self, seconds: float) -> dict[str, Any]:
        """Return what `--json` prints.

        Args:
            seconds: how long the replay took.
        """
        first = self.sides[0]
        found: dict[str, Any] = {
            "messages": self.messages,
            "readings": self.readings,
            "windows": self.windows,
            "accepted": first.accepted,
            "by_rule": first.rules(),
            "by_reason": first.reasons(),
            "seconds": round(seconds, 3),
        }
        if (shadow := self.agreement.told(self.shadow)) is not None:
            found["shadow"] = shadow
        if len(self.sides) > 1:
            found["filters"] = [
                {"name": side.name, "accepted": side.accepted, "by_rule": side.rules(), "by_reason": side.reasons()}
                for side in self.sides
            ]
            found["overlap"] = self.overlap.tolist()
        return found


class _AskedOnce:
    """A model that several computations ask about the same windows: its first answer is given again.

    What they ask is not all the same: of windows that are sent beside samples, each asks about its own.
    """

    def __init__(self, model: Model) -> None:
        self.name, self.sha256, self.kind, self.labels = model.name, model.sha256, model.kind, model.labels
        self._model = model
        self._answers: dict[tuple[tuple[int, ...], bytes], Predictions | ModelError] = {}

    @property
    def seconds_per_window(self) -> float:
        """As the model says."""
        return self._model.seconds_per_window

    def forget(self) -> None:
        """New windows come."""
        self._answers.clear()

    def infer(self, values: Array) -> Predictions:
        """Judge W windows; see `protocols.Model`."""
        key = (values.shape, blake2b(np.ascontiguousarray(values).data).digest())
        answer = self._answers.get(key)
        if answer is None:
            try:
                answer = self._model.infer(values)
            except ModelError as error:
                answer = error
            self._answers[key] = answer
        if isinstance(answer, ModelError):
            raise answer
        return answer
