"""A shadow put beside the model, replaced and removed while the processor runs; over restarts, beside new models."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests import models
from tests.exchanging import FIELDS, ModelTopic, tilted
from tests.mqtt_client import Client, MqttClientFactory
from tests.running import ProcessorFactory, ProcessorProcess

START = 1_790_000_000
DIFFER = {"name": "differ", "measure": "disagreement", "band": {"min": 0.1}}
ALL = {"name": "all"}


class Plant:
    """A processor of readings of two fields with the model `first.onnx`, its sensor, and its operator."""

    def __init__(self, processor: ProcessorProcess, client: Client) -> None:
        self.processor = processor
        self.client = client
        self.topic = ModelTopic(client, processor)
        self.readings = 0
        client.subscribe(f"{processor.root}/filter/state")
        for name, tilt in (("first", 0.1), ("second", 3.0), ("third", -3.0)):
            models.write(tilted(tilt), processor.directory, name)

    def read(self, value: float) -> dict[str, Any]:
        """Have the sensor send a reading, and return the sample that comes of it."""
        self.readings += 1
        payload = json.dumps({"ts": START + self.readings, "x": value, "y": 0.5})
        self.client.publish(f"{self.processor.root.replace('/', '-')}/imu", payload)
        self.processor.wait_until(lambda: len(self.processor.events()) >= self.readings, f"{self.readings} samples")
        return self.processor.events()[-1]

    def filter(self, *rules: dict[str, Any]) -> dict[str, Any]:
        """Publish a filter, and return the answer."""
        self.client.publish(f"{self.processor.root}/filter", json.dumps({"rules": rules}), retain=True)
        while True:
            answer: dict[str, Any] = json.loads(self.client.wait_for(f"{self.processor.root}/filter/state").payload)
            if answer["source"] == "topic":
                return answer

    def shadow(self) -> dict[str, Any] | None:
        """Return what the metrics say of the shadow now."""
        self.client.received()
        self.client.subscribe(f"{self.processor.root}/metrics")
        while (message := self.client.wait_for(f"{self.processor.root}/metrics")).retain:
            pass  # that is from before
        found: dict[str, Any] | None = json.loads(message.payload)["shadow"]
        return found


@pytest.fixture
def plant(make_processor: ProcessorFactory, mqtt_client: MqttClientFactory) -> Plant:
    """A running processor without a shadow."""
    processor = make_processor(sources=[], model={"path": "first.onnx"}, filter={"rules": [ALL]})
    source = {"name": "imu", "topics": [f"{processor.root.replace('/', '-')}/imu"], "fields": FIELDS, "time": "ts"}
    processor.configure(sources=[source])
    made = Plant(processor, mqtt_client())
    processor.start()
    return made


def judged_by(event: dict[str, Any]) -> tuple[str, str | None]:
    """Return the names of the model and of the shadow in an event."""
    shadow = event["data"]["inference"].get("shadow")
    return event["data"]["model"]["name"], shadow and shadow["model"]["name"]


def test_a_shadow_comes_changes_and_goes(plant: Plant) -> None:
    """Each from the document's place in the stream on; a rule that asks it holds it fast."""
    assert plant.filter(DIFFER)["errors"][0]["path"] == "rules[0].measure"
    assert judged_by(plant.read(1)) == ("first", None)
    assert plant.topic.set(path="first.onnx", shadow={"path": "second.onnx", "sample": 1})["status"] == "applied"
    assert plant.filter(DIFFER, ALL)["status"] == "applied"
    event = plant.read(1)
    assert judged_by(event) == ("first", "second")
    assert event["data"]["selection"]["rule"] == "differ"
    p, q = event["data"]["inference"], event["data"]["inference"]["shadow"]
    apart = abs(p["probabilities"]["a"] - q["probabilities"]["a"])
    assert event["data"]["selection"]["score"] == pytest.approx(apart)

    answer = plant.topic.set(path="first.onnx", shadow={"path": "third.onnx", "sample": 1})
    assert (answer["status"], answer["revision"]) == ("applied", 3)
    assert judged_by(plant.read(1)) == ("first", "third")
    told = plant.shadow()
    assert told is not None
    assert (told["name"], told["windows"], told["part"]) == ("third", 1, 1.0)

    plant.topic.publish()
    rejected = plant.topic.wait_for("rejected", source="file")
    assert [error["path"] for error in rejected["errors"]] == ["filter.rules[0].measure"]
    assert judged_by(plant.read(1)) == ("first", "third")
    assert plant.filter(ALL)["status"] == "applied"
    assert plant.topic.set(path="first.onnx", shadow=None)["status"] == "applied"
    assert judged_by(plant.read(1)) == ("first", None)
    assert plant.shadow() is None


@pytest.mark.parametrize(
    ("shadow", "path"),
    [
        ({"path": "../outside.onnx"}, "shadow.path"),
        ({"path": "absent.onnx"}, "shadow.path"),
        ({"path": "others.onnx"}, "shadow.output.labels"),
        ({"path": "second.onnx", "compare": "colours"}, "shadow.compare"),
        ({"path": "second.onnx", "cpu": 0.1, "sample": 0.1}, "shadow.sample"),
    ],
)
def test_a_shadow_that_does_not_fit_is_rejected(plant: Plant, shadow: dict[str, Any], path: str) -> None:
    """And the model stays, without one."""
    models.write(tilted(0.2, labels=("c", "d")), plant.processor.directory, "others")
    answer = plant.topic.set(path="second.onnx", shadow=shadow)
    assert (answer["status"], [error["path"] for error in answer["errors"]]) == ("rejected", [path])
    assert judged_by(plant.read(1)) == ("first", None)


def test_a_shadow_and_its_part_survive_a_kill_and_a_new_model(plant: Plant) -> None:
    """Its part is that of the pair that judges; each pair's is remembered."""
    shadow = {"path": "third.onnx", "cpu": 0.6}
    parts: dict[str, float] = {}
    for path in ("first.onnx", "second.onnx", "first.onnx"):
        assert plant.topic.set(path=path, shadow=shadow)["status"] == "applied"
        told = plant.shadow()
        assert told is not None
        assert parts.setdefault(path, told["part"]) == told["part"]
    plant.processor.kill()
    database = plant.processor.directory / "state" / "mlade.db"
    with closing(sqlite3.connect(database)) as connection:
        (kept,) = connection.execute("SELECT value FROM meta WHERE key = 'model default shadow'").fetchone()
    assert len({(model, beside) for model, beside, _ in json.loads(kept)}) == 2
    plant.processor.start()
    assert plant.topic.wait_for("applied")["active"]["name"] == "first"
    told = plant.shadow()
    assert told is not None
    assert (told["name"], told["part"]) == ("third", parts["first.onnx"])


def test_the_shadow_takes_over(plant: Plant) -> None:
    """A document that names it as the model: the last one may stay beside it."""
    plant.topic.set(path="first.onnx", shadow={"path": "second.onnx", "sample": 1})
    assert judged_by(plant.read(1)) == ("first", "second")
    plant.topic.set(path="second.onnx", shadow={"path": "first.onnx", "sample": 1})
    event = plant.read(1)
    assert judged_by(event) == ("second", "first")
    told = plant.shadow()
    assert told is not None
    assert (told["windows"], told["agreement"]) == (1, 1.0)
