"""A processor as an operator sees it over the broker: its filter, its answers, its status.

One thread; an MQTT client of its own beside the processor's, with a clean session.
"""

from __future__ import annotations

import getpass
import hashlib
import math
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from processor.clock import SystemClock
from processor.errors import BrokerError, ConfigurationError, MladeError, Problem
from processor.filter import MAX_BYTES
from processor.mqtt.connection import Connection
from processor.mqtt.subscriptions import Subscription
from processor.settings import Settings, Slot, client_options
from processor.told import FilterState, Metrics, ModelState
from processor.types import Message

_CONNECTING_READ: Final = 0.05
_LONGEST_READ: Final = 0.5
_MOST_EARLY: Final = 4096
"""Messages read at once, before the subscriptions stand."""
_STRAGGLERS: Final = 1.0
"""Seconds that retained messages may follow the first of them."""


_Kind = TypeVar("_Kind", bound=msgspec.Struct)


class NoAnswer(MladeError):
    """The broker or the processor did not answer in time."""


class Status(msgspec.Struct):
    """Everything retained that a processor says about itself; None where it says nothing."""

    online: bool | None = None
    filters: dict[str, FilterState] = {}
    """Of each model."""
    models: dict[str, ModelState] = {}
    metrics: Metrics | None = None
    raw_metrics: Any = None


class Processor:
    """A connection to the broker, and the processor's topics on it. Made by `connect`.

    Attributes:
        root: what the processor's own topics start with, without the last slash.
        notify: told in a sentence when the connection is lost and when it is made again.
    """

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        """Prepare; `topics` are below the processor's own."""
        self.root = settings.root
        self.notify: Callable[[str], None] | None = None
        self._clock = SystemClock()
        self._early: list[Message] = []
        """Came in the same breath as the broker's CONNACK."""
        self._connection = Connection(
            client_id=f"{settings.client_id}-operator-{secrets.token_hex(4)}",
            session_expiry=0,
            subscriptions=[Subscription(f"{self.root}/{topic}", 1, control=True) for topic in topics],
            clock=self._clock,
            on_state=self._tell,
            **client_options(settings),
        )

    def wait_until_connected(self, timeout: float) -> None:
        """Connect.

        Raises:
            NoAnswer: the broker was not reached, or did not accept us.
        """
        deadline = self._clock.monotonic() + timeout
        before = self._connection.state
        while not self._connection.online:
            if self._connection.state != before or self._clock.monotonic() >= deadline:
                raise NoAnswer(self._connection.state.removesuffix(" Trying again."))
            self._early += self._read(_CONNECTING_READ)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish a retained message at QoS 1 on one of the processor's topics, in the name of whoever runs this."""
        self._connection.publish(f"{self.root}/{topic}", payload, qos=1, retain=True, user=who())

    def messages(self, timeout: float, settle: float = math.inf) -> Iterator[Message]:
        """Yield what comes within `timeout` seconds, and within `settle` of the first; topics are without the root.

        Raises:
            NoAnswer: the broker does not let us listen.
        """
        deadline = self._clock.monotonic() + timeout
        while (remaining := deadline - self._clock.monotonic()) > 0:
            early, self._early = self._early, []
            for message in early or self._read(min(_LONGEST_READ, remaining)):
                deadline = min(deadline, self._clock.monotonic() + settle)
                settle = math.inf
                yield replace(message, topic=message.topic.removeprefix(f"{self.root}/"))
            for topic, reason in self._connection.refused.items():
                raise NoAnswer(f"The broker does not let us subscribe to {topic}: {reason}; check its access list.")

    def _tell(self, sentence: str) -> None:
        if self.notify is not None:
            self.notify(sentence)

    def _read(self, timeout: float) -> list[Message]:
        try:
            messages = self._connection.read(100, timeout)
        except BrokerError as error:
            raise NoAnswer(str(error)) from error
        self._connection.acknowledge(messages)
        return messages

    def close(self) -> None:
        """Disconnect, once the broker has what was published."""
        self.notify = None
        self._connection.close()


@contextmanager
def connect(settings: Settings, *topics: str, timeout: float) -> Iterator[Processor]:
    """Connect to the broker and listen to some of the processor's topics.

    Raises:
        NoAnswer: the broker was not reached within `timeout` seconds, or did not accept us.
    """
    processor = Processor(settings, topics)
    try:
        processor.wait_until_connected(timeout)
        yield processor
    finally:
        processor.close()


def subscribe(
    connection: Connection, filters: Sequence[str], timeout: float, stopped: Callable[[], bool]
) -> list[Message]:
    """Wait until the broker has answered a connection's subscriptions, or `stopped`; return what came meanwhile.

    Args:
        connection: not connected yet.
        filters: that it subscribes to.
        timeout: seconds.
        stopped: whether to give up; looked at several times a second.

    Raises:
        NoAnswer: the broker was not reached, or grants none of the filters.
        BrokerError: trying again would not mend it.
    """
    clock = SystemClock()
    deadline = clock.monotonic() + timeout
    before = connection.state
    early: list[Message] = []
    while not connection.subscribed and not stopped():
        failed = not connection.online and connection.state != before
        if failed or clock.monotonic() >= deadline:
            raise NoAnswer(connection.state.removesuffix(" Trying again."))
        early += connection.read(_MOST_EARLY, min(_LONGEST_READ, timeout))
    refused = connection.refused
    if len(refused) == len(filters):
        told = "; ".join(f"{text} ({reason})" for text, reason in refused.items())
        raise NoAnswer(f"The broker does not let us subscribe to {told}; check its access list.")
    return early


