"""MessagePack: how payloads are read, timestamps to the nanosecond, and what is wrong with one that is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec.msgpack import Ext

from processor.decoders.checks import Unusable
from processor.decoders.times import Instant
from processor.decoders.tree import Codec
from processor.types import NS

_TIMESTAMPS: Final = (b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c\xff")
"""How timestamps begin, in the specification's three sizes; any of it may as well be a part of something else."""
_MAPS: Final = frozenset((*range(0x80, 0x90), 0xDE, 0xDF))
_ARRAYS: Final = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))
_EXTENSIONS: Final = frozenset((0xC7, 0xD6, 0xD7))
"""First bytes of values that are, or may be, what the names say."""
_DEEPEST: Final = 100
"""Arrays and objects inside one another where there are timestamps; without them it is Python's own limit."""

_one: Final = msgspec.msgpack.Decoder().decode
_extension: Final = msgspec.msgpack.Decoder(Ext).decode
_items: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_members: Final = msgspec.msgpack.Decoder(dict[Any, msgspec.Raw]).decode


def _parse(payload: bytes) -> object:
    """Return what a payload holds."""
    if not payload:
        raise Unusable("decode", "the payload is empty; expected MessagePack")
    try:
        # msgspec by itself makes times of microseconds.
        return _exactly(payload) if any(begin in payload for begin in _TIMESTAMPS) else _one(payload)
    except RecursionError:
        detail = "it has too many arrays or objects inside one another"
    except UnicodeDecodeError as error:
        detail = f"it has text with the byte 0x{error.object[error.start]:02x}, which is not UTF-8"
    except ValueError as error:
        detail = str(error).removeprefix("MessagePack data is malformed: ")
    raise Unusable("decode", f"the payload is not MessagePack: {detail}")


def _exactly(written: bytes | msgspec.Raw, depth: int = 0) -> object:
    """Return a value whose timestamps are `Instant`s.

    Raises:
        RecursionError: it is too deep.
        ValueError: it is no MessagePack.
    """
    first = memoryview(written)[0]
    if depth > _DEEPEST:
        raise RecursionError
    if first in _MAPS:
        return {key: _exactly(value, depth + 1) for key, value in _members(written).items()}
    if first in _ARRAYS:
        return [_exactly(item, depth + 1) for item in _items(written)]
    if first in _EXTENSIONS:
        return _timestamp(_extension(written))
    return _one(written)


def _timestamp(extension: Ext) -> object:
    data = bytes(extension.data)
    match extension.code, len(data):
        case -1, 4:
            return Instant(int.from_bytes(data) * NS)
        case -1, 8:
            both = int.from_bytes(data)
            return Instant((both & (1 << 34) - 1) * NS + (both >> 34))
        case -1, 12:
            return Instant(int.from_bytes(data[4:], signed=True) * NS + int.from_bytes(data[:4]))
    return extension


def _typed(of_type: Any) -> Callable[[bytes], Any]:  # noqa: ANN401 - any type that msgspec knows
    return msgspec.msgpack.Decoder(of_type).decode


def _begins_array(payload: bytes) -> bool:
    return payload != b"" and payload[0] in _ARRAYS


MSGPACK: Final = Codec(_parse, _typed, _begins_array)
