"""The real SDK sends telemetry to the double."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.iot.device import Message
from azure.iot.device.aio import IoTHubDeviceClient

from tests.iothub import Device, Hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """Run a hub."""
    with Hub(tmp_path) as running:
        yield running


def client_of(hub: Hub, device: Device) -> IoTHubDeviceClient:
    """Make the SDK's client of a device."""
    return IoTHubDeviceClient.create_from_connection_string(
        device.connection_string, server_verification_cert=hub.ca.read_text(), connection_retry=False
    )


def test_what_is_sent_is_received_with_its_properties(hub: Hub) -> None:
    """System properties are apart from the application's, and all of them are decoded."""
    device = hub.add_device("dev1")

    async def send() -> None:
        client = client_of(hub, device)
        message = Message(b'{"a": 1}')  # type: ignore[no-untyped-call]  # the SDK's has no types
        message.message_id = "id 1"
        message.content_type, message.content_encoding = "application/json", "utf-8"
        message.custom_properties = {"rule": "a/b c&d=%+"}
        await client.send_message(message)
        await client.shutdown()

    asyncio.run(send())
    (event,) = hub.received(device)
    assert event.body == b'{"a": 1}'
    assert event.properties == {"rule": "a/b c&d=%+"}
    assert event.system == {"$.mid": "id 1", "$.ct": "application/json", "$.ce": "utf-8"}
