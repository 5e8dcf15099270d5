"""JSON: how payloads are read, and what is wrong with one that is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from processor.decoders.checks import Unusable
from processor.decoders.codec import Codec

_EXACT: Final = 400
"""Digits of an integer beyond which it is infinite as a float anyway."""


def _parse(payload: bytes) -> object:
    """Return what a payload holds."""
    if not payload.strip():
        raise Unusable("decode", "the payload is empty; expected JSON")
    try:
        return msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        pass
    # Python's own reader takes NaN and numbers of any size, so that it can be said which field holds one.
    try:
        return json.loads(payload.decode("utf-8-sig"), parse_int=_whole)
    except UnicodeDecodeError as error:
        detail = f"byte {error.start} is 0x{payload[error.start]:02x}, which is not UTF-8"
    except json.JSONDecodeError as error:
        detail = f"{error.msg} at character {error.pos}"
    except RecursionError:
        detail = "it has too many arrays or objects inside one another"
    raise Unusable("decode", f"the payload is not JSON: {detail}")


def _whole(digits: str) -> float:
    return int(digits) if len(digits) <= _EXACT else float(digits)


def _typed(of_type: Any) -> Callable[[bytes], Any]:  # noqa: ANN401 - any type that msgspec knows
    return msgspec.json.Decoder(of_type).decode


def _begins_array(payload: bytes) -> bool:
    return payload.startswith(b"[")


JSON: Final = Codec(_parse, _typed, _begins_array)
