"""What goes wrong in plants, through real parts: said clearly, survived, nothing acknowledged lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import models
from tests.integration.test_run import START, band, command, counted, payload, readings, source
from tests.mosquitto import MosquittoFactory
from tests.mqtt_client import MqttClientFactory
from tests.plant import SIZE, configuration, measured, not_ready, publish, wall_off, whole, windows
from tests.running import ProcessorFactory, ProcessorProcess


@pytest.mark.parametrize("protocol", [5, "3.1.1"])
def test_a_second_processor_with_the_same_id_ends_the_first(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path, protocol: int | str
) -> None:
    """On another machine, that is with another state directory: one exits 1 and says why, the other goes on."""
    path = models.write(models.dense(), tmp_path)
    configured: dict[str, Any] = {
        "id": f"twins-{str(protocol)[0]}",
        "broker": {"url": make_processor.url, "protocol": protocol},
        "sources": [source("twins/imu")],
        "model": {"path": str(path)},
        "filter": band(0, 1),
    }
    first, second = make_processor(**configured), make_processor(**configured)
    first.start()
    second.start()
    assert first.wait() == 1
    assert "give each processor an id of its own" in first.log()
    client = mqtt_client()
    client.subscribe(f"{second.root}/status")
    client.subscribe(f"{second.root}/metrics")
    second.wait_until(lambda: client.wait_for(f"{second.root}/status").payload == b"online", "online")
    client.publish("twins/imu", payload(START, readings(1)[0]))
    counted(client, second, 1)
    assert second.stop() == 0


def test_a_second_processor_on_one_state_directory_is_refused(make_processor: ProcessorFactory, tmp_path: Path) -> None:
    """Before it touches the broker."""
    path = models.write(models.dense(), tmp_path)
    configured: dict[str, Any] = {
        "state_dir": str(tmp_path / "state"),
        "sources": [source("locked/imu")],
        "model": {"path": str(path)},
        "filter": band(0, 1),
    }
    first, second = make_processor(**configured), make_processor(**configured)
    first.start()
    second.launch()
    assert second.wait() == 1
    assert "another mlade uses the state directory" in second.log()
    assert "Connected" not in second.log()
    assert first.stop() == 0


@pytest.mark.parametrize("persistence", [True, False])
def test_a_restarted_broker_is_found_again(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    persistence: bool,
) -> None:
    """Whether the broker kept its state or not: the processor is online again, and goes on with its windows."""
    path = models.write(models.cnn(size=10), tmp_path)
    values = readings(40)
    broker = mosquitto_factory(persistence=persistence)
    processor = make_processor(
        on=broker,
        sources=[source("restart/imu")],
        model={"path": str(path), "window": {"size": 10, "step": 10}},
        filter={"rules": [{"name": "all"}]},
    )
    client = mqtt_client(broker=broker)
    processor.start()
    client.subscribe(f"{processor.root}/metrics")
    for number in range(15):
        client.publish("restart/imu", payload(START + number, values[number]))
    counted(client, processor, 15)
    connected = processor.log().count("Connected to the broker")
    broker.restart()
    processor.wait_until(lambda: processor.log().count("Connected to the broker") > connected, "connected again")
    client = mqtt_client(broker=broker)
    client.subscribe(f"{processor.root}/#")
    assert client.wait_for(f"{processor.root}/status").payload == b"online"
    for number in range(15, 40):
        client.publish("restart/imu", payload(START + number, values[number]))
    counted(client, processor, 40)
    command(client, processor, "flush")
    assert processor.stop() == 0
    assert [event["data"]["readings"]["values"][-1] for event in processor.events()] == [
        values[last].tolist() for last in (9, 19, 29, 39)
    ]


def test_both_bridges_fail_and_come_back(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
) -> None:
    """Each for its own reason: readings are taken in all the while, and each gets each sample once."""
    acl = "topic readwrite #\ntopic {} mlade/+/accepted/#\n"
    broker = mosquitto_factory("acl_file acl", files={"acl": acl.format("deny")}, persistence=True)
    bridges = [{"type": "files", "path": "./accepted", "rotate": {"max_age": "100ms"}}, {"type": "mqtt"}]
    processor = make_processor(on=broker, **configuration(tmp_path, "both/imu", bridges=bridges))
    wall = wall_off(processor)
    processor.start()
    publish(mqtt_client(broker=broker), "both/imu", range(20 * SIZE))
    processor.wait_until(lambda: len(not_ready(processor)) == 2, "both are said to fail")
    files, mqtt = not_ready(processor)
    assert files.startswith("bridge files: ") and "cannot be written" in files  # noqa: PT018 - one sentence
    assert mqtt.startswith("bridge mqtt: ") and "not authorised" in mqtt  # noqa: PT018 - as above
    assert measured(processor, "mlade_outbox_samples") == 20
    assert all(measured(processor, f'mlade_bridge_waiting{{bridge="{name}"}}') == 20 for name in ("files", "mqtt"))
    wall.unlink()
    broker.write("acl", acl.format("readwrite"))
    broker.restart()
    listener = mqtt_client(broker=broker)
    listener.subscribe(f"{processor.root}/accepted/all")
    processor.wait_until(lambda: measured(processor, "mlade_outbox_samples") == 0, "all delivered")
    processor.wait_until(lambda: not not_ready(processor), "all is well")
    assert processor.stop() == 0
    assert windows(processor.events()) == whole(range(20 * SIZE))
    received = [json.loads(message.payload)["id"] for message in listener.received()]
    assert sorted(received) == sorted(event["id"] for event in processor.events())


def blocked(processor: ProcessorProcess) -> bool:
    """Whether the processor has said that it acknowledges nothing any more."""
    return "Nothing is acknowledged any more" in processor.log()


def test_a_full_outbox_that_blocks_stops_acknowledging_and_goes_on_when_there_is_room(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """Commands are answered meanwhile; in the end every sample is there, once."""
    path = models.write(models.dense(), tmp_path)
    processor = make_processor(
        sources=[source("block/imu")],
        model={"path": str(path)},
        filter={"rules": [{"name": "all"}]},
        outbox={"max_bytes": "64KiB", "when_full": "block"},
    )
    wall = processor.directory / "accepted"
    wall.write_text("not a directory: the files bridge fails")
    client = mqtt_client()
    client.subscribe(f"{processor.root}/command/response")
    processor.start()
    values = readings(500)
    for number in range(500):
        client.publish("block/imu", payload(START + number, values[number]))
    processor.wait_until(lambda: blocked(processor), "blocked")
    processor.wait_until(lambda: "cannot be written" in processor.log(), "a bridge that failed")
    report = command(client, processor, "status")
    assert "outbox is full" in report["blocked"]
    assert "cannot be written" in report["bridges"]["files"]["error"]
    assert command(client, processor, "pause")["paused"] is True
    assert command(client, processor, "resume")["paused"] is False
    wall.unlink()
    processor.wait_until(lambda: len(processor.events()) == 500, "all samples")
    assert len({event["id"] for event in processor.events()}) == 500
    assert processor.stop() == 0


def test_a_blocked_processor_stops_promptly_and_the_rest_comes_next_time(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """What was not committed was not acknowledged, so the broker has it still."""
    path = models.write(models.dense(), tmp_path)
    processor = make_processor(
        sources=[source("blocked/imu")],
        model={"path": str(path)},
        filter={"rules": [{"name": "all"}]},
        outbox={"max_bytes": "64KiB", "when_full": "block"},
    )
    wall = processor.directory / "accepted"
    wall.write_text("not a directory: the files bridge fails")
    client = mqtt_client()
    processor.start()
    values = readings(500)
    for number in range(500):
        client.publish("blocked/imu", payload(START + number, values[number]))
    processor.wait_until(lambda: blocked(processor), "blocked")
    assert processor.stop(timeout=5) == 0
    wall.unlink()
    processor.start()
    processor.wait_until(lambda: len(processor.events()) >= 500, "all samples")
    assert len({event["id"] for event in processor.events()}) == len(processor.events()) == 500
