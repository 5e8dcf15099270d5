"""What is not data: the live filter, commands, other instances. Called by the pipeline thread."""

from __future__ import annotations

import logging
import re
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from processor import __version__
from processor.clock import AgeClock
from processor.computation import Computation
from processor.control import Command, FilterControl, parse_command
from processor.delivery import Delivery
from processor.errors import SessionTakenOver, StateFull
from processor.events import timestamp
from processor.filter import FilterDocument
from processor.metrics import Metrics
from processor.mqtt.properties import properties, subscription_identifiers
from processor.protocols import Clock, Source
from processor.reporting import Reporting
from processor.selection import Selection
from processor.session import DROPPED_TOPIC, BrokerSession
from processor.store import Store
from processor.topics import validate_topic
from processor.types import Message

log = logging.getLogger(__name__)

_TIDY_EVERY: Final = 10.0
_TIDY_ON: Final = 0.1
"""Seconds until the next time while there is more to tidy."""
_FLUSH_PATIENCE: Final = 10.0
_INSTANCE: Final = re.compile("[0-9a-f]{16} ")
_LONGEST_PAUSE: Final = 1.0
_ANNOUNCE_AFTER: Final = 1.0
_REFUSED: Final = {
    "flush": "too many flushes are under way already; wait for their answers",
    "reload_model": "reload_model is not available in this version; restart the processor",
}
_MOST_FLUSHES: Final = 100
"""Commands to flush that may wait for their answer."""


