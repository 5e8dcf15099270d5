"""What devices send, with the property bag of its topic (IoT Hub: "Sending device-to-cloud messages")."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote

LARGEST = 256 * 1024
"""Bytes that a message's payload and properties may have together (IoT Hub quotas and throttling)."""


@dataclass(slots=True, frozen=True)
class Event:
    """A message from a device, as the hub's own consumers would read it.

    Attributes:
        body: the payload.
        properties: the application's own.
        system: those with a reserved name, decoded: `$.mid`, `$.ct`, `$.ce`, `$.on` and so on.
        output: of a module, which output it left by (`$.on`).
        packet_id: of the PUBLISH; 0 at QoS 0.
        at: seconds on the monotonic clock at which it arrived.
        dup: whether the client says that it has sent it before.
        connection: number of the hub's connection that it came over, from 1.
    """

    body: bytes
    properties: dict[str, str]
    system: dict[str, str]
    output: str | None
    packet_id: int
    at: float
    dup: bool = False
    connection: int = 0

    @classmethod
    def read(
        cls, body: bytes, bag: Mapping[str, str], *, packet_id: int = 0, dup: bool = False, connection: int = 0
    ) -> Self:
        """Make one of what has just arrived; `bag` has all properties."""
        system = {name: value for name, value in bag.items() if name.startswith("$.")}
        properties = {name: value for name, value in bag.items() if name not in system}
        return cls(body, properties, system, system.get("$.on"), packet_id, time.monotonic(), dup, connection)

    @property
    def id(self) -> str | None:
        """The message id."""
        return self.system.get("$.mid")

    @property
    def size(self) -> int:
        """Bytes that count against the limit."""
        return len(self.body) + size_of(self.properties) + size_of(self.system)

    @property
    def blocks(self) -> int:
        """Messages that the day's quota is charged with: one for each 4 KB begun."""
        return max(1, -(-self.size // 4096))


def size_of(properties: Mapping[str, str]) -> int:
    """Return the bytes of all names and values."""
    return sum(len(name.encode()) + len(value.encode()) for name, value in properties.items())


def decode_bag(bag: str) -> dict[str, str]:
    """Read `name=value&name=value`; each part is percent-encoded, a `+` means itself.

    Raises:
        ValueError: a name comes twice, or is empty.
    """
    properties: dict[str, str] = {}
    for pair in bag.split("&") if bag else ():
        name, _, value = pair.partition("=")
        key = unquote(name)
        if not key or key in properties:
            raise ValueError(f"the property bag {bag!r} has an empty or repeated name {key!r}")
        properties[key] = unquote(value)
    return properties


def encode_bag(properties: Mapping[str, str]) -> str:
    """Write what `decode_bag` reads, each name and value percent-encoded as the hub does."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in properties.items())
