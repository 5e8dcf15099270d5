"""What is published: readings of many sensors as JSON, encoded as PUBLISH packets beforehand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIELDS = ("ax", "ay", "az", "gx", "gy", "gz")
TOPIC_FILTER = "bench/+/imu"
BLOCK = 100
"""Messages in a block: one write to the socket."""
_MOST_IDENTIFIERS = 65_535


def topic(stream: int) -> str:
    """Return the topic of a sensor."""
    return f"bench/sensor-{stream:04d}/imu"


def payload(seconds: float, values: Sequence[float]) -> bytes:
    """Return one reading, as a small device writes it."""
    ax, ay, az, gx, gy, gz = values
    text = f'{{"ts":{seconds:.6f},"ax":{ax:.4f},"ay":{ay:.4f},"az":{az:.4f},"gx":{gx:.4f},"gy":{gy:.4f},"gz":{gz:.4f}}}'
    return text.encode()


def publish_packet(name: str, body: bytes, qos: int, identifier: int) -> bytes:
    """Return an MQTT 3.1.1 PUBLISH; `identifier` is not written at QoS 0."""
    rest = len(name).to_bytes(2) + name.encode() + (identifier.to_bytes(2) if qos else b"") + body
    length, size = bytearray(), len(rest)
    while size > 127:  # noqa: PLR2004  seven bits a byte
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes([0x30 | qos << 1]) + length + rest


def identifiers() -> Iterator[int]:
    """Yield packet identifiers, round and round."""
    while True:
        yield from range(1, _MOST_IDENTIFIERS + 1)


@dataclass(frozen=True, slots=True)
class Load:
    """Messages of `streams` sensors in turn, one reading each, a millisecond apart.

    Attributes:
        streams: how many sensors.
        values: (N, 6) the readings, rounded as they are written.
        start: time of the first, seconds since the Unix epoch.
    """

    streams: int
    values: NDArray[np.float64]
    start: float

    @classmethod
    def random(cls, count: int, streams: int) -> Load:
        """Return a load of `count` messages; the same values each time."""
        values = np.random.default_rng(7).normal(size=(count, len(FIELDS))).round(4)
        return cls(streams, values, float(int(time.time() - 3600)))

    def packets(self, qos: int) -> list[bytes]:
        """Return each message's packet."""
        names = [topic(stream) for stream in range(self.streams)]
        bodies = [payload(self.start + number / 1000, row) for number, row in enumerate(self.values.tolist())]
        return [
            publish_packet(names[number % self.streams], body, qos, identifier)
            for number, (body, identifier) in enumerate(zip(bodies, identifiers(), strict=False))
        ]
