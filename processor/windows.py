"""Sliding windows of every stream at once.

One ring a stream, all rings in one slab. A batch of readings, whatever its streams and however many of each, is
appended and its complete windows are gathered with a fixed number of array operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from processor.types import Floats, Ints, Readings, StreamName, Times, Windows

_FIRST_SLOTS: Final = 16
_CANDIDATES: Final = 1024
_NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Shape:
    """What the windows look like. A change of it makes windows kept from an earlier run useless.

    Attributes:
        size: readings in a window, at least 1.
        step: readings from one window's end to the next one's, at least 1; may exceed `size`.
        channels: values in a reading.
        max_gap: ns between two neighbours above which a window starts anew; None: never.
    """

    size: int
    step: int
    channels: int
    max_gap: int | None = None

    @property
    def remembers(self) -> bool:
        """Whether a stream's past matters to its future at all."""
        return self.size > 1 or self.step > 1


@dataclass(frozen=True, slots=True)
class Past:
    """Readings with their place in their streams, as the journal keeps them: enough to restore the windows.

    Attributes:
        streams: (N,) number of each reading's stream; never used again for another stream.
        counts: (N,) the reading's place since its stream began or had a gap; the first is 1.
        times: (N,) ns since the Unix epoch.
        values: (N, C).
    """

    streams: Ints
    counts: Ints
    times: Times
    values: Floats


