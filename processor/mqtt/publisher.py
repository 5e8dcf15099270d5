"""Messages of our own, over the connection that readings come in on: states, answers, metrics. Never the samples."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes

from processor.mqtt.client import make_properties
from processor.topics import validate_topic

if TYPE_CHECKING:
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from processor.mqtt.fast_reader import FastClient

_MOST_PACKETS = 1000
_MOST_BYTES = 8 << 20
"""How much may wait to be written, or for the broker's PUBACK, before more of it is dropped."""
_FAILURE = 0x80

_log = logging.getLogger(__name__)


class _Outgoing(NamedTuple):
    """One message of our own."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    correlation: bytes | None
    user: str | None

    @property
    def size(self) -> int:
        """Bytes of its packet, or a few more."""
        properties = len(self.correlation or b"") + len((self.user or "").encode())
        return len(self.topic.encode()) + len(self.payload) + properties + 32


class Publisher:
    """Publishes without blocking and within bounds. Used by the pipeline thread.

    Attributes:
        dropped: messages that were not sent, for want of a connection or of room, or because the broker refuses them.
    """

    def __init__(self, client: FastClient, *, mqtt_5: bool) -> None:
        """Publish over `client`, whose `on_publish` this takes; nothing is sent before `start`."""
        self.dropped = 0
        self._client = client
        self._mqtt_5 = mqtt_5
        self._limits: Properties | None = None
        self._deferred: deque[_Outgoing] = deque()
        """QoS 1 messages from while there was no connection."""
        self._unconfirmed: dict[int, _Outgoing] = {}
        """QoS 1 messages without PUBACK, by packet identifier; paho sends them again after a reconnect."""
        self._held_bytes = 0
        """Bytes of the above two."""
        self._online = False
        client.on_publish = self._on_publish

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool,
        correlation: bytes | None,
        user: str | None = None,
    ) -> None:
        """Queue one message. While there is no connection QoS 0 is dropped and QoS 1 waits."""
        if problem := validate_topic(topic):
            self._drop(f"A message of our own was not published: {problem}")
            return
        message = _Outgoing(topic, payload, qos, retain, correlation, user)
        if self._online:
            self._send(message)
        elif qos and self._has_room(message):
            self._deferred.append(message)
            self._held_bytes += message.size
        else:
            self.dropped += 1

    def start(self, limits: Properties) -> None:
        """Send what has waited, within the limits of the CONNACK that has just come."""
        self._online = True
        self._limits = limits
        deferred, self._deferred = self._deferred, deque()
        for message in deferred:
            self._held_bytes -= message.size
            self._send(message)

    def stop(self) -> None:
        """Note that the connection is lost."""
        self._online = False

    def all_confirmed(self) -> bool:
        """Tell whether the broker has confirmed everything that was sent at QoS 1."""
        return not self._unconfirmed

    def _send(self, message: _Outgoing) -> None:
        qos = min(message.qos, self._limit("MaximumQoS", 2))
        if message.size > self._limit("MaximumPacketSize", message.size):
            self._drop(
                f"A message of our own on {message.topic!r} was dropped: the broker takes none of {message.size} bytes."
            )
            return
        if not (self._has_room(message) if qos else self._writes_soon(message)):
            self.dropped += 1
            return
        asked = _properties(message) if self._mqtt_5 else None
        retain = message.retain and self._limit("RetainAvailable", 1) == 1
        sent = self._client.publish(message.topic, message.payload, qos, retain, properties=asked)
        if sent.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE or (sent.rc == MQTTErrorCode.MQTT_ERR_NO_CONN and qos == 0):
            self.dropped += 1
        elif qos:
            self._unconfirmed[sent.mid] = message
            self._held_bytes += message.size

    def _limit(self, name: str, default: int) -> int:
        """Return a limit of the broker's by paho's name of the property."""
        return int(getattr(self._limits, name, default))

    def _has_room(self, message: _Outgoing) -> bool:
        held = len(self._deferred) + len(self._unconfirmed)
        return held < _MOST_PACKETS and self._held_bytes + message.size <= _MOST_BYTES

    def _writes_soon(self, message: _Outgoing) -> bool:
        packets = self._client.waiting_packets()  # mostly none: then the bytes need not be counted
        return not packets or (packets < _MOST_PACKETS and self._client.waiting_bytes() + message.size <= _MOST_BYTES)

    def _drop(self, sentence: str) -> None:
        self.dropped += 1
        _log.warning(sentence)

    def _on_publish(
        self, _client: paho.Client, _data: object, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        """Note a PUBACK; paho calls this for QoS 0 too, once it is written."""
        message = self._unconfirmed.pop(mid, None)
        if message is None:
            return
        self._held_bytes -= message.size
        if reason.value >= _FAILURE:
            self._drop(f"The broker refused a message of our own on {message.topic!r}: {reason}.")


def _properties(message: _Outgoing) -> Properties | None:
    values: dict[str, bytes | list[tuple[str, str]]] = {}
    if message.correlation is not None:
        values["CorrelationData"] = message.correlation
    if message.user is not None:
        values["UserProperty"] = [("user", message.user)]
    return make_properties(PacketTypes.PUBLISH, **values) if values else None
