"""MQTT clients for pytest that remember what they receive. Needs pytest, paho-mqtt 2 and tests/mosquitto.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Literal

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.mosquitto import HOST, Listener, Mosquitto


class MqttClientError(Exception):
    """The broker refused, or did not answer in time."""


class Client:
    """A connected MQTT client that keeps what it receives until a test asks for it."""

    def __init__(self, client: mqtt.Client) -> None:
        self._client = client
        self._changed = threading.Condition()
        self._received: list[mqtt.MQTTMessage] = []
        self._answers: dict[int, list[ReasonCode]] = {}
        self._connected: ReasonCode | None = None
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe

    # paho's network thread calls these three.

    def _on_connect(self, _client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _more: object) -> None:
        with self._changed:
            self._connected = code
            self._changed.notify_all()

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        with self._changed:
            self._received.append(message)
            self._changed.notify_all()

    def _on_subscribe(
        self, _client: mqtt.Client, _data: object, mid: int, codes: list[ReasonCode], _more: object
    ) -> None:
        with self._changed:
            self._answers[mid] = codes
            self._changed.notify_all()

    # The test's thread calls the rest.

    def connect(self, port: int, *, timeout: float = 10.0, **options: Any) -> None:  # noqa: ANN401 -- paho's own
        """Connect, wait for the CONNACK and raise MqttClientError where it refuses."""
        self._client.connect(HOST, port, **options)
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected is not None, timeout)
        if self._connected is None or self._connected.is_failure:
            message = f"the broker answered the CONNECT with {self._connected or 'nothing'}"
            raise MqttClientError(message)

    def subscribe(self, topic: str, qos: int = 1, *, timeout: float = 10.0) -> None:
        """Subscribe, wait for the SUBACK and raise MqttClientError where it refuses."""
        _, mid = self._client.subscribe(topic, qos)
        with self._changed:
            self._changed.wait_for(lambda: mid in self._answers, timeout)
            codes = self._answers.pop(mid or 0, [])
        if not codes or codes[0].is_failure:
            message = f"the broker answered the SUBSCRIBE to {topic} with {codes or 'nothing'}"
            raise MqttClientError(message)

    def publish(
        self, topic: str, payload: bytes | str, qos: int = 1, *, retain: bool = False, timeout: float = 10.0
    ) -> None:
        """Publish and wait until it is sent (QoS 0) or acknowledged."""
        info = self._client.publish(topic, payload, qos, retain)
        info.wait_for_publish(timeout)
        if not info.is_published():
            message = f"the broker did not acknowledge the PUBLISH to {topic} within {timeout:g} s"
            raise MqttClientError(message)

    def wait_for(self, topic: str, timeout: float = 10.0) -> mqtt.MQTTMessage:
        """Take the oldest received message whose topic matches the filter `topic`; wait for it if there is none.

        Raises:
            MqttClientError: none came within `timeout` seconds; the text names the topics of those that did.
        """

        def position() -> int | None:
            matches = (i for i, m in enumerate(self._received) if mqtt.topic_matches_sub(topic, m.topic))
            return next(matches, None)

        with self._changed:
            self._changed.wait_for(lambda: position() is not None, timeout)
            found = position()
            if found is not None:
                return self._received.pop(found)
            others = sorted({message.topic for message in self._received}) or "nothing"
        message = f"no message on {topic} within {timeout:g} s; received: {others}"
        raise MqttClientError(message)

    def received(self) -> list[mqtt.MQTTMessage]:
        """Take all messages received so far."""
        with self._changed:
            taken, self._received = self._received, []
        return taken

    def close(self) -> None:
        """Disconnect; a persistent session stays at the broker."""
        self._client.disconnect()
        self._client.loop_stop()


class MqttClientFactory:
    """Makes connected clients and closes them all at the end."""

    def __init__(self, broker: Callable[[], Mosquitto], cleanup: ExitStack) -> None:
        self._broker = broker
        self._cleanup = cleanup

    def __call__(
        self,
        protocol: Literal[4, 5] = 5,
        *,
        broker: Mosquitto | None = None,
        listener: Listener = "mqtt",
        client_id: str = "",
        session_expiry: int = 0,
        account: tuple[str, str] | None = None,
    ) -> Client:
        """Connect a client.

        Args:
            protocol: the protocol level on the wire: 5, or 4 for MQTT 3.1.1.
            broker: which one; absent: the shared `mosquitto`.
            listener: which of its listeners.
            client_id: empty: a random one.
            session_expiry: seconds the broker keeps the session of an absent client; 0: a clean session. On MQTT
                3.1.1 any other value is a persistent session.
            account: user name and password, where the broker asks for them.
        """
        broker = broker or self._broker()
        options: dict[str, Any] = {}
        if protocol == mqtt.MQTTv5:
            options["clean_start"] = session_expiry == 0
            options["properties"] = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            options["properties"].SessionExpiryInterval = session_expiry
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=session_expiry == 0 if protocol == mqtt.MQTTv311 else None,
            protocol=MQTTProtocolVersion(protocol),
            transport="websockets" if listener == "websockets" else "tcp",
            reconnect_on_failure=False,
        )
        if account is not None:
            client.username_pw_set(*account)
        if listener == "tls":
            if broker.certificates is None:
                message = "this broker has no TLS listener; make it with mosquitto_factory(tls=True)"
                raise MqttClientError(message)
            made = broker.certificates
            client.tls_set(ca_certs=str(made.ca), certfile=str(made.cert), keyfile=str(made.key))
        connected = Client(client)
        self._cleanup.callback(connected.close)
        connected.connect(broker.ports[listener], **options)
        return connected


@pytest.fixture
def mqtt_client(request: pytest.FixtureRequest) -> Iterator[MqttClientFactory]:
    """Connect clients, by default to the shared broker."""
    with ExitStack() as cleanup:
        yield MqttClientFactory(lambda: request.getfixturevalue("mosquitto"), cleanup)
