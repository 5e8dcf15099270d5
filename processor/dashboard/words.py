"""Numbers and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP: Final = 1024
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400


def count(number: float) -> str:
    """Return a whole number with its thousands apart."""
    return f"{number:,.0f}"


def rate(number: float) -> str:
    """Return a rate: whole from ten on."""
    return f"{number:,.0f}" if number >= 10 or number == 0 else f"{number:.2g}"  # noqa: PLR2004


def share(part: float) -> str:
    """Return a share in percent, with as many digits as say something."""
    percent = 100 * part
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"  # noqa: PLR2004


def size(number: float) -> str:
    """Return bytes in a unit that is short."""
    for unit in _UNITS:
        if number < _STEP or unit == _UNITS[-1]:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= _STEP
    raise AssertionError(number)


def span(seconds: float) -> str:
    """Return a length of time in its largest unit."""
    for length, unit in ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute")):
        if seconds >= length:
            whole = round(seconds / length)
            return f"{whole} {unit}{'s' * (whole != 1)}"
    return f"{seconds:.0f} s"


def moment(text: str) -> datetime | None:
    """Return a time that a processor has written; None where it is none."""
    try:
        found = datetime.fromisoformat(text)
        return None if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def when(text: str, now: datetime) -> str:
    """Return a time that a processor has written as the people at its page would: in their zone, a day only if needed.

    Args:
        text: RFC 3339.
        now: in the zone to write it in.
    """
    found = moment(text)
    if found is None:
        return text
    try:
        local = found.astimezone(now.tzinfo)
    except OverflowError:  # on the first or the last day that there is
        return text
    days = (local.date() - now.date()).days
    clock = f"{local:%H:%M:%S}"
    if days == 0:
        return clock
    return f"{local:%a} {clock}" if abs(days) < 7 else f"{local:%Y-%m-%d} {clock}"  # noqa: PLR2004 - a weekday is unique
