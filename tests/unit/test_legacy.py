"""MLADE's desired properties: what they keep, beside MLADE's own conditions written out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processor.errors import ConfigurationError
from processor.filter import FilterDocument, validate_filter
from processor.legacy import as_filter, legacy_values, window_size
from processor.schedule import Schedule
from processor.types import NS

EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")
HOUR = datetime.fromisoformat("2021-11-01T14:00:00Z")
PERIOD = ["2021-11-01T14:15:00Z", "2021-11-01T15:46:00Z"]


class Point(NamedTuple):
    """A result of MLADE's: its telemetry and its time."""

    telemetry: float
    time: datetime


def mlade_keeps(desired: Mapping[str, Any], point: Point) -> bool:
    """Decide as MLADE did; what is not set has its defaults."""
    low, high = desired.get("TemperatureThresholdLow", 25), desired.get("TemperatureThresholdHigh", 100)
    period = [datetime.fromisoformat(text) for text in desired.get("TimePeriod", [])]
    minutes = range(1, 60, int(1 / desired.get("DutyCycle", 0.2)))
    return (
        low < point.telemetry < high
        and (not period or period[0] < point.time < period[1])
        and point.time.minute in minutes
    )


def kept(desired: Mapping[str, Any], points: Sequence[Point]) -> list[bool]:
    """Decide with the filter that the desired properties become."""
    document = validate_filter(as_filter(desired, "temperature", None))
    times = np.array([(point.time - EPOCH) // timedelta(microseconds=1) * 1000 for point in points], np.int64)
    (rule,) = document.rules
    band = rule.where.fields["temperature"]
    within = [
        (band.min is None or p.telemetry >= band.min) and (band.max is None or p.telemetry <= band.max) for p in points
    ]
    active = Schedule(document.schedule).active(times) & Schedule(rule.schedule).active(times)
    return [bool(one) for one in active & np.array(within)]


TICK = timedelta(microseconds=1)
EDGES = [
    0.0, 25, math.nextafter(25, 0), math.nextafter(25, 100), 30, 99.9, 100, math.nextafter(100, 0),
    math.nextafter(100, 200), -1e300, 1e300, 5e-324,
]  # fmt: skip
TABLE = [Point(30, HOUR + timedelta(minutes=minute, seconds=second)) for minute in range(120) for second in (0, 59)]
TABLE += [Point(value, HOUR + timedelta(minutes=16)) for value in EDGES]
TABLE += [
    Point(30, datetime.fromisoformat(bound) + away * TICK)
    for bound in PERIOD
    for away in (-60_000_000, -1, 0, 1, 60_000_000)
]


@pytest.mark.parametrize(
    "desired",
    [
        {"TemperatureThresholdLow": 25},
        {"TemperatureThresholdLow": 30},
        {"TemperatureThresholdLow": -40.5},
        {"TemperatureThresholdHigh": 30},
        {"TemperatureThresholdHigh": 1e305},
        {"TemperatureThresholdLow": 0, "TemperatureThresholdHigh": 99.9},
        {"TimePeriod": PERIOD},
        {"TimePeriod": []},
        {"TimePeriod": PERIOD, "DutyCycle": 1},
        {"DutyCycle": 0.1},
        {"DutyCycle": 0.5, "TemperatureThresholdHigh": 31},
        {"DutyCycle": 0.7},
        {"DutyCycle": 0.0001},
        {"DutyCycle": 1 / 59},
        {"DutyCycle": 1 / 58},
        {"TemperatureThresholdLow": 29, "TemperatureThresholdHigh": 31, "TimePeriod": PERIOD, "DutyCycle": 0.25},
    ],
    ids=str,
)
def test_what_mlade_kept_is_kept(desired: dict[str, Any]) -> None:
    """With any of its keys set, the others at their defaults; its bounds are strict."""
    wanted = [mlade_keeps(desired, point) for point in TABLE]
    assert kept(desired, TABLE) == wanted
    assert True in wanted
    assert False in wanted


numbers = st.floats(-1e6, 1e6)


@settings(max_examples=100, deadline=None)
@given(
    low=numbers,
    above=st.floats(1e-3, 1e6),
    duty=st.floats(1e-3, 1),
    minutes=st.integers(0, 119),
    second=st.integers(0, 59),
)
@example(low=0.0, above=1.0, duty=0.2, minutes=1, second=0)
def test_whatever_the_numbers_are(low: float, above: float, duty: float, minutes: int, second: int) -> None:
    """At both ends and beside them, at any time of the hour."""
    high = low + above
    desired = {"TemperatureThresholdLow": low, "TemperatureThresholdHigh": high, "DutyCycle": duty}
    time = HOUR + timedelta(minutes=minutes, seconds=second)
    values = [at for end in (low, high) for at in (math.nextafter(end, -math.inf), end, math.nextafter(end, math.inf))]
    points = [Point(value, time) for value in values]
    assert kept(desired, points) == [mlade_keeps(desired, point) for point in points]


def test_the_wanted_label_is_a_condition() -> None:
    """As MLADE's inference flag was."""
    document = as_filter({}, "temperature", "normal")
    assert validate_filter(document).rules[0].where.labels == ("normal",)


def test_a_period_may_be_open_and_its_times_without_offset_are_utc() -> None:
    """MLADE's always were UTC."""
    document: FilterDocument = validate_filter(as_filter({"TimePeriod": ["2021-11-01T14:15:00", None]}, "t", None))
    assert document.schedule is not None
    (period,) = document.schedule.between
    assert period.end_ns is None
    assert period.start_ns == 1_635_776_100 * NS + 1000


def test_what_a_period_s_times_have_beyond_microseconds_is_cut() -> None:
    """OPC UA writes seven digits, and whoever takes a period from its data has them in the twin."""
    exact, longer = (
        ["2021-10-20T09:25:00.203952Z"] * 2,
        ["2021-10-20T09:25:00.2039520Z", "2021-10-20T09:25:00.203952999Z"],
    )
    for one, other in zip(exact, longer, strict=True):
        for period in ([None, one], [one, None]):
            same = [text and other for text in period]
            assert as_filter({"TimePeriod": same}, "t", None) == as_filter({"TimePeriod": period}, "t", None)


def problems(desired: Mapping[str, Any]) -> dict[str, str]:
    """Return what is said of each key."""
    with pytest.raises(ConfigurationError) as caught:
        as_filter(desired, "t", None)
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("TemperatureThresholdLow", "30", "expected a number"),
        ("TemperatureThresholdLow", True, "expected a number"),
        ("TemperatureThresholdLow", 10**400, "expected a number"),
        ("TemperatureThresholdLow", math.inf, "expected a number"),
        ("TemperatureThresholdLow", 100, "no number lies between"),
        ("TemperatureThresholdLow", math.nextafter(100, 0), "no number lies between"),
        ("TemperatureThresholdHigh", {}, "expected a number"),
        ("DutyCycle", 1.5, "at most 1"),
        ("DutyCycle", 0, "more than 0"),
        ("DutyCycle", -0.2, "more than 0"),
        ("DutyCycle", math.nan, "expected a number"),
        ("DutyCycle", [], "expected a number"),
        ("TimePeriod", "today", "expected [start, end]"),
        ("TimePeriod", ["2021-11-01T14:15:00Z"], "expected [start, end]"),
        ("TimePeriod", PERIOD[::-1], "no time lies between"),
        ("TimePeriod", [PERIOD[0], PERIOD[0]], "no time lies between"),
    ],
)
def test_what_cannot_be_is_explained(key: str, value: object, expected: str) -> None:
    """Under the key that it was given under."""
    assert expected in problems({key: value})[key]


