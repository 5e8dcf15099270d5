"""`mlade status` against a running processor, one that has stopped, and none."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from processor.demo.data import FIELDS, MODEL_PATH, readings
from tests.commands import Done, command_line, environment, mlade_here
from tests.mosquitto import Mosquitto
from tests.mqtt_client import Client, MqttClientFactory
from tests.running import ProcessorFactory, ProcessorProcess

MESSAGES = 40


@pytest.fixture(scope="module")
def busy(mosquitto: Mosquitto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessorProcess]:
    """A processor that has taken 40 messages of one stream, judged 3 windows and kept them all."""
    with ExitStack() as cleanup:
        make = ProcessorFactory(mosquitto, tmp_path_factory.mktemp("busy"), cleanup)
        client = MqttClientFactory(lambda: mosquitto, cleanup)()
        yield start_busy(make, client)


def start_busy(make_processor: ProcessorFactory, client: Client) -> ProcessorProcess:
    """Start a processor and keep it busy for a moment."""
    processor = make_processor(
        model={"path": str(MODEL_PATH), "window": {"size": 20, "step": 10}},
        sources=[{"name": "imu", "topics": ["status/+/imu"], "fields": list(FIELDS), "time": "ts"}],
        filter={"rules": [{"name": "everything"}]},
        bridges=[{"type": "files", "path": "accepted", "rotate": {"max_age": "100ms"}}, {"type": "mqtt"}],
    )
    processor.start()
    client.subscribe(f"{processor.root}/metrics")
    start = time.time()
    for number, values in zip(range(MESSAGES), readings(0), strict=False):
        reading = {"ts": start + number / 10, **dict(zip(FIELDS, values, strict=True))}
        client.publish(f"status/{processor.configuration['id']}/imu", json.dumps(reading))
    while True:
        metrics = json.loads(client.wait_for(f"{processor.root}/metrics").payload)
        if metrics["counters"]["messages"] == MESSAGES and metrics["outbox"]["samples"] == 0:
            return processor


def run_status(processor: ProcessorProcess, capsys: pytest.CaptureFixture[str], *arguments: str) -> Done:
    """Run `mlade status` for a processor."""
    return mlade_here(capsys, "status", "-c", str(processor.file), *arguments)


def rows(out: str) -> dict[str, str]:
    """Return the lines by their headings."""
    return {heading.strip(): line.strip() for heading, _, line in (text.partition("  ") for text in out.splitlines())}


def test_shows_a_running_processor(busy: ProcessorProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0; filter, counters with rates, outbox and bridges, in plain lines where it is no terminal."""
    done = run_status(busy, capsys)
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    shown = rows(done.out)
    assert shown["processor"] == busy.root
    assert shown["status"] == "online"
    assert shown["filter"] == "applied, revision 1 from the file: rules everything"
    assert shown["messages"].split()[0] == str(MESSAGES)
    assert shown["messages"].endswith("/s")
    assert (shown["readings"], shown["windows"], shown["streams"]) == (str(MESSAGES), "3", "1")
    assert shown["accepted by everything"] == "3"
    assert shown["outbox"] == "0 samples, 0B"
    assert shown["bridge files"] == shown["bridge mqtt"] == "3 delivered, 0 waiting, 0 failed attempts"


