"""Times as plants write them, to integer nanoseconds since the Unix epoch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final, Literal

import numpy as np
from msgpack import Timestamp
from msgspec.msgpack import Ext

from processor.types import NS, Floats, Ints, Times

TimeUnit = Literal["auto", "s", "ms", "us", "ns", "iso8601"]

KINDS: Final[Mapping[type, str]] = {
    dict: "an object",
    list: "an array",
    str: "text",
    bytes: "bytes",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
    Timestamp: "a time",
}
"""What the values in a payload are called in sentences."""

TIMESTAMP: Final = -1
"""MessagePack's extension that is a time by itself, whatever unit others are in. Decoders may make it of other formats'
times, so that they go through msgspec's structures."""
TIMESTAMPS: Final = (Timestamp, Ext)
"""What it is read as."""
_SCALE: Final[Mapping[str, int]] = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_BANDS: Final = ((10**11, "s"), (10**14, "ms"), (10**17, "us"))
"""`auto` tells the unit by size: seconds up to the year 5138, milliseconds from 1973, and so on."""
_MICROSECONDS: Final[Mapping[str | None, float]] = {"s": 1e6, "ms": 1e3}
_LATEST: Final = 2**63 - 1  # either way: the other end of an int64 is NumPy's "not a time"
_SURELY_INSIDE: Final = 2.0**62  # floats up to here surely fit in an int64 after rounding
_YEARS: Final = "outside the years 1678 to 2261"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST: Final = 64  # characters of a time as text
_NUMBER: Final = re.compile(r"[+-]?([0-9]+)((?:\.[0-9]*)?(?:E[+-]?[0-9]+)?)")
_ISO: Final = re.compile(r"([0-9W-]{7,10})(?:[T ]([0-9:]{2,8})(?:(?<=[0-9:]{6})[.,]([0-9]+))? ?(Z|[+-][0-9:]{2,5})?)?")
"""Date, time, fraction of the second, offset; what the digits say is left to `datetime`, which drops nanoseconds."""
_UTC_LINES: Final = re.compile(
    r"(?:(?:1[7-9]|2[01])[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z\n)+"
)
"""Times in the form that nearly everyone writes, a line each, of the years 1700 to 2199, which surely fit."""


