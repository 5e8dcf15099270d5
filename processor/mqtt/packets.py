"""What arrives from a broker, cut into messages: MQTT 3.1.1 and 5 packets, without any I/O.

PUBLISH packets of QoS 0 and 1 become messages here, at about a microsecond each; every other packet is handed on whole.
A packet that breaks the protocol raises `MalformedPacketError`; the connection is then to be closed (MQTT 5, 4.13).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from processor.types import Message

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT_OF_OVERSIZE = 64 * 1024
"""Bytes of payload that are kept of a message whose payload is too large."""
PUBLISH = 0x30
"""Type of a PUBLISH packet: the upper half of its first byte."""

_CONTINUED = 0x80
"""Set in each byte of a variable byte integer but its last."""
_LARGEST_PROPERTIES = 64 * 1024
"""Bytes of MQTT 5 properties from which on a message counts as oversize."""
_CACHED_TOPICS = 32_768
_LONGEST_CACHED_TOPIC = 256


class MalformedPacketError(Exception):
    """What arrived is not MQTT; the text says how it is not."""


def _publish_flags(first: int) -> tuple[int, bool, bool] | None:
    """Return (qos, retain, dup) of a packet's first byte; None when it is not a PUBLISH of QoS 0 or 1."""
    qos = first >> 1 & 3
    return (qos, bool(first & 1), bool(first & 8)) if first & 0xF0 == PUBLISH and qos <= 1 else None


_FLAGS = tuple(_publish_flags(first) for first in range(256))


class _Skipped(NamedTuple):
    """What was kept of an oversize packet."""

    first: int
    body: bytes
    """What follows the packet's length, without the part of the payload that is skipped."""
    length: int
    """Bytes of the whole payload."""


