"""Whether a value is a time, and in which unit: it is near the time of arrival, or at least of these years."""

from __future__ import annotations

import re
from typing import Final

from processor.decoders.times import TIMESTAMPS, TimeUnit, to_nanoseconds
from processor.types import NS

_EARLIEST: Final = 946_684_800 * NS
"""2000-01-01."""
_LATEST: Final = 2_524_608_000 * NS
"""2050-01-01."""
_SCALES: Final[tuple[tuple[TimeUnit, int], ...]] = (("s", NS), ("ms", NS // 1000), ("us", 1000), ("ns", 1))
_DIGITS: Final = re.compile(r"[0-9]{9,20}(\.[0-9]*)?")
_DATED: Final = re.compile(r"[0-9]{4}-?[0-9W]{2}-?[0-9]{1,2}([T ]|$)")


def moment(value: object) -> tuple[int, TimeUnit] | None:
    """Return a time in ns since the Unix epoch with its unit; None where a value is none of the years 2000 to 2050."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, *TIMESTAMPS)):
        return None
    unit: TimeUnit
    if isinstance(value, TIMESTAMPS):
        unit = "auto"
    elif isinstance(value, str) and not _DIGITS.fullmatch(value.strip()):
        if not _DATED.match(value.strip()):
            return None
        unit = "iso8601"
    else:
        number = float(value) if isinstance(value, str) else value
        found = next((unit for unit, scale in _SCALES if _EARLIEST <= number * scale < _LATEST), None)
        if found is None:
            return None
        unit = found
    try:
        time = to_nanoseconds(value, unit)
    except ValueError:
        return None
    return (time, unit) if _EARLIEST <= time < _LATEST else None


def is_moment(value: object) -> bool:
    """Whether a value may be a time."""
    return moment(value) is not None