def who() -> str:
    """Return who runs this, as `user@host`: what stands beside a filter in the history."""
    host = socket.gethostname()
    try:
        return f"{getpass.getuser()}@{host}"
    except (OSError, KeyError):  # a container's user may have no name
        return host


def get_filter(slot: Slot, timeout: float) -> FilterState:
    """Return what the processor last said about a model's filter.

    Raises:
        NoAnswer: nothing is there.
    """
    with connect(slot.settings, f"{slot.below}filter/state", timeout=timeout) as processor:
        for message in processor.messages(timeout):
            return decoded(message, FilterState)
        raise NoAnswer(
            f"Nothing stands on {slot.root}/filter/state: no such processor has been on this broker yet, or this "
            "user may not read there."
        )


def set_filter(slot: Slot, payload: bytes, timeout: float) -> FilterState:
    """Publish a model's filter document, or nothing to return to the file's, and return the processor's answer.

    Raises:
        ConfigurationError: the document is too long for a processor to read.
        NoAnswer: none came; the document waits on the topic for the processor.
    """
    if len(payload) > MAX_BYTES:
        too_long = f"the filter document is longer than the {MAX_BYTES} bytes that a processor reads"
        raise ConfigurationError([Problem("", too_long)])
    digest = hashlib.sha256(payload).hexdigest()
    status = b""
    other: FilterState | None = None
    with connect(slot.settings, "status", f"{slot.below}filter/state", timeout=timeout) as processor:
        processor.publish(f"{slot.below}filter", payload)
        for message in processor.messages(timeout):
            if message.topic == "status":
                status = message.payload
            elif not message.retain:  # retained is what was said before
                state = decoded(message, FilterState)
                if state.sha256 == digest or (not payload.strip() and _is_file(state)):
                    return state
                other = state
        if other is not None:
            raise NoAnswer(
                f"{processor.root} did not answer to this document within {timeout:g} s; it said that revision "
                f"{other.revision}, from the {other.source}, is in force. A document that is the same as the last one "
                "on the topic changes nothing."
            )
        raise NoAnswer(
            f"No answer from {processor.root} within {timeout:g} s; its status is {text_of(status)}. "
            f"The document stays on {slot.root}/filter, and is judged when the processor comes."
        )


def _is_file(state: FilterState) -> bool:
    return state.source == "file" and state.status == "applied"


def get_status(settings: Settings, timeout: float) -> Status:
    """Return what the processor says about itself; within `timeout` seconds, and sooner when it has said something.

    Raises:
        NoAnswer: the broker was not reached.
    """
    status = Status()
    names = {slot.below: slot.name for slot in settings.slots}
    states = [f"{below}{kind}/state" for below in names for kind in ("filter", "model")]
    with connect(settings, "status", *states, "metrics", timeout=timeout) as processor:
        for message in processor.messages(timeout, _STRAGGLERS):
            _take(status, names, message)
            told = len(status.filters) + len(status.models)
            if None not in (status.online, status.metrics) and told == len(states):
                break
    return status


def _take(status: Status, names: Mapping[str, str], message: Message) -> None:
    """Take note of what was said; `names` are those of the models, by what their topics begin with."""
    if message.topic == "status":
        status.online = message.payload == b"online"
    elif message.topic.endswith("filter/state"):
        status.filters[names[message.topic.removesuffix("filter/state")]] = decoded(message, FilterState)
    elif message.topic.endswith("model/state"):
        status.models[names[message.topic.removesuffix("model/state")]] = decoded(message, ModelState)
    else:
        status.metrics = decoded(message, Metrics)
        status.raw_metrics = msgspec.json.decode(message.payload)


def follow(slot: Slot, timeout: float, notify: Callable[[str], None]) -> Iterator[str | FilterState]:
    """Yield the processor's status and the state of a model's filter, now and at each change, for ever.

    Args:
        slot: which model, of which processor.
        timeout: seconds to reach the broker in at first; a connection lost later is made again.
        notify: told of the connection, in sentences.

    Raises:
        NoAnswer: the broker was not reached.
    """
    said: dict[str, bytes] = {}
    with connect(slot.settings, "status", f"{slot.below}filter/state", timeout=timeout) as processor:
        processor.notify = notify
        for message in processor.messages(math.inf):
            if said.get(message.topic) == message.payload:
                continue  # said again, after a reconnect of ours or the processor's
            said[message.topic] = message.payload
            try:
                yield text_of(message.payload) if message.topic == "status" else decoded(message, FilterState)
            except NoAnswer as error:
                notify(str(error))


def decoded(message: Message, kind: type[_Kind]) -> _Kind:
    """Return what a processor says on a topic.

    Raises:
        NoAnswer: no processor says that.
    """
    try:
        return msgspec.json.decode(message.payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NoAnswer(f"What stands on …/{message.topic} is no processor's: {error}.") from error


def text_of(payload: bytes) -> str:
    """Return a short payload as text that can be shown."""
    return repr(payload[:40].decode(errors="replace"))[1:-1] or "absent"