class PacketReader:
    """Cuts one connection's input into messages and other packets.

    `accept` takes input, `parse` uses it up; `accept` may be called when `exhausted`. Holds at most one piece of input
    and one packet, and of an oversize packet only what is kept.

    Attributes:
        connection: number of the connection that messages are marked with.
    """

    def __init__(self, *, mqtt_5: bool, max_payload: int, on_other: Callable[[int, bytes, int], None]) -> None:
        """Start without input.

        Args:
            mqtt_5: PUBLISH packets have properties.
            max_payload: bytes of payload from which on a message is oversize.
            on_other: called with the first byte, the content and the oversize payload's length (else 0) of each packet
                that is not a PUBLISH of QoS 0 or 1.
        """
        self.connection = 0
        self._mqtt_5 = mqtt_5
        self._max_payload = max_payload
        self._on_other = on_other
        self._topics: dict[bytes, str] = {}
        self._arrival = 0
        self._data = b""
        """Input, to be parsed from `_position` on."""
        self._position = 0
        self._partial = bytearray()
        """The beginning of a packet, to be parsed when there are `_needed` bytes of it."""
        self._needed = 0
        self._skipped: _Skipped | None = None
        self._skip = 0
        """Bytes of the skipped packet that are still to come."""

    def clear(self) -> None:
        """Forget all input: another connection begins."""
        self._data = b""
        self._position = 0
        self._partial = bytearray()
        self._skipped = None
        self._skip = 0

    def exhausted(self) -> bool:
        """Tell whether more input is needed before anything can be parsed."""
        return self._position >= len(self._data)

    def buffered_bytes(self) -> int:
        """Return how much input is held."""
        return len(self._data) - self._position + len(self._partial)

    def accept(self, piece: bytes, arrival: int) -> None:
        """Take the next piece of input, which arrived at `arrival` ns since the Unix epoch."""
        self._arrival = arrival
        if self._skip:
            skip = min(self._skip, len(piece))
            self._skip -= skip
            piece = piece[skip:]
        if self._partial:
            self._partial += piece
            if len(self._partial) < self._needed:
                return
            piece = bytes(self._partial)
            self._partial = bytearray()
        self._data = piece
        self._position = 0

    def parse(self, inbox: list[Message], limit: int) -> None:
        """Append messages until `inbox` holds `limit`, or the input is exhausted. Raises MalformedPacketError."""
        if self._skipped is not None:
            if self._skip:
                return
            self._deliver_skipped(self._skipped, inbox)
        while len(inbox) < limit and self._position < len(self._data):
            self._parse_publishes(inbox, limit - len(inbox))
            if len(inbox) < limit and self._position < len(self._data):
                self._parse_other(inbox)

    def _parse_publishes(self, inbox: list[Message], count: int) -> None:  # noqa: C901 - see the docstring
        """Append up to `count` QoS 0 and 1 messages of usual form, as far as the next packet that is something else.

        The one loop in which each message costs Python, hence in one piece: it calls only what makes the message.
        """
        data, position, end = self._data, self._position, len(self._data)
        topics, flags_of, max_payload, mqtt_5 = self._topics, _FLAGS, self._max_payload, self._mqtt_5
        arrival, connection = self._arrival, self.connection
        append = inbox.append
        # An IndexError is data that ends within a header; _parse_other tells an incomplete packet from a wrong one.
        with suppress(IndexError):
            for _ in range(count):
                flags = flags_of[data[position]]
                remaining = data[position + 1]
                start = position + 2
                if remaining >= 0x80:  # noqa: PLR2004 - _CONTINUED, a constant here for speed
                    second = data[start]
                    start += 1
                    if second >= 0x80:  # noqa: PLR2004
                        break
                    remaining = remaining & 0x7F | second << 7
                stop = start + remaining
                if flags is None or stop > end or remaining > max_payload:
                    break
                qos, retain, dup = flags
                at = start + 2 + (data[start] << 8 | data[start + 1])
                topic = topics.get(data[start + 2 : at]) or self._decode_topic(data[start + 2 : at])
                if qos:
                    mid = data[at] << 8 | data[at + 1]
                    at += 2
                    if not mid:
                        break
                else:
                    mid = 0
                properties = b""
                if mqtt_5:
                    length = data[at]
                    at += 1
                    if length:
                        if length >= 0x80:  # noqa: PLR2004
                            break
                        properties = data[at : at + length]
                        at += length
                if at > stop:
                    break
                append(Message(topic, data[at:stop], qos, mid, arrival, retain, dup, properties, connection, 0))
                position = stop
        self._position = position

    def _parse_other(self, inbox: list[Message]) -> None:
        """Deal with the packet at the position: incomplete, oversize, not a PUBLISH, wrong, or of an unusual form."""
        data, position = self._data, self._position
        remaining, size = variable_integer(data, position + 1)
        if not size:
            self._keep_partial(len(data) - position + 1)
            return
        first, start = data[position], position + 1 + size
        stop = start + remaining
        if first & 0xF0 == PUBLISH and remaining > self._max_payload and self._skip_oversize(first, start, stop, inbox):
            return
        if stop > len(data):
            self._keep_partial(stop - position)
            return
        self._position = stop
        if _FLAGS[first] is None:
            self._on_other(first, data[start:stop], 0)
        else:
            inbox.append(self._decode_publish(first, data[start:stop], 0))

    def _keep_partial(self, needed: int) -> None:
        """Keep the rest of the data until there are `needed` bytes of the packet that it begins with."""
        self._partial = bytearray(self._data[self._position :])
        self._needed = needed
        self._data = b""
        self._position = 0

    def _skip_oversize(self, first: int, start: int, stop: int, inbox: list[Message]) -> bool:
        """Skip the PUBLISH at the position if it is oversize; return False if it is not.

        When too little of it has come to tell, its beginning is kept until there is enough.
        """
        data, position = self._data, self._position
        topic_end = start + 2
        if len(data) >= topic_end:
            topic_end += (data[start] << 8 | data[start + 1]) + (2 if first & 6 else 0)
        head, length = topic_end, 0
        if self._mqtt_5:
            length, size = variable_integer(data, topic_end)
            head += size + length if size else 1
        if head > stop:
            raise MalformedPacketError("a PUBLISH packet is shorter than its topic and properties")
        payload_length = stop - head
        if length > _LARGEST_PROPERTIES:
            body = data[start:topic_end] + b"\0"
        elif len(data) < head:
            self._keep_partial(head - position)
            return True
        elif payload_length <= self._max_payload:
            return False
        else:
            head += min(payload_length, KEPT_OF_OVERSIZE)
            if len(data) < head:
                self._keep_partial(head - position)
                return True
            body = data[start:head]
        # With huge properties even an empty payload counts as oversize, or the message would pass for a reading.
        self._skipped = _Skipped(first, body, payload_length or length)
        self._skip = max(stop - len(data), 0)
        self._position = min(stop, len(data))
        if not self._skip:
            self._deliver_skipped(self._skipped, inbox)
        return True

    def _deliver_skipped(self, skipped: _Skipped, inbox: list[Message]) -> None:
        """Hand over an oversize packet, the last byte of which has now been read."""
        self._skipped = None
        if _FLAGS[skipped.first] is None:
            self._on_other(skipped.first, skipped.body, skipped.length)
        else:
            inbox.append(self._decode_publish(skipped.first, skipped.body, skipped.length))

    def _decode_publish(self, first: int, body: bytes, oversize: int) -> Message:
        """Decode one PUBLISH of QoS 0 or 1 in any form; `body` is what follows the packet's length."""
        qos = first >> 1 & 3
        at = 2 + int.from_bytes(body[:2])
        topic = self._topics.get(body[2:at]) or self._decode_topic(body[2:at])
        mid = int.from_bytes(body[at : at + 2]) if qos else 0
        if qos:
            at += 2
            if not mid:
                raise MalformedPacketError("a PUBLISH packet has no packet identifier")
        properties = b""
        if self._mqtt_5:
            length, size = variable_integer(body, at)
            at += size + length if size else 1
            properties = body[at - length : at]
        if at > len(body):
            raise MalformedPacketError("a PUBLISH packet is shorter than its topic and properties")
        return Message(
            topic=topic,
            payload=body[at:],
            qos=qos,
            mid=mid,
            arrival=self._arrival,
            retain=bool(first & 1),
            dup=bool(first & 8),
            properties=properties,
            connection=self.connection,
            oversize=oversize,
        )

    def _decode_topic(self, encoded: bytes) -> str:
        """Decode a topic name and remember it; most messages come on a topic that was seen before."""
        topic = decode_topic(encoded)
        if len(encoded) <= _LONGEST_CACHED_TOPIC:
            if len(self._topics) >= _CACHED_TOPICS:
                self._topics.clear()
            self._topics[encoded] = topic
        return topic


def decode_topic(encoded: bytes) -> str:
    """Decode the topic name of a PUBLISH packet. Raises MalformedPacketError when it is none."""
    try:
        topic = encoded.decode()
    except UnicodeDecodeError as error:
        raise MalformedPacketError(f"the topic {encoded[:100]!r} is not UTF-8") from error
    if not topic or "\0" in topic or "+" in topic or "#" in topic:
        raise MalformedPacketError(f"{topic[:100]!r} is not a topic name")
    return topic


def variable_integer(data: bytes, at: int) -> tuple[int, int]:
    """Decode the variable byte integer at `at`: (value, its size in bytes); both are 0 when the data ends within it."""
    value = 0
    for index, byte in enumerate(data[at : at + 4]):
        value |= (byte & 0x7F) << 7 * index
        if byte < _CONTINUED:
            return value, index + 1
    if len(data) >= at + 4:
        raise MalformedPacketError("a length takes more than 4 bytes")
    return 0, 0


def encode_variable_integer(value: int) -> bytes:
    """Encode a variable byte integer."""
    encoded = bytearray()
    while value >= _CONTINUED:
        encoded.append(value & 0x7F | _CONTINUED)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