def to_nanoseconds(value: object, unit: TimeUnit) -> int:
    """Return one time in ns since the Unix epoch.

    It is a number, text, or a timestamp as either of the MessagePack libraries has it.
    Floating-point seconds and milliseconds are rounded to the microsecond: they hold no more.

    Raises:
        ValueError: it is not a time in that unit, or outside the years 1678 to 2261; the text says which.
    """
    if isinstance(value, str):
        return _from_text(value, unit)
    if isinstance(value, Timestamp) or (isinstance(value, Ext) and value.code == TIMESTAMP):
        return _from_timestamp(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = KINDS.get(type(value), "something else")
        raise ValueError(f"{kind} is not a time; expected a number or ISO 8601 text")  # noqa: TRY004 - it is data
    if unit == "iso8601":
        raise ValueError(f"{value!r:.60} is a number; expected ISO 8601 text, because time_unit is iso8601")
    resolved = _unit_of(value) if unit == "auto" else unit
    if not abs(value) <= _LATEST:  # a NaN is not, either
        raise ValueError(f"{value!r:.60} is {_YEARS} in any unit")
    if isinstance(value, int):
        result = value * _SCALE[resolved]
    elif resolved in _MICROSECONDS:
        result = round(value * _MICROSECONDS[resolved]) * 1000
    else:
        whole = int(value)  # apart, because their product has more digits than a float
        result = whole * _SCALE[resolved] + round((value - whole) * _SCALE[resolved])
    if abs(result) > _LATEST:
        raise ValueError(f"{value!r:.60} is {_YEARS} when read as {resolved}; set time_unit")
    return result


def _unit_of(value: float) -> str:
    """Return the unit that `auto` reads a number in."""
    size = abs(value)
    return next((name for limit, name in _BANDS if size < limit), "ns")


def _from_timestamp(value: Timestamp | Ext) -> int:
    moment = value if isinstance(value, Timestamp) else Timestamp.from_bytes(bytes(value.data))
    result: int = moment.to_unix_nano()
    if abs(result) > _LATEST:
        raise ValueError(f"it is {_YEARS}")
    return result


def _from_text(text: str, unit: TimeUnit) -> int:
    written = text.strip().upper()
    if len(written) > _LONGEST:
        raise ValueError(f"text of {len(text)} characters is not a time")
    if unit != "iso8601":
        if number := _NUMBER.fullmatch(written):
            return to_nanoseconds(float(written) if number[2] else int(written), unit)
        if unit != "auto":
            raise ValueError(f"{text!r:.60} is not a number of {unit}")
    found = _ISO.fullmatch(written)
    date, time, fraction, zone = found.groups("") if found else ("", "", "", "")
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{zone}" if time else date)
    except ValueError:
        raise ValueError(f"{text!r:.60} is not an ISO 8601 time such as 2026-11-22T10:00:00.5Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    result = seconds * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
    if abs(result) > _LATEST:
        raise ValueError(f"{text!r:.60} is {_YEARS}")
    return result


def column_to_nanoseconds(column: Sequence[Any], unit: TimeUnit) -> Times:
    """Return (N,) times of N values, the same as `to_nanoseconds` one by one but at once where all are of one kind.

    Raises:
        ValueError: one of them is not a time.
    """
    kinds = set(map(type, column))
    times: Times | None = None
    if unit != "iso8601" and kinds == {int}:
        times = _whole_column(column, unit)
    elif unit != "iso8601" and kinds == {float}:
        times = _real_column(column, unit)
    elif unit in {"auto", "iso8601"} and kinds == {str}:
        times = _utc_column(column)
    return np.array([to_nanoseconds(value, unit) for value in column], np.int64) if times is None else times


def evenly(first: int, count: int, rate: float) -> Times:
    """Return (count,) times of readings at an even rate, each to the nearest nanosecond: the millionth as the second.

    Args:
        first: ns since the Unix epoch.
        count: at least one.
        rate: readings in a second: the decimal number that it is written as.

    Raises:
        ValueError: there is no such rate, or the times go on beyond the year 2261.
    """
    if not 0 < rate < math.inf:
        raise ValueError(f"a rate of {rate}; expected readings in a second, more than 0")
    exact = Fraction(repr(float(rate)))
    step, doubled = 2 * NS * exact.denominator, 2 * exact.numerator
    if first + ((count - 1) * step + exact.numerator) // doubled > _LATEST:
        raise ValueError(f"the last of {count} readings at a rate of {rate} is after the year 2261")
    if count * step + doubled <= _LATEST:
        return first + (np.arange(count, dtype=np.int64) * step + exact.numerator) // doubled
    return np.array([first + (index * step + exact.numerator) // doubled for index in range(count)], np.int64)


def _whole_column(column: Sequence[int], unit: str) -> Times | None:
    """Return the times of integers that are in one unit and in range; None otherwise."""
    if min(column) < -_LATEST or max(column) > _LATEST:
        return None
    whole: Ints = np.array(column, np.int64)
    sizes = np.abs(whole)
    smallest, largest = int(sizes.min()), int(sizes.max())
    resolved = _unit_of(largest) if unit == "auto" else unit
    if (unit == "auto" and _unit_of(smallest) != resolved) or largest > _LATEST // _SCALE[resolved]:
        return None
    return whole * np.int64(_SCALE[resolved])


def _real_column(column: Sequence[float], unit: str) -> Times | None:
    """Return the times of floats that are in one unit, seconds or milliseconds, and in range; None otherwise."""
    real: Floats = np.array(column, np.float64)
    sizes = np.abs(real)
    smallest, largest = float(sizes.min()), float(sizes.max())
    resolved = _unit_of(largest) if unit == "auto" else unit
    scale = _MICROSECONDS.get(resolved)
    if scale is None or (unit == "auto" and _unit_of(smallest) != resolved):
        return None
    if not largest < _SURELY_INSIDE / 1000 / scale:  # a NaN is not, either
        return None
    return np.rint(real * scale).astype(np.int64) * np.int64(1000)


def _utc_column(column: Sequence[str]) -> Times | None:
    """Return the times of texts that are all in the form that nearly everyone writes; None otherwise."""
    if not _UTC_LINES.fullmatch("\n".join(column) + "\n"):
        return None
    try:
        moments = np.array([text[:-1] for text in column], "datetime64[ns]")
    except ValueError:  # a 30th of February; it is said which of them it is when they are looked at one by one
        return None
    return moments.astype(np.int64)
