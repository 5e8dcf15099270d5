"""A network on the way to the broker: `python -m bench.sides.link PORT SECONDS LIMIT`.

Each direction takes SECONDS, at any bandwidth. With a LIMIT that is not 0, no more QoS 1 messages than that are under
way to the client before the first is acknowledged, as from a broker that keeps to its limit; Mosquitto 2.0 does not.
Answers a line with the port that it listens on.
"""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from bench.broker import HOST

_PIECE: Final = 64 << 10
_PIECES: Final = 1000
"""Under way in one direction; with more the sender has to wait."""
_PUBLISH: Final = 3
_PUBACK: Final = 4
_QOS: Final = 0x06
"""These bits of a PUBLISH's first byte are not 0 at QoS 1 and 2."""
_MORE: Final = 0x80
"""This bit of a length's byte says that another follows."""


class _InFlight:
    """How many messages are without an acknowledgement; a thread a direction."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._change = threading.Condition()

    def room(self) -> bool:
        """Return whether another message may go; waits for nothing."""
        return self._count < self._limit

    def sent(self) -> None:
        """Count a message, when there is room."""
        with self._change:
            self._change.wait_for(self.room)
            self._count += 1

    def acknowledged(self, count: int) -> None:
        """Make room."""
        with self._change:
            self._count -= count
            self._change.notify()


class _Packets:
    """Cuts a stream of MQTT into packets."""

    def __init__(self) -> None:
        self._rest = b""

    def cut(self, piece: bytes) -> Iterator[bytes]:
        """Yield the packets that `piece` completes."""
        data, start = self._rest + piece, 0
        while (end := _end(data, start)) is not None:
            yield data[start:end]
            start = end
        self._rest = data[start:]


def _end(data: bytes, start: int) -> int | None:
    """Return where the packet at `start` ends; None when it is not complete."""
    length, place = 0, start + 1
    while place < len(data):
        length |= (data[place] & ~_MORE) << 7 * (place - start - 1)
        place += 1
        if not data[place - 1] & _MORE:
            return place + length if place + length <= len(data) else None
    return None


def _pieces(source: socket.socket) -> Iterator[bytes]:
    with suppress(OSError):
        while data := source.recv(_PIECE):
            yield data


def _within(pieces: Iterator[bytes], in_flight: _InFlight) -> Iterator[bytes]:
    """Yield what the broker sends, as the limit permits."""
    packets = _Packets()
    for piece in pieces:
        going: list[bytes] = []
        for packet in packets.cut(piece):
            if packet[0] >> 4 == _PUBLISH and packet[0] & _QOS:
                if going and not in_flight.room():
                    yield b"".join(going)
                    going.clear()
                in_flight.sent()
            going.append(packet)
        yield b"".join(going)


def _arrive(under_way: queue.Queue[tuple[float, bytes]], target: socket.socket, in_flight: _InFlight | None) -> None:
    """Pass on what has been on its way for long enough."""
    packets = _Packets()
    with suppress(OSError):
        while True:
            due, piece = under_way.get()
            time.sleep(max(0.0, due - time.perf_counter()))
            if not piece:
                target.shutdown(socket.SHUT_WR)
                return
            if in_flight is not None:
                in_flight.acknowledged(sum(packet[0] >> 4 == _PUBACK for packet in packets.cut(piece)))
            target.sendall(piece)


def _carry(pieces: Iterator[bytes], target: socket.socket, delay: float, in_flight: _InFlight | None) -> None:
    """Carry what one end sends to the other. `in_flight`: of the direction from the client."""
    under_way: queue.Queue[tuple[float, bytes]] = queue.Queue(_PIECES)
    threading.Thread(target=_arrive, args=(under_way, target, in_flight), daemon=True).start()
    for piece in pieces:
        if piece:
            under_way.put((time.perf_counter() + delay, piece))
    under_way.put((time.perf_counter() + delay, b""))


def _join(client: socket.socket, server: socket.socket, delay: float, limit: int) -> None:
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    down, up = _pieces(server), _pieces(client)
    in_flight = _InFlight(limit) if limit else None
    if in_flight is not None:
        down = _within(down, in_flight)
    for pieces, target, counted in ((down, client, None), (up, server, in_flight)):
        threading.Thread(target=_carry, args=(pieces, target, delay, counted), daemon=True).start()


def _main() -> None:
    broker, delay, limit = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    listener = socket.create_server((HOST, 0))

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            _join(client, socket.create_connection((HOST, broker)), delay, limit)

    threading.Thread(target=accept, daemon=True).start()
    for _ in sys.stdin:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
