"""CBOR (RFC 8949): how payloads are read, what their tags mean, and what is wrong with one that is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Any, Final

import cbor2
import msgspec
import numpy as np
from msgpack import Timestamp
from msgspec.msgpack import Ext

from processor.decoders.checks import Unusable
from processor.decoders.codec import ODD_KEYS, Codec
from processor.decoders.times import TIMESTAMP, TimeUnit, to_nanoseconds

_DEEPEST: Final = 100
"""Arrays, objects and tags inside one another."""
_WIDEST: Final = 128
"""Bytes of a whole number beyond which it is infinite as a float."""
_TEN: Final = 400
"""Powers of ten beyond which a number is zero or infinite as a float, with a mantissa that is none."""
_ARRAYS: Final[Mapping[int, str]] = {
    64: "u1",
    65: ">u2",
    66: ">u4",
    67: ">u8",
    68: "u1",
    69: "<u2",
    70: "<u4",
    71: "<u8",
    72: "i1",
    73: ">i2",
    74: ">i4",
    75: ">i8",
    77: "<i2",
    78: "<i4",
    79: "<i8",
    80: ">f2",
    81: ">f4",
    82: ">f8",
    84: "<f2",
    85: "<f4",
    86: "<f8",
}
"""Tags of arrays of numbers of one type (RFC 8746, 2.1)."""


_TAGGED: Final = object()
"""What has a tag that means nothing here."""


def _time(unit: TimeUnit, value: Any, _: bool) -> object:  # noqa: ANN401, FBT001 - cbor2 calls it
    """Return the time that tag 0 or 1 says; what it holds, if that is none."""
    try:
        moment = Timestamp.from_unix_nano(to_nanoseconds(value, unit))
    except ValueError:
        return value
    return Ext(TIMESTAMP, moment.to_bytes())


def _whole(sign: int, value: Any, _: bool) -> object:  # noqa: ANN401, FBT001 - cbor2 calls it
    """Return the number of tag 2 or 3."""
    if not isinstance(value, bytes):
        return _TAGGED
    size = int.from_bytes(value) if len(value.lstrip(b"\0")) <= _WIDEST else math.inf
    return size if sign > 0 else -1 - size


def _decimal(value: Any, _: bool) -> object:  # noqa: ANN401, FBT001 - cbor2 calls it
    """Return the number of tag 4: an exponent of ten, and a mantissa."""
    match value:
        case [int(exponent), int(mantissa)]:
            return float(f"{int(mantissa)}e{max(-2 * _TEN, min(int(exponent), _TEN))}")
    return _TAGGED


def _array(dtype: str, value: Any, _: bool) -> object:  # noqa: ANN401, FBT001 - cbor2 calls it
    """Return the numbers of a typed array."""
    if not isinstance(value, bytes) or len(value) % np.dtype(dtype).itemsize:
        return _TAGGED
    return np.frombuffer(value, dtype).tolist()


def _itself(value: Any, _: bool) -> object:  # noqa: ANN401, FBT001 - cbor2 calls it
    return value


def _nothing(_: Any, __: bool) -> object:  # noqa: ANN401, FBT001 - cbor2 calls it
    return _TAGGED


_TAGS: Final[Mapping[int, Callable[[Any, bool], object]]] = {
    # What cbor2 makes of these by itself takes time, or memory, that the payload's size does not bound.
    **dict.fromkeys((5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000), _nothing),
    0: partial(_time, "iso8601"),
    1: partial(_time, "s"),
    2: partial(_whole, 1),
    3: partial(_whole, -1),
    4: _decimal,
    **{tag: partial(_array, dtype) for tag, dtype in _ARRAYS.items()},
    55799: _itself,
}


def _load(payload: bytes) -> object:
    """Return what a payload holds.

    Raises:
        ValueError: it is no CBOR.
    """
    stream = BytesIO(payload)
    decoder = cbor2.CBORDecoder(
        stream,
        semantic_decoders=_TAGS,
        tag_hook=_nothing,
        max_depth=_DEEPEST,
        strict_hashable_types=len(payload) > ODD_KEYS,
    )
    try:
        value = decoder.decode()
    except cbor2.CBORError as error:
        raise ValueError(str(error)) from None
    if stream.tell() < len(payload):
        raise ValueError(f"{len(payload) - stream.tell()} bytes follow its end")
    return value


def _parse(payload: bytes) -> object:
    if not payload:
        raise Unusable("decode", "the payload is empty; expected CBOR")
    try:
        return _load(payload)
    except ValueError as error:
        raise Unusable("decode", f"the payload is not CBOR: {error}") from None


def _typed(of_type: Any) -> Callable[[bytes], Any]:  # noqa: ANN401 - any type that msgspec knows
    def decode(payload: bytes) -> Any:  # noqa: ANN401 - one of that type
        return msgspec.convert(_load(payload), of_type)

    return decode


def _begins_array(payload: bytes) -> bool:
    return payload[:1] >= b"\x80" and payload[:1] < b"\xa0"


CBOR: Final = Codec(_parse, _typed, _begins_array)
