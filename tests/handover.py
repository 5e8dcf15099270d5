"""A handover that only remembers, for tests that call a bridge themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from processor.outbox import Claim, Outbox, Waiting


class Recorder:
    """A `protocols.Handover` that reads events from an outbox and brings nothing into it: as if the process crashed.

    Attributes:
        left: what `seconds_left` returns.
        confirmed: numbers of the samples that were confirmed, in order.
        refused: why, by number.
        held: why, by rule.
        memory: what the bridge wants to remember.
    """

    def __init__(self, outbox: Outbox, left: float = 60.0) -> None:
        self.left = left
        self.confirmed: list[int] = []
        self.refused: dict[int, str] = {}
        self.held: dict[str, str] = {}
        self.memory: dict[str, Any] = {}
        self._outbox = outbox

    def seconds_left(self) -> float:
        """Return what the test has set."""
        return self.left

    def events(self, samples: Sequence[Waiting]) -> Iterator[tuple[Waiting, bytes]]:
        """Read from the outbox."""
        return self._outbox.events(samples)

    def confirm(self, claim: Claim, samples: Sequence[Waiting] | None = None) -> None:
        """Remember it."""
        self.confirmed += [sample.seq for sample in (claim.samples if samples is None else samples)]

    def refuse(self, sample: Waiting, why: str) -> None:
        """Remember it."""
        self.refused[sample.seq] = why

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Remember it, for as long as this lives."""
        self.memory = dict(memory)

    def hold(self, sample: Waiting, why: str) -> None:
        """Remember it."""
        self.held[sample.rule] = why
