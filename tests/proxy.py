"""A TCP proxy on the loopback interface with the faults that real networks have."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Protocol, Self

import pytest

_PIECE = 64 << 10
_PATIENCE = 10.0


@dataclass(slots=True, eq=False)
class _Pair:
    """One client's connection and ours to the server for it.

    Attributes:
        client: the former.
        server: the latter.
        greeting: what the client sent first.
        directions: in which bytes are still carried.
    """

    client: socket.socket
    server: socket.socket
    greeting: bytes = b""
    directions: int = 2


class Proxy:
    """Passes bytes between clients and one server; a test makes it fail, from its own thread.

    Attributes:
        port: where clients connect.
        connections: clients accepted so far.
    """

    def __init__(self, host: str, port: int, *, delay: float = 0.0) -> None:
        """Listen for clients of the server at `host:port`.

        Args:
            host: of the server.
            port: of the server.
            delay: seconds that each piece takes, in each direction.
        """
        self.connections = 0
        self._server = (host, port)
        self._delay = delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pairs: list[_Pair] = []
        self._lock = threading.Lock()
        self._refusing = False
        self._swallowed: bytes | None = None  # what those begin with whose bytes do not get through
        self._swallowed_down = True
        self._cut_after: int | None = None
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        """What a processor's `broker.url` says."""
        return f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Accept clients."""
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End all connections and threads."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in [self._accepting, *self._threads]:
            thread.join(_PATIENCE)

    def cut(self, of: bytes = b"") -> None:
        """End connections at once, both ends in the middle of whatever they sent.

        Args:
            of: something that the client sent first, such as its client id; absent: every connection.
        """
        with self._lock:
            ending = [pair for pair in self._pairs if of in pair.greeting]
            self._pairs = [pair for pair in self._pairs if of not in pair.greeting]
        for pair in ending:
            _end(pair.client)
            _end(pair.server)

    def cut_after(self, size: int) -> None:
        """End the connection that carries the `size`-th byte from now on to a client, in mid-packet."""
        with self._lock:
            self._cut_after = size

    def swallow(self, of: bytes = b"", *, down: bool = True) -> None:
        """Keep connections open, new ones too, and let nothing through: what is sent into them is lost with them.

        Args:
            of: as for `cut`.
            down: what comes from the server, too; False: only what clients send.
        """
        self._swallowed_down = down
        self._swallowed = of

    def heal(self) -> None:
        """Let bytes through and clients in again. What was swallowed stays lost: those connections end."""
        if self._swallowed is not None:
            self.cut(self._swallowed)
        self._refusing = False
        self._swallowed = None

    def refuse(self) -> None:
        """End every connection, and each new one as soon as it is made."""
        self._refusing = True
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = None if self._refusing else socket.create_connection(self._server, timeout=_PATIENCE)
            except OSError:
                server = None
            if server is None:
                _end(client)
                client.close()
                continue
            for end in (client, server):
                end.settimeout(None)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(client, server)
            with self._lock:
                self._pairs.append(pair)
            for down in (False, True):
                thread = threading.Thread(target=self._carry, args=(pair, down), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _carry(self, pair: _Pair, down: bool) -> None:
        """Carry bytes in one direction until either end is gone; `down` is towards the client."""
        source, target = (pair.server, pair.client) if down else (pair.client, pair.server)
        with suppress(OSError):
            self._pass(pair, source, target, down=down)
        if not self._is_swallowed(pair, down):  # else the other side does not learn either that this one has ended
            for end in (source, target):
                _end(end)  # wakes the thread of the other direction; the first to come here ends both
        with self._lock:
            pair.directions -= 1
            is_last = not pair.directions
        if is_last:
            pair.client.close()
            pair.server.close()

    def _pass(self, pair: _Pair, source: socket.socket, target: socket.socket, *, down: bool) -> None:
        while data := source.recv(_PIECE):
            if not down and not pair.greeting:
                pair.greeting = data
            if self._is_swallowed(pair, down):
                continue  # the sender's TCP was told that it arrived
            if self._delay:
                time.sleep(self._delay)  # the link's own, not a test's
            if down and self._last(len(data)):
                target.sendall(data[: len(data) // 2])
                return
            target.sendall(data)

    def _is_swallowed(self, pair: _Pair, down: bool) -> bool:
        of = self._swallowed
        return of is not None and of in pair.greeting and (self._swallowed_down or not down)

    def _last(self, size: int) -> bool:
        with self._lock:
            if self._cut_after is None:
                return False
            self._cut_after -= size
            if self._cut_after > 0:
                return False
            self._cut_after = None
            return True


def _end(end: socket.socket) -> None:
    """Wake whoever reads from a socket; it is reset, rather than closed in order, when it is closed."""
    with suppress(OSError):  # the other side may have ended it first
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)


class ProxyFactory(Protocol):
    """Makes proxies that end with the test."""

    def __call__(self, host: str, port: int, *, delay: float = 0.0) -> Proxy:
        """Return a running proxy in front of `host:port`."""
        ...


@pytest.fixture
def proxy() -> Iterator[ProxyFactory]:
    """Make proxies that end with the test."""
    with ExitStack() as cleanup:
        yield lambda host, port, *, delay=0.0: cleanup.enter_context(Proxy(host, port, delay=delay))
