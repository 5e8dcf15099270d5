"""Near-duplicates: the same as comparing one window after another with a list of samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.conditions import dedup
from processor.conditions.dedup import NearDuplicates
from processor.types import Flags, Floats
from tests.unit.naive_filter import Near
from tests.unit.test_limit import Disk


def windows_of(seed: int, count: int) -> Floats:
    """Draw windows of 3 readings of 2 fields: a few kinds of them, with noise of very different size."""
    random = np.random.default_rng(seed)
    kinds = random.normal(size=(random.integers(1, 6), 3, 2)) * [1, 1000] + [5, -3e6]
    noise = random.choice([0, 1e-3, 0.05, 0.5], count)[:, None, None] * random.normal(size=(count, 3, 2))
    windows: Floats = kinds[random.integers(0, len(kinds), count)] + noise * [1, 1000]
    return windows


def batches(count: int, cuts: Sequence[int]) -> Iterator[slice]:
    """Yield batches that end at `cuts`."""
    bounds = sorted({0, count, *(cut for cut in cuts if cut < count)})
    return (slice(a, b) for a, b in itertools.pairwise(bounds))


def judge(
    make: Callable[[], NearDuplicates],
    windows: Floats,
    cuts: Sequence[int],
    keeps: Floats | Flags,
    *,
    restarts: bool = False,
) -> list[bool]:
    """Ask about windows; of those that are no near-duplicates, keep those for which `keeps` says so."""
    subject, disk, found = make(), Disk(), []
    for part in batches(len(windows), cuts):
        subject.start(windows[part])
        for number in range(part.start, part.stop):
            near = subject.is_near()
            found.append(near)
            if not near and keeps[number]:
                subject.keep()
        disk.write(subject.changes())
        if restarts:
            subject = make()
            subject.restore(disk.read())
    return found


cuts_of = st.lists(st.integers(0, 400), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 400), cuts_of, st.booleans(), st.integers(1, 60), st.floats(0.01, 1.0))
def test_it_is_a_comparison_with_each_sample(
    seed: int, count: int, cuts: Sequence[int], restarts: bool, memory: int, distance: float
) -> None:
    """Of standardised readings, in any batches, with a memory that is full, and over restarts."""
    windows = windows_of(seed, count)
    keeps = np.random.default_rng(seed).random(count) < 0.8
    naive, expected = Near(distance, memory), []
    for window, keep in zip(windows, keeps.tolist(), strict=True):
        near = naive.is_near(window)
        expected.append(near)
        if not near and keep:
            naive.keep(window)
    assert judge(lambda: NearDuplicates(distance, memory), windows, cuts, keeps, restarts=restarts) == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 600), cuts_of, st.sampled_from([1, 20, 1000]))
def test_a_distance_from_the_data_does_not_depend_on_batches(
    seed: int, count: int, cuts: Sequence[int], memory: int
) -> None:
    """Nor on restarts."""
    windows, keeps = windows_of(seed, count), np.ones(count)
    one_by_one = judge(lambda: NearDuplicates("auto", memory), windows, range(count), keeps)
    assert judge(lambda: NearDuplicates("auto", memory), windows, cuts, keeps) == one_by_one
    assert judge(lambda: NearDuplicates("auto", memory), windows, cuts, keeps, restarts=True) == one_by_one


@pytest.mark.parametrize(("width", "length"), [(1, 10), (5, 10), (40, 10), (5, 50)])
def test_of_a_burst_one_is_kept(width: int, length: int) -> None:
    """With noise of a hundredth between its windows; and of windows that are different, hardly any is lost."""
    random = np.random.default_rng(width)
    different = random.normal(size=(15_000 // length, 4, width)) * random.uniform(0.1, 100, width)
    repeated = np.repeat(different, length, axis=0)
    noisy = repeated + 0.01 * different.std(axis=(0, 1)) * random.normal(size=repeated.shape)
    near = np.array(judge(lambda: NearDuplicates("auto", 1000), noisy, range(0, 15_000, 250), np.ones(15_000)))
    kept = (~near).reshape(-1, length)[2000 // length :]  # once it knows the data
    assert kept.sum(axis=1).max() == 1
    assert kept.any(axis=1).mean() > 0.9


@pytest.mark.parametrize("length", [10, 50])
def test_of_a_noisy_burst_one_is_kept_where_different_windows_are_near_each_other(length: int) -> None:
    """With noise of a twentieth, and no more than three causes of all that the windows show."""
    random = np.random.default_rng(length)
    causes = random.normal(size=(15_000 // length, 3))
    different = (causes @ random.normal(size=(3, 40))).reshape(-1, 4, 10)
    repeated = np.repeat(different, length, axis=0)
    noisy = repeated + 0.05 * different.std(axis=(0, 1)) * random.normal(size=repeated.shape)
    near = np.array(judge(lambda: NearDuplicates("auto", 1000), noisy, range(0, 15_000, 250), np.ones(15_000)))
    kept = (~near).reshape(-1, length)[2000 // length :]
    assert kept.sum(axis=1).max() <= 2
    assert kept.sum(axis=1).mean() < 1
    assert kept.any(axis=1).mean() > 0.8


def test_the_same_windows_are_always_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a field never changes, where all do not, and where readings are too large for their squares."""
    monkeypatch.setattr(dedup, "_AT_ONCE", 7)
    distance: float | Literal["auto"]
    for distance in (1e-9, 0.1, "auto"):
        for value in (0.0, 7.0, -1e9):
            windows = np.full((40, 3, 2), value)
            found = judge(lambda: NearDuplicates(distance, 5), windows, [3, 20], np.ones(40))  # noqa: B023 - at once
            assert found == [False] + [True] * 39
    large = np.random.default_rng(1).normal(size=(40, 3, 2)) * 1e200
    assert not any(judge(lambda: NearDuplicates(0.1, 5), large, [3, 20], np.ones(40)))


def test_windows_of_another_shape_begin_anew() -> None:
    """After a change of model.window, with nothing of before on disk."""
    subject, disk = NearDuplicates("auto", 100), Disk()
    for windows in (np.random.default_rng(1).normal(size=(300, 4, 2)), np.random.default_rng(2).normal(size=(3, 5, 2))):
        subject.start(windows)
        for _ in windows:
            if not subject.is_near():
                subject.keep()
        disk.write(subject.changes())
    assert len(disk.rows) < 8
    again = NearDuplicates("auto", 100)
    again.restore(disk.read())
    again.start(np.random.default_rng(2).normal(size=(3, 5, 2)))
    assert [again.is_near() for _ in range(3)] == [True] * 3


def test_memory_is_bounded_where_windows_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer samples are remembered then."""
    monkeypatch.setattr(dedup, "_MOST_VALUES", 30)
    windows = np.arange(10.0)[:, None, None] * np.ones((10, 5, 2))
    found = judge(lambda: NearDuplicates(1e-3, 100), np.concatenate((windows, windows[::-1])), [], np.ones(20))
    assert found == [False] * 10 + [True] * 3 + [False] * 7


def test_little_is_written_for_a_batch() -> None:
    """The samples that are new, not all that are remembered."""
    subject = NearDuplicates("auto", 1000)
    for number in range(4):
        subject.start(np.random.default_rng(number).normal(size=(100, 20, 3)))
        for _ in range(100):
            subject.is_near()
            subject.keep()
        size = sum(len(row.value or b"") for row in subject.changes())
        assert 100 * 480 <= size < 115 * 480
