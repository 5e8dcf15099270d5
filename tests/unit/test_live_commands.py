"""Commands and direct methods: what is one, and what is answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from processor.cloud import Method
from processor.live_commands import COMMANDS, Command, Refusal, parse_command, parse_method
from tests.cloud import Hub
from tests.unit.test_pipeline import FULL, Line, reading, steering


def method(name: str, payload: object = None) -> Method:
    """Return a call whose answer nobody waits for."""
    return Method(name, payload, lambda _status, _body: None)


def test_commands_are_read() -> None:
    """With or without an id."""
    assert parse_command(b'{"command": "pause", "id": 7}') == Command("pause", 7)
    assert parse_command(b'{"command": "flush"}') == Command("flush", None)


@pytest.mark.parametrize("wrong", [b"", b"\xff", b"[]", b'{"command": 1}', b'{"command": "explode"}', b"[" * 100_000])
def test_a_wrong_command_is_explained(wrong: bytes) -> None:
    """With what was expected."""
    answer = parse_command(wrong)
    assert isinstance(answer, Refusal)
    assert answer.status in (400, 404)
    assert "heartbeat" in answer.sentence


@pytest.mark.parametrize("payload", [None, "", {}, {"id": 7}])
def test_a_method_is_a_command(payload: object) -> None:
    """Its payload is nothing, or an id."""
    command = parse_method(method("flush", payload))
    assert isinstance(command, Command)
    assert command.name == "flush"


@pytest.mark.parametrize("payload", ["now", 1, [], {"id": {}}, {"force": True}, {"id": 1, "force": True}])
def test_a_payload_that_would_not_be_heeded_is_refused(payload: object) -> None:
    """Before anything is done."""
    refusal = parse_method(method("pause", payload))
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400


def test_an_unknown_method_is_answered_with_those_that_exist() -> None:
    """As 404."""
    refusal = parse_method(method("explode"))
    assert isinstance(refusal, Refusal)
    assert refusal.status == 404
    assert all(name in refusal.sentence for name in COMMANDS)


def test_methods_are_answered_with_a_status_and_an_object(tmp_path: Path) -> None:
    """Of whatever they are asked."""
    line = Line(tmp_path)
    hub = Hub(line.link)
    for name in ("heartbeat", "pause", "status", "flush", "resume", "explode"):
        hub.call(name)
    hub.call("pause", [1])
    line.play([], [])
    # The flush is answered last, when the bridges had their turn.
    assert [status for status, _ in hub.answers] == [200, 200, 200, 200, 404, 400, 200]
    bodies = [body for _, body in hub.answers]
    assert bodies[1] == {"status": "ok", "paused": True}
    assert bodies[2]["paused"] is True
    assert bodies[-1] == {"status": "ok", "outbox": 0}
    assert all(body["status"] == ("ok" if status == 200 else "error") for status, body in hub.answers)
    assert not line.computation.paused


def test_a_heartbeat_asked_for_by_a_method_is_also_a_message(tmp_path: Path) -> None:
    """As in MLADE; one asked for over the broker costs no message."""
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play([steering("command", {"command": "heartbeat"})])
    assert hub.notices() == []
    hub.call("heartbeat", {"id": 3})
    line.play([])
    (notice,) = hub.notices()
    assert json.loads(notice.body) == "Module [line-1] is Running"
    assert (notice.properties, notice.output) == ({"MessageType": "heartbeat"}, "heartbeat")
    ((status, body),) = hub.answers
    assert (status, body["status"], body["id"]) == (200, "ok", 3)


def test_a_method_is_answered_while_nothing_can_be_acknowledged(tmp_path: Path) -> None:
    """And data from the cloud's side, which nobody would send again, is dropped and counted."""
    line = Line(tmp_path, FULL)
    hub = Hub(line.link)

    def ask() -> None:
        hub.call("pause")

    line.play([reading(1), reading(2)], [reading(3), reading(4)], ask, [], [])
    assert hub.answers == [(200, {"status": "ok", "paused": True})]
    assert line.source.acknowledged == [1, 2]
