"""The connection to the MQTT broker: the pipeline's source of messages.

The pipeline thread calls everything here but `wake`. Each attempt to connect is made by a thread that ends with it, so
that a slow name server or a silent address never holds up the pipeline.
"""

from __future__ import annotations

import logging
import select
import selectors
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit

from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes

from processor.clock import SystemClock
from processor.errors import BrokerError, SessionTakenOver
from processor.mqtt.attempts import Attempts
from processor.mqtt.client import Tls, make_properties, new_client
from processor.mqtt.publisher import Publisher
from processor.mqtt.subscriptions import Subscription, Subscriptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from processor.protocols import Clock
    from processor.types import Message

_CONNACK_TIMEOUT = 10.0
"""Seconds for the broker to answer CONNECT."""
_LONGEST_WAIT = 1.0
"""Seconds after which a wait looks at keep-alive again."""
_STABLE = 10.0
"""Seconds that a connection must have held for its loss to count as the first."""
_SUSPICIOUS = 3
"""Connections in a row that did not hold, after which another client may be at fault."""
_DISCARDED_AT_ONCE = 1000
_IN_FLIGHT = 8
"""QoS 1 messages of our own without PUBACK; few, since paho does not look at a broker's own Receive Maximum."""

_FAILURE = 0x80
"""Reason codes from here on are failures."""
_UNSUPPORTED_PROTOCOL_VERSION = 0x84
_PASSING = (0x88, 0x89)
"""Refusals that need no operator: server unavailable, server busy."""
_SESSION_TAKEN_OVER = 0x8E

_log = logging.getLogger(__name__)


class _Connack(NamedTuple):
    """The broker's answer to CONNECT."""

    reason: ReasonCode
    session_present: bool
    properties: Properties | None


