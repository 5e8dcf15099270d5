"""What a broker keeps for an absent processor, what it loses, and who else uses the processor's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import models
from tests.integration.test_run import START, command, counted, payload, readings, source
from tests.mosquitto import MosquittoFactory
from tests.mqtt_client import Client, MqttClientFactory
from tests.running import ProcessorFactory, ProcessorProcess

both = pytest.mark.parametrize("protocol", [5, "3.1.1"])
PLENTY = 300


def configuration(tmp_path: Path, url: str, protocol: object, *topics: str) -> dict[str, Any]:
    """Return one that keeps every reading."""
    return {
        "broker": {"url": url, "protocol": protocol},
        "sources": [source(topics[0]) | {"topics": list(topics)}],
        "model": {"path": str(models.write(models.dense(), tmp_path))},
        "filter": {"rules": [{"name": "all"}]},
    }


def publish(client: Client, topic: str, first: int, stop: int) -> None:
    """Publish readings, each once the broker has the one before."""
    values = readings(stop)
    for number in range(first, stop):
        client.publish(topic, payload(START + number, values[number]))


def moments(processor: ProcessorProcess) -> set[str]:
    """Return the times of the samples in files."""
    return {event["time"] for event in processor.events()}


def wait_for_moments(processor: ProcessorProcess, count: int) -> None:
    """Wait until there are samples of so many times."""
    processor.wait_until(lambda: len(moments(processor)) >= count, f"samples of {count} times")


@both
def test_a_queue_that_overflowed_while_we_were_away_is_told(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    protocol: object,
) -> None:
    """In the log and in the metrics; what the broker kept is there."""
    broker = mosquitto_factory("max_queued_messages 50\nsys_interval 1")
    processor = make_processor(on=broker, **configuration(tmp_path, broker.url, protocol, "overflow/imu"))
    client = mqtt_client(broker=broker)
    client.subscribe(f"{processor.root}/metrics")
    client.subscribe("$SYS/broker/publish/messages/dropped")
    client.wait_for("$SYS/broker/publish/messages/dropped")
    processor.start()
    publish(client, "overflow/imu", 0, 1)
    counted(client, processor, 1)
    processor.kill()
    publish(client, "overflow/imu", 1, PLENTY)
    processor.start()
    processor.wait_for_log("max_queued_messages")
    dropped = 0
    while not dropped:  # `wait_for` has the deadline
        metrics = json.loads(client.wait_for(f"{processor.root}/metrics").payload)
        dropped = metrics["counters"]["broker_dropped_messages"]
    assert processor.stop() == 0
    kept = len(moments(processor))
    assert 1 < kept < PLENTY
    assert dropped >= PLENTY - kept


def test_a_session_that_the_broker_did_not_keep_is_told(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
) -> None:
    """It was restarted without persistence; the processor subscribes anew and goes on."""
    broker = mosquitto_factory()
    processor = make_processor(on=broker, **configuration(tmp_path, broker.url, 5, "forgotten/imu"))
    processor.start()
    assert "had not kept our session" not in processor.log()
    broker.restart()
    processor.wait_for_log("a new session", 2)
    assert "had not kept our session" in processor.log()
    client = mqtt_client(broker=broker)
    client.subscribe(f"{processor.root}/metrics")
    publish(client, "forgotten/imu", 0, 10)
    assert counted(client, processor, 10)["counters"]["lost_sessions"] == 1
    assert processor.stop() == 0


@both
def test_a_topic_that_left_the_configuration_is_unsubscribed(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    protocol: object,
) -> None:
    """The session is kept, and with it the messages of topics that are still there."""
    broker = mosquitto_factory()
    before = configuration(tmp_path, broker.url, protocol, "kept/imu", "former/imu")
    processor = make_processor(on=broker, **before)
    client = mqtt_client(broker=broker)
    client.subscribe(f"{processor.root}/metrics")
    processor.start()
    publish(client, "former/imu", 0, 10)
    counted(client, processor, 10)
    assert processor.stop() == 0
    publish(client, "kept/imu", 10, 20)
    processor.configure(sources=configuration(tmp_path, broker.url, protocol, "kept/imu")["sources"])
    processor.start()
    processor.wait_until(lambda: f"{processor.client_id} former/imu" in broker.log(), "UNSUBSCRIBE")
    counted(client, processor, 10)
    publish(client, "former/imu", 20, 30)
    publish(client, "kept/imu", 30, 31)
    metrics = counted(client, processor, 11)
    assert metrics["counters"]["ignored_messages"] == 0
    assert processor.stop() == 0
    assert len(moments(processor)) == 21


@both
def test_overlapping_filters_and_retained_readings_are_read_once(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    protocol: object,
) -> None:
    """Whatever the broker sends twice, and again after every reconnect."""
    broker = mosquitto_factory()
    topics = ["overlap/#", "overlap/+", "overlap/imu"]
    processor = make_processor(on=broker, **configuration(tmp_path, broker.url, protocol, *topics))
    client = mqtt_client(broker=broker)
    client.subscribe(f"{processor.root}/metrics")
    client.subscribe(f"{processor.root}/command/response")
    values = readings(20)
    client.publish("overlap/imu", payload(START, values[0]), retain=True)
    for start in range(3):
        processor.start()
        for number in range(start * 5, start * 5 + 5):
            client.publish("overlap/imu", payload(START + 1 + number, values[number]))
        counted(client, processor, 5)
        assert command(client, processor, "flush")["status"] == "ok"
        processor.kill()
    processor.start()
    assert processor.stop() == 0
    assert len(processor.events()) == len(moments(processor)) == 16


def test_another_client_with_our_name_is_suspected_and_does_not_end_us(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
) -> None:
    """One that is no processor, and so announces nothing: a broker without reason codes leaves only the pattern."""
    broker = mosquitto_factory()
    processor = make_processor(on=broker, **configuration(tmp_path, broker.url, "3.1.1", "namesake/imu"))
    processor.start()
    for times in range(1, 4):
        connected = processor.log().count("Connected to the broker")
        mqtt_client(4, broker=broker, client_id=processor.client_id)
        processor.wait_for_log("Lost the broker", times)
        processor.wait_for_log("Connected to the broker", connected + 1)
    assert f"does another client use the client id '{processor.client_id}'?" in processor.log()
    assert processor.stop() == 0


def test_messages_kept_while_overlapping_topics_changed_count_once(
    mosquitto_factory: MosquittoFactory,
    make_processor: ProcessorFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
) -> None:
    """MQTT 5 has sent a copy for each filter of then; a filter that came is none of them, and one that left is."""
    broker = mosquitto_factory()
    lists = [["change/#"], ["change/+", "change/#"], ["change/#", "#"], ["change/+"]]
    processor = make_processor(on=broker, **configuration(tmp_path, broker.url, 5, *lists[0]))
    client = mqtt_client(broker=broker)
    processor.start()
    for number, topics in enumerate(lists[1:]):
        processor.kill()
        publish(client, "change/imu", 10 * number, 10 * number + 5)
        processor.configure(sources=configuration(tmp_path, broker.url, 5, *topics)["sources"])
        processor.start()
        publish(client, "change/imu", 10 * number + 5, 10 * number + 10)
        wait_for_moments(processor, 10 * (number + 1))
    assert processor.stop() == 0
    assert len(processor.events()) == len(moments(processor)) == 30
