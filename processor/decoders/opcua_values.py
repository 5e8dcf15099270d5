"""What a value of OPC UA's JSON encoding is (OPC 10000-6, 5.4): a DataValue, a Variant, or the value alone.

Of the encodings of 1.04, reversible or not, and of 1.05, verbose or compact; they differ in names and in what they
leave out, so that one reader does for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from processor.decoders.checks import Unusable
from processor.decoders.values import ABSENT, kind

_NUMBERS: Final = range(1, 12)
"""The types Boolean to Double, whose value 1.05 may leave out where it is 0."""
_STATUS_CODES: Final = (19, "StatusCode")
"""The type of a status that stands in place of a value."""
_BAD: Final = 0x8000_0000
"""Of a status: it is set in those of severity bad, and in those of the severity that is not used."""


def value_and_time(entry: object, status: object) -> tuple[object, object]:
    """Return the value in an entry and its SourceTimestamp, as they stand there.

    A value that is missing is `ABSENT`, a DataValue's time that is missing None. What is no DataValue, has no room
    for a time: it is `ABSENT`.

    Args:
        entry: as it stands in a payload.
        status: of the message, for what is no DataValue; None where there is none.

    Raises:
        Unusable: its status is bad.
    """
    if not isinstance(entry, dict):
        refuse_bad(status)
        return entry, ABSENT
    own = entry.get("StatusCode")
    refuse_bad(entry.get("Status") if own is None else own)
    value = entry.get("Value", ABSENT)
    time = entry.get("SourceTimestamp")
    if time is None and ("Body" in entry or "UaType" in entry or "Code" in entry):
        refuse_bad(status)
        return _unwrapped(entry), ABSENT
    if isinstance(value, dict):
        return _unwrapped(value), time
    return _left_out(entry) if value is ABSENT else value, time


def refuse_bad(status: object) -> None:
    """Refuse a bad status: a number, an object of number and name, or a name; good and uncertain ones pass.

    Raises:
        Unusable: it is bad, or is no status.
    """
    if not status:  # the good one, in any of the ways
        return
    code, name = (status.get("Code"), status.get("Symbol")) if isinstance(status, dict) else (status, status)
    if not isinstance(name, str):
        name = ""
    if isinstance(code, int):
        if not code & _BAD:
            return
        said = f"{name:.60} (0x{code & 0xFFFF_FFFF:08X})" if name else f"0x{code & 0xFFFF_FFFF:08X}"
    elif name:
        if not name.startswith("Bad"):
            return
        said = f"{name:.60}"
    else:
        said = kind(status)
    raise Unusable("quality", f"its status is {said}; expected one that is good or uncertain")


def _unwrapped(variant: Mapping[str, Any]) -> object:
    """Return the value in a Variant."""
    if "Body" in variant:
        if variant.get("Type") in _STATUS_CODES:
            refuse_bad(variant["Body"])
        return variant["Body"]
    if "UaType" in variant:
        found = variant.get("Value", ABSENT)
        if isinstance(found, dict) and "Code" in found:
            refuse_bad(found)
        return _left_out(variant) if found is ABSENT else found
    if "Code" in variant:
        refuse_bad(variant)
    return variant


def _left_out(variant: Mapping[str, Any]) -> object:
    """Return the value of a Variant that has none: the one that its type begins with."""
    of_type = variant.get("UaType")
    return 0 if isinstance(of_type, int) and of_type in _NUMBERS else ABSENT
