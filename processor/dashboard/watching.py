"""The connection to the broker: what processors say goes into the fleet, what somebody wants of them goes out.

An MQTT client like any other, with a clean session and a name that nobody else has. `run` is its thread; everything
else may be called by any.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

import msgspec

from processor.clock import SystemClock
from processor.dashboard.fleet import STREAMS, TOPICS, Fleet
from processor.errors import BrokerError, MladeError
from processor.mqtt.connection import Connection
from processor.mqtt.subscriptions import Subscription
from processor.told import FilterState
from processor.types import Message

log = logging.getLogger(__name__)

_AT_ONCE: Final = 2000
"""Messages read at once."""
_LARGEST: Final = 8 << 20
"""Bytes of a sample that is looked at; it may hold an image."""
_LONGEST_READ: Final = 0.5
_PATIENCE: Final = 12.0
"""Seconds for an answer; a processor gives a flush ten."""

Answer = Mapping[str, Any]


class Unanswered(MladeError):
    """A processor, or the broker, did not answer."""


class _Asked(NamedTuple):
    """Something that waits for its answer."""

    until: float
    """On the monotonic clock."""
    who: str
    future: Future[Any]


class Watcher:
    """Watches the broker.

    Attributes:
        fleet: what is known.
    """

    def __init__(
        self,
        broker: Mapping[str, Any],
        prefixes: Sequence[str],
        *,
        changes: bool,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        """Prepare; nothing is sent before `start`.

        Args:
            broker: how to reach it, as `Connection` takes it.
            prefixes: what processors' topics start with.
            changes: whether anything may be asked of processors; else nothing is ever published.
            on_failure: called by the thread when it ends by a defect.

        Raises:
            ConfigurationError: a TLS file cannot be used.
        """
        self._clock = SystemClock()
        self.fleet = Fleet(prefixes, self._clock.monotonic)
        self._changes = changes
        self._on_failure = on_failure
        self._until = self._clock.monotonic()
        wanted = [*TOPICS, *STREAMS, *([("command/response", 0)] if changes else [])]
        self._connection = Connection(
            client_id=f"mlade-dashboard-{secrets.token_hex(4)}",
            session_expiry=0,
            subscriptions=[
                Subscription(f"{prefix}/+/{topic}", qos, control=True) for prefix in prefixes for topic, qos in wanted
            ],
            max_payload=_LARGEST,
            clock=self._clock,
            on_state=lambda sentence: log.info("%s", sentence),
            **broker,
        )
        self._failure: str | None = None
        self._stopping = False
        self._to_send: deque[Callable[[], None]] = deque()
        self._waiting: dict[str, _Asked] = {}
        self._thread = threading.Thread(target=self.run, name="watcher", daemon=True)

    @property
    def trouble(self) -> str | None:
        """Why nothing new is known, as sentences; None while all is well."""
        if self._failure is not None:
            return self._failure
        if not self._connection.online:
            return self._connection.state
        refused = [f"The broker does not let us read {text}: {why}." for text, why in self._connection.refused.items()]
        return " ".join(refused) or None

    @property
    def online(self) -> bool:
        """Whether the broker is connected."""
        return self._connection.online and self._failure is None

    @property
    def until(self) -> float:
        """Until when we have listened, on the monotonic clock: now, or when the connection was lost."""
        return self._clock.monotonic() if self.online else self._until

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnect and end the thread."""
        self._stopping = True
        if self._thread.is_alive():
            self._connection.wake()
            self._thread.join(5.0)

    def set_filter(self, root: str, payload: bytes, user: str | None, below: str = "") -> Future[FilterState]:
        """Publish a filter, retained; the future has the processor's answer to it, or `Unanswered`.

        Args:
            root: what the processor's topics start with.
            payload: the document; empty returns to the file's.
            user: who sends it.
            below: what stands between the root and the topics of the filter's model; ends with a slash if it is there.
        """
        digest = hashlib.sha256(payload).hexdigest()

        def send() -> None:
            self._connection.publish(f"{root}/{below}filter", payload, qos=1, retain=True, user=user)

        return self._ask(f"{root}/{below} {digest}", root, send)

    def command(self, root: str, name: str) -> Future[Answer]:
        """Ask a processor to do something; the future has its answer, or `Unanswered`."""
        number = secrets.token_hex(8)
        body = msgspec.json.encode({"command": name, "id": number})
        return self._ask(number, root, lambda: self._connection.publish(f"{root}/command", body, qos=1))

    def _ask(self, key: str, root: str, send: Callable[[], None]) -> Future[Any]:
        future: Future[Any] = Future()
        if not self._changes:
            future.set_exception(Unanswered("This page only reads; nothing was sent."))
        elif not self.online:
            future.set_exception(Unanswered(f"Nothing was sent. {self.trouble}"))
        else:

            def ask() -> None:
                self._waiting[key] = _Asked(self._clock.monotonic() + _PATIENCE, root, future)
                send()

            self._to_send.append(ask)
            self._connection.wake()
        return future

    def run(self) -> None:
        """Read until stopped; the thread's whole work."""
        try:
            while not self._stopping:
                messages = self._connection.read(_AT_ONCE, _LONGEST_READ)
                self._until = self.until
                self._connection.acknowledge(messages)
                self.fleet.take(messages)
                for message in messages:
                    self._compare(message)
                while self._to_send:
                    self._to_send.popleft()()
                self._give_up()
        except BrokerError as error:
            self._failure = str(error)
            log.error("%s", error)  # noqa: TRY400 - it is the broker's doing
        except Exception:
            log.exception("Watching the broker ended with an error that it should not have; please report it.")
            self._failure = "The dashboard does not watch the broker any more; start it again."
            if self._on_failure is not None:
                self._on_failure()
        finally:
            self._connection.close()

    def _compare(self, message: Message) -> None:
        """Look whether a message is an answer that somebody waits for."""
        if not self._waiting or message.retain:
            return
        root, rest = self.fleet.split(message.topic)
        if rest.endswith("filter/state"):
            for state in _read(message, FilterState):
                self._answer(f"{root}/{rest.removesuffix('filter/state')} {state.sha256}", state)
        elif rest == "command/response":
            for body in _read(message, dict[str, Any]):
                self._answer(str(body.get("id")), body)

    def _answer(self, key: str, answer: object) -> None:
        asked = self._waiting.pop(key, None)
        if asked is not None and not asked.future.done():
            asked.future.set_result(answer)

    def _give_up(self) -> None:
        now = self._clock.monotonic()
        for key in [key for key, asked in self._waiting.items() if now >= asked.until]:
            asked = self._waiting.pop(key)
            known = self.fleet.processors.get(asked.who)
            if known is not None and known.online is False:
                what = f"{asked.who} is offline. A filter waits for it on the broker, a command does not."
            else:
                what = (
                    f"{asked.who} did not answer: it is busy, or the broker does not let this page's user write there."
                )
            if not asked.future.done():
                asked.future.set_exception(Unanswered(what))


def _read(message: Message, kind: type[Any]) -> Iterator[Any]:
    try:
        yield msgspec.json.decode(message.payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
