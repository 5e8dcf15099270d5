"""The simulated plant that `docker compose up` brings."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from processor.demo.data import FIELDS, RATE_HZ
from processor.demo.player import WATCHES
from tests.mosquitto import MosquittoFactory
from tests.mqtt_client import MqttClientFactory

COMMAND = [sys.executable, "-m", "processor.demo.plant"]


@contextmanager
def plant(url: str) -> Iterator[None]:
    """Run it, and see that it ends when it is asked to."""
    process = subprocess.Popen([*COMMAND, url])
    try:
        yield
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_plant_plays_in_real_time_and_comes_back_to_a_broker_that_was_away(
    mosquitto_factory: MosquittoFactory, mqtt_client: MqttClientFactory
) -> None:
    """Every watch, each 0.1 s, at the time of now; what was measured while the broker was away is lost."""
    broker = mosquitto_factory()
    broker.stop()
    with plant(broker.url):
        broker.start()
        for _ in range(2):
            client = mqtt_client(broker=broker)
            client.subscribe("wearable/+/imu")
            messages = [client.wait_for("wearable/#", timeout=15) for _ in range(5 * WATCHES)]
            payloads = [json.loads(message.payload) for message in messages]
            assert len({message.topic for message in messages}) == WATCHES
            assert all(payload.keys() == {"ts", *FIELDS} for payload in payloads)
            times = sorted({payload["ts"] for payload in payloads})
            steps = sorted(after - before for before, after in itertools.pairwise(times))
            assert abs(steps[len(steps) // 2] - 1 / RATE_HZ) < 0.002  # a busy machine may miss one
            assert abs(times[-1] - time.time()) < 2
            broker.restart()


def test_plant_wants_a_broker_it_can_speak_to() -> None:
    """Else it says what it expected."""
    done = subprocess.run([*COMMAND, "http://localhost"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("expected mqtt://HOST or mqtt://HOST:PORT\n")
