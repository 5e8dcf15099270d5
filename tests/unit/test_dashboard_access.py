"""Who may change something on the dashboard, what may be asked of it, and what its command line takes."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from processor.clock import ManualClock
from processor.dashboard import options
from processor.dashboard.access import Access
from processor.dashboard.guard import Guard, Receive, Scope, Send
from processor.dashboard.watching import Watcher
from processor.errors import ConfigurationError
from tests.commands import mlade_here

PASSWORD = "open"  # noqa: S105 - of these tests


def read(**changes: Any) -> options.Options:  # noqa: ANN401 - of the function
    """Read a command line."""
    asked: dict[str, Any] = {
        "broker": {"url": "mqtt://user:secret@broker:1883"},
        "broker_password": None,
        "broker_password_file": None,
        "prefixes": ["mlade"],
        "listen": "127.0.0.1:8321",
        "cert": None,
        "key": None,
        "password": None,
        "password_file": None,
        "read_only": False,
    }
    return options.read(**asked | changes)


def test_changes_are_open_to_this_machine_and_to_whoever_has_the_password(tmp_path: Path) -> None:
    """Beyond it without a password it only reads, and says so."""
    assert not read().read_only
    assert not read(listen="[::1]:80").read_only
    assert read(listen="0.0.0.0:80").read_only
    assert "nothing can be changed" in read(listen="plant:80").warnings[0]
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    asked = read(listen="plant:80", password_file=file)
    assert (asked.read_only, asked.password) == (False, PASSWORD)
    assert "unencrypted" in asked.warnings[0]
    assert read(password=PASSWORD, read_only=True).read_only
    assert read().shown_broker == "mqtt://broker:1883"
    assert PASSWORD not in repr(asked)
    assert "secret" not in repr(asked)


def test_all_that_is_wrong_is_told_with_its_option(tmp_path: Path) -> None:
    """As they are written on the command line."""
    empty = tmp_path / "empty"
    empty.write_text(" ")
    with pytest.raises(ConfigurationError) as raised:
        read(
            broker={"url": "http://x", "protocol": "4", "tls": {"key": "k"}},
            listen="8321",
            prefixes=["a/#"],
            cert=empty,
            password_file=empty,
        )
    found = {problem.path for problem in raised.value.problems}
    assert found == {
        "--broker",
        "--broker-protocol",
        "--broker-key",
        "--listen",
        "--prefix",
        "--key",
        "--password-file",
    }


def test_a_sign_in_holds_for_half_a_day() -> None:
    """And gives a name, until it is left."""
    clock = ManualClock()
    access = Access(password=PASSWORD, read_only=False, clock=clock)
    assert access.asks
    assert not access.may_change(None)
    assert access.sign_in("Ada", "shut") is None
    token = access.sign_in("  Ada \n Lovelace ", PASSWORD)
    assert access.may_change(token)
    assert access.name(token) == "Ada Lovelace"
    clock.advance(12 * 3600)
    assert not access.may_change(token)
    token = access.sign_in("Ada", PASSWORD)
    access.sign_out(token)
    assert not access.may_change(token)


def test_passwords_cannot_be_guessed_at_leisure() -> None:
    """Ten wrong ones a minute."""
    clock = ManualClock(monotonic=100.0)
    access = Access(password=PASSWORD, read_only=False, clock=clock)
    for _ in range(10):
        assert access.sign_in("x", "shut") is None
    assert access.sign_in("x", PASSWORD) is None
    clock.advance(61)
    assert access.sign_in("x", PASSWORD)


def test_without_a_password_the_machine_is_trusted_and_read_only_trusts_nobody() -> None:
    """Whatever they know."""
    assert Access(password=None, read_only=False).may_change(None)
    locked = Access(password=PASSWORD, read_only=True)
    assert not locked.may_change(locked.sign_in("x", PASSWORD))
    assert not locked.asks


@pytest.mark.parametrize(
    ("kind", "headers", "passes"),
    [
        ("http", {"host": "127.0.0.1:8321"}, True),
        ("http", {"host": "[::1]:8321"}, True),
        ("http", {"host": "evil.example:8321"}, False),
        ("http", {}, False),
        ("websocket", {"host": "localhost:8321", "origin": "http://localhost:8321"}, True),
        ("websocket", {"host": "localhost:8321", "origin": "http://evil.example"}, False),
        ("websocket", {"host": "localhost:8321", "origin": "null"}, False),
    ],
)
def test_other_sites_pages_get_nothing(kind: str, headers: dict[str, str], passes: bool) -> None:
    """By whatever name they call this machine."""
    sent: list[MutableMapping[str, Any]] = []

    async def inner(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.sleep(0)
        return {"type": "websocket.connect"}

    async def send(event: MutableMapping[str, Any]) -> None:
        await asyncio.sleep(0)
        sent.append(event)

    scope = {"type": kind, "headers": [(key.encode(), value.encode()) for key, value in headers.items()]}
    guard = Guard(inner, hosts=frozenset({"localhost", "127.0.0.1", "::1"}))
    asyncio.run(guard(scope, receive, send))
    assert (sent[0].get("status") == 200) == passes
    if passes:
        assert b"default-src 'self'" in dict(sent[0]["headers"])[b"content-security-policy"]


def test_a_page_that_only_reads_publishes_nothing() -> None:
    """Whatever a browser makes of it: the connection never sends."""
    watcher = Watcher({"url": "mqtt://127.0.0.1:1"}, ["mlade"], changes=False)
    asked: list[Future[Any]] = [watcher.set_filter("mlade/a", b"rules: []", "Ada"), watcher.command("mlade/a", "pause")]
    assert [str(one.exception()) for one in asked] == ["This page only reads; nothing was sent."] * 2
    away = Watcher({"url": "mqtt://127.0.0.1:1"}, ["mlade"], changes=True).command("mlade/a", "pause")
    assert str(away.exception()) == "Nothing was sent. Not connected yet."


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a sentence."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    done = mlade_here(capsys, "dashboard")
    assert (done.code, "pip install 'mlade[dashboard]'" in done.err) == (1, True)
