"""Samples as messages on `<prefix>/<id>/accepted/<rule>`, over a connection of its own.

Of its own, because on the processor's connection a full outbox would stop the reading that these messages'
acknowledgements need.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
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
_FOR_GOOD: Final = frozenset((0x90, 0x99))
"""Refusals that the same sample will meet again: topic name invalid, payload format invalid."""
_CONTENT_TYPE: Final = "application/cloudevents+json"
_PACKET_OVERHEAD: Final = 5 + 2 + 2 + 1 + 3 + len(_CONTENT_TYPE)
"""Bytes of a PUBLISH beside topic and payload: header, lengths, packet identifier, properties."""
_UNLIMITED: Final = 268_435_455 + 5
"""Bytes of the largest packet that MQTT has."""
_CONNECT_PATIENCE: Final = 5.0
_PATIENCE: Final = 30.0
"""Seconds without any acknowledgement after which a connection is given up."""
_LOOP: Final = 0.2
_UNASKED: Final = 1000


@dataclass(slots=True)
class _Told:
    """What the broker has said in one delivery.

    Attributes:
        silent_since: when the last answer came, or the delivery began; monotonic seconds.
        underway: sequence number and topic by packet identifier, of what it has not answered yet.
        confirmed: what it has taken.
        refused: what it will never take, and why.
        denied: what it did not take now, of one sample; an operator may mend that.
    """

    silent_since: float
    underway: dict[int, tuple[int, str]] = field(default_factory=dict)
    confirmed: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    denied: str = ""

    def answer(self, seq: int, topic: str, code: int) -> None:
        """Take note of an acknowledgement's reason code."""
        if code < _FAILURE:
            self.confirmed.append(seq)
        elif code in _FOR_GOOD:
            self.refused[seq] = f"the broker refused it on {topic} with reason code {code:#04x}"
        else:
            self.denied = (
                f"the broker did not take a sample on {topic}: reason code {code:#04x}; may this client publish there?"
            )


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
        self._largest = _UNLIMITED

    def together(self, first: Waiting, other: Waiting) -> bool:
        """Whatever waits goes together."""
        del first, other
        return True

    def name(self, first: Waiting) -> str:
        """Deliveries have no name; nothing is claimed."""
        return first.id

    def deliver(
        self, name: str, samples: Iterable[tuple[Waiting, bytes]], seconds_left: Callable[[], float]
    ) -> Mapping[int, str]:
        """Publish and wait for every acknowledgement; see `protocols.Bridge`."""
        del name
        client = self._connected(seconds_left)
        told = _Told(self._clock.monotonic())
        chunk: list[tuple[int, str, bytes]] = []
        for sample, event in samples:
            topic = self._topic + sample.rule
            if len(topic) + len(event) + _PACKET_OVERHEAD > self._largest:
                told.refused[sample.seq] = (
                    f"the event has {len(event)} bytes, and the broker takes packets of at most {self._largest}"
                )
                continue
            chunk.append((sample.seq, topic, event))
            if len(told.underway) + len(chunk) >= self._in_flight:
                self._publish(client, chunk, told)
                chunk = []
                while len(told.underway) > self._in_flight // 2:
                    self._turn(client, told, seconds_left)
        if chunk:
            self._publish(client, chunk, told)
        while told.underway:
            self._turn(client, told, seconds_left)
        if told.denied:
            raise BridgeError(told.denied, told.confirmed, told.refused)
        return told.refused

    @staticmethod
    def _publish(client: FastClient, chunk: list[tuple[int, str, bytes]], told: _Told) -> None:
        """Publish (seq, topic, event) in one piece."""
        properties = None
        if client.protocol == 5:  # noqa: PLR2004 - MQTT 5
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = _CONTENT_TYPE
        mids = client.publish_together([(topic, event) for _, topic, event in chunk], properties)
        told.underway.update(zip(mids, ((seq, topic) for seq, topic, _ in chunk), strict=True))

    def _turn(self, client: FastClient, told: _Told, seconds_left: Callable[[], float]) -> None:
        """Exchange packets once, and take note of what was acknowledged."""
        client.acknowledge_at_once()
        status = self._loop(client, min(_LOOP, max(0.0, seconds_left())))
        for mid, code in client.take_confirmed():
            told.silent_since = self._clock.monotonic()
            seq, topic = told.underway.pop(mid, (None, ""))
            if seq is not None:
                told.answer(seq, topic, code)
        if status or not client.is_connected():
            reason = "the connection was lost"
        elif told.underway and min(seconds_left(), told.silent_since + _PATIENCE - self._clock.monotonic()) <= 0:
            reason = f"{len(told.underway)} samples were not acknowledged in time"
        else:
            return
        # What paho still has queued must not come out on a later connection, where its packet ids mean something else.
        self._discard()
        raise BridgeError(f"the broker did not take the samples: {reason}", told.confirmed, told.refused)

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
        # paho ignores both. Mosquitto takes 20 at a time.
        self._in_flight = min(IN_FLIGHT, getattr(limits, "ReceiveMaximum", IN_FLIGHT))
        self._largest = getattr(limits, "MaximumPacketSize", _UNLIMITED)
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
