"""From messages to readings: which source and stream each message belongs to, and what its decoder makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from processor import topics
from processor.copies import counting_copy, filters, is_copy, source_of
from processor.protocols import Decoder
from processor.retained import RetainedCopies
from processor.source_memory import SourceMemory
from processor.source_sections import Source
from processor.types import (
    INPUTS,
    DeadLetter,
    Flags,
    Floats,
    Ints,
    Message,
    Pixels,
    Readings,
    Request,
    StreamName,
    Times,
)
from processor.windows import WindowBuffer

_ROUTES: Final = 100_000
"""Topics remembered; with more, all are forgotten and found again."""
_LONGEST_ROUTE: Final = 1024
"""Characters of a topic that is remembered; one may have 65,535, and memory is bounded."""
_PAYLOAD_KEPT: Final = 64 << 10


@dataclass(slots=True)
class _Route:
    """What is known of a topic.

    Attributes:
        source: position of its source; -1: not a reading at all.
        identifier: the subscription whose copy counts where several match; 0: any.
        name: the stream, where the topic alone tells it.
        around: text before and after the key that is in the payload.
        problem: why no stream can be named.
        slot, generation: where the windows keep the stream, as of that generation.
        retained_on: connection over which its retained message came last.
    """

    source: int
    identifier: int = 0
    name: StreamName | None = None
    around: tuple[str, str] = ("", "")
    problem: str = ""
    slot: int = -1
    generation: int = -1
    retained_on: int = -1


@dataclass(slots=True)
class Taken:
    """What a batch of messages held.

    Attributes:
        readings: in arrival order.
        origin: (N,) position of each reading's message in the batch.
        dead_letters: what could not be used, in arrival order.
        messages: messages by source.
        ignored: messages that are not ours to read: own topics, and second copies of overlapping subscriptions.
        requests: what is to be asked of who sent them.
    """

    readings: Readings
    origin: Ints
    dead_letters: list[DeadLetter] = field(default_factory=list)
    messages: list[int] = field(default_factory=list)
    ignored: int = 0
    requests: list[Request] = field(default_factory=list)


@dataclass(slots=True)
class _Pile:
    """The messages of one source in a batch."""

    positions: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    routes: list[_Route] = field(default_factory=list)


class _Part(NamedTuple):
    """The M readings of one source in a batch."""

    source: int
    origin: Ints
    """(M,) the position of each one's message in the batch."""
    times: Times
    values: Floats
    streams: list[_Route | StreamName]
    pixels: Pixels | None = None


