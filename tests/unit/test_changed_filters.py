"""Topic filters that change while the broker keeps messages for us: each message counts once, whatever its copies."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from processor import topics
from processor.decoders import decoder
from processor.intake import Intake
from processor.metrics import Metrics
from processor.session import BrokerSession
from processor.settings import Source
from processor.types import Message
from processor.windows import Shape, WindowBuffer
from tests.unit.test_intake import message

MARK: Final = "mlade/line-1/settled"
FILTERS: Final = ("#", "+/+", "a/#", "a/1", "b/#", "b/+")
TOPICS: Final = ("a/1", "a/2", "b/1")

Step = tuple[str, object]
configurations = st.lists(st.sampled_from(FILTERS), min_size=1, unique=True)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(TOPICS)),
        st.tuples(st.just("work"), st.integers(1, 4)),
        st.tuples(st.just("serve"), st.integers(1, 4)),
        st.tuples(st.just("restart"), configurations),
        st.tuples(st.just("reconnect"), st.none()),
        st.tuples(st.just("tidy"), st.none()),
    ),
    max_size=40,
)


class Plant:
    """A processor, and a broker that sends a copy for each filter it holds, and does what it is asked one by one.

    Attributes:
        counted: readings that became one, by their numbers.
        owed: those published while a filter held for the configuration matched, that no other configuration has seen.
    """

    def __init__(self, filters: Sequence[str]) -> None:
        """Start; the broker has not been asked for anything yet."""
        self.counted: list[int] = []
        self.owed: set[int] = set()
        self.held: dict[str, None] = {}
        self.queue: list[Message] = []
        self.asked: list[Callable[[], None]] = []
        self._kept: str | None = None
        self._session_present = False
        self._number = 0
        self.restart(filters)

    def restart(self, filters: Sequence[str]) -> None:
        """Kill the processor and start it with a configuration."""
        self.filters = filters
        source = Source.model_validate({"name": "s", "topics": filters, "qos": 1, "fields": ["x"]})
        kept = None if self._kept is None else json.loads(self._kept)
        self.session = BrokerSession(kept, [*filters, MARK], wanted=True, metrics=Metrics())
        windows = WindowBuffer(Shape(1, 1, 1, None), 100)
        self._intake = Intake([source], [decoder(source)], windows, "mlade", held=lambda: self.session.held)
        self.tidy()
        self.reconnect()

    def tidy(self) -> None:
        """Keep what has to survive."""
        self._kept = json.dumps(self.session.memory())

    def reconnect(self) -> None:
        """Make a connection; what was asked over another and has not come yet is lost."""
        self.session.connected(session_present=self._session_present)
        self._session_present = True
        self.asked = [partial(self._hold, text) for text in self.session.to_subscribe()]
        self._mark = b""
        if not self.session.all_settled:
            self._number += 1
            self._mark = str(self._number).encode()
            self.asked.append(partial(self._send, MARK, self._mark))

    def serve(self, count: int) -> None:
        """Let the broker do what it was asked next."""
        for ask in self.asked[:count]:
            ask()
        del self.asked[:count]

    def publish(self, topic: str) -> None:
        """Publish a reading."""
        self._number += 1
        if any(topics.matches(text, topic) for text in self.held if text in self.filters):
            self.owed.add(self._number)
        self._send(topic, str(self._number).encode())

    def work(self, count: int) -> None:
        """Take in the next messages."""
        for one in self.queue[:count]:
            if one.topic == MARK:
                self._settle(one)
                continue
            self.counted += self._intake.take([one]).readings.values.ravel().astype(int).tolist()
            if not any(topics.matches(text, one.topic) for text in self.filters):
                self.owed.discard(int(one.payload))
        del self.queue[:count]

    def _settle(self, mark: Message) -> None:
        if mark.payload == self._mark and self.session.settle():
            self.tidy()
            if self.session.leaving:
                self.asked.append(partial(self._drop, tuple(self.session.leaving)))

    def _hold(self, text: str) -> None:
        self.held[text] = None

    def _drop(self, filters: Sequence[str]) -> None:
        for text in filters:
            self.held.pop(text, None)
        self.session.unsubscribed()  # the answer does not wait behind messages

    def _send(self, topic: str, payload: bytes) -> None:
        self.queue += [message(topic, payload, [text], qos=1) for text in self.held if topics.matches(text, topic)]


@given(configurations, steps)
def test_a_message_counts_once_whichever_filters_came_and_went(first: Sequence[str], doings: list[Step]) -> None:
    """Also where a process was killed before it had subscribed, and a third configuration follows."""
    plant = Plant(first)
    for what, argument in doings:
        getattr(plant, what)(*() if argument is None else (argument,))
    while plant.asked or plant.queue:
        plant.serve(1)
        plant.work(1)
    assert len(plant.counted) == len(set(plant.counted))
    assert plant.owed <= set(plant.counted)
    assert set(plant.held) == {*plant.filters, MARK}
