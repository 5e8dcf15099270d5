"""MessagePack: how payloads are read, and what is wrong with one that is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgpack
import msgspec

from processor.decoders.checks import Unusable
from processor.decoders.codec import ODD_KEYS, Codec

_ARRAYS: Final = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))
"""First bytes of arrays."""


def _parse(payload: bytes) -> object:
    """Return what a payload holds.

    Not read by msgspec: its timestamps have microseconds, and it takes arrays for keys.
    """
    if not payload:
        raise Unusable("decode", "the payload is empty; expected MessagePack")
    try:
        value: object = msgpack.unpackb(payload, strict_map_key=len(payload) > ODD_KEYS)
    except msgpack.ExtraData as error:
        detail = f"{len(error.extra)} bytes follow its end"
    except msgpack.StackError:
        detail = "it has too many arrays or objects inside one another"
    except msgpack.FormatError:
        detail = "it has the byte 0xc1, which begins nothing"
    except UnicodeDecodeError as error:
        detail = f"it has text with the byte 0x{error.object[error.start]:02x}, which is not UTF-8"
    except TypeError:
        detail = "it has a key that is an array or an object"
    except ValueError as error:
        cut = "incomplete" in str(error) or "exceeds max" in str(error)
        detail = "it ends before it is complete" if cut else str(error)
    else:
        return value
    raise Unusable("decode", f"the payload is not MessagePack: {detail}")


def _typed(of_type: Any) -> Callable[[bytes], Any]:  # noqa: ANN401 - any type that msgspec knows
    return msgspec.msgpack.Decoder(of_type).decode


def _begins_array(payload: bytes) -> bool:
    return payload != b"" and payload[0] in _ARRAYS


MSGPACK: Final = Codec(_parse, _typed, _begins_array)
