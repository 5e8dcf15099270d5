"""Windows: the same as a list a stream, however readings are cut into batches, and after a restart."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.journal import decode, encode
from processor.types import Ints, Readings, StreamName
from processor.windows import Past, Shape, WindowBuffer

LATEST = 2**63 - 1
NAMES = [StreamName("source", key) for key in "abcdef"]


class Reading(NamedTuple):
    """One reading, with one channel, of which every test makes its own number."""

    name: StreamName
    time: int
    value: float


class Found(NamedTuple):
    """A window, as something to compare."""

    name: StreamName
    times: tuple[int, ...]
    values: tuple[float, ...]


class Naive:
    """The contract's words: a list of readings a stream, one reading at a time."""

    def __init__(self, shape: Shape, max_streams: int) -> None:
        """Start with no streams."""
        self._shape = shape
        self._most = max_streams
        self.streams: dict[StreamName, list[Reading]] = {}  # since the start or the last gap; least recent first
        self.forgotten = 0

    def copy(self) -> Naive:
        """Return an independent one."""
        other = Naive(self._shape, self._most)
        other.streams = {name: list(readings) for name, readings in self.streams.items()}
        return other

    def feed(self, readings: Iterable[Reading]) -> Iterator[Found]:
        """Yield the windows that readings complete."""
        size, step, gap = self._shape.size, self._shape.step, self._shape.max_gap
        for reading in readings:
            if reading.name not in self.streams and len(self.streams) == self._most:
                del self.streams[next(iter(self.streams))]
                self.forgotten += 1
            past = self.streams.pop(reading.name, [])
            if past and gap is not None and abs(reading.time - past[-1].time) > gap:
                past = []
            past.append(reading)
            self.streams[reading.name] = past
            if len(past) >= size and (len(past) - size) % step == 0:
                newest = past[-size:]
                yield Found(reading.name, tuple(r.time for r in newest), tuple(r.value for r in newest))


class Fed(NamedTuple):
    """What a batch came to."""

    windows: list[Found]
    completed_by: list[int]
    past: Past | None
    slots: Ints


def feed(buffer: WindowBuffer, batch: Sequence[Reading]) -> Fed:
    """Append a batch the way the intake does."""
    slots: list[int] = []
    for reading in batch:
        slots.append(buffer.slot(reading.name, slots))
    readings = Readings(
        np.array(slots, np.int64),
        np.array([reading.time for reading in batch], np.int64),
        np.array([[reading.value] for reading in batch], np.float64).reshape(len(batch), 1),
    )
    windows, completed_by, past = buffer.append(readings)
    found = []
    for row, slot in enumerate(windows.slots.tolist()):
        name = buffer.names[slot]
        assert name is not None
        found.append(Found(name, tuple(windows.times[row].tolist()), tuple(windows.values[row, :, 0].tolist())))
    buffer.release()
    return Fed(found, completed_by.tolist(), past, readings.slots)


def cut(items: Sequence[Reading], cuts: Iterable[int]) -> list[Sequence[Reading]]:
    """Return items in batches that end at `cuts`."""
    bounds = sorted({0, len(items), *(c for c in cuts if c < len(items))})
    return [items[a:b] for a, b in itertools.pairwise(bounds)]


shapes = st.builds(
    Shape, size=st.integers(1, 6), step=st.integers(1, 9), channels=st.just(1), max_gap=st.none() | st.integers(0, 12)
)


@st.composite
def streams_of_readings(draw: st.DrawFn, *, ends: bool = False) -> list[Reading]:
    """Draw up to 60 readings of a few streams; their times mostly go on, and jump now and then.

    By a seed, because drawn one by one most lists would be too short to forget and to restart within.
    """
    random = Random(draw(st.integers(0, 2**32)))  # noqa: S311 - it draws test data
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    now = 0
    readings = []
    for value in range(draw(st.integers(0, 60))):
        now += random.choice([0, 1, 1, 2, 3, -1, random.randint(-30, 30)])
        time = random.choice([-LATEST, -LATEST + 1, -1, 0, LATEST - 1, LATEST]) if ends else now
        readings.append(Reading(random.choice(names), time, float(value)))
    return readings


