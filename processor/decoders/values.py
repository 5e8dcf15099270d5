"""What stands in a payload of objects and arrays: where a field is, and what may be a number or a stream's key."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import cbor2
import numpy as np
from msgpack import Timestamp
from msgspec.msgpack import Ext

from processor.decoders.checks import Unusable
from processor.decoders.times import KINDS
from processor.types import Flags, Floats

LONGEST_KEY: Final = 65_535
"""Characters of a stream's key in a payload: as many as a topic may have."""
_PLAIN: Final = frozenset((int, float))
_WHOLE: Final = re.compile("0|-?[1-9][0-9]{0,17}")

_KINDS: Final = {**KINDS, Timestamp: "a time", Ext: "a time"}

Pointer = tuple[str, ...]
"""The steps to a field."""


class _Absent:
    """Stands for a field that is not there; None is a null."""


ABSENT: Final = _Absent()


def pointer(field: str) -> Pointer:
    """Return the steps to a field: a name, or a JSON pointer (RFC 6901) when it starts with a slash."""
    if not field.startswith("/"):
        return (field,)
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in field[1:].split("/"))


def key_field(template: str) -> str | None:
    """Return the field that a stream template takes its key from, if any."""
    start = template.find("{field:")
    return None if start < 0 else template[start + 7 : template.index("}", start)]


def look_up(value: object, steps: Pointer) -> object:
    """Return what is at the end of `steps`, or `ABSENT`."""
    for step in steps:
        if isinstance(value, dict):
            found = value.get(step, ABSENT)
            if found is ABSENT and _WHOLE.fullmatch(step):  # not every format's keys are texts
                found = value.get(int(step), ABSENT)
            value = found
        elif isinstance(value, list) and _WHOLE.fullmatch(step) and 0 <= int(step) < len(value):
            value = value[int(step)]
        else:
            return ABSENT
    return value


def is_missing(value: object) -> bool:
    """Whether a field is absent, null, or CBOR's undefined."""
    return value is None or value is ABSENT or value is cbor2.undefined


class Missing:
    """What becomes of fields that are missing in a source's payloads."""

    def __init__(self, policy: Literal["reject", "hold"] | float) -> None:
        """Take a source's policy."""
        self.allowed = policy != "reject"
        self._constant = policy if isinstance(policy, float) else None

    def numbers(self, values: Sequence[Any], what: Callable[[int], str]) -> Sequence[float | None]:
        """Return values as floats, None for what is missing; `what` names the one at a position in a sentence."""
        if not self.allowed or not any(map(is_missing, values)):
            return numbers(values, what)
        return [None if is_missing(value) else number(value, what(at)) for at, value in enumerate(values)]

    def fill(self, values: Floats, cells: Sequence[Sequence[float | None]]) -> Flags | None:
        """Return which values are to be held; a constant is put into `values`.

        Args:
            values: two dimensions; NaN where they are missing.
            cells: the same, with None there.
        """
        if not self.allowed or not np.isnan(values).any():
            return None
        absent = np.array([[cell is None for cell in row] for row in cells], np.bool_)
        if self._constant is None:
            return absent
        values[absent] = self._constant
        return None


def numbers(values: Sequence[Any], what: Callable[[int], str]) -> list[float]:
    """Return values as floats; `what` names the one at a position in a sentence."""
    if _PLAIN.issuperset(map(type, values)):
        try:
            return list(map(float, values))
        except OverflowError:
            pass
    return [number(value, what(position)) for position, value in enumerate(values)]


def number(value: object, what: str) -> float:
    """Return a value as a float: a number, text of one, or a boolean; `what` names it in a sentence."""
    if isinstance(value, int | float):  # true and false are 1 and 0
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str):
        try:
            return float(value.replace("_", "no digit"))
        except ValueError:
            raise Unusable("field", f"{what} is {value!r:.60}; expected a number") from None
    raise Unusable("field", f"{what} is {kind(value)}; expected a number")


def checked_key(value: object, what: str) -> str:
    """Return a stream's key; `what` names its field in a sentence."""
    named = f"{what} names the stream"
    refused = isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value))
    if refused or not isinstance(value, str | int | float):
        raise Unusable("field", f"{named}; expected text, found {kind(value)}")
    key = str(value)
    if not 0 < len(key) <= LONGEST_KEY:
        raise Unusable("field", f"{named}; expected 1 to {LONGEST_KEY} characters, found {len(key)}")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise Unusable("field", f"{named}; {key!r:.60} holds half a surrogate pair, which is no character") from None
    return key


def kind(value: object) -> str:
    """Return what a value is called in a sentence."""
    if value is ABSENT:
        return "missing"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is cbor2.undefined:
        return "undefined"
    return "empty" if value in ([], {}, "") else _KINDS.get(type(value), "of an unknown type")
