"""The cloud steers: twin, methods, inputs and outputs of a whole processor, through the real SDK, on the double."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from processor.app import App, build
from processor.settings import build as build_settings
from tests import models
from tests.iothub import Device, Hub
from tests.mosquitto import Mosquitto
from tests.mqtt_client import MqttClientFactory
from tests.unit.test_delivery import wait_until

START = 1_790_000_000
ALL = {"rules": [{"name": "all"}]}
NONE: dict[str, Any] = {"rules": []}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Run a hub; each test has an identity of its own."""
    with Hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


def model(directory: Path) -> str:
    """Write a model that takes windows of any length, and is more certain the larger their mean is."""
    text = """means (float[N, T] x) => (float[N, 1] score)
    {
        mean = ReduceMean <axes = [1], keepdims = 1> (x)
        score = Sigmoid (mean)
    }"""
    return str(models.write(models.graph(text), directory))


@contextmanager
def processor(directory: Path, **configuration: Any) -> Iterator[App]:  # noqa: ANN401 - JSON
    """Run a processor with windows of two readings of one field in this process."""
    least = {
        "id": "line-1",
        "model": {"path": model(directory), "window": {"size": 2, "step": 1}, "output": {"kind": "score"}},
        "filter": NONE,
        "http": None,
    }
    failures: list[str] = []
    app = build(build_settings(least | configuration, directory), lambda: failures.append("stopped"))
    app.start()
    try:
        yield app
    finally:
        assert app.close()
        assert not failures, app.failure


def reported(hub: Hub, device: Device, *path: str) -> Any:  # noqa: ANN401 - JSON
    """Return a value of the reported properties; None where it is not there."""
    value: Any = hub.reported(device)
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def reports_of(hub: Hub, device: Device) -> int:
    """Return how often the twin was reported: at each connect, when everything is subscribed to."""
    return len([note for note in hub.notes if (note.kind, note.client) == ("reported", device.id)])


def test_a_module_of_iot_edge_without_a_broker(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLADE's whole life: twin, inputs, outputs, heartbeat, another window size, a restart."""
    device = hub.add_device("edge1", "mlade")
    for name, value in hub.edge_environment(device).items():
        monkeypatch.setenv(name, value)
    configuration: dict[str, Any] = {
        "broker": None,
        "sources": [{"input": "input1", "fields": ["value"], "time": "ts"}],
        "bridges": [{"type": "iothub", "edge": True, "legacy": {"field": "value"}}],
        "publish_inference": True,
    }

    def send(first: int, last: int) -> None:
        for number in range(first, last):
            hub.send_input(device, "input1", json.dumps({"ts": START + number, "value": number}).encode())

    def windows(output: str) -> list[list[float]]:
        bodies = [json.loads(event.body) for event in hub.received(device) if event.output == output]
        return [[row[0] for row in body["data"]["readings"]["values"]] for body in bodies]

    hub.set_desired(device, {"filter": ALL})
    with processor(tmp_path, **configuration) as app:
        hub.wait_for(lambda: reported(hub, device, "filter", "active_source") == "twin")
        send(1, 4)
        hub.wait_for(lambda: windows("training") == [[1, 2], [2, 3]])
        hub.wait_for(lambda: len([one for one in hub.received(device) if one.output == "inference"]) == 2)
        status, body = hub.invoke(device, "heartbeat", {})
        assert (status, body["status"]) == (200, "ok")
        hub.wait_for(lambda: hub.received(device)[-1].output == "heartbeat")
        beat = hub.received(device)[-1]
        assert json.loads(beat.body) == "Module [line-1] is Running"
        assert beat.properties["MessageType"] == "heartbeat"
        hub.set_desired(device, {"ADInputLength": 12})
        hub.wait_for(lambda: reported(hub, device, "window", "size") == 12)
        assert reported(hub, device, "legacy", "status") == "applied"
        send(4, 10)
        wait_until(lambda: app.metrics.total("readings") == 9)
    revision, reports = reported(hub, device, "filter", "revision"), reports_of(hub, device)
    with processor(tmp_path, **configuration):
        hub.wait_for(lambda: reports_of(hub, device) > reports)
        send(10, 17)
        hub.wait_for(lambda: windows("training")[2:] == [list(range(4, 16)), list(range(5, 17))])
        assert reported(hub, device, "filter", "revision") == revision


def test_topic_and_twin_steer_and_both_sides_say_which_is_in_force(
    hub: Hub, tmp_path: Path, mosquitto: Mosquitto, mqtt_client: MqttClientFactory
) -> None:
    """The later change wins, also over what each side says again."""
    device = hub.add_device("dev1")
    operator = mqtt_client()
    operator.subscribe("cloud/line-1/filter/state")
    configuration = {
        "topic_prefix": "cloud",  # the broker is shared
        "broker": {"url": mosquitto.url},
        "sources": [{"name": "imu", "topics": ["a"], "fields": ["value"]}],
        "bridges": [
            {"type": "iothub", "connection_string": device.connection_string, "tls": {"ca": str(hub.ca)}},
        ],
    }

    def both(*expected: object) -> None:
        keys = ("status", "active_source", "revision")
        state = json.loads(operator.wait_for("cloud/line-1/filter/state").payload)
        assert tuple(state[key] for key in keys) == expected
        hub.wait_for(lambda: tuple(reported(hub, device, "filter", key) for key in keys) == expected)

    with processor(tmp_path, **configuration):
        both("applied", "file", 1)
        hub.set_desired(device, {"filter": ALL})
        both("applied", "twin", 2)
        operator.publish("cloud/line-1/filter", json.dumps(NONE).encode(), qos=1, retain=True)
        both("applied", "topic", 3)
        hub.set_desired(device, {"filter": {"rules": [{"name": "x", "sample": 7}]}})
        both("rejected", "topic", 3)
        hub.set_desired(device, {"filter": None})
        both("applied", "file", 4)


def test_methods_are_answered_with_the_hubs_status_codes(hub: Hub, tmp_path: Path) -> None:
    """Through the SDK, also where the broker is away."""
    device = hub.add_device("dev2")
    configuration = {
        "broker": {"url": "mqtt://127.0.0.1:9"},
        "sources": [{"name": "imu", "topics": ["a"], "fields": ["value"]}],
        "bridges": [
            {"type": "iothub", "connection_string": device.connection_string, "tls": {"ca": str(hub.ca)}},
        ],
    }
    with processor(tmp_path, **configuration) as app:
        hub.wait_for(lambda: reported(hub, device, "version"))
        calls = [("pause", None), ("resume", {"id": 1}), ("pause", "now"), ("explode", {}), ("reload_model", {})]
        answers = [hub.invoke(device, name, payload) for name, payload in calls]
        assert [status for status, _ in answers] == [200, 200, 400, 404, 200]
        assert answers[1][1] == {"id": 1, "status": "ok", "paused": False}
        assert all(isinstance(body, dict) and body["status"] == "error" for _, body in answers[2:4])
        assert answers[4][1]["changed"] is False
        assert not app.connection.online
