"""More than anyone can take: room stays bounded, commands are answered, it ends when told to, and nothing is twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.flood import Flood
from bench.publisher import publisher
from tests import models
from tests.integration.test_run import command, source
from tests.mosquitto import Mosquitto, MosquittoFactory
from tests.mqtt_client import MqttClientFactory
from tests.plant import measured, wall_off
from tests.running import ProcessorFactory, ProcessorProcess

pytestmark = pytest.mark.xdist_group("load")  # one worker's: two floods at once would take each other's time

SECONDS = 4.0
PATIENCE = 30.0
"""Seconds until it has taken in some messages, where the machine has other things to do, too."""
OFFERED = 300e6
"""Bytes a second; far more than a Mosquitto or a processor takes on two cores."""
MORE_ROOM = 64 << 20
"""Bytes that a processor may take in a flood beyond what it takes at rest."""
BEHIND_THE_FLOOD = 30.0
"""Seconds until a command is answered: it has to wait for what the broker has already in line for the processor."""
INBOX = 64 << 20
"""Bytes of messages that it takes in while nothing can be kept."""
SIZE = 100
"""Readings in a window; the next begins where one ends."""


class Case(NamedTuple):
    """A flood and what can be asked of a processor in it.

    Attributes:
        size: bytes of a message.
        readings: in a message.
        qos: of messages and subscription.
        kept: messages that the broker keeps for a slow client before it drops some; 0: all.
    """

    size: int
    readings: int
    qos: int
    kept: int


CASES = {
    "small, QoS 0": Case(200, 1, 0, kept=1000),
    "small, QoS 1": Case(200, 1, 1, kept=0),
    "large, QoS 0": Case(64 << 10, 600, 0, kept=1000),
    "large, QoS 1": Case(64 << 10, 600, 1, kept=1000),
}


@contextmanager
def flooding(port: int, flood: Flood) -> Iterator[None]:
    """Publish as much as the broker takes until the block ends."""
    over = threading.Event()

    def offer() -> None:
        with publisher(port) as source:
            source.offer(flood, OFFERED, going_on=lambda: not over.is_set())

    thread = threading.Thread(target=offer)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def flood_processor(
    make_processor: ProcessorFactory,
    tmp_path: Path,
    broker: Mosquitto,
    *,
    qos: int,
    keep: float,
    **more: Any,  # noqa: ANN401 - JSON
) -> ProcessorProcess:
    """Return a processor that judges windows of a hundred readings, one after the other, and keeps a part of them."""
    return make_processor(
        on=broker,
        sources=[source("flood/imu", qos=qos)],
        model={"path": str(models.write(models.cnn(size=SIZE), tmp_path)), "window": {"size": SIZE, "step": SIZE}},
        filter={"rules": [{"name": "some", "sample": keep}]},
        **more,
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_flood_is_borne(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    case: Case,
) -> None:
    """It takes what it can, in order and once, answers, and can be stopped; the rest is the broker's to keep."""
    broker = mosquitto_factory(f"max_queued_messages {case.kept}")
    processor = flood_processor(make_processor, tmp_path, broker, qos=case.qos, keep=0.05)
    client = mqtt_client(broker=broker)
    client.subscribe(f"{processor.root}/command/response")
    processor.start()
    flood = Flood("flood/imu", size=case.size, readings=case.readings, qos=case.qos)
    at_rest, most, messages = processor.resident, 0, 0.0
    with flooding(broker.port, flood):
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < SECONDS or (messages <= 100 and passed < PATIENCE):
            messages = measured(processor, 'mlade_messages_total{source="imu"}')
            most = max(most, processor.resident)
            if not case.kept:  # else the broker, whose queue for us is full, drops commands as it drops readings
                client.publish(f"{processor.root}/command", b'{"command": "heartbeat", "id": 1}')
                client.wait_for(f"{processor.root}/command/response", BEHIND_THE_FLOOD)
        told = time.monotonic()
        assert processor.stop() == 0
        assert time.monotonic() - told < 5
    assert messages > 100
    assert most - at_rest < MORE_ROOM

    processor.start()
    letters = 'mlade_dead_letters_total{reason="decode"}'

    def nothing_is_left() -> bool:
        client.publish("flood/imu", "the end", case.qos)
        return measured(processor, letters) > 0

    processor.wait_until(nothing_is_left, "nothing is left")
    assert command(client, processor, "flush")["status"] == "ok"
    assert processor.stop() == 0
    windows = sorted(
        [Flood.number(text) for text in event["data"]["readings"]["times"]] for event in processor.events()
    )
    assert len(windows) > 3
    for window, following in pairwise([*windows, [flood.messages * flood.readings]]):
        assert window == sorted(set(window))
        assert window[-1] < following[0]
        if not case.kept:
            assert window == list(range(window[0] // SIZE * SIZE, window[0] // SIZE * SIZE + SIZE))


def test_a_flood_while_nothing_can_be_kept_is_borne(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
) -> None:
    """What was read waits in memory, within its bound, and commands are answered; then it goes on."""
    broker = mosquitto_factory("max_queued_messages 1000")
    outbox = {"max_bytes": "64KiB", "when_full": "block"}
    processor = flood_processor(make_processor, tmp_path, broker, qos=1, keep=1, outbox=outbox)
    wall = wall_off(processor)
    client = mqtt_client(broker=broker)
    client.subscribe(f"{processor.root}/command/response")
    processor.start()
    at_rest, most = processor.resident, 0
    with flooding(broker.port, Flood("flood/imu", size=64 << 10, qos=1)):
        processor.wait_for_log("Nothing is acknowledged any more")
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            client.publish(f"{processor.root}/command", b'{"command": "heartbeat", "id": 1}')
            client.wait_for(f"{processor.root}/command/response")
            most = max(most, processor.resident)
    assert most - at_rest < INBOX + MORE_ROOM
    wall.unlink()
    processor.wait_for_log("There is room again")
    told = time.monotonic()
    assert processor.stop() == 0
    assert time.monotonic() - told < 5
