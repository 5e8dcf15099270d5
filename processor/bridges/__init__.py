"""Where samples go. A new bridge is a file here, its settings in settings.py, and a line in `make`."""

from __future__ import annotations

from processor.bridges.files import FilesBridge
from processor.bridges.mqtt import IN_FLIGHT, MqttBridge
from processor.mqtt.client import new_client
from processor.protocols import Bridge, Clock
from processor.settings import BridgeSettings, Settings, client_options
from processor.settings import FilesBridge as FilesSettings
from processor.types import NS


def make(bridge: BridgeSettings, settings: Settings, clock: Clock) -> Bridge:
    """Return a configured bridge."""
    if isinstance(bridge, FilesSettings):
        rotate = bridge.rotate
        directory = settings.path(bridge.path)
        return FilesBridge(directory, settings.id, max_bytes=rotate.max_bytes, max_age=rotate.max_age / NS)
    options = client_options(settings)
    client_id = f"{settings.client_id}-out"
    return MqttBridge(
        settings.root, lambda: new_client(client_id=client_id, in_flight=IN_FLIGHT, clock=clock, **options), clock
    )
