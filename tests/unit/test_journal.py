"""Windows after a restart are what they would have been without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor import journal
from processor.admission import Bounds
from processor.journal import Journal
from processor.store import Changes, Store
from processor.types import MODEL_SLOT, NS, Readings, StreamName, Windows
from processor.windows import Shape, WindowBuffer

Batch = list[tuple[int, int]]  # stream, time


@contextmanager
def opened(directory: Path) -> Iterator[Store]:
    """Open a store and give it back."""
    store = Store(directory, durability="normal", bounds=Bounds(1 << 20, NS, "drop_oldest"), bridges=[])
    yield store
    store.close()


class Line:
    """A window buffer, with a journal if it has a store."""

    def __init__(self, shape: Shape, max_streams: int, store: Store | None, signature: str = "same") -> None:
        self.windows = WindowBuffer(shape, max_streams)
        self.journal = None if store is None else Journal(self.windows, signature, store.slot(MODEL_SLOT))
        self.store = store

    def take(self, batch: Batch) -> Windows:
        """Append a batch and commit it."""
        slots: list[int] = []
        for stream, _ in batch:
            slots.append(self.windows.slot(StreamName("source", str(stream)), slots))
        times = np.array([time for _, time in batch], np.int64)
        values = np.array([[stream, time] for stream, time in batch], np.float64).reshape(len(batch), 2)
        readings = Readings(np.array(slots, np.int64), times, values)
        windows, _, past = self.windows.append(readings)
        if self.store is not None and self.journal is not None:
            changes = Changes()
            self.journal.record(changes.of(MODEL_SLOT), readings.slots, past)
            self.store.commit(changes, 0)
        self.windows.release()
        return windows


def equal(left: Windows, right: Windows) -> bool:
    """Whether two batches of windows hold the same readings."""
    return np.array_equal(left.times, right.times) and np.array_equal(left.values, right.values)


batches = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=8), min_size=1, max_size=12
)


@settings(max_examples=100, deadline=None)
@given(
    batches=batches,
    restarts=st.sets(st.integers(0, 11)),
    size=st.integers(1, 6),
    step=st.integers(1, 7),
    max_gap=st.none() | st.integers(0, 30),
    max_streams=st.integers(1, 4),
    least_bytes=st.sampled_from([0, 200, 4 << 20]),
)
def test_windows_go_on_over_restarts(
    batches: list[Batch],
    restarts: set[int],
    size: int,
    step: int,
    max_gap: int | None,
    max_streams: int,
    least_bytes: int,
) -> None:
    """Any batches, any restarts between them, journal pruned early or never: the same windows."""
    shape = Shape(size, step, 2, max_gap)
    undisturbed = Line(shape, max_streams, None)
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_LEAST_BYTES", least_bytes)
        patch.setattr(journal, "_SLACK", 1)
        store = Store(Path(directory), durability="normal", bounds=Bounds(1 << 20, NS, "block"), bridges=[])
        line = Line(shape, max_streams, store)
        for number, batch in enumerate(batches):
            if number in restarts:
                store.close()
                store = Store(Path(directory), durability="normal", bounds=Bounds(1 << 20, NS, "block"), bridges=[])
                line = Line(shape, max_streams, store)
            assert equal(undisturbed.take(batch), line.take(batch))
        store.close()


def test_the_journal_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is rarely heard gets a snapshot, so that what others wrote long ago can go."""
    monkeypatch.setattr(journal, "_LEAST_BYTES", 10_000)
    shape = Shape(5, 1, 2, None)
    with opened(tmp_path) as store:
        line = Line(shape, 10, store)
        line.take([(9, 1), (9, 2), (9, 3)])
        for number in range(2000):
            line.take([(1, number), (2, number)])
        _, snapshots, rows = store.slot(MODEL_SLOT).windows()
        assert sum(len(past) for _, past in rows) < 20_000
        assert [snapshot.stream for snapshot in snapshots] == [1]
        assert np.frombuffer(snapshots[0].numbers, "<i8").tolist() == [0, 1, 2]  # how far to look back depends on them
    with opened(tmp_path) as store:
        line = Line(shape, 10, store)
        line.take([(9, 4)])
        assert line.take([(9, 5)]).times.tolist() == [[1, 2, 3, 4, 5]]


def test_windows_of_another_shape_begin_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was kept does not fit any more, and the log says so."""
    with opened(tmp_path) as store:
        Line(Shape(3, 1, 2, None), 10, store, "three").take([(1, 1), (1, 2)])
    with opened(tmp_path) as store:
        line = Line(Shape(2, 1, 2, None), 10, store, "two")
        assert len(line.take([(1, 3)])) == 0
        assert line.take([(1, 4)]).times.tolist() == [[3, 4]]
    assert "forgotten" in caplog.text


def test_single_readings_are_not_journaled(tmp_path: Path) -> None:
    """Windows of one reading remember nothing, so nothing is written for them."""
    with opened(tmp_path) as store:
        line = Line(Shape(1, 1, 2, None), 10, store)
        assert len(line.take([(1, 1), (2, 1), (1, 2)])) == 3
        streams, _, rows = store.slot(MODEL_SLOT).windows()
        assert not streams
        assert not list(rows)


def test_with_a_lower_limit_the_least_recently_heard_streams_are_forgotten(tmp_path: Path) -> None:
    """Not those that were opened first."""
    with opened(tmp_path) as store:
        line = Line(Shape(3, 1, 2, None), 10, store)
        line.take([(stream, 1) for stream in range(6)])
        line.take([(0, 2), (3, 2)])
    with opened(tmp_path) as store:
        line = Line(Shape(3, 1, 2, None), 2, store)
        assert {name.key for _, name in line.windows.streams()} == {"0", "3"}
        assert len(line.take([(0, 3), (3, 3)])) == 2
    with opened(tmp_path) as store:
        line = Line(Shape(3, 1, 2, None), 2, store)
        assert {name.key for _, name in line.windows.streams()} == {"0", "3"}
