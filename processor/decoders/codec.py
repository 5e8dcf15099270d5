"""What differs between the formats that write trees of objects and arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

ODD_KEYS: Final = 32 << 10
"""Bytes of a payload up to which its objects may have other keys than text, where the format allows them. Numbers and
arrays can be chosen so that a dict of them takes the square of their count."""


class Codec(NamedTuple):
    """One way of writing trees."""

    parse: Callable[[bytes], object]
    """Returns what a payload holds: dict, list, str, int, float, bool, None; raises Unusable."""
    typed: Callable[[Any], Callable[[bytes], Any]]
    """Returns what turns payloads into a type of msgspec's; that raises ValueError or RecursionError."""
    begins_array: Callable[[bytes], bool]
    """Whether a payload, if it is one at all, is an array; may be wrong, and costs time then."""
