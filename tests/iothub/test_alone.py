"""The hub as a program of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.iothub import raw
from tests.iothub.identity import make_token
from tests.iothub.raw import Raw


@dataclass
class Place:
    """Where to connect."""

    host: str
    port: int
    ca: Path


def answer(output: IO[str]) -> dict[str, Any]:
    """Return the next line printed."""
    line: dict[str, Any] = json.loads(output.readline())
    return line


def test_it_prints_messages_and_takes_commands(tmp_path: Path) -> None:
    """A device connects with what was printed."""
    command = [sys.executable, "-m", "tests.iothub", "--device", "a", "--device", "a/m", "--directory", str(tmp_path)]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        where = answer(program.stdout)
        assert "NO_PROXY" in answer(program.stdout)["environment"]
        device, module = answer(program.stdout), answer(program.stdout)
        assert (device["device"], module["device"]) == ("a", "a/m")
        fields = dict(part.split("=", 1) for part in device["connection_string"].split(";"))
        token = make_token(f"{fields['HostName']}/devices/a", fields["SharedAccessKey"], 1 << 40)
        with Raw(Place(fields["GatewayHostName"], where["port"], Path(where["ca"]))) as client:
            client.send(raw.connect(f"{fields['HostName']}/a/?api-version=2021-04-12", token, "a"))
            assert client.receive() == (raw.CONNACK, b"\x00\x00")
            client.publish("devices/a/messages/events/b=c", b"hello")
            printed = answer(program.stdout)
            assert (printed["client"], printed["body"], printed["properties"]) == ("a", "hello", {"b": "c"})
            commands: list[tuple[str, dict[str, object]]] = [
                ('desired a {"filter": {}}', {"answer": 2}),
                ("reported a", {"answer": {"$version": 1}}),
                ("nonsense a", {"error": "ValueError('there is no such command')"}),
                ("fault throttle disconnect", {"answer": None}),
            ]
            for line, expected in commands:
                program.stdin.write(line + "\n")
                program.stdin.flush()
                assert answer(program.stdout) == {"command": line, **expected}
            client.receive()  # the PUBACK of before
            client.publish("devices/a/messages/events/", b"throttled")
            assert client.is_ended()
        program.stdin.write("quit\n")
        program.stdin.flush()
        assert program.wait(10) == 0
