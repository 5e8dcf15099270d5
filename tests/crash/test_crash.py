"""A recording is played over a real Mosquitto at QoS 1 while the processor is killed; the samples are compared."""

from __future__ import annotations

import json
import random
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import models
from tests.crash.victim import POINTS
from tests.integration.test_run import START, payload, readings, source
from tests.mqtt_client import Client, MqttClientFactory
from tests.running import ProcessorFactory, ProcessorProcess

STREAMS, SIZE, STEP = 3, 10, 3
FILTER: dict[str, Any] = {"rules": [{"name": "half", "sample": 0.5}, {"name": "rest", "measure": "confidence"}]}


@pytest.fixture
def victim(make_processor: ProcessorFactory, tmp_path: Path, request: pytest.FixtureRequest) -> ProcessorProcess:
    """Return a processor with windows over several streams, and files finished all the time."""
    protocol = getattr(request, "param", 5)
    path = models.write(models.cnn(size=SIZE), tmp_path)
    return make_processor(
        broker={"url": make_processor.url, "protocol": protocol},
        sources=[source(f"crash/{tmp_path.name}/+")],
        model={"path": str(path), "window": {"size": SIZE, "step": STEP, "max_gap": "60s"}, "batch": {"max_size": 32}},
        filter=FILTER,
        bridges=[{"type": "files", "path": "./accepted", "rotate": {"max_age": "30ms"}}],
    )


def expected(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[tuple[str, str], list[list[float]]]:
    """Return every window by stream and end: the filter keeps them all, half of them by its first rule."""
    windows = {}
    for stream in range(STREAMS):
        own = values[stream::STREAMS]
        for end in range(SIZE, len(own) + 1, STEP):
            time = START + (end - 1) * STREAMS + stream
            stamp = np.datetime_as_string(np.datetime64(time, "s"), unit="us")
            windows[str(stream), f"{stamp}Z"] = own[end - SIZE : end].tolist()
    return windows


def play(client: Client, topic: str, values: np.ndarray[Any, np.dtype[np.float64]], first: int, stop: int) -> None:
    """Publish readings in order, each once the broker has the one before."""
    for number in range(first, stop):
        client.publish(f"{topic}/{number % STREAMS}", payload(START + number, values[number]))


def settle(processor: ProcessorProcess, client: Client, windows: int) -> list[dict[str, Any]]:
    """Wait until so many different samples are in files; return all events."""

    def enough() -> bool:
        client.publish(f"{processor.root}/command", json.dumps({"command": "flush"}))
        client.wait_for(f"{processor.root}/command/response")
        return len({event["id"] for event in processor.events()}) >= windows

    client.subscribe(f"{processor.root}/command/response")
    processor.wait_until(enough, f"{windows} samples")
    return processor.events()


def compare(events: list[dict[str, Any]], values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """No window is missing, none is made of a hole or a repeat, and repeats are equal to the letter."""
    wanted = expected(values)
    by_id: dict[str, dict[str, Any]] = {}
    for event in events:
        assert by_id.setdefault(event["id"], event) == event
    found = {
        (event["subject"].rsplit("/", 1)[1], event["time"]): event["data"]["readings"]["values"]
        for event in by_id.values()
    }
    assert len(found) == len(by_id)
    assert found == wanted


@pytest.mark.parametrize(
    ("point", "nth"),
    [*((point, 1) for point in POINTS), ("before the commit", 4), ("between commit and acknowledgement", 5)],
)
def test_a_kill_at_a_named_point_changes_nothing(
    victim: ProcessorProcess, mqtt_client: MqttClientFactory, tmp_path: Path, point: str, nth: int
) -> None:
    """It dies there, starts again, and the samples are those of an undisturbed run."""
    values = readings(600, 11)
    client = mqtt_client()
    victim.start()
    play(client, f"crash/{tmp_path.name}", values, 0, 100)
    victim.kill()
    victim.launch("-m", "tests.crash.victim", point, str(nth))
    player = threading.Thread(target=play, args=(client, f"crash/{tmp_path.name}", values, 100, len(values)))
    player.start()
    assert victim.wait_for_end(timeout=20) == -signal.SIGKILL, "the point was not reached"
    player.join()
    victim.start()
    compare(settle(victim, client, len(expected(values))), values)
    assert victim.stop() == 0


@pytest.mark.parametrize("victim", [5, "3.1.1"], indirect=True)
def test_kills_at_random_change_nothing(
    victim: ProcessorProcess, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """Fifteen kills in one run, at moments drawn from a seed."""
    values = readings(3000, 12)
    moments = random.Random(20_261_123)  # noqa: S311 - a plan, not a secret
    client = mqtt_client()
    player = threading.Thread(target=play, args=(client, f"crash/{tmp_path.name}", values, 0, len(values)))
    victim.start()
    player.start()
    for _ in range(15):
        victim.wait_for_end(timeout=moments.uniform(0.0, 0.25))
        victim.kill()
        victim.start()
    player.join()
    compare(settle(victim, client, len(expected(values))), values)
    assert victim.stop() == 0
