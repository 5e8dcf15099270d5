"""Ten thousand streams with windows under way: a kill loses none of them, and room and time stay small."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

from bench.load import identifiers, publish_packet
from bench.publisher import publisher
from tests import models
from tests.integration.test_run import FIELDS, START, readings, source
from tests.mosquitto import Mosquitto
from tests.plant import measured, windows
from tests.running import ProcessorFactory

STREAMS = 10_000
SIZE = 20
"""Readings in a window."""
MORE_ROOM = 96 << 20
"""Bytes that all these windows may take: half of it is what Python and SQLite keep to work with."""
VALUES = readings(SIZE).round(3).tolist()


def packets(numbers: Iterable[int]) -> list[bytes]:
    """Return one message for each stream, with these readings."""
    body = json.dumps([{"ts": START + n, **dict(zip(FIELDS, VALUES[n], strict=True))} for n in numbers]).encode()
    return [
        publish_packet(f"many/{stream:05d}/imu", body, 1, identifier)
        for stream, identifier in zip(range(STREAMS), identifiers(), strict=False)
    ]


def test_ten_thousand_windows_outlive_a_kill(
    mosquitto: Mosquitto, make_processor: ProcessorFactory, tmp_path: Path
) -> None:
    """Each window is completed by the first reading after the restart, which takes no longer than any start."""
    processor = make_processor(
        sources=[source("many/+/imu", stream="{topic[1]}")],
        model={"path": str(models.write(models.cnn(size=SIZE), tmp_path)), "window": {"size": SIZE, "step": SIZE}},
        filter={"rules": [{"name": "all"}]},
    )
    messages = 'mlade_messages_total{source="imu"}'
    processor.start()
    at_rest = processor.resident
    with publisher(mosquitto.port) as plant:
        for done, numbers in enumerate((range(10), range(10, SIZE - 1)), start=1):
            plant.flood(packets(numbers), 1)
            processor.wait_until(lambda done=done: measured(processor, messages) == done * STREAMS, "all read")  # type: ignore[misc]
        assert measured(processor, "mlade_streams") == STREAMS
        assert processor.resident - at_rest < MORE_ROOM
        processor.kill()
        killed = time.monotonic()
        processor.start()
        assert time.monotonic() - killed < 5
        assert f"Restored the windows of {STREAMS} streams." in processor.log()
        plant.flood(packets([SIZE - 1]), 1)
        delivered = 'mlade_bridge_delivered_total{bridge="files"}'
        processor.wait_until(lambda: measured(processor, delivered) == STREAMS, "all samples")
        assert processor.resident - at_rest < MORE_ROOM
    assert processor.stop() == 0
    events = processor.events()
    assert windows(events) == [list(range(SIZE))] * STREAMS
    assert {event["subject"] for event in events} == {f"{stream:05d}" for stream in range(STREAMS)}
