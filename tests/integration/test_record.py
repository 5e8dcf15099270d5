"""`mlade record` beside a real broker: what the sources receive, each message once, whatever ends it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from processor.demo.data import FIELDS, MODEL_PATH
from processor.recording import Reader
from processor.types import Message
from tests.accounts import refusing_broker
from tests.commands import command_line, environment, mlade_here
from tests.mosquitto import Mosquitto, MosquittoFactory
from tests.mqtt_client import MqttClientFactory

PATIENCE = 20.0


def configure(directory: Path, url: str, *topics: list[str], **broker: object) -> Path:
    """Write a configuration with a source for each list of topics."""
    sources = [{"name": f"s{n}", "topics": filters, "fields": list(FIELDS)} for n, filters in enumerate(topics)]
    configuration: dict[str, Any] = {
        "id": "recorded",
        "broker": {"url": url, **broker},
        "sources": sources,
        "model": {"path": str(MODEL_PATH)},
        "filter": {},
    }
    file = directory / "processor.yaml"
    file.write_text(json.dumps(configuration))
    return file


class Recording:
    """A running `mlade record`."""

    def __init__(self, process: subprocess.Popen[str], path: Path, log: Path) -> None:
        self.process = process
        self.path = path
        self._log = log

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"not in time: {what}\n{self.log()}"
            assert self.process.poll() is None, f"ended before: {what}\n{self.log()}"
            time.sleep(0.01)  # between two looks at the condition

    def log(self) -> str:
        """Return what it has said."""
        return self._log.read_text()

    def messages(self) -> list[Message]:
        """Return what is in the file now."""
        return [message for batch in Reader(self.path) for message in batch]

    def end(self, number: signal.Signals) -> str:
        """Send a signal and return what it says at its end."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=PATIENCE)
        return out


@contextmanager
def recording(config: Path, name: str = "rec.jsonl") -> Iterator[Recording]:
    """Run it, subscribed."""
    path, log = config.parent / name, config.parent / "record.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command_line("record", "-c", str(config), "-o", str(path)),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(),
        )
    running = Recording(process, path, log)
    try:
        running.wait_until(lambda: "Recording " in running.log(), "recording")
        yield running
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("protocol", [5, "3.1.1"])
def test_what_the_sources_receive_is_recorded_once(
    mosquitto_factory: MosquittoFactory, mqtt_client: MqttClientFactory, tmp_path: Path, protocol: object
) -> None:
    """Overlapping filters, shared ones, what is retained; nothing of ours, and nothing that no source asked for."""
    broker = mosquitto_factory()
    config = configure(tmp_path, broker.url, ["a/+", "mlade/#"], ["#"], ["$share/group/a/1"], protocol=protocol)
    client = mqtt_client(broker=broker)
    client.publish("a/0", b"kept", retain=True)
    member = mqtt_client(broker=broker)
    member.subscribe("$share/group/a/1")
    with recording(config, "rec.jsonl.gz") as running:
        sent = [("a/1", b"one"), ("mlade/recorded/command", b"{}"), ("b", b"\xff\x00"), ("a/0", b"new"), ("a/1", b"")]
        before = time.time()
        for topic, payload in sent:
            client.publish(topic, payload, retain=topic == "a/0")
        running.wait_until(lambda: len(running.messages()) >= 5, "all messages on disk")
        summary = running.end(signal.SIGTERM)
    assert running.process.returncode == 0
    found = running.messages()
    assert [(m.topic, m.payload) for m in found] == [("a/0", b"kept"), sent[0], *sent[2:]]
    assert all(before - PATIENCE < m.arrival / 1e9 < time.time() for m in found)
    assert all(m.qos == 1 for m in found)
    assert "5 messages, 1 of them retained from before, 3 topics" in summary
    assert [member.wait_for("a/1").payload for _ in range(2)] == [b"one", b""], "the group lost messages to us"


def test_a_kill_leaves_what_came_until_then(
    mosquitto: Mosquitto, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """A power cut costs no more than the last second."""
    client = mqtt_client()
    with recording(configure(tmp_path, mosquitto.url, ["record/cut/+"])) as running:
        for number in range(50):
            client.publish("record/cut/7", str(number))
        running.wait_until(lambda: len(running.messages()) == 50, "on disk")
        running.end(signal.SIGKILL)
    assert [m.payload for m in running.messages()] == [str(number).encode() for number in range(50)]


def test_a_lost_connection_is_said_and_the_rest_recorded(
    mosquitto_factory: MosquittoFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """And what is retained does not come again with the new connection."""
    broker = mosquitto_factory(persistence=True)
    mqtt_client(broker=broker).publish("lost/7", b"kept", retain=True)
    with recording(configure(tmp_path, broker.url, ["lost/+"])) as running:
        running.wait_until(lambda: len(running.messages()) == 1, "the retained message")
        broker.stop()
        broker.start()
        running.wait_until(lambda: "Connected to the broker" in running.log(), "connected again")
        client = mqtt_client(broker=broker)
        client.publish("lost/7", b"after")
        running.wait_until(lambda: len(running.messages()) == 2, "the message after it")
        running.end(signal.SIGINT)
    assert [m.payload for m in running.messages()] == [b"kept", b"after"]
    assert "connections lost: 1." in running.log()


def test_a_time_can_be_given(mosquitto: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends by itself, and says so where nothing came."""
    config, path = configure(tmp_path, mosquitto.url, ["silent/+"]), tmp_path / "rec.jsonl"
    done = mlade_here(capsys, "record", "-c", str(config), "-o", str(path), "--seconds", "0.2")
    assert (done.code, path.read_bytes()) == (0, b"")
    assert "Nothing came." in done.err
    assert f"{path}: 0 messages" in done.out


def test_without_a_broker_nothing_is_left(
    mosquitto_factory: MosquittoFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3 and a sentence, and no empty file."""
    broker = mosquitto_factory()
    broker.stop()
    config, path = configure(tmp_path, broker.url, ["a"]), tmp_path / "rec.jsonl"
    done = mlade_here(capsys, "record", "-c", str(config), "-o", str(path))
    assert done.code == 3
    assert "No connection to the broker" in done.err
    assert not path.exists()


def test_an_access_list_that_hides_everything_is_said(
    mosquitto_factory: MosquittoFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rather than recording nothing for hours."""
    broker = refusing_broker(mosquitto_factory, account=("recorder", "secret"), topic="a/+")
    config = configure(tmp_path, broker.url, ["a/+"], username="recorder", password="secret")  # noqa: S106
    done = mlade_here(capsys, "record", "-c", str(config), "-o", str(tmp_path / "rec.jsonl"))
    assert done.code == 3
    assert "does not let us subscribe to a/+" in done.err
