"""What the state directory has to hold, in plain lists and dictionaries, one sample at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from processor import deadletters
from processor.admission import ROW_OVERHEAD, Bounds
from processor.store import RECEIPT_BYTES, Changes
from processor.types import DeadLetter, Sample
from tests.unit.test_windows import Naive, Reading

MAKING: Final = "(a claim that is being made)"
LEAVING: Final = "(a claim that is being confirmed)"
"""Marks that only an interruption leaves: as good as none, and as good as gone. Both keep what they mark."""

RECEIPTS_KEPT: Final = 8
"""Instead of the store's own number."""

Marks = dict[int, dict[str, str | None]]
"""By a sample's number, which bridges still have to confirm it, each with the name of the claim that it is in."""


class Content(NamedTuple):
    """What the state holds."""

    marks: Marks
    letters: list[DeadLetter]
    receipts: list[int]
    meta: dict[str, Any]


def meaning(marks: Marks) -> Marks:
    """Return marks as if what was interrupted had been put right."""
    right = {
        number: {bridge: None if mark == MAKING else mark for bridge, mark in waits.items() if mark != LEAVING}
        for number, waits in marks.items()
    }
    return {number: waits for number, waits in right.items() if waits}


def receipts(numbers: Iterable[int]) -> bytes:
    """Return numbers in the place of receipts; to the store they are bytes of a certain length."""
    return b"".join(number.to_bytes(RECEIPT_BYTES, "big") for number in numbers)


def numbers_of(packed: bytes) -> list[int]:
    """Return the numbers in `receipts`."""
    return [int.from_bytes(packed[at : at + RECEIPT_BYTES], "big") for at in range(0, len(packed), RECEIPT_BYTES)]


class Full(Exception):
    """There is no room, and `when_full` is `block`."""


@dataclass(slots=True)
class Kept:
    """A sample in the outbox."""

    number: int
    sample: Sample
    created: int
    waits: dict[str, str | None]

    @property
    def size(self) -> int:
        """Bytes it counts."""
        return len(self.sample.event) + ROW_OVERHEAD

    @property
    def is_claimed(self) -> bool:
        """Whether some bridge is busy with it."""
        return any(mark is not None for mark in self.waits.values())


