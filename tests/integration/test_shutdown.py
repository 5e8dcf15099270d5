"""SIGTERM while something is wrong: exit 0 within five seconds, and afterwards nothing is missing or there twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.disk import fill
from tests.mosquitto import Mosquitto
from tests.mqtt_client import MqttClientFactory
from tests.plant import SIZE, configuration, measured, publish, subscribed, whole, windows
from tests.proxy import Proxy, ProxyFactory
from tests.running import ProcessorFactory

Break = Callable[[Proxy, Path], Callable[[], None]]
"""Breaks something, given the link to the broker and a file; returns what mends it."""


def broker_away(link: Proxy, _: Path) -> Callable[[], None]:
    """Hang up on every client, and go on doing so."""
    link.refuse()
    return link.heal


def broker_silent(link: Proxy, _: Path) -> Callable[[], None]:
    """Let nothing through."""
    link.swallow()
    return link.heal


def bridge_silent(link: Proxy, _: Path) -> Callable[[], None]:
    """Let nothing of the `mqtt` bridge's own connection through."""
    link.swallow(b"-out")
    return link.heal


def bridge_stuck(_: Proxy, stuck: Path) -> Callable[[], None]:
    """Let the `files` bridge hang inside a call to the system."""
    stuck.touch()
    return stuck.unlink


@pytest.mark.parametrize(
    ("fault", "samples"), [(broker_away, 2), (broker_silent, 2), (bridge_silent, 4), (bridge_stuck, 4)]
)
def test_it_ends_in_time_whatever_hangs(
    mosquitto: Mosquitto,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    proxy: ProxyFactory,
    fault: Break,
    samples: int,
) -> None:
    """Subscribers see it offline; what could not be delivered is delivered next time, by both bridges."""
    link, stuck = proxy(mosquitto.host, mosquitto.port), tmp_path / "stuck"
    topic = f"end/{fault.__name__}"
    bridges = [{"type": "files", "path": "./accepted", "rotate": {"max_age": "200ms"}}, {"type": "mqtt"}]
    processor = make_processor(**configuration(tmp_path, topic, broker={"url": link.url}, bridges=bridges))
    client, listener = mqtt_client(), mqtt_client()
    listener.subscribe(f"{processor.root}/status")
    listener.subscribe(f"{processor.root}/accepted/all")
    oddities = (f"stuck={stuck}", "keepalive=2")  # a broker that is cut off misses us soon
    processor.launch(*oddities)
    subscribed(processor, mosquitto, topic)
    publish(client, topic, range(2 * SIZE + 1))
    processor.wait_until(lambda: len(processor.events()) == 2, "samples")
    mend = fault(link, stuck)
    publish(client, topic, range(2 * SIZE + 1, 4 * SIZE + 1))
    accepted = 'mlade_accepted_total{rule="all"}'
    processor.wait_until(lambda: measured(processor, accepted) == samples, "what gets through is taken in")
    begun = time.monotonic()
    assert processor.stop() == 0
    assert time.monotonic() - begun < 5
    assert listener.wait_for(f"{processor.root}/status").payload == b"online"
    # Mosquitto looks for clients that are overdue every five seconds.
    assert listener.wait_for(f"{processor.root}/status", timeout=20).payload == b"offline"
    mend()
    processor.launch(*oddities)
    publish(client, topic, range(4 * SIZE + 1, 6 * SIZE))
    processor.wait_until(lambda: len(processor.events()) == 6, "all samples")
    processor.wait_until(lambda: measured(processor, "mlade_outbox_samples") == 0, "all delivered")
    assert processor.stop() == 0
    assert sorted(windows(processor.events())) == whole(range(6 * SIZE))
    received = [json.loads(message.payload) for message in listener.received() if "/accepted/" in message.topic]
    assert {event["id"] for event in received} == {event["id"] for event in processor.events()}


@pytest.mark.parametrize(
    ("command", "code"), [("run", 0), ("dashboard", 0), ("check", -signal.SIGTERM)], ids=["run", "dashboard", "check"]
)
def test_a_stop_while_a_service_loads_is_no_failure(command: str, code: int) -> None:
    """As soon as Python runs it; a command that was to give an answer has failed."""
    program = f"""
import signal, sys
class Stop:
    def find_spec(self, name, *_):
        if name == "processor.cli":
            signal.raise_signal(signal.SIGTERM)
sys.meta_path.insert(0, Stop())
sys.argv = ["mlade", {command!r}, "-c", "absent.yaml"]
from processor.__main__ import main
main()
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == code


def test_it_ends_in_time_on_a_full_disk(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path, small_disk: Path
) -> None:
    """What it could not keep was not acknowledged."""
    processor = make_processor(**configuration(tmp_path, "end/full", state_dir=str(small_disk / "state")))
    client = mqtt_client()
    client.subscribe(f"{processor.root}/status")
    processor.start()
    publish(client, "end/full", range(2 * SIZE + 1))
    processor.wait_until(lambda: len(processor.events()) == 2, "samples")
    ballast = fill(small_disk)
    publish(client, "end/full", range(2 * SIZE + 1, 4 * SIZE + 1))
    processor.wait_for_log("Nothing is acknowledged any more")
    begun = time.monotonic()
    assert processor.stop() == 0
    assert time.monotonic() - begun < 5
    assert [client.wait_for(f"{processor.root}/status").payload for _ in range(2)] == [b"online", b"offline"]
    ballast.unlink()
    processor.start()
    publish(client, "end/full", range(4 * SIZE + 1, 6 * SIZE))
    processor.wait_until(lambda: len(processor.events()) == 6, "all samples")
    assert processor.stop() == 0
    assert sorted(windows(processor.events())) == whole(range(6 * SIZE))
