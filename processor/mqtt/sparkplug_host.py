"""A Sparkplug host application: says on `spBv1.0/STATE/<host id>` whether it is there, for the nodes that wait for it.

Over a connection of its own: Sparkplug 3.0 (5.4) wants a session that begins anew with each connection, and the
processor's is kept. Messages of nodes come over that one, and requests for their births go over it.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

import msgspec

from processor.mqtt.connection import Connection
from processor.mqtt.subscriptions import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from processor.protocols import Clock

_LOOK: Final = 0.2
"""Seconds between two looks at whether nodes are listened to, and between two connections."""
_MOST: Final = 100
_GOODBYE: Final = 1.0
"""Seconds for the broker to take note that we go."""

_log = logging.getLogger(__name__)


class SparkplugHost:
    """One host application. `run` is its thread; the rest is called by any."""

    def __init__(
        self, host_id: str, *, client_id: str, options: Mapping[str, Any], listening: Callable[[], bool], clock: Clock
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            host_id: what nodes know it by.
            client_id: of its connection.
            options: how to reach the broker, as `Connection` takes it.
            listening: whether the nodes' messages are listened to. The host is online only while they are.
            clock: a running one.
        """
        self._name = host_id
        self._topic = f"spBv1.0/STATE/{host_id}"
        self._client_id = client_id
        self._options = options
        self._listening = listening
        self._clock = clock
        self._since = 0  # of the connection, ms since the Unix epoch
        self._stopping = threading.Event()
        self._connection: Connection | None = None

    @property
    def trouble(self) -> str | None:
        """What keeps it from being online, as a clause; None while nothing does but that nobody listens."""
        connection = self._connection
        return f"Sparkplug host {self._name}: {connection.state}" if connection and connection.missing else None

    def stop(self) -> None:
        """Have it say goodbye and end."""
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            connection.wake()

    def run(self) -> None:
        """Be online while the nodes are listened to, until stopped."""
        while not self._stopping.is_set():
            if self._listening():
                self._be_there()
            self._stopping.wait(_LOOK)

    def _be_there(self) -> None:
        connection = self._connection = Connection(
            client_id=self._client_id,
            session_expiry=0,
            will_topic=self._topic,
            will_payload=self._last_words,
            subscriptions=[Subscription(self._topic, 1, control=True)],
            reconnects=False,  # else an "online" of before would be sent again where it was not acknowledged
            clock=self._clock,
            on_state=lambda sentence: _log.info("Sparkplug host %s: %s", self._name, sentence),
            **self._options,
        )
        told = False
        try:
            while self._listening() and not self._stopping.is_set():
                messages = connection.read(_MOST, _LOOK)
                connection.acknowledge(messages)
                if connection.connects and connection.missing:
                    return
                if connection.subscribed and (not told or any(_says_offline(one.payload) for one in messages)):
                    told = True
                    connection.publish(self._topic, _state(online=True, moment=self._since), qos=1, retain=True)
        finally:
            goodbye = _state(online=False, moment=self._now())
            connection.close([(self._topic, goodbye, True)], timeout=_GOODBYE)
            self._connection = None

    def _last_words(self) -> bytes:
        """Return what the broker is to say when we vanish; called before each attempt to connect, by its thread."""
        self._since = self._now()
        return _state(online=False, moment=self._since)

    def _now(self) -> int:
        return self._clock.wall() // 10**6


def _state(*, online: bool, moment: int) -> bytes:
    return msgspec.json.encode({"online": online, "timestamp": moment})


def _says_offline(payload: bytes) -> bool:
    """Whether a state is not that we are there: the broker's word on an earlier connection, or somebody else's."""
    try:
        state = msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        return True
    return not isinstance(state, dict) or state.get("online") is not True
