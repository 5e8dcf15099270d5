"""The machine's clock is wrong, and jumps: nothing ages away, nothing stalls, no reading is missing from its window."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.integration.test_run import command, source
from tests.mqtt_client import Client, MqttClientFactory
from tests.plant import SIZE, configuration, not_ready, publish, wall_off, whole, windows
from tests.running import ProcessorFactory, ProcessorProcess

DAY = 86_400.0
TIMED, UNTIMED = "clock/timed", "clock/untimed"


class WrongClock:
    """A machine's wall clock, as a test sets it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, seconds: float) -> None:
        """Make it wrong by so many seconds, from one moment to the next."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)

    def start(self, processor: ProcessorProcess) -> None:
        """Start a processor on a machine with this clock."""
        connected = processor.log().count("Connected to the broker")
        processor.launch(f"clock={self._file}", "tidy=0.05")
        processor.wait_for_log("Connected to the broker", connected + 1)
        processor.wait_until(lambda: not any("subscriptions" in one for one in not_ready(processor)), "subscribed")


def told(client: Client, processor: ProcessorProcess, messages: int) -> dict[str, Any]:
    """Return the third report with so many messages: by then it has looked several times at what is too old."""
    reports = 0
    while True:
        metrics: dict[str, Any] = json.loads(client.wait_for(f"{processor.root}/metrics").payload)
        reports += metrics["counters"]["messages"] >= messages
        if reports == 3:
            return metrics


def test_a_clock_that_jumps_costs_nothing(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """By a month forth, by half a day back, while it runs and while it does not; sources with times and without."""
    clock = WrongClock(tmp_path / "clock")
    processor = make_processor(**configuration(tmp_path, TIMED))
    processor.configure(sources=[*processor.configuration["sources"], source(UNTIMED, name="untimed") | {"time": None}])
    wall = wall_off(processor)
    client = mqtt_client()
    client.subscribe(f"{processor.root}/metrics")
    client.subscribe(f"{processor.root}/command/response")
    clock.start(processor)
    number = uptime = 0
    for wrong_by in (0, 30 * DAY, -DAY / 2, 0):
        clock.set(wrong_by)
        publish(client, TIMED, range(number, number + SIZE + 1))
        publish(client, UNTIMED, range(number, number + SIZE + 1))
        number += SIZE + 1
        metrics = told(client, processor, 2 * number)
        assert metrics["outbox"]["samples"] == 2 * (number // SIZE)
        assert metrics["outbox"]["lost"] == {"expired": 0, "displaced": 0, "refused": 0, "undeliverable": 0}
        assert metrics["dead_letters"] == {}
        assert uptime < metrics["uptime_seconds"] < 30
        uptime = metrics["uptime_seconds"]
        assert not_ready(processor)[0].startswith("bridge files: ")
    for wrong_by in (30 * DAY, -DAY / 2):
        assert processor.stop(timeout=5) == 0
        clock.set(wrong_by)
        clock.start(processor)
        publish(client, TIMED, range(number, number + SIZE + 1))
        publish(client, UNTIMED, range(number, number + SIZE + 1))
        number += SIZE + 1
        metrics = told(client, processor, 2 * (SIZE + 1))
        assert metrics["outbox"]["samples"] == 2 * (number // SIZE)
        assert metrics["outbox"]["lost"] == {"expired": 0, "displaced": 0, "refused": 0, "undeliverable": 0}
    wall.unlink()
    command(client, processor, "flush")  # rather than wait until the bridge tries again by itself
    assert not_ready(processor) == []
    assert processor.stop() == 0
    assert len(processor.events()) == 2 * (number // SIZE)
    timed = [event for event in processor.events() if event["data"]["readings"]["source"] == "imu"]
    assert sorted(windows(timed)) == whole(range(number))


def test_a_clock_far_behind_is_suspected_and_no_reading_is_gone(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """Times more than `max_ahead` in its future are dead letters that ask for the clock; right again, it goes on."""
    clock = WrongClock(tmp_path / "clock")
    processor = make_processor(**configuration(tmp_path, TIMED))
    client = mqtt_client()
    client.subscribe(f"{processor.root}/metrics")
    clock.start(processor)
    publish(client, TIMED, range(SIZE + 2))
    told(client, processor, SIZE + 2)
    clock.set(-400 * DAY)
    publish(client, TIMED, range(SIZE + 2, SIZE + 5))
    processor.wait_for_log("is this machine's clock right?", 3)
    clock.set(0)
    publish(client, TIMED, range(SIZE + 5, 2 * SIZE + 3))
    assert told(client, processor, 2 * SIZE + 3)["dead_letters"] == {"time": 3}
    processor.wait_until(lambda: len(processor.events()) == 2, "samples")
    assert processor.stop() == 0
    taken = [*range(SIZE + 2), *range(SIZE + 5, 2 * SIZE + 3)]
    assert windows(processor.events()) == whole(taken)