class Intake:
    """Decodes batches for one window buffer. Used by the pipeline thread.

    Attributes:
        memory: what the sources remember from batch to batch.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        decoders: Sequence[Decoder],
        windows: WindowBuffer,
        prefix: str,
        *,
        copies: RetainedCopies | None = None,
        held: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        """Prepare.

        Args:
            sources: in the configuration's order: the first that matches a topic gets its messages.
            decoders: one for each source.
            windows: opens the streams' slots.
            prefix: topics under it are processors' own and never readings.
            copies: tells retained messages that were read before; None: there are none.
            held: returns the filters that a message may have a copy for, first the one whose copy counts; another
                object whenever they change. None: the sources'.
        """
        self._copies = copies
        self._sources = sources
        self._decoders = decoders
        self._windows = windows
        self.memory = SourceMemory(sources, decoders, windows.max_streams)
        self._own = f"{prefix}/"
        self._routes: dict[str, _Route] = {}
        self._filters = filters(sources)
        self._inputs = {INPUTS + one.input: position for position, one in enumerate(sources) if one.input}
        own = [text for _, text in self._filters]
        self._ask_held = held or (lambda: own)
        self._held = self._ask_held()

    def take(self, messages: Sequence[Message]) -> Taken:
        """Return the readings in a batch of messages, in arrival order."""
        piles = [_Pile() for _ in self._sources]
        taken = Taken(self._nothing(), np.empty(0, np.int64))
        if self._ask_held() is not self._held:
            self._held = self._ask_held()
            self._routes.clear()
        routes = self._routes
        unused: list[tuple[int, DeadLetter]] = []
        for position, message in enumerate(messages):
            route = routes.get(message.topic) or self._route(message.topic)
            if (
                route.source < 0
                or (message.retain and self._came_before(message, route, messages[:position]))
                or (route.identifier and not is_copy(message, route.identifier))
            ):
                taken.ignored += 1
            elif message.oversize or route.problem:
                unused.append((position, _unread(message, route)))
            else:
                pile = piles[route.source]
                pile.positions.append(position)
                pile.payloads.append(message.payload)
                pile.arrivals.append(message.arrival)
                pile.topics.append(message.topic)
                pile.routes.append(route)
        taken.messages = [len(pile.positions) for pile in piles]
        parts = [
            self._decode(source, pile, messages, unused, taken.requests)
            for source, pile in enumerate(piles)
            if pile.positions
        ]
        if parts:
            self._join(parts, taken)
        taken.dead_letters = [letter for _, letter in sorted(unused)]
        return taken

    def _came_before(self, message: Message, route: _Route, earlier: Sequence[Message]) -> bool:
        """Whether a retained message is a further copy: one comes for each matching SUBSCRIBE, here or earlier."""
        if self._copies is None or not self._copies.can_come(message, overlapping=route.identifier > 0):
            return False
        if route.retained_on == message.connection:
            return True
        route.retained_on = message.connection
        return self._copies.came_before(message, earlier)

    def _nothing(self) -> Readings:
        empty = np.empty(0, np.int64)
        return Readings(empty, empty, np.empty((0, self._windows.shape.channels)))

    def _decode(
        self,
        source: int,
        pile: _Pile,
        messages: Sequence[Message],
        unused: list[tuple[int, DeadLetter]],
        requests: list[Request],
    ) -> _Part:
        decoded = self._decoders[source].decode(pile.payloads, np.array(pile.arrivals, np.int64), pile.topics)
        requests += decoded.requests
        for index, reason, detail in decoded.failures:
            position = pile.positions[index]
            unused.append((position, dead_letter(messages[position], reason, detail)))
        streams: list[_Route | StreamName]
        if decoded.keys is None:
            if len(decoded.origin) == len(pile.routes) and not decoded.failures:
                streams = list(pile.routes)  # one reading a message, nearly always
            else:
                streams = [pile.routes[index] for index in decoded.origin.tolist()]
        else:
            arounds = [pile.routes[index].around for index in decoded.origin.tolist()]
            keyed = list(zip(decoded.keys, arounds, strict=True))
            # A long key is there once, however many readings a payload has.
            name = self._sources[source].name
            names = {(key, around): StreamName(name, key.join(around)) for key, around in set(keyed)}
            streams = [names[one] for one in keyed]
        origin = np.array(pile.positions, np.int64)[decoded.origin]
        part = _Part(source, origin, decoded.times, decoded.values, streams, decoded.pixels)
        return self._hold(part, decoded.absent, messages, unused) if source in self.memory.holdings else part

    def _join(self, parts: Sequence[_Part], taken: Taken) -> None:
        """Put the parts' readings together, in arrival order."""
        _, origin, times, values, streams, pixels = parts[0]
        if len(parts) > 1:
            origin = np.concatenate([part.origin for part in parts])
            order = np.argsort(origin, kind="stable")
            origin = origin[order]
            times = np.concatenate([part.times for part in parts])[order]
            values = np.concatenate([part.values for part in parts])[order]
            if pixels is not None:
                pixels = np.concatenate([part.pixels for part in parts if part.pixels is not None])[order]
            together = [stream for part in parts for stream in part.streams]
            streams = [together[index] for index in order.tolist()]
        taken.readings = Readings(self._slots(streams), times, values, pixels)
        taken.origin = origin

    def _hold(
        self, part: _Part, absent: Flags | None, messages: Sequence[Message], unused: list[tuple[int, DeadLetter]]
    ) -> _Part:
        """Fill in what readings lack from what their streams had last; those that still lack something go.

        A message has one dead letter, however many of its readings go: each keeps its payload.
        """
        holding = self.memory.holdings[part.source]
        names = [stream if isinstance(stream, StreamName) else stream.name for stream in part.streams]
        missing = holding.fill([name.key for name in names if name is not None], part.values, absent)
        good: Flags = np.logical_not(missing.any(axis=1))
        if good.all():
            return part
        gone = np.flatnonzero(~good)
        told = {position for position, _ in unused}
        positions, firsts, counts = np.unique(part.origin[gone], return_index=True, return_counts=True)
        for position, row, count in zip(positions.tolist(), gone[firsts].tolist(), counts.tolist(), strict=True):
            if position in told:
                continue
            detail = holding.lacking(missing[row])
            if count > 1:
                offered = np.count_nonzero(part.origin == position)
                detail += f"; {count} of the payload's {offered} readings lack a value"
            unused.append((position, dead_letter(messages[position], "field", detail)))
        streams = [stream for stream, usable in zip(part.streams, good.tolist(), strict=True) if usable]
        return part._replace(
            origin=part.origin[good], times=part.times[good], values=part.values[good], streams=streams
        )

    def _slots(self, streams: list[_Route | StreamName]) -> Ints:
        """Open the readings' streams, in arrival order: which stream is forgotten for another depends on it."""
        windows = self._windows
        slots: list[int] = []
        for stream in streams:
            if isinstance(stream, StreamName):
                slots.append(windows.slot(stream, slots))
                continue
            if stream.generation != windows.generation and stream.name is not None:
                stream.slot = windows.slot(stream.name, slots)
                stream.generation = windows.generation
            slots.append(stream.slot)
        return np.array(slots, np.int64)

    def _route(self, topic: str) -> _Route:
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        route = self._find(topic)
        if len(topic) <= _LONGEST_ROUTE:
            self._routes[topic] = route
        return route

    def _find(self, topic: str) -> _Route:
        own = self._inputs.get(topic)
        if own is not None:
            topic = topic.removeprefix(INPUTS)
            position = own
        else:
            position = -1 if topic.startswith(self._own) else source_of(self._filters, topic)
        if position < 0:
            return _Route(-1)
        source = self._sources[position]
        route = _Route(position, counting_copy(self._held, topic) if own is None else 0)
        try:
            text = topics.render(source.stream_template, source.name, topic)
        except IndexError:
            route.problem = f"the topic has too few levels for the stream {source.stream!r} of source {source.name!r}"
            return route
        if text == [""]:
            route.problem = f"the stream {source.stream!r} of source {source.name!r} is an empty text for this topic"
        elif len(text) == 1:
            route.name = StreamName(source.name, text[0])
        else:
            route.around = (text[0], text[1])
        return route


def _unread(message: Message, route: _Route) -> DeadLetter:
    if message.oversize:
        detail = f"the payload has {message.oversize} bytes; broker.max_payload is less"
        return dead_letter(message, "too_large", detail)
    return dead_letter(message, "stream", route.problem)


def dead_letter(message: Message, reason: str, detail: str) -> DeadLetter:
    """Return a message as one that could not be processed."""
    return DeadLetter(message.topic, message.arrival, reason, detail, message.payload[:_PAYLOAD_KEPT])
