"""Health over HTTP."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from processor import health
from processor.health import HealthServer


@pytest.fixture
def server() -> Iterator[HealthServer]:
    """Serve, waiting for a broker."""
    one = HealthServer(
        "127.0.0.1:0", healthy=lambda: {"status": "ok"}, waiting_for=lambda: ["broker: away"], metrics=lambda: b"x 1\n"
    )
    yield one
    one.close()


def get(server: HealthServer, path: str) -> tuple[int, bytes]:
    """Return the status and body of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_each_path_answers(server: HealthServer) -> None:
    """Alive, not ready with its reasons, the metrics as they are, and a hint for what is not there."""
    assert get(server, "/healthz") == (200, b'{"status":"ok"}\n')
    status, body = get(server, "/readyz?verbose")
    assert (status, json.loads(body)) == (503, {"ready": False, "waiting_for": ["broker: away"]})
    assert get(server, "/metrics") == (200, b"x 1\n")
    assert get(server, "/")[0] == 404


def test_clients_that_send_nothing_do_not_add_up(server: HealthServer) -> None:
    """Beyond a number of them each new one is hung up on; when they are gone, others are answered."""
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(health._CLIENTS)]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as refused:
        assert refused.recv(1) == b""
    for client in idle:
        client.close()
    for _ in range(100):
        try:
            assert get(server, "/healthz")[0] == 200
            break
        except (urllib.error.URLError, ConnectionError):
            continue  # their threads have not seen yet that they are gone
    else:
        pytest.fail("no answer")
