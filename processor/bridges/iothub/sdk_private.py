"""What we touch of the SDK that is private: its paho client, its state, its pipeline thread.

Tested with azure-iot-device 2.15.0rc1. Each function does without where the SDK has changed, and says what is lost.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Any, Protocol

from azure.iot.device.common.pipeline import pipeline_thread
from paho.mqtt.client import Client as PahoClient

log = logging.getLogger(__name__)


class SdkClient(Protocol):
    """Any of the SDK's asynchronous clients."""

    @property
    def connected(self) -> bool:
        """Whether the SDK takes itself for connected."""
        ...


def paho_of(client: object) -> PahoClient | None:
    """Return the MQTT client in an SDK client; None where it is not to be found."""
    paho = getattr(getattr(_last_stage(client), "transport", None), "_mqtt_client", None)
    return paho if isinstance(paho, PahoClient) else None


def _last_stage(client: object) -> Any:  # noqa: ANN401 - the SDK's stages have no types
    pipeline = getattr(client, "_mqtt_pipeline", None) or getattr(client, "_pipeline", None)
    stage = getattr(pipeline, "_pipeline", None)
    while getattr(stage, "next", None) is not None:
        stage = stage.next  # type: ignore[union-attr] # it has one
    return stage


def allow_in_flight(client: object, messages: int) -> bool:
    """Let so many messages wait for their PUBACK; paho's own limit is 20, about 250 a second at 50 ms. Whether it can.

    Before the client connects.
    """
    paho = paho_of(client)
    if paho is None:
        log.warning("This version of azure-iot-device is not known: at most 20 messages are under way at a time.")
        return False
    paho.max_inflight_messages_set(messages)
    return True


def is_renewing(client: object) -> bool:
    """Return whether the SDK has disconnected only to come back with a new token."""
    state = getattr(getattr(_last_stage(client), "nucleus", None), "connection_state", None)
    return getattr(state, "value", None) == "REAUTHORIZING"


def sever(client: object) -> None:
    """End a client's connection as if the network had: at once, whatever it has still to send or to wait for.

    Its shutdown would otherwise wait for a packet to leave that nobody takes, in the thread that all clients share.
    """
    paho = paho_of(client)
    end = None if paho is None else paho.socket()
    if end is None:
        return
    try:
        with socket.socket(fileno=os.dup(end.fileno())) as copy:
            copy.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("The connection to the hub was closed already.")


def end_provisioning(client: object) -> None:
    """End a client of the provisioning service that has not succeeded; by itself it would connect again and again."""
    shutdown = getattr(getattr(client, "_pipeline", None), "shutdown", None)
    if shutdown is not None:
        shutdown(callback=lambda **_: None)


def give_up_pipeline_thread() -> None:
    """Leave the SDK's one pipeline thread to whatever it hangs in, and have it make another for what comes."""
    executors = getattr(pipeline_thread, "_executors", None)
    if isinstance(executors, dict) and executors.pop("pipeline", None) is not None:
        log.warning("A connection to the hub could not be closed in time; going on without what it hangs in.")
