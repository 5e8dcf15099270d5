"""What is replayed is what was selected live: the same windows, ids and bodies, through a real broker."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from processor.demo.data import FIELDS
from processor.recording import Reader
from processor.types import Message
from tests import recordings
from tests.commands import mlade_here
from tests.integration.test_record import recording
from tests.mqtt_client import MqttClientFactory
from tests.running import ProcessorFactory

COUNT = 1000
WATCHES = {"streams": ["wearable/+/imu"]}
RULES: list[dict[str, Any]] = [
    {"name": "press", "where": {"streams": ["press"]}},
    {
        "name": "unsure",
        "where": WATCHES,
        "measure": "confidence",
        "band": {"max": 0.6},
        "sample": 0.7,
        "limit": {"max": 3, "per": "20s", "by": "stream"},
        "context": {"before": 1, "after": 1},
        "tags": {"to": "label"},
    },
    {"name": "share", "where": WATCHES, "measure": "margin", "keep": {"share": 0.1, "of": "lowest", "over": 50}},
    {"name": "new", "where": WATCHES, "measure": "margin", "band": {"max": 0.4}, "dedup": {"memory": 20}},
    {
        "name": "far",
        "where": WATCHES,
        "measure": "margin",
        "band": {"min": 0.5},
        "sample": 0.3,
        "cooldown": {"for": "3s", "by": "label"},
    },
    {"name": "audit", "where": WATCHES, "sample": 0.2, "schedule": {"duty_cycle": {"period": "10s", "fraction": 0.5}}},
]


def plant() -> list[Message]:
    """Return what is published: watches with their own clocks, and a press that has none."""
    found = []
    for number, message in enumerate(recordings.messages(COUNT)):
        found.append(message)
        if not number % 3:
            values = json.loads(message.payload) if message.payload.startswith(b"{") else dict.fromkeys(FIELDS, 0.5)
            body = {field: values[field] for field in FIELDS}
            found.append(replace(message, topic="press", payload=json.dumps(body).encode()))
    return found


def test_a_replay_gives_the_live_runs_samples(
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A processor runs and a recorder listens while a plant publishes; then the recording is replayed.

    Where readings carry a time, events are equal in every byte of their content. Where the arrival is the time, two
    clients see two times; of these the values, labels and scores are equal.
    """
    topics = {name: f"equal-{tmp_path.name}/{name}" for name in ("wearable", "press")}
    rules = json.loads(
        json.dumps(RULES).replace('"wearable/', f'"{topics["wearable"]}/').replace('"press"]', f'"{topics["press"]}"]')
    )
    base = json.loads(recordings.configuration(tmp_path, *rules).read_text())
    timed, timeless = {**base["sources"][0]}, {**base["sources"][0], "name": "press", "time": None}
    timed["topics"], timeless["topics"] = [f"{topics['wearable']}/+/imu"], [topics["press"]]
    processor = make_processor(id="replayed", sources=[timed, timeless], model=base["model"], filter=base["filter"])
    client = mqtt_client()
    client.subscribe(f"{processor.root}/#")
    processor.start()
    with recording(processor.file) as recorder:
        messages = plant()
        for message in messages:
            kind, _, rest = message.topic.partition("/")
            client.publish(topics[kind] + (f"/{rest}" if rest else ""), message.payload)
        recorder.wait_until(lambda: sum(map(len, Reader(recorder.path))) == len(messages), "all recorded")
        recorder.end(signal.SIGINT)
    client.publish(f"{processor.root}/command", json.dumps({"command": "flush", "id": "1"}))
    client.wait_for(f"{processor.root}/command/response")
    assert processor.stop() == 0

    out = tmp_path / "events.jsonl"
    done = mlade_here(capsys, "replay", str(recorder.path), "-c", str(processor.file), "--out", str(out))
    assert done.code == 0, done.err
    live, replayed = processor.events(), [json.loads(line) for line in out.read_text().splitlines()]
    assert len(live) == len(replayed)
    with_time = [{event["id"]: event for event in found if _source(event) == "imu"} for found in (live, replayed)]
    by = {event["data"]["selection"]["rule"] for event in with_time[0].values()}
    assert by == {"unsure", "share", "new", "far", "audit"}
    assert len(with_time[0]) > 30
    assert any("context" in event["data"]["selection"] for event in with_time[0].values())
    assert with_time[0] == with_time[1]
    without = [[_but_time(event) for event in found if _source(event) == "press"] for found in (live, replayed)]
    assert len(without[0]) > 30
    assert without[0] == without[1]


def _source(event: dict[str, Any]) -> str:
    source: str = event["data"]["readings"]["source"]
    return source


def _but_time(event: dict[str, Any]) -> dict[str, Any]:
    data = event["data"]
    return {"values": data["readings"]["values"], **{key: data[key] for key in ("inference", "selection", "model")}}
