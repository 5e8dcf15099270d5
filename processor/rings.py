"""The newest readings of many streams: a ring for each slot, all rings in one slab."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from processor.types import Floats, Ints, Readings, Times


class Rings:
    """The newest `room` readings of each slot. Owned by one thread.

    Attributes:
        room: readings kept of each slot; may be 0.
        held: (slots,) readings that there are of each, at most `room`.
    """

    def __init__(self, room: int, channels: int) -> None:
        """Start without slots."""
        self.room = room
        self.held: Ints = np.empty(0, np.int64)
        self._head: Ints = np.empty(0, np.int64)  # the cell after the newest reading's
        self._times: Times = np.empty((0, room), np.int64)
        self._values: Floats = np.empty((0, room, channels))
        self._numbers: Ints = np.empty((0, room), np.int64)  # sequence of each reading

    def grow(self, slots: int) -> None:
        """Have so many slots; new ones hold nothing."""
        for field in ("held", "_head", "_times", "_values", "_numbers"):
            setattr(self, field, grown(getattr(self, field), slots))

    def clear(self, slot: int) -> None:
        """Let go what a slot holds."""
        self.held[slot] = self._head[slot] = 0

    def resize(self, room: int) -> None:
        """Keep so many readings of each slot from now on; of what there is, the newest."""
        if room == self.room:
            return
        kept = min(room, self.room)
        cells = self._cells(np.arange(len(self.held))[:, None], np.arange(-kept, 0)) if kept else None
        for field in ("_times", "_values", "_numbers"):
            old = getattr(self, field)
            new = np.zeros((len(old), room, *old.shape[2:]), old.dtype)
            if cells is not None:
                new[:, :kept] = old[np.arange(len(old))[:, None], cells]
            setattr(self, field, new)
        self.room = room
        self._head[:] = kept % room if room else 0
        np.minimum(self.held, room, out=self.held)

    def put(self, readings: Readings, numbers: Ints, rank: Ints, to_come: Ints) -> None:
        """Take N readings, sorted by slot.

        Args:
            readings: the readings.
            numbers: (N,) their sequence.
            rank: (N,) how many of the same slot come before each.
            to_come: (N,) how many of the same slot follow each.
        """
        if not self.room:
            return
        needed = to_come < self.room
        slots = readings.slots[needed]
        cell = (self._head[slots] + rank[needed]) % self.room
        self._times[slots, cell] = readings.times[needed]
        self._values[slots, cell] = readings.values[needed]
        self._numbers[slots, cell] = numbers[needed]
        last = to_come == 0
        slots, count = readings.slots[last], rank[last] + 1
        self._head[slots] = (self._head[slots] + count) % self.room
        self.held[slots] = np.minimum(self.held[slots] + count, self.room)

    def _cells(self, slots: Ints, back: Ints) -> Ints:
        return (self._head[slots] + back) % self.room

    def look(self, slots: Ints, back: Ints) -> tuple[Times, Floats]:
        """Return times and values of readings, each in the place of its `back`.

        Args:
            slots: of each, or what broadcasts to it.
            back: -1 for a slot's newest, -2 for the one before it, and not less than -`room`.
        """
        cells = self._head[slots] + back
        cells += np.where(cells < 0, self.room, 0) + slots * self.room
        # `take` copies whole readings, which an index does not: it takes a fifth of the time.
        values = self._values.reshape(-1, self._values.shape[2])
        return self._times.reshape(-1).take(cells), values.take(cells, axis=0)

    def numbers(self, slots: Ints, back: Ints) -> Ints:
        """Return the sequence of readings, as `look` names them; anything where there is none."""
        return self._numbers[slots, self._cells(slots, back)] if self.room else np.zeros_like(slots)


def grown(array: NDArray[Any], length: int) -> NDArray[Any]:
    """Return an array that is longer, with zeros at the end."""
    new = np.zeros((length, *array.shape[1:]), array.dtype)
    new[: len(array)] = array
    return new