def test_gives_one_json_object(busy: ProcessorProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json`: what is retained, for a script."""
    done = run_status(busy, capsys, "--json")
    body: dict[str, Any] = json.loads(done.out)
    assert done.code == 0
    assert (body["id"], body["online"], body["filter"]["revision"]) == (busy.configuration["id"], True, 1)
    assert body["filter"]["active"]["rules"] == [{"name": "everything"}]
    assert body["metrics"]["counters"]["accepted"] == 3
    assert body["metrics"]["by_reason"] == {}


def test_is_a_table_on_a_terminal(busy: ProcessorProcess) -> None:
    """On a terminal the headings stand out, and brackets from outside are no markup."""
    terminal, end = pty.openpty()
    variables = environment(TERM="xterm-256color", COLUMNS="100")
    arguments = command_line("status", "-c", str(busy.file))
    with subprocess.Popen(arguments, stdout=end, stderr=end, env=variables) as process:
        os.close(end)
        shown = b""
        try:
            while piece := os.read(terminal, 65_536):
                shown += piece
        except OSError:  # how Linux says that the other end has closed
            pass
        finally:
            os.close(terminal)
        assert process.wait() == 0
    assert b"\x1b[1m" in shown
    assert b"revision 1 from the file" in shown


def test_a_stopped_processor_is_offline(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 3, with what it last said."""
    stopped = start_busy(make_processor, mqtt_client())
    assert stopped.stop() == 0
    done = run_status(stopped, capsys)
    assert done.code == 3
    assert rows(done.out)["status"] == "offline"
    assert rows(done.out)["windows"] == "3"
    body = json.loads(run_status(stopped, capsys, "--json").out)
    assert (body["online"], body["metrics"]["counters"]["windows"]) == (False, 3)


def test_an_unknown_processor_is_told_so(make_processor: ProcessorFactory, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 3 within the timeout."""
    absent = make_processor(sources=[{"name": "a", "topics": ["a"], "fields": ["a"]}], model={"path": "m"}, filter="f")
    started = time.monotonic()
    done = run_status(absent, capsys, "--timeout", "0.3")
    assert (done.code, rows(done.out)["status"]) == (3, "unknown: nothing stands on its status topic")
    assert time.monotonic() - started < 3
    assert json.loads(run_status(absent, capsys, "--timeout", "0.3", "--json").out)["online"] is False


def test_an_unreachable_broker_is_a_sentence(
    make_processor: ProcessorFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 3 at once."""
    away = make_processor(
        sources=[{"name": "a", "topics": ["a"], "fields": ["a"]}],
        model={"path": "m"},
        filter="f",
        broker={"url": "mqtt://127.0.0.1:1"},
    )
    done = run_status(away, capsys)
    assert done == Done(3, "", "No connection to the broker mqtt://127.0.0.1:1: [Errno 111] Connection refused.\n")


def test_what_a_processor_says_cannot_move_the_cursor(
    make_processor: ProcessorFactory, capsys: pytest.CaptureFixture[str], mqtt_client: MqttClientFactory
) -> None:
    """Control characters from the broker are written out; how old the metrics are is said."""
    absent = make_processor(sources=[{"name": "a", "topics": ["a"], "fields": ["a"]}], model={"path": "m"}, filter="f")
    client = mqtt_client()
    metrics = {
        "time": datetime.fromtimestamp(time.time() - 90, UTC).isoformat(),
        "blocked": "disk\x1b[2J\nfull",
        "paused": True,
        "counters": {"messages": 123_456_789},
        "rates": {"messages": 2_345_678.9},
        "outbox": {"samples": 2, "bytes": 3 << 20, "lost": {"expired": 4, "refused": 0}},
        "bridges": {"hub": {"delivered": 1, "waiting": 2, "failures": 3, "error": "no\rroute"}},
    }
    client.publish(f"{absent.root}/metrics", json.dumps(metrics), retain=True)
    client.publish(f"{absent.root}/status", "online", retain=True)
    done = run_status(absent, capsys, "--timeout", "0.5")
    assert done.code == 0
    shown = rows(done.out)
    assert shown["as of"].endswith(" s ago")
    assert shown["messages"].split() == ["123456789", "2345678.9", "/s"]
    assert shown["blocked"] == "nothing is acknowledged: disk\\x1b[2J full"
    assert shown["paused"].startswith("windows are refused")
    assert shown["outbox"] == "2 samples, 3.0 MiB; lost: 4 expired"
    assert shown["bridge hub"] == "1 delivered, 2 waiting, 3 failed attempts; no\\rroute"
