"""A plant for tests of faults: numbered readings in, and from the samples which readings each window was made of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests import models
from tests.integration.test_run import START, payload, readings, source
from tests.mosquitto import Mosquitto
from tests.mqtt_client import Client
from tests.running import ProcessorProcess

SIZE = 5
"""Readings in a window; the next begins where one ends."""
_BEGIN = datetime.fromtimestamp(START, UTC)
_VALUES = readings(1000)


def configuration(tmp_path: Path, *topics: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return one that keeps every window, with `more` keys."""
    return {
        "sources": [source(topics[0]) | {"topics": list(topics)}],
        "model": {"path": str(models.write(models.cnn(size=SIZE), tmp_path)), "window": {"size": SIZE, "step": SIZE}},
        "filter": {"rules": [{"name": "all"}]},
        **more,
    }


def wall_off(processor: ProcessorProcess) -> Path:
    """Make its files bridge fail until what this returns is unlinked."""
    wall = processor.directory / "accepted"
    wall.write_text("not a directory")
    return wall


def subscribed(processor: ProcessorProcess, broker: Mosquitto, topic: str) -> None:
    """Wait until the broker knows that a processor wants a topic: over a slow link, later than it says "Connected"."""
    processor.wait_until(lambda: f": {processor.client_id} 1 {topic}\n" in broker.log(), f"subscribed to {topic}")


def reading(number: int) -> str:
    """Return the reading of that number: its time is so many seconds after `START`."""
    return payload(START + number, _VALUES[number % len(_VALUES)])


def publish(client: Client, topic: str, numbers: Iterable[int]) -> None:
    """Publish readings at QoS 1, each when the broker has the one before."""
    for number in numbers:
        client.publish(topic, reading(number))


def windows(events: Iterable[dict[str, Any]]) -> list[list[int]]:
    """Return the numbers of the readings in each sample's window, in the order of the samples."""
    return [[_number(moment) for moment in event["data"]["readings"]["times"]] for event in events]


def _number(moment: str) -> int:
    return (datetime.fromisoformat(moment) - _BEGIN) // timedelta(seconds=1)


def whole(numbers: Sequence[int]) -> list[list[int]]:
    """Return the windows that these readings of one stream make when none is missing and none comes twice."""
    return [list(numbers[end - SIZE : end]) for end in range(SIZE, len(numbers) + 1, SIZE)]


def not_ready(processor: ProcessorProcess) -> list[str]:
    """Return what /readyz says the processor waits for."""
    body = json.loads(processor.get("/readyz"))
    reasons: list[str] = body["waiting_for"]
    assert body["ready"] is not bool(reasons)
    return reasons


def measured(processor: ProcessorProcess, name: str) -> float:
    """Return a metric as Prometheus reads it: by its name, with its labels in braces where it has some; else 0."""
    text = processor.get("/metrics")
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0
