"""For tests that change a processor's model: models that differ, and what the processor says of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests import models
from tests.mqtt_client import Client, MqttClientFactory
from tests.running import ProcessorFactory, ProcessorProcess

FIELDS = ["x", "y"]
PATIENCE = 20.0
START = 1_790_000_000
EVERYTHING = {"rules": [{"name": "all", "measure": "confidence"}]}


def tilted(tilt: float, labels: tuple[str, ...] = ("a", "b"), *, channels: int = 2) -> onnx.ModelProto:
    """Return a softmax over readings of two channels (NC), another for each `tilt`."""
    weights = np.full((channels, len(labels)), 0.01, np.float32)
    weights[0] += tilt * np.arange(len(labels), dtype=np.float32)
    return models.graph(
        f"""tilted (float[N, {channels}] x) => (float[N, {len(labels)}] probabilities)
        {{
            sums = MatMul (x, w)
            probabilities = Softmax <axis = 1> (sums)
        }}""",
        metadata={"labels": ",".join(labels)},
        w=weights,
    )


def raising_above(limit: int) -> onnx.ModelProto:
    """Return a softmax over two channels (NC) that raises when the first, cut to a whole number, is not 0 to limit."""
    return models.graph(
        """raising (float[N, 2] x) => (float[N, 2] probabilities)
        <int64[1] start = {0}, int64[1] end = {1}, int64[1] axis = {1}>
        {
            first = Slice (x, start, end, axis)
            index = Cast <to = 7> (first)
            looked = Gather (table, index)
            flat = Flatten (looked)
            sums = Add (x, flat)
            probabilities = Softmax <axis = 1> (sums)
        }""",
        metadata={"labels": "a,b"},
        table=np.zeros(limit + 1, np.float32),
    )


class ModelTopic:
    """A processor's model topic, as an operator uses it."""

    def __init__(self, client: Client, processor: ProcessorProcess) -> None:
        self._client = client
        self._processor = processor
        client.subscribe(f"{processor.root}/model/state")
        client.subscribe(f"{processor.root}/command/response")

    def publish(self, **document: Any) -> None:  # noqa: ANN401 - JSON
        """Want a model; nothing given: the configuration's."""
        payload = json.dumps(document) if document else ""
        self._client.publish(f"{self._processor.root}/model", payload, retain=True)

    def wait_for(self, status: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Return the next answer with this status and these values."""
        deadline = time.monotonic() + PATIENCE
        last: dict[str, Any] = {}
        while time.monotonic() < deadline:
            last = json.loads(self._client.wait_for(f"{self._processor.root}/model/state").payload)
            if last["status"] == status and all(last[key] == value for key, value in more.items()):
                return last
        pytest.fail(f"{last} instead of {status} {more}\n{self._processor.log()}")

    def set(self, **document: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Want a model, and return what became of it."""
        self.publish(**document)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answer: dict[str, Any] = json.loads(self._client.wait_for(f"{self._processor.root}/model/state").payload)
            if answer["status"] in ("applied", "rejected") and (answer["source"] == "topic" or not document):
                return answer
        pytest.fail(f"no answer\n{self._processor.log()}")

    def reload(self) -> dict[str, Any]:
        """Send the command, and return its answer."""
        self._client.publish(f"{self._processor.root}/command", json.dumps({"command": "reload_model", "id": 1}))
        answer: dict[str, Any] = json.loads(self._client.wait_for(f"{self._processor.root}/command/response").payload)
        return answer


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Have whoever reads `path` wait; then it has read what is no model."""
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)  # so that neither end waits to open it
    try:
        yield
    finally:
        path.unlink()
        os.write(pipe, b"no model")
        os.close(pipe)


class Plant:
    """A processor of readings of two fields, its sensor, and its operator."""

    def __init__(self, processor: ProcessorProcess, client: Client) -> None:
        self.processor = processor
        self.folder = processor.directory
        self.client = client
        self.topic = ModelTopic(client, processor)
        self.readings = 0

    def read(self, *values: float) -> None:
        """Have the sensor send readings, one after another."""
        for value in values:
            self.readings += 1
            payload = json.dumps({"ts": START + self.readings, "x": value, "y": 0.5})
            self.client.publish(f"{self.processor.root.replace('/', '-')}/imu", payload)

    def events(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many samples, and return them."""
        self.processor.wait_until(lambda: len(self.processor.events()) >= count, f"{count} samples")
        return self.processor.events()

    def model(self, name: str, tilt: float, **more: Any) -> str:  # noqa: ANN401 - as `tilted`
        """Write a model, and return its name as the configuration has it."""
        models.write(tilted(tilt, **more), self.folder, name)
        return f"{name}.onnx"


MakePlant = Callable[..., Plant]


@pytest.fixture
def make_plant(make_processor: ProcessorFactory, mqtt_client: MqttClientFactory) -> MakePlant:
    """Make a running processor with the model `first.onnx`."""

    def make(model: dict[str, Any] | None = None, **configuration: Any) -> Plant:  # noqa: ANN401 - JSON
        given = {"filter": EVERYTHING, "model": {"path": "first.onnx", **(model or {})}, **configuration}
        processor = make_processor(sources=[], **given)
        source = {"name": "imu", "topics": [f"{processor.root.replace('/', '-')}/imu"], "fields": FIELDS, "time": "ts"}
        processor.configure(sources=[source])
        plant = Plant(processor, mqtt_client())
        plant.model("first", 0.1)
        processor.start()
        return plant

    return make


def names(events: list[dict[str, Any]]) -> list[str]:
    """Return which model judged each sample."""
    return [event["data"]["model"]["name"] for event in events]


def paths(answer: dict[str, Any]) -> list[str]:
    """Return where the errors of an answer are."""
    return [error["path"] for error in answer["errors"]]
