"""MQTT 3.1.1 packets, as a server reads and writes them (OASIS standard, sections 2 and 3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 8, 9, 10, 11
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14

_LENGTH_BYTES = 4


class Malformed(Exception):
    """The bytes are not MQTT 3.1.1; the text says what is wrong."""


@dataclass(slots=True, frozen=True)
class Packet:
    """One control packet: its type, the four flags beside it, and what follows the fixed header."""

    kind: int
    flags: int
    body: memoryview


@dataclass(slots=True, frozen=True)
class Connect:
    """What a CONNECT asks for; `keepalive` is in seconds, 0: none."""

    client_id: str
    clean: bool
    keepalive: int
    username: str
    password: str
    will_topic: str | None
    will_payload: bytes


@dataclass(slots=True, frozen=True)
class Publish:
    """A PUBLISH in either direction; `packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int


class Reader:
    """Cuts a stream of bytes into packets."""

    def __init__(self, largest: int) -> None:
        """Begin with nothing.

        Args:
            largest: bytes after the fixed header that a packet may have.
        """
        self._buffer = bytearray()
        self._largest = largest

    def begins(self, kind: int) -> bool:
        """Tell whether the first bytes of a packet of that type are there, and not all of it."""
        return bool(self._buffer) and self._buffer[0] >> 4 == kind

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yield the packets that are complete with `data`.

        Raises:
            Malformed: the remaining length is no such number, or larger than allowed.
        """
        self._buffer += data
        while True:
            header = self._header()
            if header is None:
                return
            start, length = header
            if len(self._buffer) < start + length:
                return
            first = self._buffer[0]
            body = bytes(memoryview(self._buffer)[start : start + length])
            del self._buffer[: start + length]
            yield Packet(first >> 4, first & 15, memoryview(body))

    def _header(self) -> tuple[int, int] | None:
        """Return where the body starts and its length, once both are known."""
        length = 0
        for index in range(_LENGTH_BYTES):
            if len(self._buffer) < index + 2:
                return None
            byte = self._buffer[index + 1]
            length |= (byte & 127) << 7 * index
            if byte < 128:
                if length > self._largest:
                    raise Malformed(f"a packet of {length} bytes; at most {self._largest} are allowed")
                return index + 2, length
        raise Malformed("a remaining length of more than four bytes")


def read_connect(body: memoryview) -> Connect:
    """Read a CONNECT (3.1).

    Raises:
        Malformed: it is another protocol or version, or ends too early.
    """
    protocol, at = _text(body, 0)
    if protocol != "MQTT" or at + 4 > len(body) or body[at] != 4:
        raise Malformed("only MQTT 3.1.1 is spoken here")
    flags, (keepalive,) = body[at + 1], struct.unpack_from("!H", body, at + 2)
    client_id, at = _text(body, at + 4)
    will_topic, will_payload, username, password = None, b"", "", ""
    if flags & 0x04:
        will_topic, at = _text(body, at)
        will_payload, at = _binary(body, at)
    if flags & 0x80:
        username, at = _text(body, at)
    if flags & 0x40:
        password, at = _text(body, at)
    return Connect(client_id, bool(flags & 0x02), keepalive, username, password, will_topic, will_payload)


def read_publish(packet: Packet) -> Publish:
    """Read a PUBLISH (3.3).

    Raises:
        Malformed: it ends too early, or has a packet id of 0.
    """
    topic, at = _text(packet.body, 0)
    qos, packet_id = packet.flags >> 1 & 3, 0
    if qos:
        packet_id, at = _number(packet.body, at)
    return Publish(topic, bytes(packet.body[at:]), qos, bool(packet.flags & 1), bool(packet.flags & 8), packet_id)


def read_packet_id(body: memoryview) -> int:
    """Read what PUBACK, and the like, are about."""
    return _number(body, 0)[0]


def read_subscribe(body: memoryview) -> tuple[int, list[tuple[str, int]]]:
    """Read a SUBSCRIBE (3.8): its packet id, and the topic filters with the QoS asked for."""
    packet_id, at = _number(body, 0)
    filters = []
    while at < len(body):
        topic, at = _text(body, at)
        if at >= len(body):
            raise Malformed("a topic filter without a QoS")
        filters.append((topic, int(body[at])))
        at += 1
    return packet_id, filters


def read_unsubscribe(body: memoryview) -> tuple[int, list[str]]:
    """Read an UNSUBSCRIBE (3.10): its packet id and the topic filters."""
    packet_id, at = _number(body, 0)
    filters = []
    while at < len(body):
        topic, at = _text(body, at)
        filters.append(topic)
    return packet_id, filters


def connack(code: int, *, session_present: bool = False) -> bytes:
    """Write a CONNACK (3.2)."""
    return bytes((CONNACK << 4, 2, int(session_present), code))


def publish(topic: str, payload: bytes, *, qos: int = 0, packet_id: int = 0, dup: bool = False) -> bytes:
    """Write a PUBLISH (3.3)."""
    name = topic.encode()
    head = struct.pack("!H", len(name)) + name
    if qos:
        head += struct.pack("!H", packet_id)
    return packet(PUBLISH, head + payload, flags=qos << 1 | int(dup) << 3)


def acknowledge(kind: int, packet_id: int, payload: bytes = b"") -> bytes:
    """Write a PUBACK, SUBACK or UNSUBACK."""
    return packet(kind, struct.pack("!H", packet_id) + payload)


def packet(kind: int, body: bytes, *, flags: int = 0) -> bytes:
    """Write a packet with its fixed header (2.2)."""
    length, encoded = len(body), bytearray()
    while True:
        length, byte = length >> 7, length & 127
        encoded.append(byte | (128 if length else 0))
        if not length:
            return bytes((kind << 4 | flags,)) + encoded + body


def _number(body: memoryview, at: int) -> tuple[int, int]:
    if at + 2 > len(body):
        raise Malformed("a packet that ends within a number")
    return int.from_bytes(body[at : at + 2]), at + 2


def _binary(body: memoryview, at: int) -> tuple[bytes, int]:
    length, at = _number(body, at)
    if at + length > len(body):
        raise Malformed("a packet that ends within a string")
    return bytes(body[at : at + length]), at + length


def _text(body: memoryview, at: int) -> tuple[str, int]:
    data, at = _binary(body, at)
    try:
        return data.decode(), at
    except UnicodeDecodeError as error:
        raise Malformed("a string that is not UTF-8") from error
