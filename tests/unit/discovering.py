"""What `mlade discover` makes of messages, for tests: without a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from processor import document, settings
from processor.discover.choice import Choice, choose
from processor.discover.heard import Heard
from processor.discover.joins import joins
from processor.discover.learning import Learner
from processor.discover.model_part import model_part
from processor.discover.proposals import Proposal, give_names
from processor.discover.wishes import Wanted
from processor.discover.writing import Session, configuration
from processor.types import NS, Message

NOW = 1_795_341_600_000_000_000
"""2026-11-22T10:00:00Z."""
TENTH = NS // 10

Make = Callable[[int, float], bytes | str]
"""Makes a payload from its number and its time in epoch seconds."""


def stream(topic: str, make: Make, count: int = 20, interval: int = TENTH) -> list[Message]:
    """Return messages of one topic, evenly spaced; each arrives when it is made."""
    messages = []
    for number in range(count):
        arrival = NOW + number * interval
        payload = make(number, arrival / NS)
        encoded = payload.encode() if isinstance(payload, str) else payload
        messages.append(Message(topic, encoded, arrival=arrival))
    return messages


def learn(*streams: Iterable[Message], channels: Sequence[int] = ()) -> list[Proposal]:
    """Return what is concluded from messages, in the order of their arrival."""
    heard = Heard()
    heard.take(sorted((message for each in streams for message in each), key=lambda message: message.arrival))
    proposals = Learner(heard, channels).proposals(final=True)
    give_names(proposals)
    return proposals


def one(*streams: Iterable[Message], channels: Sequence[int] = ()) -> Proposal:
    """Return the only proposal."""
    (proposal,) = learn(*streams, channels=channels)
    return proposal


def source(*streams: Iterable[Message], channels: Sequence[int] = ()) -> dict[str, Any]:
    """Return the only source without its name, topics and format."""
    proposal = one(*streams, channels=channels)
    assert proposal.source is not None, proposal.problem
    return {key: value for key, value in proposal.source.items() if key not in ("name", "topics", "format")}


def conclude(proposals: Sequence[Proposal], wanted: Wanted | None = None) -> tuple[Choice, str]:
    """Return the choice, and the configuration's text."""
    alternatives = joins(proposals)
    give_names([*proposals, *alternatives])
    choice = choose(proposals, wanted, alternatives)
    session = Session({"url": "mqtt://broker.example:1883"}, "2026-11-22T10:00:00Z", 20, 1, 1, wanted is not None)
    part = model_part(choice, None if wanted is None else str(wanted.path), Path())
    return choice, configuration(choice, part, session)


def read(text: str) -> settings.Settings:
    """Return the settings in a configuration's text, which has to be right."""
    return settings.build(plain(text), Path())


def plain(text: str) -> dict[str, Any]:
    """Return what a configuration's text says."""
    data = document.parse(text)
    assert isinstance(data, dict)
    return data
