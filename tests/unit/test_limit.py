"""Limits and cooldowns: a sliding interval on each key's own clock, in bounded memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.conditions import limit
from processor.conditions.limit import SlidingLimit
from processor.conditions.memory import ALL, PAGE, Row, Tail


class Disk:
    """Rows as the store keeps them."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], bytes] = {}

    def write(self, rows: Sequence[Row]) -> None:
        """Apply a batch's changes."""
        for key, part, value in rows:
            if value is None:
                for known in [each for each in self.rows if each[0] == key and part in (ALL, each[1])]:
                    del self.rows[known]
        self.rows |= {(key, part): value for key, part, value in rows if value is not None}

    def read(self) -> list[Row]:
        """Return everything in order."""
        return [Row(*place, value) for place, value in sorted(self.rows.items())]


steps = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 12), st.booleans(), st.booleans()), max_size=80)


@settings(max_examples=200, deadline=None)
@given(steps, st.integers(1, 5), st.integers(1, 20))
def test_a_limit_is_a_list_of_times_for_each_key(
    steps: Sequence[tuple[str, int, bool, bool]], most: int, per: int
) -> None:
    """Whatever the times do, and wherever it is restored; what is asked beforehand is what is answered."""
    subject, disk = SlidingLimit(most, per), Disk()
    clocks: dict[str, int] = {}
    times: dict[str, list[int]] = defaultdict(list)
    now = 0
    for key, step, keep, restart in steps:
        now += step
        clock = max(now, clocks.get(key, now))
        expected = sum(clock - per < each for each in times[key]) < most
        assert subject.would_accept(key, now) == expected
        assert subject.accepts(key, now) == expected
        clocks[key] = clock
        if expected and keep:
            subject.spend(key)
            times[key].append(clock)
        disk.write(subject.changes())
        if restart:
            subject = SlidingLimit(most, per)
            subject.restore(disk.read())


def test_at_the_end_of_the_interval_there_is_room_again() -> None:
    """A sample counts in [t, t + per)."""
    subject = SlidingLimit(1, 10)
    assert subject.accepts("", 0)
    subject.spend("")
    assert not subject.accepts("", 9)
    assert subject.accepts("", 10)


def test_streams_that_come_and_go_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently reached are forgotten, in memory and on disk, before and after a restart."""
    monkeypatch.setattr(limit, "_MOST_KEYS", 3)
    subject, disk = SlidingLimit(1, 1000), Disk()
    for key in "abcadbd":  # leaves a, b, d, of which a was reached least recently
        if subject.accepts(key, 0):
            subject.spend(key)
        disk.write(subject.changes())
    assert sorted({key for key, _ in disk.rows}) == ["a", "b", "d"]
    restored = SlidingLimit(1, 1000)
    restored.restore(disk.read())
    for each in (subject, restored):
        assert each.accepts("e", 0)
        assert [each.would_accept(key, 0) for key in "abd"] == [True, False, False]


def test_samples_of_many_streams_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they remember in all is bounded, too."""
    monkeypatch.setattr(limit, "_MOST_TIMES", 10)
    subject = SlidingLimit(4, 1000)
    for number in range(40):
        assert subject.accepts(str(number // 4), 0)
        subject.spend(str(number // 4))
    assert len(subject) == 2
    assert [subject.would_accept(key, 0) for key in "789"] == [True, False, False]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 700), st.integers(0, 900), st.booleans()), min_size=1, max_size=8),
)
def test_a_tail_is_restored_from_its_pages(steps: Sequence[tuple[int, int, bool]]) -> None:
    """However much was added and dropped between two writings; pages that are past are gone."""
    subject, disk, numbers = Tail("q"), Disk(), list[int]()
    for added, dropped, restart in steps:
        for number in range(added):
            subject.append(number)
            numbers.append(number)
        for _ in range(min(dropped, len(numbers))):
            subject.drop()
            del numbers[0]
        disk.write(subject.changes("k"))
        if restart:
            first, end = subject.first, subject.end
            subject = Tail("q")
            subject.restore(first, end, disk.read())
        assert [subject[at] for at in range(len(subject))] == numbers
        assert len(disk.rows) <= len(numbers) // PAGE + 2
