"""Samples to a hub through the real SDK, whatever the hub does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from processor import connection_string
from processor.bridges.iothub import IotHubBridge, Options
from processor.bridges.iothub.identity import Credentials, WithConnectionString
from processor.clock import SystemClock
from processor.cloud import CloudLink, Desired, Method, Notice
from processor.deadletters import read
from processor.store import Changes
from tests.iothub import Device, Hub
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
        assert delivery.state.failures == 1
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


def test_what_is_too_large_is_uploaded_and_referred_to(hub: Hub, tmp_path: Path) -> None:
    """Once, under its id, also when it is sent again; the others do not wait for it."""
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
    wait_until(lambda: found.extend(filter(None, [link.take()])) or found)
    (request,) = found
    assert isinstance(request, kind)
    return request
