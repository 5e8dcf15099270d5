"""MessagePack and CBOR: bytes that are wholly one value, of the kind that sensors send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from processor.decoders.cbor import CBOR
from processor.decoders.checks import Unusable
from processor.decoders.codec import Codec
from processor.decoders.msgpack import MSGPACK
from processor.discover import trees
from processor.discover.look import Look

_CODECS: Final[Mapping[str, Codec]] = {"msgpack": MSGPACK, "cbor": CBOR}
_LONE: Final = (5, 9)
"""Bytes of a floating-point number by itself. A whole number by itself may be any bytes."""


def look_at(payload: bytes) -> Look | None:
    """Return what a payload holds in the format that makes most sense of it; None where none does."""
    found = []
    for format_, codec in _CODECS.items():
        try:
            tree = codec.parse(payload)
        except Unusable:
            continue
        if _makes_sense(tree, payload):
            look = trees.look_at(tree, format_)
            if look.format:
                found.append(look)
    # Names are what chance does not make.
    return max(found, key=lambda look: look.kind not in ("numbers", "number"), default=None)


def _makes_sense(tree: object, payload: bytes) -> bool:
    """Whether a value is what a sensor would send, rather than what the first of some other bytes happen to mean."""
    if isinstance(tree, dict):
        return bool(tree) and all(isinstance(key, str) and key.isprintable() and key for key in tree)
    if isinstance(tree, list):
        if tree and all(isinstance(item, dict) for item in tree):
            return all(_makes_sense(item, payload) for item in tree)
        return len(tree) > 1 and all(map(trees.is_number, tree))
    return isinstance(tree, float) and len(payload) in _LONE
