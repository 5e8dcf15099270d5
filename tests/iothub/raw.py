"""A client of bare MQTT packets, for what the SDK would not do."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from pathlib import Path
from typing import Protocol, Self

from tests.iothub.identity import Device, make_token

_PATIENCE = 10.0
CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP = 0x20, 0x30, 0x40, 0x90, 0xD0
PINGREQ, DISCONNECT = b"\xc0\x00", b"\xe0\x00"


class Place(Protocol):
    """What a client has to know of a hub."""

    host: str
    port: int
    ca: Path


class Raw:
    """A TLS connection, and MQTT 3.1.1 packets as the standard has them."""

    def __init__(
        self, hub: Place, *, certificate_of: Device | None = None, version: ssl.TLSVersion | None = None
    ) -> None:
        """Connect, as far as TLS."""
        tls = ssl.create_default_context(cafile=str(hub.ca))
        if version is not None:
            tls.minimum_version = tls.maximum_version = version
        if certificate_of is not None:
            tls.load_cert_chain(str(certificate_of.certificate), str(certificate_of.private_key))
        plain = socket.create_connection((hub.host, hub.port), timeout=_PATIENCE)
        self._socket = tls.wrap_socket(plain, server_hostname=hub.host)

    def __enter__(self) -> Self:
        """Be closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close without a DISCONNECT."""
        self._socket.close()

    @property
    def tls_version(self) -> str | None:
        """What was agreed."""
        return self._socket.version()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """Return the type of the next packet, with its flags, and what follows the fixed header.

        Raises:
            ConnectionError: the hub ended the connection first.
        """
        first = self._exactly(1)[0]
        length = shift = 0
        while True:
            byte = self._exactly(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first, self._exactly(length)

    def is_ended(self) -> bool:
        """Wait for the end of the connection; False: a packet came instead."""
        try:
            self.receive()
        except (ConnectionError, ssl.SSLError):
            return True
        return False

    def is_quiet(self, seconds: float) -> bool:
        """Tell whether nothing comes for so long."""
        self._socket.settimeout(seconds)
        try:
            self.receive()
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(_PATIENCE)
        return False

    def log_in(self, device: Device, *, clean: bool = True, keepalive: int = 0, token: str | None = None) -> bool:
        """Connect as a device, be accepted, and return whether its session was present."""
        self.send(connect(user_of(device), token or token_of(device), device.id, clean=clean, keepalive=keepalive))
        kind, body = self.receive()
        assert (kind, body[1]) == (CONNACK, 0), f"refused with {body[1]}"
        return body[0] == 1

    def publish(
        self, topic: str, payload: bytes = b"", *, qos: int = 1, packet_id: int = 1, retain: bool = False
    ) -> None:
        """Send a PUBLISH."""
        self.send(publish(topic, payload, qos=qos, packet_id=packet_id, retain=retain))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise ConnectionError("the hub has ended the connection")
            data += piece
        return data


def user_of(device: Device, *, version: str = "?api-version=2021-04-12", hub: str | None = None) -> str:
    """Return a user name as documented."""
    return f"{hub or device.hub}/{device.id}/{version}"


def token_of(device: Device, *, expires: float = 3600.0, key: str | None = None, resource: str | None = None) -> str:
    """Return a token that expires in so many seconds."""
    return make_token(resource or f"{device.hub}/{device.resource}", key or device.key, int(time.time() + expires))


def events(device: Device, bag: str = "") -> str:
    """Return the topic for messages."""
    return f"{device.resource}/messages/events/{bag}"


def connect(
    user: str,
    password: str,
    client_id: str,
    *,
    clean: bool = True,
    keepalive: int = 0,
    will: tuple[str, bytes] | None = None,
) -> bytes:
    """Return a CONNECT."""
    flags = 0xC0 | (0x02 if clean else 0) | (0x0C if will else 0)
    body = text("MQTT") + bytes((4, flags)) + struct.pack("!H", keepalive) + text(client_id)
    if will is not None:
        body += text(will[0]) + struct.pack("!H", len(will[1])) + will[1]
    return framed(0x10, body + text(user) + text(password))


def publish(topic: str, payload: bytes = b"", *, qos: int = 1, packet_id: int = 1, retain: bool = False) -> bytes:
    """Return a PUBLISH."""
    number = struct.pack("!H", packet_id) if qos else b""
    return framed(PUBLISH | qos << 1 | int(retain), text(topic) + number + payload)


def subscribe(*topics: str, qos: int = 1) -> bytes:
    """Return a SUBSCRIBE."""
    return framed(0x82, b"\x00\x01" + b"".join(text(topic) + bytes((qos,)) for topic in topics))


def puback(packet_id: int) -> bytes:
    """Return a PUBACK."""
    return framed(PUBACK, struct.pack("!H", packet_id))


def text(string: str) -> bytes:
    """Return a string with its length before it."""
    return struct.pack("!H", len(string.encode())) + string.encode()


def framed(first: int, body: bytes) -> bytes:
    """Return a packet with its remaining length."""
    length, encoded = len(body), b""
    while length > 127:
        encoded += bytes((length & 127 | 128,))
        length >>= 7
    return bytes((first,)) + encoded + bytes((length,)) + body
