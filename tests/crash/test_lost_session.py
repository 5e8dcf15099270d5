"""A broker that forgets the session, together with kills: the samples are those of the messages that were not lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import models
from tests.crash.comparison import Files, Subscriber
from tests.crash.processes import VictimProcess
from tests.integration.test_run import START, payload, readings, source
from tests.mosquitto import MosquittoFactory
from tests.mqtt_client import Client, MqttClientFactory

SIZE = 4
COUNT = 30
PATIENCE = 20.0


def wait_for(condition: Callable[[], object], victim: VictimProcess) -> None:
    """Wait for a condition, and fail with the log when it does not come."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, victim.log()
        time.sleep(0.01)  # between two looks


@pytest.mark.parametrize("protocol", [5, "3.1.1"])
def test_a_new_session_is_not_mistaken_for_the_one_before(
    mosquitto_factory: MosquittoFactory, mqtt_client: MqttClientFactory, tmp_path: Path, protocol: object
) -> None:
    """It numbers its packets anew. Equal messages under equal numbers, not taken in before a kill, are not repeats."""
    broker = mosquitto_factory()  # without persistence
    victim = VictimProcess(
        tmp_path,
        {
            "id": "lost",
            "broker": {"url": broker.url, "protocol": protocol},
            "sources": [source("lost/imu")],
            "model": {"path": str(models.write(models.cnn(size=SIZE), tmp_path)), "window": {"size": SIZE, "step": 1}},
            "filter": {"rules": [{"name": "all"}]},
            "bridges": [{"type": "files", "path": "./accepted", "rotate": {"max_age": "10ms"}}],
            "http": None,
        },
    )
    files, values = Files("lost", tmp_path), readings(2 * COUNT)
    windows: list[list[list[float]]] = []

    def look() -> list[list[list[float]]]:
        windows.extend(event["data"]["readings"]["values"] for event in files.look())
        return windows

    def publish(client: Client, first: int, stop: int) -> None:
        for number in range(first, stop):
            client.publish("lost/imu", payload(START + number, values[number]))

    def launch(point: str | None = None) -> None:
        status = Subscriber("lost", broker.port, "mlade/lost")
        victim.launch(point)
        wait_for(lambda: status.status == "online", victim)
        status.close()

    launch()
    publish(mqtt_client(broker=broker), 0, COUNT)
    wait_for(lambda: len(look()) == COUNT - SIZE + 1, victim)
    victim.kill()
    publish(mqtt_client(broker=broker), COUNT, 2 * COUNT)  # nobody will ever get these
    broker.restart()
    launch("before the commit")
    client = mqtt_client(broker=broker)
    publish(client, 0, COUNT)
    assert victim.wait(PATIENCE) == -9, victim.log()
    launch()
    wait_for(lambda: len(look()) == 2 * COUNT - SIZE + 1, victim)
    assert victim.stop()[0] == 0
    got = np.concatenate([values[:COUNT], values[:COUNT]])
    assert windows == [got[end - SIZE : end].tolist() for end in range(SIZE, len(got) + 1)]
