"""Samples to a hub through the real SDK, whatever the hub does."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from processor import connection_string
from processor.bridges.iothub.bridge import IotHubBridge
from processor.bridges.iothub.connection import Options
from processor.bridges.iothub.identity import (
    Certificate,
    Credentials,
    EdgeModule,
    Identity,
    Provisioned,
    WithCertificate,
    WithConnectionString,
    WithKey,
)
from processor.bridges.iothub.rate import Rate
from processor.clock import ManualClock, SystemClock
from processor.cloud import CloudLink, Desired, Input, Method, Notice
from processor.database import FILE_NAME
from processor.deadletters import read
from processor.store import Changes
from processor.types import NS
from tests import models
from tests.integration.test_bridges import play
from tests.integration.test_run import counted, source
from tests.iothub import Device, Hub
from tests.mosquitto import Mosquitto
from tests.mqtt_client import MqttClientFactory
from tests.running import ProcessorFactory
from tests.unit.test_delivery import delivering, samples, wait_until

T = TypeVar("T")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """Run a hub."""
    with Hub(tmp_path / "hub") as running:
        yield running


def bridge_to(hub: Hub, device: Device, **options: Any) -> IotHubBridge:  # noqa: ANN401 - of several types
    """Return a bridge with a device's connection string."""
    parsed = connection_string.parse(device.connection_string)
    credentials = Credentials(WithConnectionString(parsed), hub.ca.read_text())
    return IotHubBridge(lambda: credentials, SystemClock(), **options)


def numbers(hub: Hub, device: Device) -> Counter[int]:
    """Return how often each numbered sample has arrived; what came twice was equal."""
    bodies = {(event.id, event.body) for event in hub.received(device)}
    assert len(bodies) == len({identifier for identifier, _ in bodies}), "two messages with one id"
    return Counter(json.loads(event.body)["n"] for event in hub.received(device))


