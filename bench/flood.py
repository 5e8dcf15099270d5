"""An endless load of equally large messages, each reading with a time of its own; made while it is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.load import FIELDS, publish_packet

START: Final = 1_790_000_000_000
"""Time of reading 0, milliseconds since the Unix epoch; reading n comes n milliseconds later."""
_BEGIN: Final = datetime.fromtimestamp(START // 1000, UTC)
_TIME: Final = b"1000000000.000"
"""How a time is written: in seconds. Its thirteen digits are the milliseconds'."""
_COLUMNS: Final = [place for place, byte in enumerate(_TIME) if byte != ord(".")]
_FOURS: Final = np.array([list(b"%04d" % number) for number in range(10_000)], np.uint8)
_IDENTIFIER: Final = 0x0101
_MOST_IDENTIFIERS: Final = 65_535


class Flood:
    """PUBLISH packets of one topic: the same values over and over, only times and packet identifiers differ.

    Attributes:
        qos: of all of them.
        packet_bytes: what each of them takes.
        readings: how many each of them holds.
        messages: made so far.
    """

    def __init__(self, topic: str, *, size: int, readings: int = 1, qos: int) -> None:
        """Prepare.

        Args:
            topic: that all are published to.
            size: bytes of payload, filled up with spaces.
            readings: in a message: one as an object, more as an array; about a hundred bytes each.
            qos: 0 or 1.
        """
        self.qos = qos
        self.readings = readings
        self.messages = 0
        values = dict(zip(FIELDS, np.random.default_rng(7).normal(size=len(FIELDS)).round(4).tolist(), strict=True))
        reading = json.dumps({"ts": 0.0} | values, separators=(",", ":")).encode().replace(b"0.0", _TIME, 1)
        body = reading if readings == 1 else b"[" + b",".join([reading] * readings) + b"]"
        packet = publish_packet(topic, body.ljust(size), qos, _IDENTIFIER)
        self.packet_bytes = len(packet)
        self._packet: NDArray[np.uint8] = np.frombuffer(packet, np.uint8)
        payload = len(packet) - max(size, len(body))
        self._identifier = payload - 2
        self._times = packet.index(_TIME, payload) + (len(reading) + 1) * np.arange(readings)[:, None]

    def take(self, count: int) -> bytes:
        """Return the next `count` packets, joined."""
        packets = np.tile(self._packet, (count, 1))
        numbers = np.arange(self.messages, self.messages + count)
        times = START + numbers[:, None] * self.readings + np.arange(self.readings)
        for first, unit in ((1, 10**8), (5, 10**4), (9, 1)):  # the first digit stays
            packets[:, self._times + _COLUMNS[first : first + 4]] = _FOURS[times // unit % 10_000]
        if self.qos:
            identifiers = numbers % _MOST_IDENTIFIERS + 1
            packets[:, self._identifier] = identifiers >> 8
            packets[:, self._identifier + 1] = identifiers & 0xFF
        self.messages += count
        return packets.tobytes()

    @staticmethod
    def number(time: str) -> int:
        """Return the number of the reading with that time, in ISO 8601."""
        return (datetime.fromisoformat(time) - _BEGIN) // timedelta(milliseconds=1)
