"""Durations and sizes as users write them: `10s`, `64KiB`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from processor.document import describe

_NS_IN: Final[Mapping[str, int]] = {
    "d": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
}
_BYTES_IN: Final[Mapping[str, int]] = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
_DURATION: Final = r"^([0-9]{1,19})(ms|s|m|h|d)$"
_SIZE: Final = r"^([0-9]{1,19})(B|KiB|MiB|GiB|TiB)$"
_LARGEST: Final = 2**60
_LONGEST: Final = 36_500 * _NS_IN["d"]  # keeps every sum with a time of this century inside 64 bits


def _duration(value: object) -> int:
    if value == "0" or (value == 0 and type(value) is int):
        return 0
    match = re.fullmatch(_DURATION, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"found {describe(value)}, expected a duration with its unit, such as 500ms, 10s, 5m, 2h or 7d"
        )
    duration = int(match[1]) * _NS_IN[match[2]]
    if duration > _LONGEST:
        raise ValueError(f"found {value}, expected a duration of at most 36500d")
    return duration


def _positive(duration: int) -> int:
    if duration == 0:
        raise ValueError("found a duration of 0, expected a longer one, such as 10s")
    return duration


def duration_text(duration: int) -> str:
    """Write nanoseconds the way users do, in the largest unit that holds them exactly; whole milliseconds."""
    if duration == 0:
        return "0s"
    unit = next((unit for unit, length in _NS_IN.items() if duration % length == 0), "ms")
    return f"{duration // _NS_IN[unit]}{unit}"


def _size(value: object) -> int:
    written = f"{value}B" if type(value) is int else value
    match = re.fullmatch(_SIZE, written) if isinstance(written, str) else None
    if match is None:
        raise ValueError(f"found {describe(value)}, expected a size in bytes, such as 65536, 64KiB, 1MiB or 1GiB")
    size = int(match[1]) * _BYTES_IN[match[2]]
    if size > _LARGEST:
        raise ValueError(f"found {value}, expected a size of at most {size_text(_LARGEST)}")
    return size


def size_text(size: int) -> str:
    """Write bytes the way users do, in the largest unit that holds them exactly."""
    unit = next(unit for unit, length in _BYTES_IN.items() if size % length == 0) if size else "B"
    return f"{size // _BYTES_IN[unit]}{unit}"


Duration = Annotated[
    int,
    BeforeValidator(_duration),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _DURATION}, {"const": 0}]}),
]
"""Nanoseconds, written `500ms`, `10s`, `5m`, `2h`, `7d` or 0."""

PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
"""Nanoseconds, at least a millisecond."""

ByteSize = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(size_text, return_type=str),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _SIZE}, {"type": "integer", "minimum": 0}]}),
]
"""Bytes, written `64KiB`, `1MiB`, `1GiB` or as a bare number."""
