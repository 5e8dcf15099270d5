"""Sparkplug B's payloads, which are protocol buffers, and the numbers in them.

Only the fields that matter here are declared, with the standard's numbers; the others are skipped. Text is read as
bytes: names are only compared, and whether a name is UTF-8 matters to nobody. A template or a data set is no number
whatever it holds, so that it is not looked into either.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from processor.decoders.checks import Unusable

MOST_METRICS: Final = 200_000
"""In a payload; they take fifty times as much memory as an empty one has bytes."""
_METRIC_TAG: Final = b"\x12"
"""The first byte of each metric in a payload; where there are fewer such bytes, there are fewer metrics."""
_COMPRESSED: Final = b"SPBV1.0_COMPRESSED"
"""The `uuid` of a payload whose `body` is another one, compressed."""
_LARGEST: Final = 8 << 20
_PLAIN: Final = 64 << 10
_RATIO: Final = 100
"""A compressed payload may hold `_PLAIN` bytes and so many times its own size, and at most `_LARGEST`. Metrics shrink
to a tenth; what shrinks more was made to fill memories."""


class Lack(NamedTuple):
    """Why a field has no number."""

    why: str
    """What it is instead."""
    missing: bool = True
    """Whether there is nothing; else there is something that is no number."""


UNTOLD: Final = Lack("not told")
"""No birth, and no message since, has said what it is."""
_NULL: Final = Lack("null")
_UNTYPED: Final = Lack("a whole number without a data type", missing=False)

BOOLEAN: Final = 11
_SIGNED: Final = {1: 8, 2: 16, 3: 32, 4: 64}
"""Bits of the types Int8 to Int64, which stand in unsigned fields as two's complement; some libraries write 32 bits of
an Int8 or Int16."""
_WHOLE: Final = ("int_value", "long_value")
_NO_NUMBERS: Final = {
    "bytes_value": Lack("bytes or an array", missing=False),
    "dataset_value": Lack("a data set", missing=False),
    "template_value": Lack("a template", missing=False),
    "extension_value": Lack("an extension", missing=False),
}
_BAD: Final = {0: Lack("of bad quality (0)"), 500: Lack("of stale quality (500)")}
"""By the standard's codes of a quality that is not good."""
_GOOD: Final = 192


class Property(Protocol):
    """A value of some kind beside a metric's own."""

    int_value: int
    long_value: int


class Properties(Protocol):
    """What a metric has beside its value: two lists of the same length."""

    keys: Sequence[bytes]
    values: Sequence[Property]


class Metric(Protocol):
    """One metric. A number that is not there is 0, text is empty."""

    name: bytes
    alias: int
    timestamp: int
    """Milliseconds since the Unix epoch."""
    datatype: int
    is_historical: bool
    is_null: bool
    properties: Properties
    int_value: int
    long_value: int

    def HasField(self, name: str) -> bool:  # noqa: N802 - protobuf's name
        """Whether a field is there."""

    def WhichOneof(self, name: Literal["value"]) -> str | None:  # noqa: N802 - protobuf's name
        """Return which of the value's fields is there."""


class Payload(Protocol):
    """One payload."""

    timestamp: int
    """Milliseconds since the Unix epoch."""
    metrics: Sequence[Metric]
    seq: int
    uuid: bytes
    body: bytes

    def HasField(self, name: str) -> bool:  # noqa: N802 - protobuf's name
        """Whether a field is there."""

    def ByteSize(self) -> int:  # noqa: N802 - protobuf's name
        """Return its size as it is sent."""


def _declare() -> Any:  # noqa: ANN401 - protobuf makes classes at run time
    """Return the class of payloads."""
    kinds = {
        "u32": FieldDescriptorProto.TYPE_UINT32,
        "u64": FieldDescriptorProto.TYPE_UINT64,
        "bool": FieldDescriptorProto.TYPE_BOOL,
        "float": FieldDescriptorProto.TYPE_FLOAT,
        "double": FieldDescriptorProto.TYPE_DOUBLE,
        "bytes": FieldDescriptorProto.TYPE_BYTES,
    }
    value = {"int_value": "u32", "long_value": "u64", "float_value": "float", "double_value": "double"}
    value |= {"boolean_value": "bool", "string_value": "bytes"}
    messages: Mapping[str, Mapping[int, tuple[str, str]]] = {
        "Property": {3: ("int_value", "u32"), 4: ("long_value", "u64")},
        "Properties": {1: ("keys", "bytes*"), 2: ("values", "Property*")},
        "Metric": {
            1: ("name", "bytes"),
            2: ("alias", "u64"),
            3: ("timestamp", "u64"),
            4: ("datatype", "u32"),
            5: ("is_historical", "bool"),
            7: ("is_null", "bool"),
            9: ("properties", "Properties"),
            **dict(enumerate([*value.items(), *((name, "bytes") for name in _NO_NUMBERS)], 10)),
        },
        "Payload": {
            1: ("timestamp", "u64"),
            2: ("metrics", "Metric*"),
            3: ("seq", "u64"),
            4: ("uuid", "bytes"),
            5: ("body", "bytes"),
        },
    }
    file = FileDescriptorProto(name="sparkplug_b", syntax="proto2")
    for message, fields in messages.items():
        declared = file.message_type.add(name=message)
        for number, (name, kind) in fields.items():
            plain = kind.removesuffix("*")
            label = FieldDescriptorProto.LABEL_OPTIONAL if plain == kind else FieldDescriptorProto.LABEL_REPEATED
            field = declared.field.add(name=name, number=number, label=label)
            if plain in kinds:
                field.type = kinds[plain]
            else:
                field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{plain}"
            if message == "Metric" and name.endswith("_value"):
                field.oneof_index = 0
        if message == "Metric":
            declared.oneof_decl.add(name="value")
    pool = DescriptorPool()  # of our own: others declare the same names
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("Payload"))


