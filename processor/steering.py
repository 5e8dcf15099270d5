"""What is not data: the live filter, commands, the cloud's wishes, other instances. Called by the pipeline thread."""

from __future__ import annotations

import logging
import re
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from processor import own_topics
from processor.clock import AgeClock
from processor.cloud import CloudLink, Desired, Method
from processor.control import Offer
from processor.errors import Problem, SessionTakenOver, StateFull
from processor.exchange.exchange import Exchange
from processor.exchange.loader import Arrival
from processor.lanes import Lane
from processor.live_commands import (
    LATER,
    Answer,
    Command,
    Commands,
    Refusal,
    error,
    heartbeat,
    parse_command,
    parse_method,
)
from processor.metrics import Metrics
from processor.model import underway
from processor.mqtt.properties import properties, subscription_identifiers
from processor.protocols import Clock, Source
from processor.reporting import Reporting
from processor.session import BrokerSession
from processor.slot_state import SlotChanges
from processor.store import Changes, Store
from processor.topics import validate_topic
from processor.twin import Twin
from processor.types import MODEL_SLOT, Message

log = logging.getLogger(__name__)

_TIDY_EVERY: Final = 10.0
_TIDY_ON: Final = 0.1
"""Seconds until the next time while there is more to tidy."""
_INSTANCE: Final = re.compile("[0-9a-f]{16} ")
_LONGEST_PAUSE: Final = 1.0
_ANNOUNCE_AFTER: Final = 1.0


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
        processor: str,
        source: Source,
        link: CloudLink,
        lanes: Sequence[Lane],
        exchanges: Sequence[Exchange],
        twin: Twin,
        store: Store,
        commands: Commands,
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
            processor: our id.
            source: our connection.
            link: takes heartbeats.
            lanes: whose filters are steered, one a model.
            exchanges: what is wanted of each lane's model.
            twin: what the cloud desires.
            store: for what has to survive.
            commands: carries them out.
            metrics: whose histograms begin anew with each filter.
            reporting: for the filter's state.
            clock: for intervals.
            age: for how long samples have waited.
            session: what the broker keeps for us.
            subscriptions: the identifier of the subscription to each of `topics`.
        """
        self.topics = frozenset(subscriptions)
        self._root = root
        self._processor = processor
        self._source = source
        self._link = link
        self._by_topic = {own_topics.FILTER.at(lane.root): lane for lane in lanes}
        self._exchanges = {one.lane.name: one for one in exchanges}
        self._models = {own_topics.MODEL.at(one.lane.root): one for one in exchanges}
        self._twin = twin
        self._store = store
        self._commands = commands
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
        self._next_tidying = clock.monotonic()

    def is_ours(self, message: Message) -> bool:
        """Whether a message on one of `topics` is meant for us, and not the copy that a source's wide filter got."""
        identifiers = subscription_identifiers(message.properties)
        return not identifiers or not self._identifiers.isdisjoint(identifiers)

    def apply(self, what: Message | Desired | Method | Arrival) -> tuple[Changes, Callable[[], None]]:
        """Find out what a filter, a model, a command or the cloud wants.

        Returns:
            What has to be on disk first; and what then carries it out and answers.

        Raises:
            SessionTakenOver: another processor with our id has connected since we did.
        """
        if isinstance(what, Desired):
            return self._apply_desired(what)
        if isinstance(what, Arrival):
            return self._exchanges[what.lane].apply(what)
        if isinstance(what, Message) and (lane := self._by_topic.get(what.topic)):
            return self._apply_filter(lane, what)
        if isinstance(what, Message) and (exchange := self._models.get(what.topic)):
            return exchange.offer(what)
        meta, follow_up = self._apply_message(what) if isinstance(what, Message) else self._apply_method(what)
        return Changes(meta=meta), follow_up

    def _apply_message(self, message: Message) -> tuple[dict[str, Any], Callable[[], None]]:
        if message.topic.endswith("/settled"):
            return self._settle(message)
        if not message.topic.endswith("/command"):
            return self._take_note(message), _nothing
        if message.retain:  # asked of whoever was here then; a pause must not come back with every restart
            log.warning("A retained command on %s is ignored; publish commands without retain.", message.topic)
            return {}, _nothing
        command = parse_command(message.payload)
        return self._apply_command(command, partial(self._respond, message, command))

    def _apply_method(self, method: Method) -> tuple[dict[str, Any], Callable[[], None]]:
        command = parse_method(method)

        def answer(status: int, body: Mapping[str, Any]) -> None:
            if isinstance(command, Command) and command.id is not None:
                body = {"id": command.id, **body}
            method.answer(status, body)

        meta, follow_up = self._apply_command(command, answer)
        if not isinstance(command, Command) or command.name != "heartbeat":
            return meta, follow_up

        def beat() -> None:
            self._link.notify(heartbeat(self._processor))
            follow_up()

        return meta, beat

    def _apply_command(self, command: Command | Refusal, answer: Answer) -> tuple[dict[str, Any], Callable[[], None]]:
        if isinstance(command, Command):
            return self._commands.carry_out(command.name, answer)
        log.warning("A command was refused: %s", command.sentence)
        return {}, lambda: answer(command.status, error(command.sentence))

    def _take_note(self, message: Message) -> dict[str, Any]:
        """Look at what is neither a filter nor a command; return what has to be on disk for it."""
        if message.topic.endswith("/instance"):
            self._compare_instance(message)
            news = False
        else:
            news = self._session.take(message)
        return {"session": self._session.memory()} if news else {}

    def _settle(self, message: Message) -> tuple[dict[str, Any], Callable[[], None]]:
        """Look whether our mark has come back; filters that left the configuration go when that is on disk."""
        if message.payload != self._mark or not self._session.settle():
            return {}, _nothing
        return {"session": self._session.memory()}, lambda: self._source.unsubscribe(self._session.leaving)

    def _apply_filter(self, lane: Lane, message: Message) -> tuple[Changes, Callable[[], None]]:
        size = message.oversize
        cut = [Problem("", f"{size} bytes; broker.max_payload allows less")] if size else []
        user = properties(message).user
        offer = lane.filters.offer(message.payload, "topic", message.arrival, problems=cut, user=user)
        meta, install = self._prepare(lane, offer)
        return Changes(slots={lane.name: SlotChanges(meta=meta)}), install

    def _apply_desired(self, desired: Desired) -> tuple[Changes, Callable[[], None]]:
        change = self._twin.consider(desired, self._clock.wall())
        changes = Changes(meta={} if change.memory is None else {"twin": change.memory})
        steps = [change.install]
        if change.resize is not None:
            own = changes.of(MODEL_SLOT)
            own.windows_anew = True
            own.meta = change.resize.meta
            steps.append(change.resize.install)
        fresh = [(lane, offer) for lane, offer in change.offers if offer.memory is not None]
        for lane, offer in fresh:
            own = changes.of(lane.name)
            of_filter, install_filter = self._prepare(lane, offer)
            own.meta = {**own.meta, **of_filter}
            steps.append(install_filter)
        if not fresh:
            steps.append(self._twin.report)

        def install() -> None:
            for step in steps:
                step()

        return changes, install

    def _prepare(self, lane: Lane, offer: Offer) -> tuple[dict[str, Any], Callable[[], None]]:
        """Return what has to be on disk for an offered filter, and what then puts it in force and answers."""
        selection = lane.make_selection(offer.active, lane.computation.model) if offer.changed else None
        meta = {} if offer.memory is None else {"filter": offer.memory}
        if selection is not None:
            meta |= lane.computation.memory(selection)

        def install() -> None:
            offer.install()
            if selection is not None:
                lane.computation.selection = selection
                lane.computation.revision = lane.filters.revision
                self._metrics.forget_scores(lane.name)
            self._reporting.publish_filter_state(lane)
            if offer.memory is not None:
                self._twin.report()

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
        own_topics.INSTANCE.publish(self._source, self._root, self._instance.encode())

    def answer_while_blocked(self, what: Message | Desired | Method | Arrival) -> bool:
        """Carry a command out at once while readings cannot be kept; whether that was done, or it has to wait."""
        if isinstance(what, Desired | Arrival):
            return False
        if isinstance(what, Message) and (what.topic in self._by_topic or what.topic in self._models):
            return False
        changes, follow_up = self.apply(what)
        try:
            if changes.matter:
                self._store.remember(changes.meta)
        except StateFull as full:
            body = error(f"{', '.join(changes.meta)} cannot be kept on disk now: {full}")
            if isinstance(what, Method):
                what.answer(LATER, body)
            else:
                self._respond(what, parse_command(what.payload), LATER, body)
        else:
            follow_up()
        return True

    def _respond(self, message: Message, command: Command | Refusal, _status: int, body: Mapping[str, Any]) -> None:
        asked = properties(message)
        topic = asked.response_topic
        if topic is None or validate_topic(topic):
            topic = own_topics.RESPONSE.at(self._root)
        if isinstance(command, Command):
            body = {"command": command.name, "id": command.id, **body}
        self._source.publish(topic, msgspec.json.encode(body), qos=1, correlation=asked.correlation_data)

    def connected(self) -> None:
        """Take note of a connection; others learn of us, or we of them."""
        self._connections += 1
        for exchange in self._exchanges.values():
            exchange.publish_state()
        if not self._session.all_settled:
            # It comes back behind all from before the SUBSCRIBEs of this connection, and what is sent for them.
            self._mark = f"{self._instance} {self._connections}".encode()
            own_topics.SETTLED.publish(self._source, self._root, self._mark)
        if self._connections == 1:
            self._announce()
        else:
            # Not before we have seen whether another was here meanwhile: it must not take us for an intruder.
            self._announce_at = self._clock.monotonic() + _ANNOUNCE_AFTER

    def seconds_until_due(self) -> float:
        """Return the seconds until `tick`, here or in the reporting, has something to do."""
        until_tidying = max(0.0, self._next_tidying - self._clock.monotonic())
        return min(
            _LONGEST_PAUSE, self._commands.seconds_until_due(), self._reporting.seconds_until_due(), until_tidying
        )

    def tick(self) -> None:
        """Do what is due."""
        now = self._clock.monotonic()
        self._commands.tick()
        for exchange in self._exchanges.values():
            exchange.tick()
        underway.end_long_ones()  # of the loaders
        if self._announce_at is not None and now >= self._announce_at:
            self._announce()
        if now >= self._next_tidying:
            more = self._store.tidy(self._age.now(), {"age": self._age.memory(), "session": self._session.memory()})
            self._next_tidying = now + (_TIDY_ON if more else _TIDY_EVERY)


def _nothing() -> None:
    """Follow up with nothing."""