class WindowBuffer:
    """The last readings of up to `max_streams` streams. Owned by one thread.

    Attributes:
        shape: size, step, channels, max_gap.
        names: the stream in each slot; None where a slot is free.
        generation: grows whenever a slot changes its stream; whoever remembers slots compares it.
        forgotten: streams dropped since the start because there were too many.
        sequence: number of the next reading, counted over all streams.
    """

    def __init__(self, shape: Shape, max_streams: int) -> None:
        """Start with no streams; room is taken as they come."""
        self.generation = 0
        self.forgotten = 0
        self.sequence = 0
        self._max_streams = max_streams
        self._next_stream = 1
        self._begin(shape)

    def begin_anew(self, size: int) -> None:
        """Forget all streams, and give windows another size. Between two batches."""
        self.generation += 1
        self._begin(replace(self.shape, size=size))

    def _begin(self, shape: Shape) -> None:
        self.shape = shape
        self.names: list[StreamName | None] = []
        self._keep = shape.size - 1
        self._slots: dict[StreamName, int] = {}
        self._free: list[int] = []
        self._retired: list[int] = []  # forgotten in this batch, whose readings and windows still name the slot
        self._times: Times = np.empty((0, self._keep), np.int64)
        self._values: Floats = np.empty((0, self._keep, shape.channels))
        self._numbers: Ints = np.empty((0, self._keep), np.int64)  # sequence of each reading in the ring
        self._head: Ints = np.empty(0, np.int64)
        self._count: Ints = np.empty(0, np.int64)
        self._last: Times = np.empty(0, np.int64)
        self._heard: Ints = np.empty(0, np.int64)  # sequence of the stream's newest reading
        self._stream: Ints = np.empty(0, np.int64)  # number of the slot's stream, 0 when free
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
        if len(self._slots) >= self._max_streams:
            self._forget_least_recent(underway)
        if self._free:
            slot = self._free.pop()
        else:
            slot = len(self.names)
            self.names.append(None)
            if slot == len(self._head):
                self._grow()
        self._occupy(slot, name, self._next_stream)
        return slot

    def _occupy(self, slot: int, name: StreamName, stream: int) -> None:
        self._slots[name] = slot
        self.names[slot] = name
        self._head[slot] = self._count[slot] = self._last[slot] = 0
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
        slots = max(_FIRST_SLOTS, 2 * len(self._head))
        for field in ("_times", "_values", "_numbers", "_head", "_count", "_last", "_heard", "_stream"):
            old = getattr(self, field)
            new = np.zeros((slots, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, field, new)

    def append(self, readings: Readings) -> tuple[Windows, Ints, Past | None]:
        """Append a batch of N readings and return the windows that they complete.

        Returns:
            The W windows in order of their newest reading's arrival; (W,) that reading's position in the batch; and the
            readings with their place in their streams, for the journal, or None where the past does not matter.
        """
        count = len(readings.slots)
        self._noted = 0
        if not self.shape.remembers:
            self._heard[readings.slots] = self.sequence + np.arange(count)
            self.sequence += count
            windows = Windows(readings.slots, readings.times[:, None], readings.values[:, None])
            return windows, np.arange(count), None
        if not count:
            return self._none(), np.empty(0, np.int64), None
        order, starts, group = _by_stream(readings.slots)
        slots, times, values = readings.slots[order], readings.times[order], readings.values[order]
        first = starts[group]
        places = self._places(slots, times, np.arange(count), starts, first)

        size, step = self.shape.size, self.shape.step
        ends = np.flatnonzero((places >= size) & ((places - size) % step == 0))
        ends = ends[np.argsort(order[ends])]
        windows = self._gather(slots, times, values, first, ends) if len(ends) else self._none()

        past = Past(np.empty(count, np.int64), np.empty(count, np.int64), readings.times, readings.values)
        past.streams[:] = self._stream[readings.slots]
        past.counts[order] = places
        self._put(Readings(slots, times, values), places, self.sequence + order, starts, group)
        self.sequence += count
        return windows, order[ends], past

    def _put(self, readings: Readings, places: Ints, numbers: Ints, starts: Ints, group: Ints) -> None:
        """Take readings, sorted by stream, into the rings, with their places in their streams and their numbers."""
        index = np.arange(len(places))
        lasts = np.append(starts[1:], len(places)) - 1
        self._store(readings, numbers, index - starts[group], lasts[group] - index)
        tail = readings.slots[lasts]
        self._count[tail] = places[lasts]
        self._last[tail] = readings.times[lasts]
        self._heard[tail] = numbers[lasts]
        if self._keep:
            self._head[tail] = (self._head[tail] + lasts - starts + 1) % self._keep

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

    def _gather(self, slots: Ints, times: Times, values: Floats, first: Ints, ends: Ints) -> Windows:
        size = self.shape.size
        position = ends[:, None] + np.arange(1 - size, 1)
        back = position - first[ends][:, None]  # negative: that far back in the ring
        owner = slots[ends]
        if (back[:, 0] >= 0).all():
            return Windows(owner, times[position], values[position])
        in_batch = np.maximum(position, first[ends][:, None])
        window_times, window_values = times[in_batch], values[in_batch]
        row, column = np.nonzero(back < 0)
        holder = owner[row]
        cell = (self._head[holder] + back[row, column]) % self._keep
        window_times[row, column] = self._times[holder, cell]
        window_values[row, column] = self._values[holder, cell]
        return Windows(owner, window_times, window_values)

    def _store(self, readings: Readings, numbers: Ints, rank: Ints, to_come: Ints) -> None:
        """Write the readings that windows to come need into the rings; `to_come` of their stream follow each."""
        if not self._keep:
            return
        needed = to_come < self._keep
        slots = readings.slots[needed]
        cell = (self._head[slots] + rank[needed]) % self._keep
        self._times[slots, cell] = readings.times[needed]
        self._values[slots, cell] = readings.values[needed]
        self._numbers[slots, cell] = numbers[needed]

    def release(self) -> None:
        """The batch is done: slots of streams that were forgotten in it may be used again."""
        for slot in self._retired:
            self.names[slot] = None
            self._free.append(slot)
        self._retired.clear()

    # What follows serves the journal.

    @property
    def live_readings(self) -> int:
        """Readings that windows to come may still need."""
        used = self._stream != 0
        return int(np.minimum(self._count[used], max(self._keep, 1)).sum())

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
        count = np.minimum(self._count[:used], max(self._keep, 1))
        if self._keep:
            oldest = self._numbers[np.arange(used), (self._head[:used] - count) % self._keep]
        else:
            oldest = self._heard[:used]
        mask = (self._stream[:used] != 0) & (count > 0) & (oldest < before)
        return np.flatnonzero(mask & (self._heard[:used] >= after[:used]))

    def past_of(self, slot: int) -> Past:
        """Return what windows to come need of one stream, oldest first: its newest `size - 1` readings, at least 1."""
        if not self._keep:
            place = self._count[slot : slot + 1]
            values = np.zeros((1, self.shape.channels))
            return Past(self._stream[slot : slot + 1].copy(), place.copy(), self._last[slot : slot + 1].copy(), values)
        count = int(min(self._count[slot], self._keep))
        cells = (self._head[slot] + np.arange(-count, 0)) % self._keep
        places = self._count[slot] + np.arange(1 - count, 1)
        stream = np.full(count, self._stream[slot])
        return Past(stream, places, self._times[slot, cells], self._values[slot, cells])

    def restore(self, name: StreamName, stream: int) -> int:
        """Open a slot for a stream of an earlier run, however many there are, and return it."""
        limit, self._max_streams = self._max_streams, len(self._slots) + 1
        slot = self._open(name, ())
        self._max_streams = limit
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
        while len(self._slots) > self._max_streams:
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
