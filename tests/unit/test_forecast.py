"""What a recording's counts come to in a day, and the bounded look at a long recording that it rests on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.filter import validate_filter
from processor.forecast import per_day
from processor.thinning import Thinned
from processor.types import Times

HOUR = 3600
MONDAY = 1_795_392_000  # 2026-11-23T00:00:00Z
PEAK = {"weekly": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "07:00", "to": "09:00"}]}


def ends(start: int, seconds: int) -> Times:
    """Return a window's time each second."""
    return (start + np.arange(seconds, dtype=np.int64)) * 10**9


def factors(start: int, seconds: int, *rules: dict[str, Any], **more: Any) -> list[float]:  # noqa: ANN401 - JSON
    """Return the factors of a filter for a recording of so many seconds."""
    document = validate_filter({"rules": [{"name": f"r{n}", **rule} for n, rule in enumerate(rules)], **more})
    return [float(factor) for factor in per_day(document, ends(start, seconds), float(seconds))]


def test_without_a_schedule_a_day_is_a_day() -> None:
    """Twenty-four hours for one."""
    assert factors(MONDAY, HOUR, {}) == [24.0]


@pytest.mark.parametrize("start", [MONDAY + 7 * HOUR, MONDAY + 6 * HOUR])
def test_an_hour_in_the_schedule_counts_for_the_hours_that_the_schedule_has(start: int) -> None:
    """Two hours on five days of seven, also where the recording holds an hour that is ruled out."""
    (factor,) = factors(start, 2 * HOUR, {}, schedule=PEAK)
    hours_recorded = 2 if start % (24 * HOUR) == 7 * HOUR else 1
    assert factor == pytest.approx(2 * 5 / 7 / hours_recorded, rel=0.01)


def test_rules_have_schedules_of_their_own() -> None:
    """Beside that of the filter."""
    found = factors(MONDAY + 7 * HOUR, HOUR, {"schedule": PEAK}, {})
    assert found == pytest.approx([2 * 5 / 7, 24.0], rel=0.01)
    half = factors(
        MONDAY + 7 * HOUR, HOUR, {"schedule": PEAK}, schedule={"duty_cycle": {"period": "1m", "fraction": 0.5}}
    )
    assert half == pytest.approx([2 * 5 / 7], rel=0.02)


def test_nothing_is_said_of_a_schedule_that_was_never_active() -> None:
    """Nobody knows what an hour at the peak brings."""
    assert factors(MONDAY + 12 * HOUR, HOUR, {}, schedule=PEAK) == [0.0]


def test_a_recording_without_length_says_nothing() -> None:
    """One message, or none."""
    document = validate_filter({"rules": [{"name": "a"}]})
    assert per_day(document, ends(MONDAY, 1), 0.0).tolist() == [np.inf]
    scheduled = validate_filter({"rules": [{"name": "a"}], "schedule": PEAK})
    assert per_day(scheduled, ends(MONDAY, 0), 0.0).tolist() == [0.0]


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 40))
def test_rows_are_thinned_evenly(batches: list[int], most: int) -> None:
    """However they came: every stride-th of them, from the first, at most so many, columns beside each other."""
    thinned = Thinned(most)
    count = 0
    for size in batches:
        numbers = np.arange(count, count + size)
        thinned.add(numbers, numbers * 2.0)
        count += size
    assert thinned.seen == count
    columns = thinned.columns()
    if not count:
        assert columns == ()
        return
    assert columns[0].tolist() == list(range(0, count, thinned.stride))
    assert columns[1].tolist() == (columns[0] * 2.0).tolist()
    assert len(columns[0]) <= most
    assert thinned.stride == 1 or count > most * thinned.stride / 2
