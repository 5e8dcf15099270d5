"""Bridges and what goes wrong on their other side: nothing is lost, nothing stalls, and each thing is said."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest

from processor.bridges.mqtt import IN_FLIGHT, PATIENCE, MqttBridge
from processor.clock import SystemClock
from processor.database import FILE_NAME
from processor.deadletters import read
from processor.delivery import Delivery
from processor.mqtt.client import new_client
from processor.store import Changes
from processor.types import Sample
from tests import models
from tests.integration.test_run import START, counted, payload, readings, source
from tests.mosquitto import Mosquitto, MosquittoFactory
from tests.mqtt_client import Client, MqttClientFactory
from tests.proxy import ProxyFactory
from tests.running import ProcessorFactory, ProcessorProcess
from tests.unit.test_delivery import delivering, samples, wait_until

OVERSIZE = 20_000


class Receiver:
    """Who receives a bridge's samples, and counts them."""

    def __init__(self, client: Client, root: str) -> None:
        self._client = client
        self._client.subscribe(f"{root}/accepted/#")
        self.times: Counter[int] = Counter()

    def numbers(self) -> set[int]:
        """Return the numbers of the samples that have arrived."""
        self.times.update(json.loads(message.payload)["n"] for message in self._client.received())
        return set(self.times)


def bridge_to(
    url: Callable[[], str], root: str, *, protocol: Literal[5, "3.1.1"] = 5, patience: float = PATIENCE
) -> MqttBridge:
    """Return a bridge that publishes below `root`; `url` is looked at with each connection."""
    clock = SystemClock()
    client_id = f"out-{uuid4().hex}"
    return MqttBridge(
        root,
        lambda: new_client(url=url(), client_id=client_id, protocol=protocol, in_flight=IN_FLIGHT),
        clock,
        patience=patience,
    )


def large(first: int, count: int, size: int = OVERSIZE, rule: str = "rule") -> list[Sample]:
    """Return samples whose events have about `size` bytes."""
    return [
        one._replace(event=json.dumps({"n": n, "_": "x" * size}).encode())
        for n, one in enumerate(samples(first, count, rule=rule), start=first)
    ]


@pytest.fixture
def root() -> str:
    """Return topics of the test's own."""
    return f"mlade/{uuid4().hex}"


def test_what_the_broker_took_is_not_published_again_while_the_disk_cannot_take_note(
    mosquitto: Mosquitto, mqtt_client: MqttClientFactory, tmp_path: Path, root: str
) -> None:
    """Only the note is tried again; the rest goes out when it has been taken."""
    receiver = Receiver(mqtt_client(), root)
    with (
        delivering(tmp_path, bridge_to(lambda: mosquitto.url, root)) as (store, delivery),
        closing(sqlite3.connect(tmp_path / "state" / FILE_NAME)) as db,
    ):
        db.execute("CREATE TRIGGER stuck BEFORE DELETE ON delivery BEGIN SELECT RAISE(ABORT, 'no room'); END")
        store.commit(Changes(samples=samples(0, 1500)), 0)
        delivery.notify()
        wait_until(lambda: delivery.state.failures >= 3)
        wait_until(lambda: len(receiver.numbers()) == 1000)
        assert "no room" in (delivery.state.error or "")
        assert "not sent again" in (delivery.state.error or "")
        db.execute("DROP TRIGGER stuck")
        wait_until(lambda: store.totals.rows == 0)
        wait_until(lambda: len(receiver.numbers()) == 1500)
    assert set(receiver.times.values()) == {1}


