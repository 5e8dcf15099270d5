"""A bridge to a hub, from its settings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from processor.bridge_sections import HubBridge
from processor.bridges.iothub.bridge import IotHubBridge
from processor.bridges.iothub.connection import Options
from processor.bridges.iothub.identity import load
from processor.bridges.iothub.rate import Rate
from processor.cloud import CloudLink
from processor.protocols import Clock
from processor.settings import Settings
from processor.types import NS


def make(
    bridge: HubBridge, settings: Settings, clock: Clock, *, link: CloudLink | None, memory: Mapping[str, Any] | None
) -> IotHubBridge:
    """Return a configured bridge; see `bridges.make`."""
    credentials = partial(load, bridge, settings)
    credentials()  # what is wrong with it is said now, not with the first connection
    rate = bridge.rate
    return IotHubBridge(
        credentials,
        clock,
        link=link,
        options=Options(websockets=bridge.websockets, window=bridge.window),
        timeout=bridge.timeout / NS,
        rate=Rate(clock, per_second=rate.messages_per_second, per_day=rate.messages_per_day, kept=memory),
        per_second=rate.messages_per_second,
        pack=bridge.pack.max_bytes,
        linger=bridge.pack.linger / NS,
        upload=bridge.upload == "oversize",
    )