def test_samples_arrive_as_the_contract_says(hub: Hub, tmp_path: Path) -> None:
    """Body, id, content type and properties; once each."""
    device = hub.add_device("dev1")
    with delivering(tmp_path, bridge_to(hub, device)) as (store, delivery):
        store.commit(Changes(samples=samples(0, 300)), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        figures = delivery.figures()
    assert numbers(hub, device) == Counter(range(300))
    event = hub.received(device)[7]
    assert event.id == f"{7:032x}"
    assert event.properties == {"rule": "rule", "label": "label", "stream": "stream", "model": "model"}
    assert event.system == {"$.mid": event.id, "$.ct": "application/json", "$.ce": "utf-8"}
    assert (figures["messages"], figures["blocks"], figures["samples"], figures["connected"]) == (300, 300, 300, 1)


def test_a_cut_in_the_middle_of_a_full_window_loses_nothing(hub: Hub, tmp_path: Path) -> None:
    """What comes again has the same id and content."""
    device = hub.add_device("dev1")
    hub.faults.slow_link(0.02)
    with delivering(tmp_path, bridge_to(hub, device, options=Options(window=100))) as (store, delivery):
        store.commit(Changes(samples=samples(0, 1500)), 0)
        hub.faults.cut_after(400)
        delivery.notify()
        wait_until(lambda: delivery.state.failures == 1)
        hub.faults.cut_after(500)
        wait_until(lambda: store.totals.rows == 0)
    assert set(numbers(hub, device)) == set(range(1500))


def test_packs_hold_samples_of_one_rule_and_come_again_as_they_were(hub: Hub, tmp_path: Path) -> None:
    """Composed once: when the acknowledgement was lost, the repeat has the same id and the same body."""
    device = hub.add_device("dev1")
    contents = [
        one._replace(event=one.event[:-1] + b', "pad": "' + b"x" * 400 + b'"}')
        for n in range(300)
        for one in samples(n, 1, rule=f"rule-{n % 3}")
    ]
    bridge = bridge_to(hub, device, pack=4096, linger=0.1, timeout=1.0)
    hub.faults.drop_pubacks(5)
    with delivering(tmp_path, bridge) as (store, delivery):
        for first in range(0, 300, 20):
            store.commit(Changes(samples=contents[first : first + 20]), 0)
            delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        assert delivery.state.failures >= 1
        assert delivery.figures()["samples"] == 300
    received = hub.received(device)
    assert len({event.id for event in received}) == len({event.body for event in received})
    once = {event.id: event for event in received}.values()
    assert len(once) < len(received), "some came twice"
    assert Counter(one["n"] for event in once for one in json.loads(event.body)) == Counter(range(300))
    for event in once:
        events = json.loads(event.body)
        assert {f"rule-{one['n'] % 3}" for one in events} == {event.properties["rule"]}
        assert event.properties == {"rule": event.properties["rule"], "model": "model", "count": str(len(events))}
        assert event.system["$.ct"] == "application/cloudevents-batch+json"
        assert event.size <= 4096


def test_what_is_too_large_is_uploaded_and_referred_to(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, under its id, also when it is sent again; the others do not wait for it; and no secret is in the log."""
    caplog.set_level(logging.DEBUG)
    device = hub.add_device("dev1")
    large = json.dumps({"specversion": "1.0", "id": f"{3:032x}", "data": "x" * (256 << 10)}).encode()
    contents = samples(0, 5)
    contents[3] = contents[3]._replace(event=large)
    with delivering(tmp_path, bridge_to(hub, device, storage_ca=str(hub.ca))) as (store, delivery):
        hub.faults.fail_uploads(503)
        store.commit(Changes(samples=contents), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 1)
        wait_until(lambda: "503" in (delivery.state.error or ""))
        hub.faults.heal()
        wait_until(lambda: store.totals.rows == 0)
        assert delivery.figures()["uploads"] == 1
    (name,) = hub.blobs
    assert hub.blobs[name] == large
    (event,) = [event for event in hub.received(device) if event.id == f"{3:032x}"]
    assert not any(secret in caplog.text for secret in (device.key, "SharedAccess", "sig="))
    short = json.loads(event.body)
    assert short.pop("dataref").endswith(name)
    assert short == {"specversion": "1.0", "id": f"{3:032x}"}


@pytest.mark.parametrize("upload", [True, False])
def test_what_is_too_large_is_a_dead_letter_without_storage(hub: Hub, tmp_path: Path, *, upload: bool) -> None:
    """With its reason: none at the hub, or not wanted."""
    device = hub.add_device("dev1")
    hub.configure_storage(present=False)
    contents = samples(0, 3)
    contents[1] = contents[1]._replace(event=b"[" + b" " * (256 << 10) + b"]")
    with delivering(tmp_path, bridge_to(hub, device, upload=upload)) as (store, delivery):
        store.commit(Changes(samples=contents), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        assert store.totals.undeliverable == 1
        (letter,) = read(tmp_path / "state")
    assert ("upload is never" if not upload else "link a storage account") in letter.detail
    assert numbers(hub, device) == Counter([0, 2])


def test_the_cloud_steers_over_the_same_connection(hub: Hub, tmp_path: Path) -> None:
    """Twin, methods, reported properties and notices, while no sample waits; messages to the device are left alone."""
    device = hub.add_device("dev1")
    hub.set_desired(device, {"filter": {"enabled": True}})
    link = CloudLink()
    bridge = bridge_to(hub, device, link=link)
    with delivering(tmp_path, bridge) as (_, delivery):
        link.on_said(delivery.notify)
        complete = asked(link, Desired)
        assert complete.complete
        assert complete.properties["filter"] == {"enabled": True}
        hub.set_desired(device, {"filter": {"enabled": False}})
        patch = asked(link, Desired)
        assert (patch.complete, patch.properties["filter"]) == (False, {"enabled": False})
        with ThreadPoolExecutor() as pool:
            calling = pool.submit(hub.invoke, device, "heartbeat", {"a": 1})
            method = asked(link, Method)
            assert (method.name, method.payload) == ("heartbeat", {"a": 1})
            method.answer(200, {"done": True})
            assert calling.result() == (200, {"done": True})
        link.report({"filter": {"revision": 3}})
        hub.wait_for(lambda: hub.reported(device).get("filter") == {"revision": 3})
        link.notify(Notice(b"alive", {"MessageType": "heartbeat"}))
        hub.wait_for(lambda: [event.body for event in hub.received(device)] == [b"alive"])
        number = hub.send_c2d(device, b"hello")
        hub.wait_for(lambda: not hub.waits(device, number))
        hub.restart(keep_sessions=False)
        link.report({"filter": {"revision": 4}})
        hub.wait_for(lambda: hub.reported(device).get("filter") == {"revision": 4})
        assert asked(link, Desired).complete


def asked(link: CloudLink, kind: type[T]) -> T:
    """Return the next thing that the cloud asks for."""
    found: list[object] = []

    def look() -> bool:
        found.extend(filter(None, [link.take()]))
        return bool(found)

    wait_until(look)
    (request,) = found
    assert isinstance(request, kind)
    return request


# Who we are.


def connection_string_of(hub: Hub) -> tuple[Device, Identity]:
    """Return a module that signs with the key in its connection string."""
    device = hub.add_device("dev1", "mlade")
    return device, WithConnectionString(connection_string.parse(device.connection_string))


def key_of(hub: Hub) -> tuple[Device, Identity]:
    """Return a device that signs with a key."""
    device = hub.add_device("dev1")
    return device, WithKey(hub.host, "dev1", device.key)


def certificate_of(hub: Hub) -> tuple[Device, Identity]:
    """Return a device that shows a certificate."""
    device = hub.add_device("dev1", x509=True)
    return device, WithCertificate(hub.host, "dev1", files_of(device))


def files_of(device: Device) -> Certificate:
    """Return a device's certificate."""
    assert device.certificate
    assert device.private_key
    return Certificate(device.certificate, device.private_key)


def provisioned_with_key(hub: Hub) -> tuple[Device, Identity]:
    """Return a device that the provisioning service knows by a key."""
    device = hub.enroll("dev1")
    return device, Provisioned(hub.host, hub.scope, "dev1", None, device.key)


def provisioned_with_certificate(hub: Hub) -> tuple[Device, Identity]:
    """Return a device that the provisioning service knows by a certificate."""
    device = hub.enroll("dev1", x509=True)
    return device, Provisioned(hub.host, hub.scope, "dev1", files_of(device))


@pytest.mark.parametrize(
    "make",
    [connection_string_of, key_of, certificate_of, provisioned_with_key, provisioned_with_certificate],
    ids=lambda make: make.__name__,
)
def test_each_identity_connects(make: Callable[[Hub], tuple[Device, Identity]], hub: Hub, tmp_path: Path) -> None:
    """And is told in words when it is refused."""
    device, identity = make(hub)
    credentials = Credentials(identity, hub.ca.read_text())
    bridge = IotHubBridge(lambda: credentials, SystemClock())
    with delivering(tmp_path, bridge) as (store, delivery):
        store.commit(Changes(samples=samples(0, 3)), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        assert set(numbers(hub, device)) == {0, 1, 2}
        assert len(list(repr(credentials))) > 0
        assert not device.key or device.key not in repr(credentials)


def test_a_module_of_iot_edge_gets_everything_from_its_environment(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trust, its signatures; and its inputs come to the pipeline."""
    device = hub.add_device("dev1", "mlade")
    for name, value in hub.edge_environment(device).items():
        monkeypatch.setenv(name, value)
    link = CloudLink()
    bridge = IotHubBridge(lambda: Credentials(EdgeModule(), None), SystemClock(), link=link)
    with delivering(tmp_path, bridge) as (store, delivery):
        store.commit(Changes(samples=samples(0, 3)), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        assert set(numbers(hub, device)) == {0, 1, 2}
        assert asked(link, Desired).complete
        hub.send_input(device, "input1", b"7")
        request = asked(link, Input)
        assert (request.name, request.payload) == ("input1", b"7")
        link.on_said(delivery.notify)
        link.notify(Notice(b"inference", {}, "output1"))
        hub.wait_for(lambda: hub.received(device)[-1].output == "output1")


# What goes wrong.


def test_a_second_connection_of_the_same_device_is_named_as_the_likely_reason(hub: Hub, tmp_path: Path) -> None:
    """The hub ends the older one, without a word; nothing is lost over it."""
    device = hub.add_device("dev1")
    with delivering(tmp_path / "a", bridge_to(hub, device)) as (first, one):
        wait_until(lambda: one.figures()["connected"])
        with delivering(tmp_path / "b", bridge_to(hub, device)) as (_, other):
            wait_until(lambda: "another client" in f"{one.state.error} {other.state.error}")
        first.commit(Changes(samples=samples(0, 50)), 0)
        one.notify()
        wait_until(lambda: first.totals.rows == 0)
    assert set(numbers(hub, device)) == set(range(50))


def test_the_hub_s_push_back_slows_us_down(hub: Hub, tmp_path: Path) -> None:
    """Over its quota it ends connections: we come again, ever more seldom, and with less under way."""
    device = hub.add_device("dev1")
    hub.faults.exhaust_quota(after=100)
    with delivering(tmp_path, bridge_to(hub, device)) as (store, delivery):
        store.commit(Changes(samples=samples(0, 200)), 0)
        delivery.notify()
        wait_until(lambda: delivery.state.failures == 3)
        assert delivery.figures()["window"] <= 32
        connects = len([note for note in hub.notes if note.kind == "connected"])
        assert connects <= delivery.state.failures + 1
        hub.faults.heal()
        wait_until(lambda: store.totals.rows == 0)
    assert set(numbers(hub, device)) == set(range(200))


def test_a_renewed_token_loses_nothing(hub: Hub, tmp_path: Path) -> None:
    """The SDK renews it two minutes before its end, over another connection."""
    device = hub.add_device("dev1")
    hub.faults.slow_link(0.02)
    with delivering(tmp_path, bridge_to(hub, device, options=Options(token_ttl=122))) as (store, delivery):
        count = 0
        while len([note for note in hub.notes if note.kind == "connected"]) < 3:
            store.commit(Changes(samples=samples(count, 20)), 0)
            delivery.notify()
            count += 20
            wait_until(lambda: store.totals.rows < 500)
        wait_until(lambda: store.totals.rows == 0)
        assert delivery.state.failures == 0
    assert set(numbers(hub, device)) == set(range(count))


def test_a_processor_ends_in_time_whatever_the_hub_does(
    hub: Hub, mosquitto: Mosquitto, mqtt_client: MqttClientFactory, make_processor: ProcessorFactory, tmp_path: Path
) -> None:
    """Silent, or never there; what is not acknowledged waits for the next start."""
    device = hub.add_device("dev1")
    (tmp_path / "secret").write_text(device.connection_string)
    processor = make_processor(
        sources=[source("hub/imu")],
        model={"path": str(models.write(models.dense(), tmp_path))},
        filter={"rules": [{"name": "all"}]},
        bridges=[
            {
                "type": "iothub",
                "connection_string_file": str(tmp_path / "secret"),
                "tls": {"ca": str(hub.ca)},
            }
        ],
    )
    client = mqtt_client(broker=mosquitto)
    client.subscribe(f"{processor.root}/metrics")
    hub.take_down()
    for fault in (hub.faults.heal, hub.bring_up, hub.faults.go_silent):
        processor.start()
        fault()
        play(client, "hub/imu", 0, 100)
        counted(client, processor, 100)
        assert processor.stop(timeout=5) == 0
    hub.faults.heal()
    processor.start()
    hub.wait_for(lambda: len({event.id for event in hub.received(device)}) == 100)
    metrics = json.loads(client.wait_for(f"{processor.root}/metrics").payload)
    while metrics["outbox"]["samples"]:
        metrics = json.loads(client.wait_for(f"{processor.root}/metrics").payload)
    assert metrics["bridges"]["iothub"]["messages"] > 0
    assert processor.stop(timeout=5) == 0
    event = hub.received(device)[0]
    whole = json.loads(event.body)
    label, model = whole["data"]["inference"]["label"], whole["data"]["model"]["name"]
    assert whole["id"] == event.id
    assert event.properties == {"rule": "all", "label": label, "stream": "hub/imu", "model": model}
    assert device.key not in processor.log()
    assert "Traceback" not in processor.log()


def test_the_day_s_quota_survives_a_restart(hub: Hub, tmp_path: Path) -> None:
    """What is over it waits, and that is said."""
    device = hub.add_device("dev1")
    clock = ManualClock(wall=20_000 * 86_400 * NS)
    kept: dict[str, Any] | None = None
    for total in (100, 100):
        rate = Rate(clock, per_second=None, per_day=100, kept=kept)
        with delivering(tmp_path, bridge_to(hub, device, rate=rate)) as (store, delivery):
            if kept is None:
                store.commit(Changes(samples=samples(0, 150)), 0)
            delivery.notify()
            wait_until(lambda: "midnight" in (delivery.state.error or ""))
            assert delivery.figures()["quota_left"] == 0
        assert len(hub.received(device)) == total
        kept = store_memory(tmp_path)
    clock.advance(86_400)
    rate = Rate(clock, per_second=None, per_day=100, kept=kept)
    with delivering(tmp_path, bridge_to(hub, device, rate=rate)) as (store, _):
        wait_until(lambda: store.totals.rows == 0)
    assert set(numbers(hub, device)) == set(range(150))


def store_memory(directory: Path) -> Any:  # noqa: ANN401 - JSON
    """Return what the bridge has remembered."""
    with closing(sqlite3.connect(directory / "state" / FILE_NAME)) as db:
        ((value,),) = db.execute("SELECT value FROM meta WHERE key = 'bridge one'").fetchall()
    return json.loads(value)
