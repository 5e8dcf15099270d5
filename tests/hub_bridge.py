"""A bridge to a hub, for tests."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, TypeVar

from processor import connection_string
from processor.bridges.iothub.bridge import IotHubBridge
from processor.bridges.iothub.identity import Credentials, WithConnectionString
from processor.clock import SystemClock
from processor.cloud import CloudLink
from tests.iothub import Device, Hub
from tests.unit.test_delivery import wait_until

T = TypeVar("T")


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
