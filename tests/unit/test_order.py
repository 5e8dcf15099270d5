"""Readings enter their windows once and in the order the broker sent them, however its sending is cut up."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from processor import topics
from processor.copies import filters, identifier
from processor.source_sections import Source
from processor.types import NS, Message
from tests.unit.test_intake import variable_integer
from tests.unit.test_pipeline import FULL, START, Line, ScriptedSource

SOURCES: list[dict[str, Any]] = [
    {"name": "near", "topics": ["imu/+", "imu/#"], "fields": ["x"], "time": "t"},
    {"name": "far", "topics": ["#", "+/b"], "fields": ["x"], "time": "t", "stream": "{topic[1]}"},
]
TOPICS = ("imu/a", "imu/b", "mill/a", "mill/b")  # streams of their own; of the first two each is in four filters


class Session(ScriptedSource):
    """A broker's session: copies for every filter, and what was not acknowledged comes again, first and in order.

    Attributes:
        connection: the present one.
        connected: told of a new one.
    """

    connected: Callable[[], None]

    def __init__(self, *, apart: bool) -> None:
        """Send a message that several filters match once for each (`apart`), or once for all."""
        super().__init__()
        self.connection = 1
        self._apart = apart
        self._filters = [text for _, text in filters([Source.model_validate(one) for one in SOURCES])]
        self._queue: deque[Message] = deque()
        self._sent: list[Message] = []
        self._on_the_way: list[int] = []  # acknowledgements, by packet identifier
        self._next = 0

    def publish_reading(self, topic: str, number: int) -> None:
        """Queue a reading for us."""
        matching = [text for text in self._filters if topics.matches(text, topic)]
        payload = json.dumps({"t": START + number % 1000, "x": number}).encode()
        for copy in [[text] for text in matching] if self._apart else [matching]:
            self._next += 1
            properties = b"".join(b"\x0b" + variable_integer(identifier(text)) for text in copy)
            self._queue.append(Message(topic, payload, 1, self._next, (START + 1000) * NS, properties=properties))

    def send(self, count: int) -> list[Message]:
        """Return the next messages over the present connection."""
        sending = [
            replace(self._queue.popleft(), connection=self.connection) for _ in range(min(count, len(self._queue)))
        ]
        self._sent += sending
        return sending

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Take acknowledgements on their way; those for a former connection go nowhere."""
        self._on_the_way += [message.mid for message in messages if message.connection == self.connection]

    def cut(self, lost: int) -> None:
        """Lose the connection, and with it the last acknowledgements; make another."""
        arrived = set(self._on_the_way[: len(self._on_the_way) - lost] if lost else self._on_the_way)
        again = [replace(message, dup=True) for message in self._sent if message.mid not in arrived]
        self._queue.extendleft(reversed(again))
        self._sent, self._on_the_way = [], []
        self.connection += 1
        self.connected()

    def renew(self, connection: int) -> None:
        """Connect anew, as asked."""
        if connection == self.connection:
            self.cut(0)

    def done(self) -> bool:
        """Whether everything was sent and acknowledged."""
        return not self._queue and {message.mid for message in self._sent} <= set(self._on_the_way)


@dataclass
class Play:
    """What a test does to one processor."""

    directory: Path
    batch: int
    session: Session
    sent: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    windows: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start, with a connection."""
        self.line = self._start()
        self.session.connected = self._connected

    def _start(self) -> Line:
        return Line(self.directory, FULL, self.batch, source=self.session, sources=SOURCES)

    def _connected(self) -> None:
        self.line.receipts.connected(self.session.connection, session_present=True)

    def publish(self, topic: str) -> None:
        """Send the topic's next reading to the broker."""
        numbers = self.sent[topic]
        numbers.append(1000 * TOPICS.index(topic) + len(numbers))
        self.session.publish_reading(topic, numbers[-1])

    def read(self, count: int) -> None:
        """Let so many messages arrive, and be carried through."""
        self.session.script = [self.session.send(count)]
        while self.session.script:
            self.line.pipeline.step(0.0)

    def make_room(self, _: int = 0) -> None:
        """Deliver what is in the outbox; after the next sample it is full again."""
        self.windows += self.line.deliver()

    def cut(self, lost: int) -> None:
        """Break the connection; it comes back."""
        self.session.cut(lost)

    def restart(self, lost: int) -> None:
        """End the process as a power cut does, and start another."""
        self.line.store.close()
        self.line = self._start()
        self.cut(lost)

    def finish(self) -> None:
        """Let all that the broker has be carried through."""
        for _ in range(1000):
            self.read(10_000)
            self.make_room()
            if self.session.done():
                break
        self.line.store.close()


_publish = st.tuples(st.just("publish"), st.sampled_from(TOPICS))
_read = st.tuples(st.just("read"), st.integers(1, 9))
_fault = st.tuples(st.sampled_from(["cut", "cut", "make_room", "make_room", "restart"]), st.integers(0, 9))
ACTIONS = st.lists(st.one_of(_publish, _publish, _publish, _read, _read, _fault), min_size=20, max_size=60)


@given(ACTIONS, st.integers(1, 6), st.integers(1, 500), st.booleans())
@settings(max_examples=40, deadline=None, phases=set(Phase) - {Phase.explain})  # which takes minutes
def test_each_streams_windows_hold_its_readings_in_order(
    actions: list[tuple[str, Any]], batch: int, inbox: int, apart: bool
) -> None:
    """Two sources, overlapping filters, any batches, cuts, lost acknowledgements, restarts, no room for long."""
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr("processor.pipeline._INBOX_BYTES", inbox)
        patch.setattr("processor.pipeline._RETRY", 0.0)
        patch.setattr("processor.reserve._MOST", 4096)
        play = Play(Path(directory), batch, Session(apart=apart))
        for action, argument in actions:
            getattr(play, action)(argument)
        play.finish()
    by_stream: dict[str, list[float]] = {topic: [] for topic in TOPICS}
    for first, second in play.windows:
        by_stream[TOPICS[int(first) // 1000]] += [first, second]
    assert by_stream == {topic: play.sent[topic][: len(play.sent[topic]) // 2 * 2] for topic in TOPICS}
