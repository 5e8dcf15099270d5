"""Samples to a hub through the real SDK, whatever the hub does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from processor import connection_string
from processor.bridges.iothub import IotHubBridge, Options
from processor.bridges.iothub.identity import Credentials, WithConnectionString
from processor.clock import SystemClock
from processor.store import Changes
from tests.iothub import Device, Hub
from tests.unit.test_delivery import delivering, samples, wait_until


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