def test_every_problem_is_told_at_once() -> None:
    """With the place in the period."""
    desired = {"TemperatureThresholdLow": [], "DutyCycle": 2, "TimePeriod": ["soon", 5]}
    assert problems(desired).keys() == {"TemperatureThresholdLow", "DutyCycle", "TimePeriod[0]", "TimePeriod[1]"}


@pytest.mark.parametrize(("length", "size"), [(None, None), (12, 12), (8640, 8640), (13.0, 13)])
def test_a_window_size_is_read(length: object, size: int | None) -> None:
    """JSON of some makers has only floats."""
    assert window_size({} if length is None else {"ADInputLength": length}) == size


@pytest.mark.parametrize("length", [11, 8641, 12.5, True, "13", [], math.nan, 10**400])
def test_a_wrong_window_size_is_refused(length: object) -> None:
    """With MLADE's bounds."""
    with pytest.raises(ConfigurationError, match="from 12 to 8640"):
        window_size({"ADInputLength": length})


def test_keys_may_stand_under_desired() -> None:
    """As MLADE took them from a whole twin; what stands at the top level counts more."""
    desired = {"desired": {"DutyCycle": 0.1, "ADInputLength": 20, "other": 1}, "DutyCycle": 0.5, "TimePeriod": None}
    assert legacy_values(desired) == {"DutyCycle": 0.5, "ADInputLength": 20}
    assert legacy_values({"desired": 3}) == {}
