"""Samples as messages on `<prefix>/<id>/accepted/<rule>`, over a connection of its own.

Of its own, because on the processor's connection a full outbox would stop the reading that these messages'
acknowledgements need.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from processor.errors import BridgeError, ConfigurationError
from processor.mqtt.fast_reader import FastClient
from processor.outbox import Waiting
from processor.protocols import Clock, Shipment

log = logging.getLogger(__name__)

IN_FLIGHT: Final = 100
"""Samples that may wait for their PUBACK; fewer where the broker says so."""
_FAILURE: Final = 0x80
"""MQTT 5 reason codes from here on are refusals."""
_CONNECT_PATIENCE: Final = 5.0
_LOOP: Final = 0.2
_UNASKED: Final = 1000


class MqttBridge:
    """Publishes at QoS 1; a sample is delivered when the broker has acknowledged it."""

    def __init__(self, root: str, new_client: Callable[[], FastClient], clock: Clock) -> None:
        """Publish below `root`, the processor's own topics, with clients that `new_client` makes."""
        self.shipment = Shipment(samples=1000, max_bytes=4 << 20, linger=0.0, claimed=False)
        self._topic = f"{root}/accepted/"
        self._new_client = new_client
        self._clock = clock
        self._client: FastClient | None = None
        self._refused: str | None = None
        self._in_flight = IN_FLIGHT

    def together(self, first: Waiting, other: Waiting) -> bool:
        """Whatever waits goes together."""
        del first, other
        return True

    def name(self, first: Waiting) -> str:
        """Deliveries have no name; nothing is claimed."""
        return first.id

    def deliver(self, name: str, samples: Iterable[tuple[Waiting, bytes]], seconds_left: Callable[[], float]) -> None:
        """Publish and wait for every acknowledgement; see `protocols.Bridge`."""
        del name
        client = self._connected(seconds_left)
        underway: dict[int, int] = {}
        confirmed: list[int] = []
        chunk: list[tuple[int, str, bytes]] = []
        for sample, event in samples:
            chunk.append((sample.seq, self._topic + sample.rule, event))
            if len(underway) + len(chunk) >= self._in_flight:
                self._publish(client, chunk, underway)
                chunk = []
                while len(underway) > self._in_flight // 2:
                    self._turn(client, underway, confirmed, seconds_left)
        if chunk:
            self._publish(client, chunk, underway)
        while underway:
            self._turn(client, underway, confirmed, seconds_left)

    @staticmethod
    def _publish(client: FastClient, chunk: list[tuple[int, str, bytes]], underway: dict[int, int]) -> None:
        """Publish (seq, topic, event) in one piece."""
        properties = None
        if client.protocol == 5:  # noqa: PLR2004 - MQTT 5
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = "application/cloudevents+json"
        mids = client.publish_together([(topic, event) for _, topic, event in chunk], properties)
        underway.update(zip(mids, (seq for seq, _, _ in chunk), strict=True))

    def _turn(
        self, client: FastClient, underway: dict[int, int], confirmed: list[int], seconds_left: Callable[[], float]
    ) -> None:
        """Exchange packets once, and take note of what was acknowledged."""
        client.acknowledge_at_once()
        status = self._loop(client, min(_LOOP, max(0.0, seconds_left())))
        for mid, code in client.take_confirmed():
            seq = underway.pop(mid, None)
            if code >= _FAILURE:
                told = f"it refused a sample with reason code {code:#04x}"
                self._refused = f"{told}; may this client publish to {self._topic}#?"
            elif seq is not None:
                confirmed.append(seq)
        if status or self._refused or not client.is_connected():
            reason = self._refused or "the connection was lost"
        elif underway and seconds_left() <= 0:
            reason = f"{len(underway)} samples were not acknowledged in time"
        else:
            return
        # What paho still has queued must not come out on a later connection, where its packet ids mean something else.
        self._discard()
        raise BridgeError(f"the broker did not take the samples: {reason}", confirmed)

    def _connected(self, seconds_left: Callable[[], float]) -> FastClient:
        if self._client is not None and self._client.is_connected():
            return self._client
        self._discard()
        try:
            client = self._client = self._new_client()
            client.on_connect = self._on_connect
            client.reconnect()
            until = self._clock.monotonic() + _CONNECT_PATIENCE
            while (
                not client.is_connected()
                and not self._refused
                and min(until - self._clock.monotonic(), seconds_left()) > 0
            ):
                if self._loop(client, _LOOP):
                    break
        except (OSError, ValueError, ConfigurationError) as error:
            self._discard()
            raise BridgeError(f"no connection to the broker: {error}") from error
        if not client.is_connected():
            reason = self._refused or "it did not answer"
            self._discard()
            raise BridgeError(f"no connection to the broker: {reason}")
        return client

    def _on_connect(
        self, _client: object, _data: object, _flags: object, reason: ReasonCode, limits: Properties | None
    ) -> None:
        # Mosquitto says 20. paho ignores it.
        self._in_flight = min(IN_FLIGHT, getattr(limits, "ReceiveMaximum", IN_FLIGHT))
        if reason.is_failure:
            self._refused = f"it refused the connection: {reason}"

    def idle(self) -> None:
        """Answer pings; a connection that broke is made again with the next delivery."""
        if self._client is not None and self._loop(self._client, 0.0):
            self._discard()

    @staticmethod
    def _loop(client: FastClient, timeout: float) -> int:
        """Read and write what can be; nothing was subscribed to, so what comes all the same is thrown away."""
        client.take_buffered(_UNASKED)
        return client.loop(timeout)

    def _discard(self) -> None:
        client, self._client = self._client, None
        self._refused = None
        if client is not None:
            client.disconnect()
            client.loop(0)

    def close(self) -> None:
        """Disconnect."""
        self._discard()
