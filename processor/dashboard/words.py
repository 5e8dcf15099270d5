"""Numbers and times as people read them."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Final

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP: Final = 1024
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
_FIRST_YEAR: Final = 1000
_LAST_YEAR: Final = 9000


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


def moment(text: str, zone: tzinfo | None) -> datetime | None:
    """Return a time that a processor has written, in a zone; None where it is none, or is nowhere near ours."""
    try:
        found = datetime.fromisoformat(text)
        usable = found.tzinfo is not None and _FIRST_YEAR <= found.year <= _LAST_YEAR
        return found.astimezone(zone) if usable else None
    except ValueError:
        return None


def when(text: str, now: datetime) -> str:
    """Return a time that a processor has written as the people at its page would: in their zone, a day only if needed.

    Args:
        text: RFC 3339.
        now: in the zone to write it in.
    """
    local = moment(text, now.tzinfo)
    if local is None:
        return text
    days = (local.date() - now.date()).days
    clock = f"{local:%H:%M:%S}"
    if days == 0:
        return clock
    return f"{local:%a} {clock}" if abs(days) < 7 else f"{local:%Y-%m-%d} {clock}"  # noqa: PLR2004 - a weekday is unique
