"""Sparkplug B as others send it, and payloads for the cases that no library makes."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
START = 1_790_000_000_000
"""When the recorded sessions' metrics begin: milliseconds since the Unix epoch."""

Value = int | float | str | bytes | None


class Sent(NamedTuple):
    """A message."""

    topic: str
    payload: bytes


def recorded(library: str) -> list[Sent]:
    """Return the messages of a library's recorded session."""
    lines = [json.loads(line) for line in (HERE / f"{library}.jsonl").read_text().splitlines()]
    return [Sent(line["topic"], base64.b64decode(line["payload"])) for line in lines]


# What follows writes protocol buffers by hand, from the numbers in the standard alone.

INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FLOAT, DOUBLE, BOOLEAN, STRING, DATETIME, TEXT = range(1, 15)
_INT, _LONG, _FLOAT, _DOUBLE, _BOOLEAN, _STRING = range(10, 16)
_FIELDS = {FLOAT: _FLOAT, DOUBLE: _DOUBLE, BOOLEAN: _BOOLEAN, STRING: _STRING, TEXT: _STRING}
_FIELDS |= dict.fromkeys((INT8, INT16, INT32, UINT8, UINT16, UINT32), _INT)
_FIELDS |= dict.fromkeys((INT64, UINT64, DATETIME), _LONG)
BYTES_VALUE, DATASET_VALUE, TEMPLATE_VALUE, EXTENSION_VALUE = range(16, 20)


def varint(value: int) -> bytes:
    """Return a whole number from 0 up to below 2^64."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def tagged(number: int, value: Value) -> bytes:
    """Return a field: a whole number, bytes or text; nothing where there is no value."""
    if value is None:
        return b""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def metric(
    name: str | None = None,
    value: Value = None,
    *,
    kind: int = DOUBLE,
    alias: int | None = None,
    at: int | None = None,
    typed: bool = True,
    null: bool = False,
    history: bool = False,
    quality: int | None = None,
    field: int | None = None,
) -> bytes:
    """Return one metric.

    Args:
        name: its name.
        value: as it stands in its field.
        kind: its data type.
        alias: the number that stands for its name.
        at: when it was, in ms after START.
        typed: whether it says its type.
        null: whether it says that there is no value.
        history: whether it says that it is not of now.
        quality: code of its quality.
        field: number of the value's field; absent: the type's.
    """
    if value is not None and kind in (FLOAT, DOUBLE) and field is None:
        value = float(value)
    number = field or _FIELDS[kind]
    written = varint(number << 3 | 5) + struct.pack("<f", value) if number == _FLOAT else tagged(number, value)
    quality_value = b"" if quality is None else tagged(1, INT32) + tagged(3, quality)
    properties = None if quality is None else tagged(1, "Quality") + tagged(2, quality_value)
    return b"".join(
        [
            tagged(1, name),
            tagged(2, alias),
            tagged(3, None if at is None else START + at),
            tagged(4, kind if typed else None),
            tagged(5, history or None),
            tagged(7, null or None),
            tagged(9, properties),
            written,
        ]
    )


def payload(
    metrics: Iterable[bytes] = (), *, seq: int | None = None, at: int | None = None, uuid: str = "", body: bytes = b""
) -> bytes:
    """Return one payload; `at` is in ms after START."""
    sent = tagged(1, None if at is None else START + at)
    inside = b"".join(tagged(2, one) for one in metrics)
    return sent + inside + tagged(3, seq) + tagged(4, uuid or None) + tagged(5, body or None)


def compressed(inner: bytes, *, bits: int = zlib.MAX_WBITS) -> bytes:
    """Return a payload whose body is another one, compressed: 15 bits are DEFLATE's, 31 those of GZIP."""
    compressor = zlib.compressobj(wbits=bits)
    body = compressor.compress(inner) + compressor.flush()
    return payload(uuid="SPBV1.0_COMPRESSED", body=body)