_PAYLOAD: Final = _declare()


def parse(data: bytes) -> Payload:
    """Return what a message's payload holds, decompressed.

    Raises:
        Unusable: it is no such payload, holds nothing, or is too large.
    """
    if not data:
        raise Unusable("decode", "the payload is empty; expected a protocol buffer")
    payload = _parse(data)
    if payload.uuid == _COMPRESSED:
        outer, payload = payload, _parse(_decompress(payload.body))
        if outer.HasField("seq") and not payload.HasField("seq"):
            payload.seq = outer.seq
    if not payload.HasField("seq") and not payload.metrics:
        raise Unusable("decode", "the payload has no metrics and no number (seq)")
    return payload


def _parse(data: bytes) -> Payload:
    if data.count(_METRIC_TAG) > MOST_METRICS:
        raise Unusable("too_large", f"the payload has more than {MOST_METRICS} metrics")
    try:
        payload: Payload = _PAYLOAD.FromString(data)
    except DecodeError:
        raise Unusable("decode", "the payload is not one of Sparkplug B (a protocol buffer)") from None
    return payload


def _decompress(body: bytes) -> bytes:
    most = min(_PLAIN + _RATIO * len(body), _LARGEST)
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)  # DEFLATE or GZIP, as its first bytes say
    try:
        data = decompressor.decompress(body, most)
    except zlib.error:
        raise Unusable("decode", "the payload's body is not compressed with DEFLATE or GZIP") from None
    if decompressor.unconsumed_tail:
        raise Unusable("too_large", f"the payload's body has {len(body)} bytes and decompressed more than {most}")
    if not decompressor.eof:
        raise Unusable("decode", "the payload's compressed body is cut off")
    return data


def number(metric: Metric, datatype: int) -> float | Lack:
    """Return a metric's value, or why it is no number.

    Args:
        metric: the metric.
        datatype: its own, or the one that its birth gave; 0: unknown.
    """
    field = metric.WhichOneof("value")
    if field is None or metric.is_null:
        return _NULL
    if metric.HasField("properties") and (lack := _BAD.get(_quality(metric.properties))):
        return lack
    if field in _NO_NUMBERS:
        return _NO_NUMBERS[field]
    value = getattr(metric, field)
    if field in _WHOLE:
        if not datatype:
            return _UNTYPED
        bits = _SIGNED.get(datatype)
        if bits is not None:
            value &= (1 << bits) - 1
            value -= value >> (bits - 1) << bits
    elif field == "string_value":
        return _from_text(value)
    return float(value)


def _quality(properties: Properties) -> int:
    """Return the code of a metric's quality; that of a good one where it has none."""
    for key, value in zip(properties.keys, properties.values, strict=False):
        if key == b"Quality":
            return value.int_value or value.long_value
    return _GOOD


def _from_text(text: bytes) -> float | Lack:
    try:
        return float(text.replace(b"_", b"no digit"))
    except ValueError:
        return Lack(f"{text[:60].decode(errors='replace')!r:.60}", missing=False)


def bd_seq(payload: Payload) -> int | None:
    """Return the number that a node's birth and its death share; None where there is none."""
    for metric in payload.metrics:
        if metric.name == b"bdSeq":
            return metric.long_value or metric.int_value
    return None


def rebirth_request(moment: int) -> bytes:
    """Return what asks an edge node for its births.

    Args:
        moment: milliseconds since the Unix epoch.
    """
    payload = _PAYLOAD(timestamp=moment)
    payload.metrics.add(name=b"Node Control/Rebirth", timestamp=moment, datatype=BOOLEAN, boolean_value=True)
    request: bytes = payload.SerializeToString()
    return request