@given(shapes, st.integers(1, 7), streams_of_readings(), st.lists(st.integers(0, 60), max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_batches_give_the_windows_of_a_list_a_stream(
    shape: Shape, max_streams: int, readings: list[Reading], cuts: list[int]
) -> None:
    """Size, step, gap, forgetting, also within a batch: the same windows in the same order as one reading at a time."""
    naive, buffer = Naive(shape, max_streams), WindowBuffer(shape, max_streams)
    for batch in cut(readings, cuts):
        assert feed(buffer, batch).windows == list(naive.feed(batch))
        assert {name for _, name in buffer.streams()} == naive.streams.keys()
    assert buffer.forgotten == naive.forgotten


@given(shapes, streams_of_readings(ends=True), st.lists(st.integers(0, 60), max_size=4))
@settings(max_examples=100, deadline=None)
def test_times_at_the_ends_of_the_range(shape: Shape, readings: list[Reading], cuts: list[int]) -> None:
    """Neighbours further apart than an int64 holds are a gap like any other."""
    expected = list(Naive(shape, 9).feed(readings))
    buffer = WindowBuffer(shape, 9)
    assert [window for batch in cut(readings, cuts) for window in feed(buffer, batch).windows] == expected


@given(streams_of_readings(), shapes)
@settings(max_examples=100, deadline=None)
def test_windows_name_the_reading_that_completed_them(readings: list[Reading], shape: Shape) -> None:
    """`completed_by` is the position of the newest reading, and it rises."""
    fed = feed(WindowBuffer(shape, 9), readings)
    assert [readings[position].value for position in fed.completed_by] == [w.values[-1] for w in fed.windows]
    assert fed.completed_by == sorted(fed.completed_by)


def restored(buffer: WindowBuffer, journal: Sequence[tuple[int, Past]], max_streams: int) -> WindowBuffer:
    """Return a new buffer made from what the journal keeps: the streams' numbers and names, and encoded rows."""
    again = WindowBuffer(buffer.shape, max_streams)
    slots = {number: again.restore(name, number) for number, name in sorted(buffer.streams())}
    for first, written in journal:
        past = decode(encode(written), buffer.shape.channels)
        for position, stream in enumerate(past.streams.tolist()):
            if stream in slots:
                one = slice(position, position + 1)
                single = Past(past.streams[one], past.counts[one], past.times[one], past.values[one])
                again.replay(np.array([slots[stream]]), single, np.array([first + position]))
        again.sequence = first + len(past.streams)
    return again


@given(shapes, st.integers(1, 7), streams_of_readings(), st.lists(st.integers(0, 60), max_size=8), st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_a_restart_at_any_point_changes_nothing(
    shape: Shape, max_streams: int, readings: list[Reading], cuts: list[int], restart: int
) -> None:
    """A buffer made from the journal goes on as the one before: same windows, and the same streams forgotten."""
    if not shape.remembers:
        return  # nothing is journaled, and nothing that is forgotten shows
    buffer = WindowBuffer(shape, max_streams)
    journal: list[tuple[int, Past]] = []
    found = []
    for number, batch in enumerate(cut(readings, cuts)):
        if number == restart:
            buffer = restored(buffer, journal, max_streams)
        fed = feed(buffer, batch)
        if fed.past is not None:
            journal.append((buffer.sequence - len(batch), fed.past))
        found += fed.windows
    assert found == list(Naive(shape, max_streams).feed(readings))


@given(shapes, streams_of_readings(), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_a_snapshot_holds_all_that_a_stream_needs(shape: Shape, readings: list[Reading], at: int) -> None:
    """`past_of` alone restores every stream, whatever rows were dropped."""
    if not shape.remembers:
        return
    buffer, again = WindowBuffer(shape, 9), WindowBuffer(shape, 9)
    before = list(feed(buffer, readings[:at]).windows)
    for number, name in sorted(buffer.streams()):
        past = decode(encode(buffer.past_of(buffer.slot(name))[0]), 1)
        slot = again.restore(name, number)
        again.replay(np.full(len(past.streams), slot), past, np.arange(len(past.streams)))
        assert set(past.streams.tolist()) == {number}
    assert before + feed(again, readings[at:]).windows == list(Naive(shape, 9).feed(readings))


@given(shapes, streams_of_readings(), st.integers(0, 70))
@settings(max_examples=100, deadline=None)
def test_the_journal_learns_who_still_needs_old_readings(shape: Shape, readings: list[Reading], before: int) -> None:
    """`heard_from` names exactly the streams of whose needed readings one is numbered below a bound."""
    if not shape.remembers:
        return
    buffer = WindowBuffer(shape, 9)
    feed(buffer, readings)
    needed: dict[StreamName, list[int]] = {}
    for number, reading in enumerate(readings):
        line = needed.setdefault(reading.name, [])
        previous = readings[line[-1]].time if line else reading.time
        if shape.max_gap is not None and abs(reading.time - previous) > shape.max_gap:
            line.clear()
        line.append(number)
    expected = {name for name, line in needed.items() if line[-max(shape.size - 1, 1) :][0] < before}
    slots = buffer.heard_from(before, np.zeros(len(buffer.names), np.int64)).tolist()
    assert {buffer.names[slot] for slot in slots} == expected
    assert buffer.live_readings == sum(min(len(line), max(shape.size - 1, 1)) for line in needed.values())


def test_numbers_of_streams_are_never_used_again() -> None:
    """A stream that was forgotten and comes back is another stream to the journal, and readings in between are 0."""
    buffer = WindowBuffer(Shape(2, 1, 1), 1)
    first, second = NAMES[:2]
    fed = feed(buffer, [Reading(first, 0, 0.0), Reading(second, 1, 1.0), Reading(first, 2, 2.0)])
    assert fed.past is not None
    assert fed.past.streams.tolist() == [0, 0, 3]
    assert list(buffer.streams()) == [(3, first)]
    assert buffer.generation == 2


def test_a_slot_is_not_used_again_before_its_batch_is_done() -> None:
    """Readings underway still name the slots of streams that were forgotten after them."""
    buffer = WindowBuffer(Shape(2, 1, 1), 2)
    names = [StreamName("source", str(number)) for number in range(6)]
    fed = feed(buffer, [Reading(name, at, at) for name in names for at in range(2)])
    assert [window.name for window in fed.windows] == names
    slots = len(buffer.names)
    feed(buffer, [Reading(name, 9, 9.0) for name in NAMES[:4]])
    assert len(buffer.names) == slots  # and after it they are


def test_forgetting_by_hand_twice_is_an_error() -> None:
    """There is nothing to forget in a slot that is free."""
    buffer = WindowBuffer(Shape(2, 1, 1), 2)
    slot = buffer.slot(NAMES[0])
    buffer.forget(slot)
    buffer.release()
    with pytest.raises(ValueError, match="no stream"):
        buffer.forget(slot)


def test_streams_that_come_and_go_by_the_thousand_do_not_stall_a_batch() -> None:
    """What forgetting a stream costs grows neither with the streams known nor with the readings before it."""
    buffer = WindowBuffer(Shape(2, 1, 1), 10_000)
    feed(buffer, [Reading(StreamName("source", f"old {number}"), 0, 0.0) for number in range(10_000)])
    new = [Reading(StreamName("source", f"new {number}"), 1, 0.0) for number in range(20_000)]
    started = time.process_time()
    feed(buffer, new)
    assert time.process_time() - started < 1.5  # 16 s when it did
    assert buffer.forgotten == 20_000


def test_many_channels_stay_together() -> None:
    """A window's values are (size, C), rows as they came."""
    buffer = WindowBuffer(Shape(3, 2, 2), 4)
    slot = buffer.slot(NAMES[0])
    values = np.arange(14.0).reshape(7, 2)
    windows = []
    for part in (slice(0, 2), slice(2, 6), slice(6, 7)):
        rows = values[part]
        batch = Readings(np.full(len(rows), slot), np.arange(part.start, part.stop, dtype=np.int64), rows)
        windows += buffer.append(batch)[0].values.tolist()
    assert windows == [values[0:3].tolist(), values[2:5].tolist(), values[4:7].tolist()]
