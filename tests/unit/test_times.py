"""Times: every way of writing one, to integer nanoseconds, one by one and by the column."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.decoders.times import TimeUnit, column_to_nanoseconds, to_nanoseconds

NOW = 1_795_341_600_123_456_789
"""2026-11-22T10:00:00.123456789Z."""
LATEST = 2**63 - 1
UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)
SCALE = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1_795_341_600, "s", 1_795_341_600_000_000_000),
        (1_795_341_600_123, "ms", 1_795_341_600_123_000_000),
        (1_795_341_600_123_456, "us", 1_795_341_600_123_456_000),
        (NOW, "ns", NOW),
        (-1, "s", -(10**9)),
        (0, "auto", 0),
        (1_795_341_600, "auto", 1_795_341_600_000_000_000),
        (1_795_341_600_123, "auto", 1_795_341_600_123_000_000),
        (1_795_341_600_123_456, "auto", 1_795_341_600_123_456_000),
        (NOW, "auto", NOW),
        (1_795_341_600.123456, "auto", 1_795_341_600_123_456_000),
        (1_795_341_600_123.456, "auto", 1_795_341_600_123_456_000),
        (1_795_341_600.1234567, "s", 1_795_341_600_123_457_000),
        (0.1 + 0.2, "s", 300_000_000),
        (1_795_341_600_123_456.5, "us", 1_795_341_600_123_456_500),
        (1.75, "ns", 2),
        ("1795341600", "s", 1_795_341_600_000_000_000),
        (" 1795341600.5 ", "auto", 1_795_341_600_500_000_000),
        ("1.7953416e9", "s", 1_795_341_600_000_000_000),
        ("-5", "ms", -5_000_000),
    ],
)
def test_numbers(value: object, unit: TimeUnit, expected: int) -> None:
    """Integers are exact; floating-point seconds and milliseconds are rounded to the microsecond."""
    assert to_nanoseconds(value, unit) == expected


@pytest.mark.parametrize(
    ("size", "smaller", "larger"), [(10**11, "s", "ms"), (10**14, "ms", "us"), (10**17, "us", "ns")]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_auto_tells_the_unit_by_size(size: int, smaller: TimeUnit, larger: TimeUnit, sign: int) -> None:
    """At the threshold the unit changes, for integers to the last digit, alone and in a column."""
    below, at = sign * (size - 1), sign * size
    for value, unit in ((below, smaller), (at, larger), (float(at), larger)):
        try:
            expected = to_nanoseconds(value, unit)
        except ValueError:  # below 10^17 µs is after 2261
            with pytest.raises(ValueError, match=f"read as {unit}"):
                to_nanoseconds(value, "auto")
            with pytest.raises(ValueError, match=f"read as {unit}"):
                column_to_nanoseconds([value], "auto")
        else:
            assert to_nanoseconds(value, "auto") == expected
            assert column_to_nanoseconds([value], "auto").tolist() == [expected]


@pytest.mark.parametrize("unit", ["auto", "iso8601"])
@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("2026-11-22T10:00:00Z", 0),
        ("2026-11-22t10:00:00z", 0),
        ("2026-11-22 10:00:00Z", 0),
        ("2026-11-22T10:00:00", 0),
        ("2026-11-22T10:00Z", 0),
        ("2026-11-22T10Z", 0),
        ("20261122T100000Z", 0),
        ("2026-W47-7T10:00:00Z", 0),
        ("2026-11-22T11:00:00+01:00", 0),
        ("2026-11-22T11:00:00 +0100", 0),
        ("2026-11-22T05:00:00-05", 0),
        ("2026-11-23T00:00:00+14:00", 0),
        ("  2026-11-22T10:00:00Z\n", 0),
        ("2026-11-22T10:00:00.1Z", 100_000_000),
        ("2026-11-22T10:00:00,5Z", 500_000_000),
        ("20261122T100000.25Z", 250_000_000),
        ("2026-11-22T10:00:00.123Z", 123_000_000),
        ("2026-11-22T10:00:00.1234567Z", 123_456_700),
        ("2026-11-22T10:00:00.123456789+00:00", 123_456_789),
        ("2026-11-22T10:00:00.123456789999Z", 123_456_789),
    ],
)
def test_iso_8601(text: str, nanoseconds: int, unit: TimeUnit) -> None:
    """Offsets, fractions of 1 to 9 and more digits, point or comma, lower case; without an offset it is UTC."""
    assert to_nanoseconds(text, unit) == 1_795_341_600_000_000_000 + nanoseconds
    assert column_to_nanoseconds([text, text], unit).tolist() == [1_795_341_600_000_000_000 + nanoseconds] * 2


@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1)),  # noqa: DTZ001 - the offset is drawn beside it
    st.integers(-14 * 60, 14 * 60),
    st.integers(0, 999),
)
def test_iso_8601_keeps_every_nanosecond(moment: datetime, offset: int, nanoseconds: int) -> None:
    """Whatever Python writes, with three more digits, is read to the nanosecond."""
    zoned = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    text = zoned.isoformat(timespec="microseconds")
    text = f"{text[:26]}{nanoseconds:03}{text[26:]}"
    microseconds = (zoned - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert to_nanoseconds(text, "auto") == microseconds * 1000 + nanoseconds


@pytest.mark.parametrize(
    ("value", "unit", "sentence"),
    [
        (None, "auto", "null is not a time; expected a number or ISO 8601 text"),
        (True, "s", "a boolean is not a time"),
        ([1], "auto", "an array is not a time"),
        ({}, "auto", "an object is not a time"),
        (5, "iso8601", "5 is a number; expected ISO 8601 text, because time_unit is iso8601"),
        (math.nan, "s", "nan is outside"),
        (-math.inf, "auto", "-inf is outside"),
        (1e308, "s", "outside the years 1678 to 2261"),
        (1e308, "us", "outside the years 1678 to 2261"),
        (10**4000, "auto", "outside the years 1678 to 2261"),
        (10**10, "s", "10000000000 is outside the years 1678 to 2261 when read as s; set time_unit"),
        (-(2**63), "ns", "outside the years"),
        ("99999999999999999999", "auto", "99999999999999999999 is outside the years"),
        ("soon", "auto", "'soon' is not an ISO 8601 time"),
        ("soon", "ms", "'soon' is not a number of ms"),
        ("nan", "s", "'nan' is not a number of s"),
        ("1_000", "s", "'1_000' is not a number of s"),
        ("1_000", "auto", "not an ISO 8601 time"),
        ("²", "auto", "not an ISO 8601 time"),
        ("٢٠٢٦-11-22T10:00:00Z", "auto", "not an ISO 8601 time"),
        ("", "auto", "not an ISO 8601 time"),
        ("1795341600", "iso8601", "not an ISO 8601 time"),
        ("2026-11-22T10:00.5Z", "auto", "not an ISO 8601 time"),
        ("2026-11-22T10:00:00+01:00:00.5", "auto", "not an ISO 8601 time"),
        ("2026-13-22T10:00:00Z", "iso8601", "not an ISO 8601 time"),
        ("2026-11-22T10:00:00.Z", "iso8601", "not an ISO 8601 time"),
        ("1600-01-01", "iso8601", "'1600-01-01' is outside the years 1678 to 2261"),
        ("0001-01-01T00:00:00+14:00", "auto", "outside the years 1678 to 2261"),
        ("9999-12-31T23:59:59-14:00", "auto", "outside the years 1678 to 2261"),
        (" " * 5000 + "soon", "auto", "not an ISO 8601 time"),
        ("soon" + " " * 5000, "ms", "is not a number of ms"),
        ("1600-01-01" + " " * 5000, "iso8601", "outside the years 1678 to 2261"),
        ("9" * 5000, "auto", "text of 5000 characters is not a time"),
        ("\ud800", "auto", "not an ISO 8601 time"),
    ],
)
def test_what_is_not_a_time(value: object, unit: TimeUnit, sentence: str) -> None:
    """One kind of error, and a sentence that says what was found; the same by the column."""
    with pytest.raises(ValueError, match="is ") as alone:
        to_nanoseconds(value, unit)
    with pytest.raises(ValueError, match="is ") as column:
        column_to_nanoseconds([value], unit)
    assert sentence in str(alone.value)
    assert str(alone.value) == str(column.value)
    assert len(str(alone.value)) < 200


@pytest.mark.parametrize("end", [LATEST, -LATEST])
def test_the_ends_of_the_range(end: int) -> None:
    """The first and the last nanosecond are times; the next ones are not, nor the number NumPy reads as none at all."""
    assert to_nanoseconds(end, "ns") == end
    assert column_to_nanoseconds([end, 0], "ns").tolist() == [end, 0]
    beyond = end + (1 if end > 0 else -1)
    with pytest.raises(ValueError, match="outside"):
        column_to_nanoseconds([0, beyond], "ns")


texts = st.sampled_from(["2026-11-22T10:00:00.5Z", "1795341600", "x", "1e9"]) | st.text(max_size=8)
numbers = (
    st.integers(-(2**63) - 2, 2**63 + 2)
    | st.sampled_from(
        [sign * (10**power) + off for power in (10, 11, 14, 17) for off in (-1, 0, 1) for sign in (1, -1)]
    )
    | st.floats()
    | st.floats(-1e19, 1e19)
    | st.floats(1e9, 3e9)
    | st.floats(1e12, 3e12)
)
iso_texts = st.from_regex(  # days, hours and years that there are not, among those that there are
    r"(167[6-9]|20[0-9]{2}|226[0-3]|[0-9]{4})-(0[1-9]|1[0-3])-([0-2][0-9]|3[0-2])"
    r"T([01][0-9]|2[0-4]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{1,11})?Z?",
    fullmatch=True,
)
columns = st.one_of(
    st.lists(iso_texts),
    st.lists(st.datetimes(datetime(1677, 1, 1), datetime(2263, 1, 1)).map(lambda moment: f"{moment.isoformat()}Z")),  # noqa: DTZ001 - Z is UTC
    st.lists(st.integers(-(2**63) - 2, 2**63 + 2)),
    st.lists(st.integers(10**9, 3 * 10**18)),
    st.lists(st.floats(1e9, 3e12)),
    st.lists(st.floats()),
    st.lists(numbers),
    st.lists(st.one_of(numbers, texts, st.none())),
)


@pytest.mark.filterwarnings("error")
@given(columns, st.sampled_from(UNITS))
@settings(max_examples=300, deadline=None)
def test_a_column_is_its_values_one_by_one(column: list[object], unit: TimeUnit) -> None:
    """The fast way and the slow way agree on every value, and on what is none."""
    try:
        expected = [to_nanoseconds(value, unit) for value in column]
    except ValueError as error:
        with pytest.raises(ValueError, match="is ") as found:
            column_to_nanoseconds(column, unit)
        assert str(found.value) == str(error)  # noqa: PT017 - what is compared is the two ways
    else:
        assert column_to_nanoseconds(column, unit).tolist() == expected


@given(st.floats(-9e9, 9e9))
def test_floating_point_seconds_become_the_nearest_microsecond(value: float) -> None:
    """Never further from the number than half a microsecond and what a float itself cannot tell."""
    found = to_nanoseconds(value, "s")
    assert found % 1000 == 0
    assert abs(Fraction(found, 10**9) - Fraction(value)) <= Fraction(1, 2 * 10**6) + Fraction(math.ulp(value))


@given(st.integers(-9 * 10**15, 9 * 10**15), st.sampled_from(["s", "ms"]))
def test_microseconds_survive_floating_point(microseconds: int, unit: TimeUnit) -> None:
    """A sender that has microseconds and writes them as float seconds or milliseconds gets them back exactly."""
    divisor = 10**6 if unit == "s" else 10**3
    if abs(microseconds) < 2**51:  # until 2041 a float of seconds tells microseconds apart
        assert to_nanoseconds(microseconds / divisor, unit) == microseconds * 1000
