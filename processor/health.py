"""/healthz, /readyz and /metrics over HTTP, for supervisors and Prometheus. On threads of its own; reads snapshots."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST

log = logging.getLogger(__name__)

_CLIENTS: Final = 32
"""Requests answered at a time; more are hung up on, so that no number of clients costs threads without end."""


class _Server(ThreadingHTTPServer):
    """Answers a bounded number of requests at a time."""

    daemon_threads = True
    request_queue_size = _CLIENTS  # of 5, the default, more than that at once wait a second and longer

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._room = threading.BoundedSemaphore(_CLIENTS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base class's types
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base class's types
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()


class HealthServer:
    """Serves until closed."""

    def __init__(
        self,
        listen: str,
        *,
        healthy: Callable[[], dict[str, Any]],
        waiting_for: Callable[[], list[str]],
        metrics: Callable[[], bytes],
    ) -> None:
        """Bind and serve.

        Args:
            listen: host:port; port 0 takes a free one.
            healthy: what /healthz answers; the process answers at all only while it lives.
            waiting_for: sentences on what keeps it from doing its job; none means ready.
            metrics: the Prometheus text.

        Raises:
            OSError: the address cannot be listened on.
        """

        class Handler(BaseHTTPRequestHandler):
            timeout = 5.0  # seconds for a client to send its request

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(HTTPStatus.OK, metrics(), CONTENT_TYPE_LATEST)
                elif path == "/healthz":
                    self._json(HTTPStatus.OK, healthy())
                elif path == "/readyz":
                    reasons = waiting_for()
                    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
                    self._json(status, {"ready": not reasons, "waiting_for": reasons})
                else:
                    self._json(HTTPStatus.NOT_FOUND, {"error": "try /healthz, /readyz or /metrics"})

            def _json(self, status: HTTPStatus, body: dict[str, Any]) -> None:
                self._answer(status, msgspec.json.encode(body) + b"\n", "application/json")

            def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                log.debug("HTTP %s: %s", self.address_string(), format % args)

        host, _, port = listen.rpartition(":")
        self._host = host.strip("[]")
        self._server = _Server((self._host, int(port)), Handler)
        self.port = self._server.server_address[1]
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="health", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        """Answer requests. The health thread; `serve_forever` would wake it ten times a second for nothing."""
        while not self._closing:
            self._server.handle_request()

    def close(self) -> None:
        """Stop serving."""
        self._closing = True
        with suppress(OSError):  # one last client, to wake the thread
            socket.create_connection((self._host, self.port), timeout=1.0).close()
        self._thread.join()
        self._server.server_close()
