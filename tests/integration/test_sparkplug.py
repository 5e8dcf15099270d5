"""Sparkplug B over a real broker: nodes that were there first are asked for births, and see that a host listens."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests import models
from tests.mosquitto import MosquittoFactory
from tests.mqtt_client import Client, MqttClientFactory
from tests.running import ProcessorFactory, ProcessorProcess
from tests.sparkplug import Sent, recorded

FIELDS = ["Temperature", "Level", "Running", "Small", "Count", "Setpoint"]
REST = [1, -5, 4e9, 12.5]
PRESS = "Plant 1/line-1/press"


def sparkplug_processor(make_processor: ProcessorFactory, directory: Path, **keys: object) -> ProcessorProcess:
    """Return a processor that keeps every reading of the recorded node."""
    source = {"name": "presses", "format": "sparkplug", "fields": FIELDS, "sparkplug": keys}
    return make_processor(
        sources=[source],
        model={"path": str(models.write(models.dense(), directory))},
        filter={"rules": [{"name": "all"}]},
    )


def publish(node: Client, *messages: Sent) -> None:
    """Send as nodes do."""
    for topic, payload in messages:
        node.publish(topic, payload, 0)


def kept(processor: ProcessorProcess) -> list[tuple[str, list[float]]]:
    """Return streams and values of the samples, by stream and time."""
    events = sorted(processor.events(), key=lambda event: (event["subject"], event["time"]))
    return [(event["subject"], *event["data"]["readings"]["values"]) for event in events]


def test_a_node_that_was_there_first(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """It is asked for its births, and what they say survives a restart."""
    node_birth, device_birth, first, *data = recorded("pysparkplug")
    node = mqtt_client()
    node.subscribe("spBv1.0/Plant 1/NCMD/line-1")
    publish(node, node_birth, device_birth)  # nobody listens yet
    processor = sparkplug_processor(make_processor, tmp_path)
    processor.start()
    publish(node, first)
    request = node.wait_for("spBv1.0/Plant 1/NCMD/line-1")
    assert b"Node Control/Rebirth" in request.payload
    assert not request.retain
    processor.wait_for_log("Plant 1/line-1 is asked for its births: its birth was not seen.")
    publish(node, node_birth, device_birth, first, *data[:5])
    births_and_data: list[tuple[str, list[float]]] = [
        (PRESS, [20.5, -300, *REST]),
        (PRESS, [21, -300, *REST]),
        (PRESS, [22, 7, *REST]),
        (PRESS, [23, 7, *REST]),
        (PRESS, [23, -1, *REST]),
    ]
    history = (f"{PRESS}/historical", [10, -300, *REST])
    processor.wait_until(lambda: len(kept(processor)) == len(births_and_data) + 1, "samples")
    assert processor.stop() == 0
    processor.start()
    publish(node, data[5])  # under aliases alone
    processor.wait_until(lambda: len(kept(processor)) > len(births_and_data) + 1, "another sample")
    assert kept(processor) == [*births_and_data, (PRESS, [23, -2, 0, -128, 4e9, 12.5]), history]
    assert max(event["time"] for event in processor.events()) == "2026-09-21T14:13:27.000000Z"
    assert [message.topic for message in node.received()] == []
    assert processor.stop() == 0


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_nodes_see_that_a_host_listens(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path, end: signal.Signals
) -> None:
    """Retained; and that it does not, whether it ends by itself or is killed."""
    host = f"host-{end.name}"
    state = f"spBv1.0/STATE/{host}"
    processor = sparkplug_processor(make_processor, tmp_path, host_id=host)
    node = mqtt_client()
    node.subscribe(state)
    processor.start()
    online = json.loads(node.wait_for(state).payload)
    assert online["online"] is True
    late = mqtt_client()
    late.subscribe(state)
    retained = late.wait_for(state)
    assert (json.loads(retained.payload), retained.retain) == (online, True)
    node.publish(state, json.dumps({"online": False, "timestamp": online["timestamp"]}), retain=True)
    assert json.loads(node.wait_for(state).payload)["online"] is False
    assert json.loads(node.wait_for(state).payload) == online  # said again at once
    if end == signal.SIGKILL:
        processor.kill()
    else:
        assert processor.stop() == 0
    offline = json.loads(node.wait_for(state).payload)
    assert offline["online"] is False
    assert (offline["timestamp"] > online["timestamp"]) == (end == signal.SIGTERM)  # the will's is that of the connect
    latest = mqtt_client()
    latest.subscribe(state)
    assert json.loads(latest.wait_for(state).payload) == offline


def test_a_host_comes_back_with_the_broker(
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    mosquitto_factory: MosquittoFactory,
    tmp_path: Path,
) -> None:
    """With the time of its new connection, so that a late word of the old one counts for nothing."""
    broker = mosquitto_factory()
    source = {"name": "presses", "format": "sparkplug", "fields": FIELDS, "sparkplug": {"host_id": "mlade"}}
    processor = make_processor(
        on=broker,
        sources=[source],
        model={"path": str(models.write(models.dense(), tmp_path))},
        filter={"rules": []},
    )
    node = mqtt_client(broker=broker)
    node.subscribe("spBv1.0/STATE/mlade")
    processor.start()
    before = json.loads(node.wait_for("spBv1.0/STATE/mlade").payload)
    broker.stop()
    processor.wait_for_log("Lost the broker")
    broker.start()
    node = mqtt_client(broker=broker)
    node.subscribe("spBv1.0/STATE/mlade")
    after = json.loads(node.wait_for("spBv1.0/STATE/mlade", 20).payload)
    assert after["online"] is before["online"] is True
    assert after["timestamp"] > before["timestamp"]
    assert processor.stop() == 0
