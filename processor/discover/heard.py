"""What came on each topic: counted, and a sample of it kept. Memory is bounded, whatever comes and for how long."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from processor.types import NS, Message

MOST_TOPICS: Final = 5_000
"""Topics looked at; messages on further ones are counted only."""
_FIRST: Final = 8
"""Messages kept of a topic's beginning: what a Sparkplug device says once, when it is born, is there."""
_LATEST: Final = 32
"""And of its end."""
_FEW: Final = 4
"""Of its end, where many topics have taken most of the room."""
_ROOM: Final = 64 << 20
"""Bytes of payloads that all topics may keep; a quarter of it is for topics that have none yet."""
_OVERHEAD: Final = 500
"""Bytes that a kept message takes beside its payload, and more than that where it is parsed."""
_LARGE: Final = 64 << 10
"""Payloads over this are kept twice a topic at most."""


@dataclass(slots=True)
class Topic:
    """What is known of one topic.

    Attributes:
        name: the topic.
        messages: that came live.
        retained: that the broker had kept from before.
        size: bytes of all their payloads.
        first: arrival of the first live one, ns since the Unix epoch.
        last: of the last.
        longest: the longest pause between two live ones, in ns.
        kept: a sample, in the order of arrival.
        large: how many of these are large.
    """

    name: str
    messages: int = 0
    retained: int = 0
    size: int = 0
    first: int = 0
    last: int = 0
    longest: int = 0
    kept: deque[Message] = field(default_factory=deque)
    large: int = 0

    @property
    def rate(self) -> float | None:
        """Messages a second; None where fewer than two came live."""
        return (self.messages - 1) * NS / (self.last - self.first) if self.last > self.first else None

    def count(self, message: Message) -> None:
        """Take note of a message."""
        self.size += message.oversize or len(message.payload)
        if message.retain:
            self.retained += 1
            return
        if self.messages:
            self.longest = max(self.longest, message.arrival - self.last)
        else:
            self.first = message.arrival
        self.last = message.arrival
        self.messages += 1


class Heard:
    """All that came.

    Attributes:
        topics: by name.
        messages: that came, retained ones among them.
        own: messages of processors, which are no readings.
        too_large: messages whose payload was over the limit.
        not_looked_at: messages on topics beyond the first `MOST_TOPICS`.
    """

    def __init__(self, prefix: str = "mlade") -> None:
        """Take the prefix of the topics that are processors' own."""
        self.topics: dict[str, Topic] = {}
        self.messages = 0
        self.own = 0
        self.too_large = 0
        self.not_looked_at = 0
        self._prefix = f"{prefix}/"
        self._room = _ROOM

    def take(self, messages: Sequence[Message]) -> None:
        """Count messages, and keep those that are needed."""
        for message in messages:
            self.messages += 1
            if message.topic.startswith(self._prefix):
                self.own += 1
                continue
            topic = self.topics.get(message.topic)
            if topic is None:
                if len(self.topics) >= MOST_TOPICS:
                    self.not_looked_at += 1
                    continue
                topic = self.topics[message.topic] = Topic(message.topic)
            topic.count(message)
            if message.oversize:
                self.too_large += 1
            elif message.payload:  # an empty one removes what was retained
                self._keep(topic, message)

    def _keep(self, topic: Topic, message: Message) -> None:
        needed = len(message.payload) + _OVERHEAD
        scarce = self._room < _ROOM // 4
        if self._room < needed or (scarce and len(topic.kept) >= _FEW and needed > self._room // 16):
            return
        if len(message.payload) > _LARGE:
            if topic.large >= 2:  # noqa: PLR2004 - the first, and one to compare it with
                return
            topic.large += 1
        kept = topic.kept
        most = _FEW if scarce else _LATEST
        while len(kept) >= _FIRST + most:
            self._room += len(kept[_FIRST].payload) + _OVERHEAD
            del kept[_FIRST]
        self._room -= needed
        kept.append(message)


def processors(topics: Mapping[str, Topic]) -> set[str]:
    """Return what the topics of processors start with, whatever their prefix: `factory/line-1/`."""
    found = set()
    for name in topics:
        root, _, last = name.rpartition("/")
        if name.endswith("/filter/state"):
            found.add(name.removesuffix("filter/state"))
        elif last == "metrics" and f"{root}/status" in topics and _is_status(topics[f"{root}/status"]):
            found.add(f"{root}/")
    return found


def _is_status(topic: Topic) -> bool:
    return all(message.payload in (b"online", b"offline") for message in topic.kept)


def without_processors(topics: Mapping[str, Topic]) -> Iterator[Topic]:
    """Yield the topics that are no processor's."""
    own = tuple(processors(topics))
    return (topic for topic in topics.values() if not topic.name.startswith(own))