class Steering:
    """Applies what operators send, and answers.

    Attributes:
        topics: where filters, commands, other instances' announcements, what the broker says of itself and our own
            marks arrive.
    """

    def __init__(
        self,
        *,
        root: str,
        source: Source,
        computation: Computation,
        filters: FilterControl,
        make_selection: Callable[[FilterDocument], Selection],
        store: Store,
        deliveries: Sequence[Delivery],
        metrics: Metrics,
        reporting: Reporting,
        clock: Clock,
        age: AgeClock,
        session: BrokerSession,
        subscriptions: Mapping[str, int],
    ) -> None:
        """Take what `app.build` made.

        Args:
            root: our topics' beginning.
            source: our connection.
            computation: whose filter is steered.
            filters: decides which filter is in force.
            make_selection: makes a filter ready, and lets it go on with what the one in force remembers.
            store: for what has to survive.
            deliveries: to flush.
            metrics: whose histograms begin anew with each filter.
            reporting: for the answer to `status`, and the filter's state.
            clock: for intervals.
            age: for how long samples have waited.
            session: what the broker keeps for us.
            subscriptions: the identifier of the subscription to each of `topics`.
        """
        self.topics = frozenset(subscriptions)
        self._root = root
        self._source = source
        self._computation = computation
        self._filters = filters
        self._make_selection = make_selection
        self._store = store
        self._deliveries = deliveries
        self._metrics = metrics
        self._reporting = reporting
        self._clock = clock
        self._age = age
        self._session = session
        self._identifiers = frozenset(subscriptions.values())
        self._instance = f"{secrets.token_hex(8)} {socket.gethostname()}"
        self._before_us = ""
        self._mark = b""
        self._connections = 0
        self._announce_at: float | None = None
        self._flushes: list[tuple[float, list[int], Message, Command]] = []
        self._next_tidying = clock.monotonic()

    def is_ours(self, message: Message) -> bool:
        """Whether a message on one of `topics` is meant for us, and not the copy that a source's wide filter got."""
        identifiers = subscription_identifiers(message.properties)
        return not identifiers or not self._identifiers.isdisjoint(identifiers)

    def apply(self, message: Message) -> tuple[dict[str, Any], Callable[[], None]]:
        """Find out what a filter or a command wants.

        Returns:
            What has to be on disk first; and what then carries it out and answers.

        Raises:
            SessionTakenOver: another processor with our id has connected since we did.
        """
        if message.topic.endswith("/filter"):
            return self._apply_filter(message)
        if not message.topic.endswith("/command"):
            return self._take_note(message), _nothing
        if message.retain:  # asked of whoever was here then; a pause must not come back with every restart
            log.warning("A retained command on %s is ignored; publish commands without retain.", message.topic)
            return {}, _nothing
        command = parse_command(message.payload)
        if isinstance(command, str):
            log.warning("A command on %s was refused: %s", message.topic, command)
            return {}, lambda: self._respond(message, {"status": "error", "error": command})
        return self._carry_out(command, message)

    def _take_note(self, message: Message) -> dict[str, Any]:
        """Look at what is neither a filter nor a command; return what has to be on disk for it."""
        if message.topic.endswith("/instance"):
            self._compare_instance(message)
            news = False
        elif message.topic == DROPPED_TOPIC:
            news = self._session.take(message)
        else:
            news = message.payload == self._mark and self._session.settle()
        return {"session": self._session.memory()} if news else {}

    def _apply_filter(self, message: Message) -> tuple[dict[str, Any], Callable[[], None]]:
        offer = self._filters.offer(message.payload, "topic", message.arrival, cut_from=message.oversize)
        selection = self._make_selection(offer.active) if offer.changed else None
        meta = {} if offer.memory is None else {"filter": offer.memory}
        if selection is not None:
            meta |= self._computation.memory(selection)

        def install() -> None:
            offer.install()
            if selection is not None:
                self._computation.selection = selection
                self._computation.revision = self._filters.revision
                self._metrics.forget_scores()
            self._reporting.publish_filter_state()

        return meta, install

    def _compare_instance(self, message: Message) -> None:
        """Look at who connected last under our id, as the broker retains it.

        Brokers that close a taken-over connection without a reason leave no other trace. At our first connection it is
        an earlier run of ours; after that, only another process can have written there.
        """
        found = message.payload.decode(errors="replace")
        if not message.retain or not _INSTANCE.match(found):
            return
        self._announce_at = None
        if self._connections == 1:
            self._before_us = found
        # A broker that lost its last minute has what was retained before we came.
        elif found not in (self._instance, self._before_us):
            host = found.partition(" ")[2][:100]
            raise SessionTakenOver(
                f"another processor with the id of {self._root!r} connected to the broker, from {host!r}; "
                "give each processor an id of its own"
            )

    def _announce(self) -> None:
        self._announce_at = None
        self._source.publish(f"{self._root}/instance", self._instance.encode(), qos=1, retain=True)

    def _carry_out(self, command: Command, message: Message) -> tuple[dict[str, Any], Callable[[], None]]:
        log.info("Command %s.", command.name)
        if command.name == "flush" and len(self._flushes) < _MOST_FLUSHES:
            return {}, lambda: self._flush(command, message)
        if command.name in _REFUSED:
            return {}, lambda: self._respond(message, {"status": "error", "error": _REFUSED[command.name]}, command)
        wanted = {"pause": True, "resume": False}.get(command.name)

        def answer() -> None:
            if wanted is not None:
                self._computation.paused = wanted
            self._respond(message, {"status": "ok"} | self._told(command), command)

        return {} if wanted is None else {"paused": wanted}, answer

    def _flush(self, command: Command, message: Message) -> None:
        numbers = [delivery.flush() for delivery in self._deliveries]
        self._flushes.append((self._clock.monotonic() + _FLUSH_PATIENCE, numbers, message, command))

    def _told(self, command: Command) -> dict[str, Any]:
        """Return what a command's answer tells."""
        if command.name == "status":
            return self._reporting.snapshot()
        if command.name == "heartbeat":
            return {"version": __version__, "time": timestamp(self._clock.wall())}
        return {"paused": self._computation.paused}

    def answer_while_blocked(self, message: Message) -> bool:
        """Carry a command out at once while readings cannot be kept; whether that was done, or it has to wait."""
        if message.topic.endswith("/filter"):
            return False
        meta, follow_up = self.apply(message)
        try:
            if meta:
                self._store.remember(meta)
        except StateFull as error:
            text = f"{', '.join(meta)} cannot be kept on disk now: {error}"
            self._respond(message, {"status": "error", "error": text}, parse_command(message.payload))
        else:
            follow_up()
        return True

    def _respond(self, message: Message, body: dict[str, Any], command: Command | str | None = None) -> None:
        asked = properties(message)
        topic = asked.response_topic
        if topic is None or validate_topic(topic):
            topic = f"{self._root}/command/response"
        if isinstance(command, Command):
            body = {"command": command.name, "id": command.id, **body}
        self._source.publish(topic, msgspec.json.encode(body), qos=1, correlation=asked.correlation_data)

    def connected(self) -> None:
        """Take note of a connection; others learn of us, or we of them."""
        self._connections += 1
        if f"{self._root}/settled" in self.topics and not self._session.all_settled:
            # It comes back behind all that the broker sends for the SUBSCRIBEs of this connection (retained.py).
            self._mark = f"{self._instance} {self._connections}".encode()
            self._source.publish(f"{self._root}/settled", self._mark, qos=1)
        if self._connections == 1:
            self._announce()
        else:
            # Not before we have seen whether another was here meanwhile: it must not take us for an intruder.
            self._announce_at = self._clock.monotonic() + _ANNOUNCE_AFTER

    def seconds_until_due(self) -> float:
        """Return the seconds until `tick`, here or in the reporting, has something to do."""
        if self._flushes:
            return 0.02
        until_tidying = max(0.0, self._next_tidying - self._clock.monotonic())
        return min(_LONGEST_PAUSE, self._reporting.seconds_until_due(), until_tidying)

    def tick(self) -> None:
        """Do what is due."""
        now = self._clock.monotonic()
        if self._flushes:
            self._answer_flushes(now)
        if self._announce_at is not None and now >= self._announce_at:
            self._announce()
        if now >= self._next_tidying:
            more = self._store.tidy(self._age.now(), {"age": self._age.memory(), "session": self._session.memory()})
            self._next_tidying = now + (_TIDY_ON if more else _TIDY_EVERY)

    def _answer_flushes(self, now: float) -> None:
        left = []
        for flush in self._flushes:
            until, numbers, message, command = flush
            done = all(delivery.flushed(number) for delivery, number in zip(self._deliveries, numbers, strict=True))
            if not done and now < until:
                left.append(flush)
                continue
            errors = [f"{one.name}: {one.state.error}" for one in self._deliveries if one.state.error]
            body = {"status": "ok" if done and not errors else "error", "outbox": self._store.totals.rows}
            if not done or errors:
                body["error"] = "; ".join(errors) or f"not everything was delivered within {_FLUSH_PATIENCE:.0f} s"
            self._respond(message, body, command)
        self._flushes = left


def _nothing() -> None:
    """Follow up with nothing."""
