"""A web server of a test's own: it answers as a function says, and remembers what it was asked."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Protocol

import pytest


class Asked(NamedTuple):
    """A request; the names of its headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Told(NamedTuple):
    """An answer."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""
    length: int | None = None
    """What it says its length is; None: the truth, -1: nothing."""


class Front:
    """A running server.

    Attributes:
        host: `127.0.0.1` and its port; `localhost` is another name of it.
        asked: what it was asked so far.
    """

    def __init__(self, answer: Callable[[Asked], Told]) -> None:
        """Listen."""
        self.asked: list[Asked] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, self.rfile.read(length))
                outer.asked.append(asked)
                told = answer(asked)
                self.send_response(told.status)
                for name, value in told.headers.items():
                    self.send_header(name, value)
                if told.length != -1 and not {"content-length", "Content-Length"} & told.headers.keys():
                    self.send_header("Content-Length", str(len(told.body) if told.length is None else told.length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(told.body)

            do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the library's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.host = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def passed_on(asked: Asked, host: str, **headers: str) -> Told:
    """Return what another server answers."""
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        kept = {name: value for name, value in asked.headers.items() if name not in ("host", "authorization")}
        connection.request(asked.method, asked.path, asked.body, {**kept, **headers})
        response = connection.getresponse()
        given = {name: value for name, value in response.headers.items() if name.lower() != "transfer-encoding"}
        return Told(response.status, given, response.read())
    finally:
        connection.close()


class FrontFactory(Protocol):
    """Makes servers that end with the test."""

    def __call__(self, answer: Callable[[Asked], Told]) -> Front:
        """Return a running server."""
        ...


@pytest.fixture
def front() -> Iterator[FrontFactory]:
    """Make servers that end with the test."""
    with ExitStack() as cleanup:

        def make(answer: Callable[[Asked], Told]) -> Front:
            made = Front(answer)
            cleanup.callback(made.close)
            return made

        yield make
