"""Sliding windows of every stream at once.

A batch of readings, whatever its streams and however many of each, is
appended and its complete windows are gathered with a fixed number of array operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from processor.rings import Rings, grown
from processor.shapes import LookBack, Past, Shape
from processor.types import Flags, Ints, Readings, StreamName, Times, Windows

__all__ = ["LookBack", "Past", "Shape", "WindowBuffer"]

_FIRST_SLOTS: Final = 16
_CANDIDATES: Final = 1024
_NEVER: Final = np.iinfo(np.int64).max


class _Batch(NamedTuple):
    """N readings sorted by stream, and where the W windows in them end."""

    readings: Readings
    numbers: Ints
    places: Ints
    starts: Ints
    group: Ints
    ends: Ints


class WindowBuffer:
    """The last readings of up to `max_streams` streams. Owned by one thread.

    Attributes:
        shape: size, step, channels, max_gap.
        max_streams: how many are kept; the least recently heard one is forgotten for another.
        names: the stream in each slot; None where a slot is free.
        generation: grows whenever a slot changes its stream; whoever remembers slots compares it.
        forgotten: streams dropped since the start because there were too many.
        sequence: number of the next reading, counted over all streams.
        look_back: what is kept for windows' neighbours.
        places: (W,) of the windows that `append` returned last, the place of the newest reading since its stream began
            or had a gap; the first is 1. Empty where the past does not matter.
    """

    def __init__(self, shape: Shape, max_streams: int) -> None:
        """Start with no streams; room is taken as they come."""
        self.generation = 0
        self.forgotten = 0
        self.sequence = 0
        self.look_back = LookBack()
        self.max_streams = max_streams
        self._next_stream = 1
        self._begin(shape)

    def begin_anew(self, size: int) -> None:
        """Forget all streams, and give windows another size. Between two batches."""
        self.generation += 1
        self._begin(replace(self.shape, size=size))

    def _begin(self, shape: Shape) -> None:
        self.shape = shape
        self.names: list[StreamName | None] = []
        self.places: Ints = np.empty(0, np.int64)
        self._rings = Rings(shape.size - 1 + self.look_back.history, shape.channels)
        self._slots: dict[StreamName, int] = {}
        self._free: list[int] = []
        self._retired: list[int] = []  # forgotten in this batch, whose readings and windows still name the slot
        self._count: Ints = np.empty(0, np.int64)
        self._last: Times = np.empty(0, np.int64)
        self._heard: Ints = np.empty(0, np.int64)  # sequence of the stream's newest reading
        self._stream: Ints = np.empty(0, np.int64)  # number of the slot's stream, 0 when free
        self._batch: _Batch | None = None  # appended, and not in the rings yet, so that the readings before it are
        self._noted = 0  # readings underway whose streams count as heard already
        self._oldest: list[tuple[int, int]] = []  # (slot, when heard) of those to forget next; the next one is last

    def __len__(self) -> int:
        """Return the number of streams known."""
        return len(self._slots)

    def slot(self, name: StreamName, underway: Sequence[int] = ()) -> int:
        """Return the slot of a stream, opening one if it is new.

        Args:
            name: the stream.
            underway: slots of the readings that come before in this batch and were not appended yet, in order; when
                the least recently heard stream has to go, they count as heard.
        """
        slot = self._slots.get(name)
        return self._open(name, underway) if slot is None else slot

    def _open(self, name: StreamName, underway: Sequence[int]) -> int:
        if len(self._slots) >= self.max_streams:
            self._forget_least_recent(underway)
        if self._free:
            slot = self._free.pop()
        else:
            slot = len(self.names)
            self.names.append(None)
            if slot == len(self._count):
                self._grow()
        self._occupy(slot, name, self._next_stream)
        return slot

    def _occupy(self, slot: int, name: StreamName, stream: int) -> None:
        self._slots[name] = slot
        self.names[slot] = name
        self._rings.clear(slot)
        self._count[slot] = self._last[slot] = 0
        self._heard[slot] = self.sequence
        self._stream[slot] = stream
        self._next_stream = max(self._next_stream, stream + 1)

    def _forget_least_recent(self, underway: Sequence[int]) -> None:
        # Sorted now and then, not each time: streams that come and go by the thousand must not stall a batch. What was
        # heard since it was sorted is passed over, so that the order is exact.
        fresh = np.asarray(underway[self._noted :], np.int64)
        self._heard[fresh] = self.sequence + np.arange(self._noted, len(underway))
        self._noted = len(underway)
        while True:
            while self._oldest:
                slot, heard = self._oldest.pop()
                if self._stream[slot] and self._heard[slot] == heard:
                    self.forget(slot)
                    return
            by_age = np.where(self._stream == 0, _NEVER, self._heard)
            count = min(_CANDIDATES, len(self._slots))
            oldest = np.argpartition(by_age, count - 1)[:count]
            oldest = oldest[np.lexsort((-oldest, -by_age[oldest]))]
            self._oldest = list(zip(oldest.tolist(), by_age[oldest].tolist(), strict=True))

    def forget(self, slot: int) -> None:
        """Drop a stream and what is known of it. Its slot is free after the batch underway."""
        name = self.names[slot]
        if name is None:
            raise ValueError(f"slot {slot} has no stream")
        del self._slots[name]
        self._retired.append(slot)
        self._stream[slot] = 0
        self.generation += 1
        self.forgotten += 1

    def _grow(self) -> None:
        slots = max(_FIRST_SLOTS, 2 * len(self._count))
        self._rings.grow(slots)
        for field in ("_count", "_last", "_heard", "_stream"):
            setattr(self, field, grown(getattr(self, field), slots))

    def looking_back(self, history: int, *, follow: bool) -> LookBack:
        """Return what it would be to keep `history` readings of each stream, and to count places, from now on."""
        now = self.look_back
        more = history > now.history or (follow and not now.follows)
        return LookBack(history, follow, self.sequence if more else now.since)

    def keep(self, look_back: LookBack) -> None:
        """Keep what `looking_back` returned, here or in an earlier run."""
        self._settle()
        self.look_back = look_back
        self.sequence = max(self.sequence, look_back.since)  # of an earlier run, what was not journaled is not counted
        self._rings.resize(self.shape.size - 1 + look_back.history)

    def append(self, readings: Readings) -> tuple[Windows, Ints, Past | None]:
        """Append a batch of N readings and return the windows that they complete.

        Returns:
            The W windows in order of their newest reading's arrival; (W,) that reading's position in the batch; and the
            readings with their place in their streams, for the journal, or None where the past does not matter.
        """
        self._settle()
        count = len(readings.slots)
        self._noted = 0
        if not (self.shape.remembers or self.look_back.follows):
            self._heard[readings.slots] = self.sequence + np.arange(count)
            self.sequence += count
            windows = Windows(readings.slots, readings.times[:, None], readings.values[:, None])
            return windows, np.arange(count), None
        if not count:
            self.places = np.empty(0, np.int64)
            return self._none(), np.empty(0, np.int64), None
        order, starts, group = _by_stream(readings.slots)
        slots, times, values = readings.slots[order], readings.times[order], readings.values[order]
        first = starts[group]
        places = self._places(slots, times, np.arange(count), starts, first)

        size, step = self.shape.size, self.shape.step
        ends = np.flatnonzero((places >= size) & ((places - size) % step == 0))
        ends = ends[np.argsort(order[ends])]
        batch = _Batch(Readings(slots, times, values), self.sequence + order, places, starts, group, ends)
        windows = self._gather(batch, group[ends], ends) if len(ends) else self._none()
        self.places = places[ends]

        past = Past(np.empty(count, np.int64), np.empty(count, np.int64), readings.times, readings.values)
        past.streams[:] = self._stream[readings.slots]
        past.counts[order] = places
        self._batch = batch
        if not self.look_back.history:
            self._settle()
        self.sequence += count
        return windows, order[ends], past

    def earlier(self, rows: Ints, steps: Ints) -> tuple[Flags, Windows]:
        """Find neighbours of windows that the last `append` returned.

        Args:
            rows: (M,) the windows; the batch was not released yet.
            steps: (M,) how many steps before it each neighbour ends, at least 1.

        Returns:
            (M,) whether there is such a window, in the same run of readings without a gap, and its readings are still
            known; and those that are, in the same order.
        """
        batch = self._batch
        if batch is None:
            return np.zeros(len(rows), np.bool_), self._none()
        size = self.shape.size
        newest = batch.ends[rows] - steps * self.shape.step
        group = batch.group[batch.ends[rows]]
        owner = batch.readings.slots[batch.starts[group]]
        back = newest - size + 1 - batch.starts[group]  # of the oldest reading; negative: that far back in the ring
        known = batch.places[batch.ends[rows]] - steps * self.shape.step >= size
        known &= -back <= self._rings.held[owner]
        before = known & (back < 0)
        known[before] = self._rings.numbers(owner[before], back[before]) >= self.look_back.since
        return known, self._gather(batch, group[known], newest[known]) if known.any() else self._none()

    def _settle(self) -> None:
        """Take the last batch into the rings."""
        batch, self._batch = self._batch, None
        if batch is not None:
            self._put(batch.readings, batch.places, batch.numbers, batch.starts, batch.group)

    def _put(self, readings: Readings, places: Ints, numbers: Ints, starts: Ints, group: Ints) -> None:
        """Take readings, sorted by stream, into the rings, with their places in their streams and their numbers."""
        index = np.arange(len(places))
        lasts = np.append(starts[1:], len(places)) - 1
        self._rings.put(readings, numbers, index - starts[group], lasts[group] - index)
        tail = readings.slots[lasts]
        self._count[tail] = places[lasts]
        self._last[tail] = readings.times[lasts]
        self._heard[tail] = numbers[lasts]

    def _none(self) -> Windows:
        size = self.shape.size
        return Windows(np.empty(0, np.int64), np.empty((0, size), np.int64), np.empty((0, size, self.shape.channels)))

    def _places(self, slots: Ints, times: Times, index: Ints, starts: Ints, first: Ints) -> Ints:
        """Return each reading's place since its stream began or had a gap; arguments are sorted by stream."""
        places = self._count[slots] + (index - first) + 1
        if self.shape.max_gap is None:
            return places
        before = np.empty_like(times)
        before[1:] = times[:-1]
        before[starts] = self._last[slots[starts]]
        # Unsigned, because two int64 times can be further apart than an int64 holds.
        apart = np.maximum(times, before).view(np.uint64) - np.minimum(times, before).view(np.uint64)
        gap = apart > np.uint64(self.shape.max_gap)  # a new stream's first reading is the first with a gap and without
        if not gap.any():
            return places
        anchor = np.maximum.accumulate(np.where(gap, index, -1))
        return np.where(anchor >= first, index - anchor + 1, places)

    def _gather(self, batch: _Batch, group: Ints, newest: Ints) -> Windows:
        """Return the W windows of streams, by their position in the batch, that end at these positions in it."""
        first = batch.starts[group]
        position = newest[:, None] + np.arange(1 - self.shape.size, 1)
        back = position - first[:, None]  # negative: that far back in the ring
        owner = batch.readings.slots[first]
        times, values = batch.readings.times, batch.readings.values
        if (back[:, 0] >= 0).all():
            return Windows(owner, times.take(position), values.take(position, axis=0))
        # Of most of these windows the batch holds only the end: that is put over what the ring holds in its place.
        window_times, window_values = self._rings.look(owner[:, None], np.minimum(back, -1))
        row, column = np.nonzero(back >= 0)
        newer = position[row, column]
        window_times[row, column], window_values[row, column] = times[newer], values[newer]
        return Windows(owner, window_times, window_values)

    @property
    def gone(self) -> list[StreamName]:
        """The streams that were forgotten in the batch underway and have not come back."""
        return [name for slot in self._retired if (name := self.names[slot]) is not None and name not in self._slots]

    def release(self) -> None:
        """The batch is done: slots of streams that were forgotten in it may be used again."""
        self._settle()
        for slot in self._retired:
            self.names[slot] = None
            self._free.append(slot)
        self._retired.clear()

    # What follows serves the journal.

    @property
    def live_readings(self) -> int:
        """Readings that windows to come may still need."""
        return int(self._needed().sum())

    def _needed(self) -> Ints:
        """Return how many of its newest readings each slot still needs; of a stream at least one, for its place."""
        used = len(self.names)
        needed = np.minimum(self._count[:used], np.maximum(self._rings.held[:used], 1))
        needed[self._stream[:used] == 0] = 0
        return needed

    def streams(self) -> Iterator[tuple[int, StreamName]]:
        """Yield the number and name of every stream."""
        for name, slot in self._slots.items():
            yield int(self._stream[slot]), name

    def stream_number(self, slot: int) -> int:
        """Return the number of the stream in a slot; 0 when it was forgotten."""
        return int(self._stream[slot])

    def last_heard(self, slot: int) -> int:
        """Return the number of the newest reading of the stream in a slot."""
        return int(self._heard[slot])

    def heard_from(self, before: int, after: Ints) -> Ints:
        """Return the slots whose windows still need a reading numbered below `before`.

        Args:
            before: a reading's sequence number.
            after: (slots,) number from which on the stream's readings are not kept elsewhere yet.
        """
        used = len(self.names)
        count, slots = self._needed(), np.arange(used)
        in_ring = self._rings.held[:used] > 0
        oldest = np.where(in_ring, self._rings.numbers(slots, -count), self._heard[:used])
        return np.flatnonzero((count > 0) & (oldest < before) & (self._heard[:used] >= after[:used]))

    def past_of(self, slot: int) -> tuple[Past, Ints]:
        """Return what windows to come need of a stream, its newest readings, oldest first; and their numbers."""
        count = int(min(self._count[slot], self._rings.held[slot]))
        if not count:  # its place and time are needed, its values are not
            place = self._count[slot : slot + 1]
            values = np.zeros((1, self.shape.channels))
            past = Past(self._stream[slot : slot + 1].copy(), place.copy(), self._last[slot : slot + 1].copy(), values)
            return past, self._heard[slot : slot + 1].copy()
        back, slots = np.arange(-count, 0), np.full(count, slot)
        times, values = self._rings.look(slots, back)
        past = Past(np.full(count, self._stream[slot]), self._count[slot] + back + 1, times, values)
        return past, self._rings.numbers(slots, back)

    def restore(self, name: StreamName, stream: int) -> int:
        """Open a slot for a stream of an earlier run, however many there are, and return it."""
        limit, self.max_streams = self.max_streams, len(self._slots) + 1
        slot = self._open(name, ())
        self.max_streams = limit
        self._stream[slot] = stream
        self._next_stream = max(self._next_stream, stream + 1)
        return slot

    def replay(self, slots: Ints, past: Past, numbers: Ints) -> None:
        """Put N journaled readings back, oldest first.

        Args:
            slots: (N,) from `restore`.
            past: the readings.
            numbers: (N,) their sequence numbers.
        """
        if not len(slots):
            return
        order, starts, group = _by_stream(slots)
        readings = Readings(slots[order], past.times[order], past.values[order])
        self._put(readings, past.counts[order], numbers[order], starts, group)
        self.sequence = max(self.sequence, int(numbers.max()) + 1)

    def trim(self) -> None:
        """Forget the least recently heard streams that are too many, after all were restored."""
        while len(self._slots) > self.max_streams:
            self._forget_least_recent(())
        self.release()


def _by_stream(slots: Ints) -> tuple[Ints, Ints, Ints]:
    """Sort N >= 1 readings by their slot, those of one slot as they came.

    Returns:
        (N,) the order; (S,) where each of the S slots' readings start in it; (N,) which of these S each belongs to.
    """
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    is_first = np.empty(len(slots), np.bool_)
    is_first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return order, np.flatnonzero(is_first), np.cumsum(is_first) - 1
