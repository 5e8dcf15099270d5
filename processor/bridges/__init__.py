"""Where samples go. A new bridge is a file here, its settings in bridge_sections.py, and a line in `make`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from processor.bridges.files import FilesBridge
from processor.bridges.mqtt import IN_FLIGHT, MqttBridge
from processor.cloud import CloudLink
from processor.mqtt.client import new_client
from processor.protocols import Bridge, Clock
from processor.settings import BridgeSettings, HubBridge, Settings, client_options
from processor.settings import FilesBridge as FilesSettings
from processor.types import NS


def make(
    bridge: BridgeSettings,
    settings: Settings,
    clock: Clock,
    *,
    link: CloudLink | None = None,
    memory: Mapping[str, Any] | None = None,
) -> Bridge:
    """Return a configured bridge.

    Args:
        bridge: its settings.
        settings: the whole.
        clock: for deadlines.
        link: for a bridge to a hub, what the cloud asks for beside samples; None: nothing is asked.
        memory: what a bridge of this name has remembered in an earlier run.

    Raises:
        ConfigurationError: what its settings point to cannot be used.
    """
    if isinstance(bridge, HubBridge):
        from processor.bridges.iothub.making import make as make_hub  # noqa: PLC0415 - the SDK takes a second to load

        return make_hub(bridge, settings, clock, link=link, memory=memory)
    if isinstance(bridge, FilesSettings):
        rotate = bridge.rotate
        directory = settings.path(bridge.path)
        return FilesBridge(directory, settings.id, max_bytes=rotate.max_bytes, max_age=rotate.max_age / NS)
    options = client_options(settings)
    client_id = f"{settings.client_id}-out"
    return MqttBridge(
        settings.root, lambda: new_client(client_id=client_id, in_flight=IN_FLIGHT, clock=clock, **options), clock
    )
