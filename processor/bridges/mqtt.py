"""Samples as messages on `<prefix>/<id>/accepted/<rule>`, over a connection of its own.

Of its own, because on the processor's connection a full outbox would stop the reading that these messages'
acknowledgements need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from paho.mqtt.client import DisconnectFlags
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from processor.errors import BridgeError, ConfigurationError
from processor.mqtt.fast_reader import FastClient
from processor.outbox import Claim, Waiting
from processor.own_topics import ACCEPTED
from processor.protocols import Clock, Handover, Shipment

IN_FLIGHT: Final = 100
"""Samples that may wait for their PUBACK; fewer where the broker says so."""
_BYTES_IN_FLIGHT: Final = 256 << 10
"""Bytes of events that may, one sample excepted: over a slow link what takes long to send takes long to answer."""
PATIENCE: Final = 30.0
"""Seconds without an answer after which a connection is given up, beside those that a slow link needs."""
_SLOWEST: Final = 8192
"""Bytes a second of the slowest link that is waited for."""
_CONNECT_PATIENCE: Final = 5.0
_LOOP: Final = 0.2
_UNASKED: Final = 1000
_STRIKES: Final = 3
"""Connections that a sample may end while nothing else was underway, before it is taken for the reason."""
_MOST_SUSPECTS: Final = 10_000

_FAILURE: Final = 0x80
"""MQTT 5 reason codes from here on are refusals."""
_FOR_GOOD: Final = {0x90: "topic name invalid", 0x95: "packet too large", 0x99: "payload format invalid"}
"""Those that the same sample will meet again."""
_FOR_NOW: Final = {
    0x80: "unspecified error",
    0x83: "implementation specific error",
    0x87: "not authorised; allow this client to publish there",
    0x97: "quota exceeded",
}
_CONTENT_TYPE: Final = "application/cloudevents+json"
_PACKET_OVERHEAD: Final = 5 + 2 + 2 + 1 + 3 + len(_CONTENT_TYPE)
"""Bytes of a PUBLISH beside topic and payload: header, lengths, packet identifier, properties."""
_UNLIMITED: Final = 268_435_455 + 5
"""Bytes of the largest packet that MQTT has."""


class _Publication(NamedTuple):
    """A sample as it goes over the wire."""

    sample: Waiting
    topic: str
    event: bytes

    @property
    def size(self) -> int:
        """Bytes of its packet, or a few more."""
        return len(self.topic.encode()) + len(self.event) + _PACKET_OVERHEAD


@dataclass(slots=True)
class _Exchange:
    """One delivery over one connection.

    Attributes:
        client: the connection.
        claim: what is delivered.
        handover: who is told.
        moved: when the broker last answered, or something was published first after it; monotonic seconds.
        underway: by packet identifier, in order: what the broker has not answered.
        bytes: of their events.
        held: topics that the broker did not take a sample on.
    """

    client: FastClient
    claim: Claim
    handover: Handover
    moved: float
    underway: dict[int, _Publication] = field(default_factory=dict)
    bytes: int = 0
    held: set[str] = field(default_factory=set)


class MqttBridge:
    """Publishes at QoS 1; a sample is delivered when the broker has acknowledged it.

    A broker may end the connection over a sample rather than say what is wrong with it. What was first underway when a
    connection was lost is a suspect: from then on it goes last, and alone. One that has ended `_STRIKES` connections
    that way, and is larger than all that the broker has taken on its topic, is refused as too large; where the broker
    has taken nothing on that topic, the topic may be the reason and its samples are held.
    """

    def __init__(
        self, root: str, new_client: Callable[[], FastClient], clock: Clock, *, patience: float = PATIENCE
    ) -> None:
        """Publish below `root`, the processor's own topics.

        Args:
            root: `<prefix>/<id>`.
            new_client: makes a client that is ready to connect.
            clock: for deadlines.
            patience: seconds without an answer after which a connection is given up.
        """
        self.shipment = Shipment(samples=1000, max_bytes=4 << 20, linger=0.0)
        self._topic = ACCEPTED.at(root)
        self._new_client = new_client
        self._clock = clock
        self._patience = patience
        self._client: FastClient | None = None
        self._refusal: str | None = None  # of the connection
        self._farewell = ""  # what the broker said when it ended it
        self._in_flight = IN_FLIGHT
        self._window = IN_FLIGHT  # after a lost connection 1, and doubled with each answer: to come close to the reason
        self._largest = _UNLIMITED
        self._taken: dict[str, int] = {}  # by topic, the largest packet that the broker has taken
        self._suspects: dict[int, int] = {}  # by sequence number: connections that it ended alone

    def together(self, first: Waiting, other: Waiting) -> bool:
        """Whatever waits goes together."""
        del first, other
        return True

    def name(self, first: Waiting) -> str:
        """Nothing is claimed."""
        return first.id

    def deliver(self, claims: Sequence[Claim], handover: Handover) -> None:
        """Publish and wait for every acknowledgement; see `protocols.Bridge`."""
        exchange = _Exchange(self._connected(handover), claims[0], handover, self._clock.monotonic())
        batch: list[_Publication] = []
        size = 0
        for sample, event in handover.events(claims[0].samples):
            publication = _Publication(sample, self._topic + sample.rule, event)
            if publication.size > self._largest:
                why = f"its packet has {publication.size} bytes, and the broker takes at most {self._largest}"
                handover.refuse(sample, why)
            elif sample.seq not in self._suspects and publication.topic not in exchange.held:
                batch.append(publication)
                size += len(event)
                if len(exchange.underway) + len(batch) >= self._window or exchange.bytes + size >= _BYTES_IN_FLIGHT:
                    self._publish(exchange, batch)
                    batch, size = [], 0
                    while len(exchange.underway) > self._window // 2 or exchange.bytes > _BYTES_IN_FLIGHT // 2:
                        self._turn(exchange)
        self._publish(exchange, batch)
        while exchange.underway:
            self._turn(exchange)
        self._deliver_suspects(exchange)

    def _deliver_suspects(self, exchange: _Exchange) -> None:
        if not self._suspects:
            return
        suspects = [sample for sample in exchange.claim.samples if sample.seq in self._suspects]
        suspects.sort(key=lambda sample: self._suspects[sample.seq])
        for sample, event in exchange.handover.events(suspects):
            publication = _Publication(sample, self._topic + sample.rule, event)
            if publication.size <= self._largest and publication.topic not in exchange.held:
                self._publish(exchange, [publication])
                while exchange.underway:
                    self._turn(exchange)

    def _publish(self, exchange: _Exchange, batch: list[_Publication]) -> None:
        """Publish in one piece."""
        if not batch:
            return
        client, properties = exchange.client, None
        if not exchange.underway:
            exchange.moved = self._clock.monotonic()
        if client.protocol == 5:  # noqa: PLR2004 - MQTT 5
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = _CONTENT_TYPE
        mids = client.publish_together([(one.topic, one.event) for one in batch], properties)
        exchange.underway.update(zip(mids, batch, strict=True))
        exchange.bytes += sum(len(one.event) for one in batch)

    def _turn(self, exchange: _Exchange) -> None:
        """Exchange packets once, and tell what was answered."""
        client, handover = exchange.client, exchange.handover
        client.acknowledge_at_once()
        client.leave_unread()  # over a slow link the answer to a ping comes after all this; our patience ends it
        status = self._loop(client, min(_LOOP, max(0.0, handover.seconds_left())))
        self._take_answers(exchange)
        if status or not client.is_connected():
            reason = "it ended the connection" + (f": {self._farewell}" if self._farewell else "")
            self._look_for_the_reason(exchange)
        elif not exchange.underway or (handover.seconds_left() > 0 and not self._is_stuck(exchange)):
            return
        else:
            reason = f"{len(exchange.underway)} were not acknowledged in time"
        # What paho still has queued must not come out on a later connection, where its packet ids mean something else.
        self._discard()
        raise BridgeError(f"the broker did not take all samples: {reason}")

    def _take_answers(self, exchange: _Exchange) -> None:
        confirmed = []
        for mid, code in exchange.client.take_confirmed():
            exchange.moved = self._clock.monotonic()
            publication = exchange.underway.pop(mid, None)
            if publication is None:
                continue
            sample, topic = publication.sample, publication.topic
            exchange.bytes -= len(publication.event)
            self._suspects.pop(sample.seq, None)
            self._window = min(2 * self._window, self._in_flight)
            if code < _FAILURE:
                confirmed.append(sample)
                self._taken[topic] = max(self._taken.get(topic, 0), publication.size)
            elif code in _FOR_GOOD:
                why = f"the broker refused its {publication.size} bytes on {topic}: {_FOR_GOOD[code]} ({code:#04x})"
                exchange.handover.refuse(sample, why)
            else:
                exchange.held.add(topic)
                reason = _FOR_NOW.get(code, "refused")
                exchange.handover.hold(sample, f"the broker takes no samples on {topic}: {reason} ({code:#04x})")
        if confirmed:
            exchange.handover.confirm(exchange.claim, confirmed)

    def _is_stuck(self, exchange: _Exchange) -> bool:
        return self._clock.monotonic() >= exchange.moved + self._patience + exchange.bytes / _SLOWEST

    def _look_for_the_reason(self, exchange: _Exchange) -> None:
        """Find out whether one sample makes the broker end the connection."""
        self._window = 1
        if not exchange.underway:
            return
        publication = next(iter(exchange.underway.values()))
        sample, topic = publication.sample, publication.topic
        alone = len(exchange.underway) == 1
        if len(self._suspects) >= _MOST_SUSPECTS:  # of samples that have aged out
            self._suspects.clear()
        strikes = self._suspects[sample.seq] = self._suspects.get(sample.seq, 0) + alone
        if strikes < _STRIKES:
            return
        ends = f"the broker ended the connection {strikes} times when {publication.size} bytes were published"
        if publication.size > self._taken.get(topic, _UNLIMITED):
            del self._suspects[sample.seq]
            exchange.handover.refuse(
                sample, f"{ends} on {topic}; the largest that it has taken there had {self._taken[topic]}"
            )
        elif topic not in self._taken:
            exchange.handover.hold(
                sample, f"{ends} on {topic}, and has taken none there; may this client publish there, and so much?"
            )

    def _connected(self, handover: Handover) -> FastClient:
        if self._client is not None and self._client.is_connected():
            return self._client
        self._discard()
        try:
            client = self._client = self._new_client()
            client.on_connect = self._on_connect
            client.on_disconnect = self._on_disconnect
            client.reconnect()
            until = self._clock.monotonic() + _CONNECT_PATIENCE
            while (
                not client.is_connected()
                and not self._refusal
                and min(until - self._clock.monotonic(), handover.seconds_left()) > 0
            ):
                if self._loop(client, _LOOP):
                    break
        except (OSError, ValueError, ConfigurationError) as error:
            self._discard()
            raise BridgeError(f"no connection to the broker: {error}") from error
        if not client.is_connected():
            reason = self._refusal or "it did not answer"
            self._discard()
            raise BridgeError(f"no connection to the broker: {reason}")
        return client

    def _on_connect(
        self, _client: object, _data: object, _flags: object, reason: ReasonCode, limits: Properties | None
    ) -> None:
        # paho ignores both. Mosquitto takes 20 at a time.
        self._in_flight = min(IN_FLIGHT, getattr(limits, "ReceiveMaximum", IN_FLIGHT))
        self._window = min(self._window, self._in_flight)
        self._largest = getattr(limits, "MaximumPacketSize", _UNLIMITED)
        if reason.is_failure:
            self._refusal = f"it refused the connection: {reason}"

    def _on_disconnect(
        self, _client: object, _data: object, flags: DisconnectFlags, reason: ReasonCode, _properties: object
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._farewell = str(reason)

    def figures(self) -> Mapping[str, float]:
        """Return nothing: what it delivers is counted elsewhere."""
        return {}

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
        self._refusal, self._farewell = None, ""
        if client is not None:
            client.disconnect()
            client.loop(0)

    def close(self) -> None:
        """Disconnect."""
        self._discard()