class Connection:
    """A `protocols.Source` over one broker connection, made again whenever it is lost.

    Attributes:
        state: the last sentence told to `on_state`.
        online: the broker has accepted us and the connection has not been seen to break.
        connects: connections that the broker has accepted.
    """

    def __init__(
        self,
        *,
        url: str,
        client_id: str,
        username: str | None = None,
        password: str | None = None,
        tls: Tls | None = None,
        protocol: Literal[5, "3.1.1"] = 5,
        session_expiry: float = 3600,
        receive_maximum: int = 1000,
        max_payload: int = 1 << 20,
        keepalive: int = 30,
        will_topic: str | None = None,
        will_payload: bytes | Callable[[], bytes] = b"",
        subscriptions: Sequence[Subscription] | Callable[[], Sequence[Subscription]] = (),
        reconnects: bool = True,
        clock: Clock | None = None,
        on_accepted: Callable[[bool], None] | None = None,
        on_connected: Callable[[bool], None] | None = None,
        on_unsubscribed: Callable[[], None] | None = None,
        on_state: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare; the first `read` connects. What is not told here is as of `new_client`.

        Args:
            url: of the broker.
            client_id: the client identifier.
            username: for the broker.
            password: for the broker.
            tls: for mqtts and wss.
            protocol: MQTT version.
            session_expiry: seconds; 0: a clean session.
            receive_maximum: messages that the broker may send unacknowledged.
            max_payload: bytes.
            keepalive: seconds.
            will_topic: where the broker publishes `will_payload`, retained, when this process vanishes.
            will_payload: see there; where each attempt to connect has another, what returns it, called by its thread.
            subscriptions: made at each connect, in this order; where that changes, what returns them, called after
                `on_accepted`.
            reconnects: whether a connection that was accepted is made again when it is lost. paho then sends again what
                the broker had not acknowledged.
            clock: a running one.
            on_accepted: called within `read`, when the broker has accepted us, with whether it had kept the session; in
                a new one nothing comes before this returns, because it has not been sent the subscriptions.
            on_connected: called within `read`, when the broker has accepted us and been sent the subscriptions, with
                whether it had kept the session.
            on_unsubscribed: called within `read` and `serve`, when the broker has dropped what `unsubscribe` named; it
                must not call back.
            on_state: called within `read` and `close` with a sentence when the connection's state has changed.

        Raises:
            ConfigurationError: the URL or a TLS file cannot be used.
        """
        self.state = "Not connected yet."
        self.online = False
        self._session_kept = False
        self.connects = 0
        self._clock = clock or SystemClock()
        self._client = new_client(
            url=url,
            client_id=client_id,
            username=username,
            password=password,
            tls=tls,
            protocol=protocol,
            session_expiry=session_expiry,
            receive_maximum=receive_maximum,
            max_payload=max_payload,
            keepalive=keepalive,
            will=None if will_topic is None or callable(will_payload) else (will_topic, will_payload),
            in_flight=_IN_FLIGHT,
            clock=self._clock,
        )
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._mqtt_5 = str(protocol) == "5"
        self._publisher = Publisher(self._client, mqtt_5=self._mqtt_5)
        self._subscriptions = Subscriptions(
            self._client,
            subscriptions if callable(subscriptions) else lambda: subscriptions,
            mqtt_5=self._mqtt_5,
            clock=self._clock,
            on_unsubscribed=on_unsubscribed,
        )
        self._address = f"{urlsplit(url).scheme}://{self._client.host}:{self._client.port}"
        self._client_id = client_id
        self._reconnects = reconnects
        self._will_topic = will_topic
        self._will_payload = will_payload
        self._on_accepted = on_accepted
        self._on_connected = on_connected
        self._on_state = on_state

        self._attempts = Attempts(self._make_connection, self._clock, lambda: self._signal(b"a"))
        """While one is running, the client belongs to it."""
        self._socket: paho.SocketLike | None = None
        """The socket in use, registered with the selector."""
        self._watching_write = False
        self._answer_due = 0.0
        """When the broker must have answered CONNECT."""
        self._online_since = 0.0
        self._soon_lost = 0
        """Connections in a row that were accepted and did not hold."""
        self._next_service = 0.0
        self._renewing = False
        self._closed = False
        # What paho's callbacks have noted, to be acted upon when paho has returned:
        self._connack: _Connack | None = None
        self._why_lost = ""
        self._hopeless: BrokerError | None = None

        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.settimeout(0)
        self._wake_sender.settimeout(0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)

    @property
    def missing(self) -> bool:
        """Whether there is no connection though there should be one."""
        return not self.online and not self._closed

    @property
    def refused(self) -> Mapping[str, str]:
        """Filters that the broker does not let us subscribe to now, with its reason. Any thread."""
        return dict(self._subscriptions.refused)

    @property
    def subscribed(self) -> bool:
        """Whether the broker has accepted us and answered every SUBSCRIBE. Any thread."""
        return self.online and self._subscriptions.answered

    @property
    def subscribing(self) -> bool:
        """Whether the broker has accepted us and does not know yet what we want; a kept session does. Any thread."""
        return self.online and not (self._session_kept or self._subscriptions.answered)

    @property
    def bytes_read(self) -> int:
        """Bytes read from the broker since the start."""
        return self._client.bytes_read

    @property
    def buffered_bytes(self) -> int:
        """Bytes read and not yet returned as messages; at most 256 KiB and one packet."""
        return self._client.buffered_bytes()

    @property
    def dropped(self) -> int:
        """Messages of our own that were not sent."""
        return self._publisher.dropped

    def read(self, limit: int, timeout: float) -> list[Message]:
        """Return up to `limit` messages; see `protocols.Source`. Returns early after `wake`.

        Raises:
            SessionTakenOver: another client has connected with our client id.
            BrokerError: the broker does not speak this version of MQTT.
        """
        limit = max(limit, 1)
        deadline = self._clock.monotonic() + timeout
        while True:
            messages = self.buffered(limit)
            if messages:
                self._serve()
                return messages
            if self._hopeless is not None:
                raise self._hopeless
            remaining = max(deadline - self._clock.monotonic(), 0.0)
            if self._socket is None:
                woken = self._connect(remaining)
            else:
                messages, woken = self._exchange(limit, remaining)
            if messages or woken or self._clock.monotonic() >= deadline:
                return messages

    def serve(self, timeout: float) -> None:
        """Keep the connection alive for `timeout` seconds without reading from it; returns early after `wake`."""
        if self._socket is None:
            self._connect(timeout)
            return
        if select.select([self._wake_receiver], [], [], timeout)[0]:
            self._drain_wake()
        self._client.leave_unread()
        self._serve()

    def buffered(self, limit: int) -> list[Message]:
        """Return up to `limit` messages that were read earlier, without touching the socket."""
        return self._client.take_buffered(limit) if not self._attempts.running else []

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the broker that `messages` need not be sent again; those of a lost connection are skipped."""
        if self.online and not self._renewing:
            self._client.acknowledge(messages)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        correlation: bytes | None = None,
        user: str | None = None,
    ) -> None:
        """Queue one message of our own; while there is no connection QoS 0 is dropped. Never blocks."""
        self._publisher.publish(topic, payload, qos=qos, retain=retain, correlation=correlation, user=user)

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Ask the broker to send nothing more for `filters`. Never blocks; does nothing while disconnected."""
        if self.online and filters:
            self._client.unsubscribe(list(filters))

    def renew(self, connection: int) -> None:
        """Make a connection anew, if it is still the present one: the broker sends again what was not acknowledged."""
        if self.online and not self._renewing and connection == self._client.connection:
            self._renewing = True
            self._why_lost = "there was no room for all that it sent, so that it is asked to send the rest again"
            self._publisher.stop()
            self._client.disconnect()
            self._serve()

    def wake(self) -> None:
        """Make a `read` that waits, or the next one to wait, return. May be called by any thread."""
        self._signal(b"w")

    def close(self, farewell: Iterable[tuple[str, bytes, bool]] = (), timeout: float = 2.0) -> None:
        """Publish each (topic, payload, retain) of `farewell` and disconnect; the broker keeps the session.

        Returns after `timeout` seconds at the latest. Messages that still come are left for the next connection.
        """
        deadline = self._clock.monotonic() + timeout
        if self.online:
            for topic, payload, retain in farewell:
                self.publish(topic, payload, qos=1, retain=retain)
        while self.online and not self._publisher.all_confirmed() and self._clock.monotonic() < deadline:
            if not self._client.take_buffered(_DISCARDED_AT_ONCE):
                self._exchange(_DISCARDED_AT_ONCE, max(deadline - self._clock.monotonic(), 0.0))
        self._closed = True
        if not self._attempts.running:
            self._client.disconnect()
            self._serve()
            while self._socket is not None and self._clock.monotonic() < deadline:
                self._exchange(_DISCARDED_AT_ONCE, max(deadline - self._clock.monotonic(), 0.0))
        self._lose()
        self._selector.close()
        self._wake_sender.close()
        self._wake_receiver.close()

    def _exchange(self, limit: int, timeout: float) -> tuple[list[Message], bool]:
        """Wait at most `timeout` seconds for input; read; write. Returns messages, and whether `wake` was called."""
        lost = self._client.socket() is None
        pending = getattr(self._socket, "pending", None)
        decrypted = not lost and pending is not None and pending() > 0  # input that the selector does not see
        readable, woken = self._wait(0.0 if lost or decrypted else min(timeout, _LONGEST_WAIT))
        messages = self._client.receive(limit) if readable or decrypted else []
        self._next_service = 0.0
        self._serve()
        return messages, woken

    def _serve(self) -> None:
        """Write what waits, keep the connection alive, and act on what paho has noted."""
        if self._client.want_write():
            self._client.loop_write()
        now = self._clock.monotonic()
        if now >= self._next_service:
            self._next_service = now + _LONGEST_WAIT
            self._client.loop_misc()
            if self.online:
                self._subscriptions.ask_again()
        if self._connack is not None:
            connack, self._connack = self._connack, None
            if connack.reason.value < _FAILURE:
                self._begin(connack)
            else:
                self._explain_refusal(connack.reason)
        if self._socket is None:
            return
        if self._client.socket() is None:
            self._lose()
        elif not self.online and now >= self._answer_due:
            self._why_lost = f"it did not answer CONNECT within {_CONNACK_TIMEOUT:g} s"
            self._client.disconnect()
            self._lose()

    def _wait(self, timeout: float) -> tuple[bool, bool]:
        """Wait for the socket or `wake`. Returns whether the socket can be read, and whether `wake` was called."""
        if self._socket is not None and self._client.socket() is not None:
            watch_write = self._client.want_write()
            if watch_write != self._watching_write:
                self._watching_write = watch_write
                both = selectors.EVENT_READ | selectors.EVENT_WRITE
                self._selector.modify(self._socket, both if watch_write else selectors.EVENT_READ)
        readable = woken = False
        for key, events in self._selector.select(timeout):
            if key.fileobj is self._wake_receiver:
                woken = self._drain_wake()
            else:
                readable = bool(events & selectors.EVENT_READ)
        return readable, woken

    def _drain_wake(self) -> bool:
        """Return whether `wake` was called since the last time."""
        with suppress(BlockingIOError):
            return b"w" in self._wake_receiver.recv(4096)
        return False

    def _signal(self, byte: bytes) -> None:
        with suppress(OSError):  # full: it wakes as it is; closed: nobody waits any more
            self._wake_sender.send(byte)

    def _connect(self, timeout: float) -> bool:
        """Get nearer to a connection, for at most `timeout` seconds. Returns whether `wake` was called."""
        due = self._attempts.seconds_until_due()
        if self.connects and not self._reconnects:
            due = timeout
        elif not self._attempts.running and not due:
            self._attempts.start()
        _, woken = self._wait(timeout if self._attempts.running else min(timeout, due))
        if self._attempts.finished:
            self._take_connection()
        return woken

    def _make_connection(self) -> None:
        """Connect and send CONNECT; called by an attempt's thread."""
        if self._will_topic is not None and callable(self._will_payload):
            self._client.will_set(self._will_topic, self._will_payload(), qos=1, retain=True)
        self._client.reconnect()
        if self._closed:
            self._client.disconnect()

    def _take_connection(self) -> None:
        """Go on with what the attempt has made."""
        error = self._attempts.take_result()
        self._why_lost = "" if error is None else str(error) or type(error).__name__
        self._socket = self._client.socket()
        if self._socket is None:
            self._lose()
            return
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._watching_write = False
        self._answer_due = self._clock.monotonic() + _CONNACK_TIMEOUT

    def _begin(self, connack: _Connack) -> None:
        """Subscribe, send what has waited and tell the owner: the broker has accepted us."""
        limits = connack.properties or make_properties(PacketTypes.CONNACK)
        self.connects += 1
        self._online_since = self._clock.monotonic()
        if self._on_accepted is not None:
            self._on_accepted(connack.session_present)
        self._subscriptions.start(limits)
        self._session_kept = connack.session_present
        self.online = True  # after that, so that no other thread takes us for subscribed
        self._publisher.start(limits)
        kept = "it had kept our session" if connack.session_present else "a new session"
        self._tell(f"Connected to the broker {self._address}: {kept}.")
        if self._on_connected is not None:
            self._on_connected(connack.session_present)

    def _explain_refusal(self, reason: ReasonCode) -> None:
        """Note why the broker has not accepted us, and when it makes sense to try again."""
        self._why_lost = f"it refused us: {reason}"
        if reason.value == _UNSUPPORTED_PROTOCOL_VERSION:
            sentence = f"The broker {self._address} does not speak MQTT 5; set broker.protocol to 3.1.1."
            self._hopeless = BrokerError(sentence)
        elif reason.value not in _PASSING:
            self._why_lost += "; check broker.username, the password, the client id and the broker's settings"
            self._attempts.wait_longest()

    def _lose(self) -> None:
        """Note that there is no connection, and when to try again."""
        if self.online:
            held = self._renewing or self._clock.monotonic() - self._online_since >= _STABLE
            self._soon_lost = 0 if held else self._soon_lost + 1
            if held:
                self._attempts.forget_failures()
        self._attempts.schedule()
        if self._closed:
            sentence = f"Disconnected from the broker {self._address}."
        elif self._hopeless is not None:
            sentence = str(self._hopeless)
        elif self.online:
            sentence = f"Lost the broker {self._address}: {self._why_lost or 'the connection broke'}. Trying again."
            if self._soon_lost >= _SUSPICIOUS:  # a bad network does that, too: no reason to give up
                sentence += (
                    f" That was {self._soon_lost} times in a row within {_STABLE:g} s of connecting; does another "
                    f"client use the client id {self._client_id!r}?"
                )
        else:
            hint = "; if it does not speak MQTT 5, set broker.protocol to 3.1.1"
            hint = hint if self._mqtt_5 and not self.connects else ""
            why = self._why_lost or f"it closed the connection instead of accepting it{hint}"
            sentence = f"No connection to the broker {self._address}: {why}. Trying again."
        self.online = self._renewing = False
        self._publisher.stop()
        self._why_lost = ""
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket = None
        self._tell(sentence)

    def _tell(self, sentence: str) -> None:
        if sentence != self.state:
            self.state = sentence
            if self._on_state is not None:
                self._on_state(sentence)

    # paho calls the rest, while we call it. They take notes only: a call back into paho could deadlock.

    def _on_connect(
        self,
        _client: paho.Client,
        _data: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        limits: Properties | None,
    ) -> None:
        self._connack = _Connack(reason, flags.session_present, limits)
        if reason.value < _FAILURE:
            self._client.connection += 1  # at once: messages may follow in the same piece of input

    def _on_disconnect(
        self,
        _client: paho.Client,
        _data: object,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._why_lost = f"it ended the connection: {reason}"
            if reason.value == _SESSION_TAKEN_OVER:
                self._hopeless = SessionTakenOver(
                    f"Another client has connected to the broker {self._address} with the client id "
                    f"{self._client_id!r}; give each processor an id of its own."
                )
        elif not self._why_lost and reason == "Keep alive timeout":
            self._why_lost = "it was silent for the keep-alive time"
        elif not self._why_lost and reason == "Protocol error":
            self._why_lost = "what it sent is not MQTT"