@dataclass(slots=True)
class StoreModel:
    """The state.

    Attributes:
        bounds: of the outbox.
        windows: what the committed readings made of the windows.
        bridges: those configured; True where the bridge claims.
        samples: the outbox, by number, oldest first.
        claims: (bridge, name), oldest first.
        letters: dead letters, oldest first.
        receipts: all of this session, oldest first.
        lost: by reason, since the process started.
        confirmed: by bridge, since the process started.
    """

    bounds: Bounds
    windows: Naive
    bridges: dict[str, bool] = field(default_factory=dict)
    samples: dict[int, Kept] = field(default_factory=dict)
    claims: list[tuple[str, str]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    receipts: list[int] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    confirmed: Counter[str] = field(default_factory=Counter)

    def copy(self) -> StoreModel:
        """Return an independent one."""
        return replace(
            self,
            windows=self.windows.copy(),
            samples={number: replace(kept, waits=dict(kept.waits)) for number, kept in self.samples.items()},
            claims=list(self.claims),
            letters=list(self.letters),
            receipts=list(self.receipts),
            meta=dict(self.meta),
            lost=Counter(self.lost),
            confirmed=Counter(self.confirmed),
        )

    @property
    def marks(self) -> Marks:
        """What waits for whom."""
        return {number: dict(kept.waits) for number, kept in self.samples.items()}

    @property
    def bytes(self) -> int:
        """What the outbox holds."""
        return sum(kept.size for kept in self.samples.values())

    def start(self, bridges: dict[str, bool]) -> None:
        """Begin anew with these bridges; what waits for others only is gone."""
        for left in self.bridges.keys() - bridges:
            for number in [number for number, kept in self.samples.items() if left in kept.waits]:
                self._done(left, number)
        self.claims = [claim for claim in self.claims if claim[0] in bridges]
        self.bridges = bridges
        self.lost.clear()
        self.confirmed.clear()

    def explains(self, content: Content) -> bool:
        """Whether the state, once put right, holds just this."""
        marks, letters, receipts, meta = content
        return (
            meaning(marks) == meaning(self.marks)
            and (letters, meta) == (self.letters, self.meta)
            and self._are_the_last(receipts)
        )

    def _are_the_last(self, receipts: list[int]) -> bool:
        """Whether these are the last receipts, neither too few nor too many."""
        least = min(RECEIPTS_KEPT, len(self.receipts))
        newest = self.receipts[len(self.receipts) - len(receipts) :]
        return least <= len(receipts) <= 3 * RECEIPTS_KEPT and receipts == newest

    def adopt(self, marks: Marks, before: StoreModel) -> None:
        """Take over from the store what an interruption has left; `before` knows what was half confirmed."""
        for number, kept in list(self.samples.items()):
            self._confirm_what_left(number, kept.waits.keys() - marks.get(number, {}).keys())
        for number, waits in marks.items():
            if number not in self.samples:
                self.samples[number] = replace(before.samples[number], waits={})
            kept = self.samples[number]
            self.confirmed.subtract(waits.keys() - kept.waits.keys())
            kept.waits = dict(waits)
        self.samples = dict(sorted(self.samples.items()))

    def _confirm_what_left(self, number: int, bridges: Iterable[str]) -> None:
        for bridge in bridges:
            self.confirm(bridge, [number])

    def mend(self, bridge: str) -> None:
        """Put right for a bridge what was interrupted; one that does not claim gets what is claimed."""
        for number, kept in list(self.samples.items()):
            mark = kept.waits.get(bridge)
            if mark == LEAVING:
                self.confirm(bridge, [number])
            elif mark == MAKING or (mark and not self.bridges[bridge]):
                kept.waits[bridge] = None
        self.claims = [(owner, name) for owner, name in self.claims if self._claimed(owner, name)]

    def commit(self, changes: Changes, readings: Iterable[Reading], now: int) -> None:
        """Take a batch."""
        if self.bridges and changes.samples:
            self._admit(changes.samples, now)
        self._bury(changes.dead_letters)
        self.receipts += numbers_of(changes.receipts)
        self.meta |= changes.meta
        list(self.windows.feed(readings))

    def _admit(self, samples: Sequence[Sample], now: int) -> None:
        new = [Kept(int(one.id), one, now, dict.fromkeys(self.bridges)) for one in samples]
        excess = self.bytes + sum(kept.size for kept in new) - self.bounds.max_bytes
        if excess > 0 and self.bounds.when_full == "block" and self.samples:
            raise Full
        if self.bounds.when_full == "drop_newest":
            for kept in sorted(new, key=lambda kept: (kept.sample.priority, -kept.number)):
                if excess > 0:
                    new.remove(kept)
                    excess -= kept.size
                    self.lost["refused"] += 1
        self.samples |= {kept.number: kept for kept in new}
        if self.bounds.when_full == "drop_oldest":
            for kept in sorted(self.samples.values(), key=lambda kept: (kept.sample.priority, kept.number)):
                if excess > 0 and not kept.is_claimed:
                    del self.samples[kept.number]
                    excess -= kept.size
                    self.lost["displaced"] += 1

    def too_old(self, now: int) -> list[int]:
        """Return the samples whose time is over, oldest first."""
        before = now - self.bounds.max_age
        return [kept.number for kept in self.samples.values() if kept.created < before and not kept.is_claimed]

    def expire(self, numbers: Iterable[int]) -> None:
        """Let samples go whose time is over."""
        for number in numbers:
            del self.samples[number]
            self.lost["expired"] += 1

    def waiting(self, bridge: str, hidden: Collection[str] = ()) -> list[Kept]:
        """Return what a bridge may be given, in order; it includes nothing that is claimed."""
        free = [kept for kept in self.samples.values() if kept.waits.get(bridge, LEAVING) is None]
        return sorted(
            (kept for kept in free if kept.sample.rule not in hidden),
            key=lambda kept: (-kept.sample.priority, kept.number),
        )

    def claimed(self, bridge: str) -> list[tuple[str, list[int]]]:
        """Return a bridge's claims, oldest first, each with what it holds, in order."""
        claims = [(name, self._claimed(bridge, name)) for owner, name in self.claims if owner == bridge]
        return [(name, numbers) for name, numbers in claims if numbers]

    def _claimed(self, bridge: str, name: str) -> list[int]:
        held = [kept for kept in self.samples.values() if kept.waits.get(bridge) == name]
        return [kept.number for kept in sorted(held, key=lambda kept: (-kept.sample.priority, kept.number))]

    def claim(self, bridge: str, parcels: Iterable[tuple[str, Iterable[int]]]) -> None:
        """Fix what leaves together, of what is still there."""
        for name, numbers in parcels:
            self.claims.append((bridge, name))
            for number in numbers:
                if bridge in self._waits(number):
                    self.samples[number].waits[bridge] = name

    def confirm(self, bridge: str, numbers: Iterable[int]) -> None:
        """A bridge is done with samples."""
        for number in numbers:
            if bridge in self._waits(number):
                self.confirmed[bridge] += 1
                self._done(bridge, number)

    def bury(self, bridge: str, numbers: Iterable[int], why: str, now: int) -> None:
        """A bridge can never deliver these."""
        for number in numbers:
            if bridge in self._waits(number):
                one = self.samples[number].sample
                self._bury([DeadLetter(one.stream, now, "undeliverable", why, one.event)])
                self.lost["undeliverable"] += 1
                self._done(bridge, number)

    def _waits(self, number: int) -> Collection[str]:
        return self.samples[number].waits if number in self.samples else ()

    def _done(self, bridge: str, number: int) -> None:
        waits = self.samples[number].waits
        del waits[bridge]
        if not waits:
            del self.samples[number]

    def _bury(self, letters: Iterable[DeadLetter]) -> None:
        self.letters = [*self.letters, *letters][-deadletters._MOST :]  # the test has lowered it
        while sum(map(_letter_size, self.letters)) > deadletters._MOST_BYTES:
            del self.letters[0]


def _letter_size(letter: DeadLetter) -> int:
    return len(letter.payload) + len(letter.topic) + len(letter.detail)
