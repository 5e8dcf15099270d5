"""Where port 443 is not for everyone: the SDK finds the hub's HTTPS port through a proxy in the environment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device.aio import IoTHubDeviceClient

from tests.iothub import Hub
from tests.iothub.listeners import listen

pytestmark = pytest.mark.filterwarnings("ignore:Callback API version 1 is deprecated")


def test_https_on_another_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File uploads and WebSockets."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]  # below, on an address of the hub's own
    with Hub(tmp_path, https_port=port) as hub:
        assert hub.https_port == port
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        device = hub.add_device("dev1")

        async def run() -> None:
            client: Any = IoTHubDeviceClient.create_from_connection_string(
                device.connection_string, server_verification_cert=hub.ca.read_text(), websockets=True
            )
            await client.send_message("hello")
            await client.get_storage_info_for_blob("name")
            await client.shutdown()

        asyncio.run(run())
        assert [event.body for event in hub.received(device)] == [b"hello"]
        assert [upload.blob for upload in hub.uploads] == ["dev1/name"]