@pytest.mark.parametrize(
    ("setting", "protocol", "said"),
    [
        ("max_packet_size 5000", 5, "the broker takes at most 5000"),  # in its CONNACK
        ("message_size_limit 5000", 5, "packet too large (0x95)"),  # in its PUBACK
        ("max_packet_size 5000", "3.1.1", "ended the connection 3 times"),  # not at all
    ],
)
def test_a_sample_that_the_broker_finds_too_large_becomes_a_dead_letter_and_stalls_nothing(
    mosquitto_factory: MosquittoFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    root: str,
    setting: str,
    protocol: Literal[5, "3.1.1"],
    said: str,
) -> None:
    """However the broker says so, and if it only drops the connection; in the midst of others, first and last."""
    broker = mosquitto_factory(setting)
    receiver = Receiver(mqtt_client(broker=broker), root)
    contents = large(0, 1) + samples(1, 150) + large(151, 1) + samples(152, 150, rule="other") + large(302, 1)
    with delivering(tmp_path, bridge_to(lambda: broker.url, root, protocol=protocol)) as (store, delivery):
        store.commit(Changes(samples=contents), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        wait_until(lambda: len(receiver.numbers()) == 300)
        wait_until(lambda: delivery.state.error is None)
        assert (store.totals.undeliverable, delivery.state.delivered) == (3, 300)
    assert receiver.numbers() == set(range(303)) - {0, 151, 302}
    letters = list(read(tmp_path / "state"))
    assert sorted(json.loads(letter.payload)["n"] for letter in letters) == [0, 151, 302]
    assert {letter.reason for letter in letters} == {"undeliverable"}
    assert all(said in letter.detail for letter in letters), letters[0].detail


def test_a_rule_whose_topic_is_not_allowed_lets_the_others_pass(
    mosquitto: Mosquitto,
    mosquitto_factory: MosquittoFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
    root: str,
) -> None:
    """It says which topic; when that is mended its samples go, each once."""
    acl = f"topic readwrite #\ntopic deny {root}/accepted/bad\n"
    strict = mosquitto_factory("acl_file acl", files={"acl": acl})
    urls = [strict.url]
    receiver = Receiver(mqtt_client(broker=strict), root)
    with delivering(tmp_path, bridge_to(lambda: urls[-1], root)) as (store, delivery):
        store.commit(Changes(samples=samples(0, 2500, rule="bad") + samples(2500, 200, rule="good")), 0)
        delivery.notify()
        wait_until(lambda: len(receiver.numbers()) == 200)
        wait_until(lambda: delivery.state.delivered == 200)
        assert f"{root}/accepted/bad: not authorised; allow this client to publish there (0x87)" in (
            delivery.state.error or ""
        )
        assert (store.totals.rows, store.totals.undeliverable) == (2500, 0)
        mended = Receiver(mqtt_client(), root)
        urls.append(mosquitto.url)
        strict.stop()
        wait_until(lambda: store.totals.rows == 0)
        wait_until(lambda: len(mended.numbers()) == 2500)
        wait_until(lambda: delivery.state.error is None)
    assert receiver.numbers() == set(range(2500, 2700))
    assert set(mended.times.values()) == {1}


def test_a_connection_that_swallows_everything_is_given_up_and_made_anew(
    mosquitto: Mosquitto, mqtt_client: MqttClientFactory, proxy: ProxyFactory, tmp_path: Path, root: str
) -> None:
    """Half-open: nothing says so. Nothing is lost; what may come twice has the same id."""
    link = proxy(mosquitto.host, mosquitto.port)
    receiver = Receiver(mqtt_client(), root)
    with delivering(tmp_path, bridge_to(lambda: link.url, root, patience=1.0)) as (store, delivery):
        store.commit(Changes(samples=samples(0, 50)), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        link.swallow()
        store.commit(Changes(samples=samples(50, 50)), 0)
        delivery.notify()
        wait_until(lambda: "not acknowledged in time" in (delivery.state.error or ""))
        assert store.totals.rows == 50
        link.heal()
        wait_until(lambda: store.totals.rows == 0)
        wait_until(lambda: delivery.state.error is None)
        assert delivery.state.delivered == 100
        wait_until(lambda: len(receiver.numbers()) == 100)


def has_failed(delivery: Delivery, times: int) -> bool:
    """Whether a delivery has failed so many times."""
    return delivery.state.failures >= times


def test_a_connection_that_is_cut_again_and_again_loses_nothing(
    mosquitto: Mosquitto, mqtt_client: MqttClientFactory, proxy: ProxyFactory, tmp_path: Path, root: str
) -> None:
    """In the middle of deliveries; and no sample is blamed for it."""
    link = proxy(mosquitto.host, mosquitto.port)
    receiver = Receiver(mqtt_client(), root)
    with delivering(tmp_path, bridge_to(lambda: link.url, root)) as (store, delivery):
        link.cut_after(300)
        store.commit(Changes(samples=samples(0, 1500)), 0)
        delivery.notify()
        for failures in range(1, 5):
            wait_until(partial(has_failed, delivery, failures))
            link.cut_after(300)
        link.cut_after(1 << 30)
        wait_until(lambda: store.totals.rows == 0)
        wait_until(lambda: len(receiver.numbers()) == 1500)
        wait_until(lambda: delivery.state.delivered == 1500)
        assert store.totals.undeliverable == 0
    assert link.connections >= 5


def test_a_broker_that_is_killed_in_the_middle_gets_the_rest_when_it_is_back(
    mosquitto_factory: MosquittoFactory, mqtt_client: MqttClientFactory, proxy: ProxyFactory, tmp_path: Path, root: str
) -> None:
    """What it acknowledged is with it; what it did not comes again, with the same id."""
    broker = mosquitto_factory(persistence=True)
    link = proxy(broker.host, broker.port, delay=0.01)
    subscriber = f"s-{uuid4().hex}"
    receiver = Receiver(mqtt_client(broker=broker, client_id=subscriber, session_expiry=3600), root)
    with delivering(tmp_path, bridge_to(lambda: link.url, root)) as (store, delivery):
        store.commit(Changes(samples=samples(0, 3000)), 0)
        delivery.notify()
        wait_until(lambda: len(receiver.numbers()) > 100)
        broker.stop()
        wait_until(lambda: delivery.state.error is not None)
        before = receiver.numbers()
        broker.start()
        again = Receiver(mqtt_client(broker=broker, client_id=subscriber, session_expiry=3600), root)
        wait_until(lambda: store.totals.rows == 0)
        wait_until(lambda: before | again.numbers() == set(range(3000)))
        assert delivery.state.delivered == 3000


def test_a_slow_link_is_not_taken_for_a_broken_one(
    mosquitto: Mosquitto, mqtt_client: MqttClientFactory, proxy: ProxyFactory, tmp_path: Path, root: str
) -> None:
    """A delivery takes several times the patience, and one connection: each answer counts."""
    link = proxy(mosquitto.host, mosquitto.port, delay=0.05)
    receiver = Receiver(mqtt_client(), root)
    with delivering(tmp_path, bridge_to(lambda: link.url, root, patience=2.0)) as (store, delivery):
        store.commit(Changes(samples=samples(0, 1000)), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        assert delivery.state.failures == 0
        wait_until(lambda: len(receiver.numbers()) == 1000)
    assert link.connections == 1
    assert set(receiver.times.values()) == {1}


def processor_with_both(
    make_processor: ProcessorFactory, tmp_path: Path, topic: str, broker: Mosquitto, **configuration: object
) -> ProcessorProcess:
    """Return a processor that keeps every reading, in files and on topics."""
    return make_processor(
        on=broker,
        sources=[source(topic)],
        model={"path": str(models.write(models.dense(), tmp_path))},
        filter={"rules": [{"name": "all"}]},
        bridges=[{"type": "files", "path": "./accepted", "rotate": {"max_age": "100ms"}}, {"type": "mqtt"}],
        **configuration,
    )


def play(client: Client, topic: str, first: int, stop: int) -> None:
    """Publish numbered readings."""
    values = readings(stop)
    for number in range(first, stop):
        client.publish(topic, payload(START + number, values[number]))


def ids(client: Client) -> Counter[str]:
    """Return the ids of the events that a subscriber has received."""
    return Counter(json.loads(message.payload)["id"] for message in client.received())


def test_files_go_on_while_the_broker_refuses_the_samples(
    make_processor: ProcessorFactory,
    mosquitto: Mosquitto,
    mosquitto_factory: MosquittoFactory,
    mqtt_client: MqttClientFactory,
    tmp_path: Path,
) -> None:
    """For good, as it seems, also over a restart; in the end each sample was delivered once to each.

    Debian's Mosquitto 2.0.11 also ends the connection over a sample it does not allow, when `max_queued_messages` is 0.
    """
    acl = "topic readwrite #\ntopic deny mlade/+/accepted/#\n"
    strict = mosquitto_factory("acl_file acl", files={"acl": acl})
    processor = processor_with_both(make_processor, tmp_path, "refused/imu", strict)
    client = mqtt_client(broker=strict)
    client.subscribe(f"{processor.root}/metrics")
    processor.start()
    play(client, "refused/imu", 0, 200)
    processor.wait_until(lambda: len(processor.events()) == 200, "files with all samples")
    metrics = counted(client, processor, 200)
    while metrics["bridges"]["files"]["waiting"]:
        metrics = json.loads(client.wait_for(f"{processor.root}/metrics").payload)
    assert metrics["bridges"]["files"]["error"] is None
    assert metrics["bridges"]["mqtt"]["waiting"] == metrics["outbox"]["samples"] == 200
    assert f"{processor.root}/accepted/all: not authorised" in metrics["bridges"]["mqtt"]["error"]
    play(client, "refused/imu", 200, 300)
    processor.wait_until(lambda: len(processor.events()) == 300, "files with all samples")
    assert processor.stop(timeout=5) == 0

    processor.file.write_text(json.dumps(processor.configuration | {"broker": {"url": mosquitto.url}}))
    receiver = mqtt_client()
    receiver.subscribe(f"{processor.root}/accepted/all")
    processor.start()
    received: Counter[str] = Counter()
    processor.wait_until(lambda: received.update(ids(receiver)) or len(received) == 300, "all samples on the topic")
    assert processor.stop() == 0
    events = [event["id"] for event in processor.events()]
    assert len(events) == len(set(events)) == 300
    assert received == Counter(events)


def test_the_broker_gets_the_samples_while_the_files_cannot_be_written(
    make_processor: ProcessorFactory, mosquitto: Mosquitto, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """And the files when they can; what is left at the end is written at the end."""
    processor = processor_with_both(make_processor, tmp_path, "unwritable/imu", mosquitto)
    wall = processor.directory / "accepted"
    wall.write_text("not a directory")
    client, receiver = mqtt_client(), mqtt_client()
    client.subscribe(f"{processor.root}/metrics")
    receiver.subscribe(f"{processor.root}/accepted/all")
    processor.start()
    play(client, "unwritable/imu", 0, 300)
    received: Counter[str] = Counter()
    processor.wait_until(lambda: received.update(ids(receiver)) or len(received) == 300, "all samples on the topic")
    metrics = counted(client, processor, 300)
    while metrics["bridges"]["mqtt"]["waiting"] or not metrics["bridges"]["files"]["error"]:
        metrics = json.loads(client.wait_for(f"{processor.root}/metrics").payload)
    assert metrics["bridges"]["files"]["waiting"] == metrics["outbox"]["samples"] == 300
    assert "cannot be written" in metrics["bridges"]["files"]["error"]
    wall.unlink()
    processor.wait_until(lambda: len(processor.events()) == 300, "files with all samples")
    assert processor.stop() == 0
    assert received == Counter(event["id"] for event in processor.events())


def test_a_stop_finishes_the_file_that_is_gathering(
    make_processor: ProcessorFactory, mosquitto: Mosquitto, mqtt_client: MqttClientFactory, tmp_path: Path
) -> None:
    """SIGTERM does not wait for it to become full or old."""
    processor = make_processor(
        on=mosquitto,
        sources=[source("gathering/imu")],
        model={"path": str(models.write(models.dense(), tmp_path))},
        filter={"rules": [{"name": "all"}]},
        bridges=[{"type": "files", "path": "./accepted", "rotate": {"max_age": "1h"}}],
    )
    client = mqtt_client()
    client.subscribe(f"{processor.root}/metrics")
    processor.start()
    play(client, "gathering/imu", 0, 100)
    counted(client, processor, 100)
    assert processor.events() == []
    assert processor.stop(timeout=5) == 0
    assert len(processor.events()) == 100
