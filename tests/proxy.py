"""A TCP proxy on the loopback interface with the faults that real networks have."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Protocol, Self

import pytest

_PIECE = 64 << 10
_PATIENCE = 10.0


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
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._refusing = False
        self._passing = threading.Event()
        self._passing.set()
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
        self._passing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in [self._accepting, *self._threads]:
            thread.join(_PATIENCE)

    def cut(self) -> None:
        """End every connection at once, both ends in the middle of whatever they sent."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _end(end)

    def cut_after(self, size: int) -> None:
        """End the connection that carries the `size`-th byte from now on to a client, in mid-packet."""
        with self._lock:
            self._cut_after = size

    def swallow(self) -> None:
        """Keep connections open, new ones too, and let nothing through: what is sent into them is lost with them."""
        self._passing.clear()

    def heal(self) -> None:
        """Let bytes through and clients in again. What was swallowed stays lost: those connections end."""
        swallowed = not self._passing.is_set()
        if swallowed:
            self.cut()
        self._refusing = False
        self._passing.set()

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
            with self._lock:
                self._pairs.append((client, server))
            for source, target, down in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._carry, args=(source, target, down), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, target: socket.socket, down: bool) -> None:
        """Carry bytes in one direction until either end is gone; `down` is towards the client."""
        with suppress(OSError):
            while data := source.recv(_PIECE):
                if not self._passing.is_set():
                    continue  # swallowed; the sender's TCP was told that it arrived
                if self._delay:
                    time.sleep(self._delay)  # the link's own, not a test's
                if down and self._last(len(data)):
                    target.sendall(data[: len(data) // 2])
                    break
                target.sendall(data)
        for end in (source, target):
            _end(end)  # wakes the thread of the other direction; the first to come here ends both

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
    """Wake whoever reads from a socket; it is reset, rather than closed in order, when its last user lets go of it."""
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
