"""A client that listens, with a clean session and at QoS 0, beside whatever else the broker serves. One thread."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

from processor.clock import SystemClock
from processor.discover.heard import Heard
from processor.errors import BrokerError
from processor.mqtt.connection import Connection
from processor.mqtt.subscriptions import Subscription
from processor.remote import NoAnswer, subscribe

_MOST: Final = 4096
"""Messages read at once."""
_LONGEST_READ: Final = 0.25
"""Seconds after which the progress is told at the latest."""


class Listener:
    """Listens once. `stop` may be called by a signal handler, everything else by one thread.

    Attributes:
        heard: what came.
        seconds: since the subscription stands.
        gaps: times that the connection was lost meanwhile.
    """

    def __init__(self, topic: str, tell: Callable[[str], None], **client: Any) -> None:  # noqa: ANN401 - new_client's
        """Prepare; nothing is connected yet.

        Args:
            topic: filter to listen to.
            tell: told in a sentence when the connection is lost, and when it is made again.
            client: how to reach the broker, as `settings.client_options` returns it.

        Raises:
            ConfigurationError: the URL or a TLS file cannot be used.
        """
        self.heard = Heard()
        self.seconds = 0.0
        self.gaps = 0
        self._topic = topic
        self._tell = tell
        self._clock = SystemClock()
        self._listening = self._stopped = False
        self._connection = Connection(
            client_id=f"mlade-discover-{secrets.token_hex(4)}",
            session_expiry=0,
            subscriptions=[Subscription(topic, 0)],
            clock=self._clock,
            on_state=self._note,
            **client,
        )

    def _note(self, sentence: str) -> None:
        if self._listening:
            self._tell(sentence)

    def stop(self) -> None:
        """Make `run` return."""
        self._stopped = True
        self._connection.wake()

    def run(self, timeout: float, seconds: float, show: Callable[[], None]) -> Heard:
        """Listen.

        Args:
            timeout: seconds for the broker to accept us and our subscription.
            seconds: how long to listen; infinity: until `stop`.
            show: called several times a second.

        Raises:
            NoAnswer: the broker was not reached, or does not let us listen.
        """
        connection, clock = self._connection, self._clock
        try:
            messages = subscribe(connection, [self._topic], timeout, lambda: self._stopped)
            started = clock.monotonic()
            self._listening = True
            while True:
                if connection.connects > 1:  # what is retained comes again with each connection
                    messages = [message for message in messages if not message.retain]
                self.heard.take(messages)
                self.seconds = clock.monotonic() - started
                self.gaps = connection.connects - connection.online
                show()
                left = started + seconds - clock.monotonic()
                if self._stopped or left <= 0:
                    return self.heard
                messages = connection.read(_MOST, min(_LONGEST_READ, left))
        except BrokerError as error:
            raise NoAnswer(str(error)) from error
        finally:
            self._listening = False
            connection.close()
