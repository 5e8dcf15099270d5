"""A publisher that costs next to nothing: a socket, and packets that were encoded beforehand."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle

from bench.broker import HOST
from bench.errors import BenchError
from bench.flood import Flood
from bench.load import BLOCK

_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"
"""MQTT 3.1.1, clean session, no keep-alive. 3.1.1, because Mosquitto lets MQTT 5 publishers have 20 in flight only."""
_CONNACK = b"\x20\x02\x00\x00"
_PUBACK_SIZE = 4
_WINDOW = 30_000
"""QoS 1 messages that may wait for their PUBACK: more than the sockets hold, so that the broker always has one to read,
and fewer than there are packet identifiers."""
_SILENCE = 20.0
"""Seconds for the broker to answer before it counts as hung."""
_NAP = 0.002
"""Seconds between two looks at the PUBACKs with the window full: to wake for each would cost more than all the rest."""
_OFFERED_AT_ONCE = 256 << 10
"""Bytes of an endless load in a write."""
_SHORTEST_WAIT = 0.0002
"""Seconds; a message's time that is nearer is not worth a sleep."""


class Publisher:
    """One connection to the broker."""

    def __init__(self, connection: socket.socket) -> None:
        """Publish over `connection`."""
        self._socket = connection
        self._unconfirmed = 0  # messages of QoS 1
        self._odd = 0  # bytes of a PUBACK that came in part

    def flood(self, packets: Sequence[bytes], qos: int) -> None:
        """Publish as fast as the broker reads; returns when the kernel has the last of it."""
        for first in range(0, len(packets), BLOCK):
            block = packets[first : first + BLOCK]
            self._socket.sendall(b"".join(block))
            self._count(len(block) * qos)

    def keep_flooding(
        self, packets: Sequence[bytes], qos: int, seconds: float, *, block: int, most: float = 0.0
    ) -> int:
        """Publish `packets` again and again.

        Args:
            packets: what to publish.
            qos: of them.
            seconds: for so long.
            block: packets in one write.
            most: bytes a second at most; 0: as fast as the broker reads.

        Returns:
            How many were published.
        """
        blocks = [b"".join(packets[first : first + block]) for first in range(0, len(packets), block)]
        counts = [len(packets[first : first + block]) for first in range(0, len(packets), block)]
        sent = size = 0
        started = time.perf_counter()
        for piece, count in cycle(zip(blocks, counts, strict=True)):
            now = time.perf_counter() - started
            if now >= seconds:
                break
            if most and (wait := size / most - now) > _SHORTEST_WAIT:
                time.sleep(wait)
            self._socket.sendall(piece)
            self._count(count * qos)
            sent += count
            size += len(piece)
        return sent

    def pace(self, count: int, rate: float, packet: Callable[[int], bytes], qos: int) -> None:
        """Publish `count` messages at `rate` a second, evenly; `packet` is asked for each when its time has come."""
        started = time.perf_counter()
        for number in range(count):
            wait = started + number / rate - time.perf_counter()
            if wait > _SHORTEST_WAIT:
                time.sleep(wait)
            self._socket.sendall(packet(number))
            self._count(qos)

    def offer(self, flood: Flood, rate: float, *, going_on: Callable[[], bool]) -> None:
        """Publish while `going_on` says so, at `rate` bytes a second or as fast as the broker reads."""
        block = max(1, _OFFERED_AT_ONCE // flood.packet_bytes)
        started, sent = time.perf_counter(), 0
        while going_on():
            self._socket.sendall(flood.take(block))
            self._count(block * flood.qos)
            sent += block * flood.packet_bytes
            wait = started + sent / rate - time.perf_counter()
            if wait > _SHORTEST_WAIT:
                time.sleep(wait)

    def _count(self, sent: int) -> None:
        """Take the PUBACKs that have come, and wait for more while the window is full."""
        self._unconfirmed += sent
        deadline = time.monotonic() + _SILENCE
        while self._unconfirmed:
            try:
                received = self._socket.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if self._unconfirmed <= _WINDOW:
                    return
                if time.monotonic() > deadline:
                    raise BenchError(f"the broker has not acknowledged {self._unconfirmed} messages") from None
                time.sleep(_NAP)
                continue
            if not received:
                raise BenchError("the broker has closed the publisher's connection")
            confirmed, self._odd = divmod(self._odd + len(received), _PUBACK_SIZE)
            self._unconfirmed -= confirmed


@contextmanager
def publisher(port: int) -> Iterator[Publisher]:
    """Connect until the block ends."""
    with socket.create_connection((HOST, port), timeout=_SILENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(_CONNECT)
        if connection.recv(len(_CONNACK)) != _CONNACK:
            raise BenchError("the broker does not accept the publisher")
        connection.settimeout(None)  # with a timeout, Python would wait even where MSG_DONTWAIT says not to
        yield Publisher(connection)
        connection.sendall(b"\xe0\x00")
