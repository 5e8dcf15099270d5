"""`mlade run --log-format json`: whatever is written to stderr, a machine can read it line by line."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from processor.demo.data import FIELDS, MODEL_PATH
from tests.commands import PATIENCE, command_line, environment, mlade


def configuration(directory: Path, **changes: Any) -> str:  # noqa: ANN401 - JSON
    """Write a configuration whose broker is away."""
    path = directory / "processor.yaml"
    path.write_text(
        json.dumps(
            {
                "id": "line-1",
                "broker": {"url": "mqtt://127.0.0.1:1"},
                "sources": [{"name": "imu", "topics": ["wearable/+/imu"], "fields": list(FIELDS)}],
                "model": {"path": str(MODEL_PATH), "window": {"size": 20, "step": 10}},
                "filter": {"rules": []},
                "bridges": [{"type": "files", "path": "accepted"}],
                "http": {"listen": "127.0.0.1:0"},
            }
            | changes
        )
    )
    return str(path)


def test_each_line_of_a_run_is_an_event(tmp_path: Path) -> None:
    """From the start, over a broker that is away, to the end."""
    command = command_line("run", "-c", configuration(tmp_path), "--log-format", "json")
    events = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stderr is not None
        for line in process.stderr:
            events.append(json.loads(line))
            if events[-1]["message"].startswith("No connection to the broker"):
                process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert events[0]["message"].startswith("Processor line-1: 1 source(s)")
    assert events[-1]["message"] == "Stopped; 0 samples wait in the outbox."
    assert {event["level"] for event in events} == {"info", "warning"}
    assert all(event.keys() == {"time", "level", "logger", "message"} for event in events)


def test_a_bad_configuration_is_one_event(tmp_path: Path) -> None:
    """With all there is to mend, and the exit code of any other format."""
    done = mlade("run", "-c", configuration(tmp_path, id="line 1", bridge=[]), "--log-format", "json")
    assert (done.code, done.out) == (2, "")
    (event,) = map(json.loads, done.err.splitlines())
    assert event["level"] == "critical"
    assert "id: " in event["message"]
    assert "bridge: " in event["message"]
