"""A source for each family, tried with the decoder that `mlade run` uses: what it does not decode is no sure guess."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np

from processor.decoders import FORMATS, decoder
from processor.discover.drafts import Draft, Given, draft
from processor.discover.families import Family
from processor.discover.fields import Fields, Seen, classify
from processor.discover.heard import Topic
from processor.discover.look import Look
from processor.discover.looks import look
from processor.discover.pace import Pace, pace_of
from processor.source_sections import Source
from processor.types import Message

_MOST_MESSAGES: Final = 480
"""Of one family that are looked at."""
_ALL: Final = 0.98
"""The share of messages that a sure guess decodes."""


class Tried(NamedTuple):
    """What the decoder made of the messages that were kept."""

    messages: int
    decoded: int
    """Those without a failure."""
    readings: int
    streams: int
    complaint: str
    """The commonest of its failures, as a sentence."""


@dataclass(slots=True)
class Proposal:
    """What is known of a family, and the source for it.

    Attributes:
        family: its topics.
        messages: that came on them live.
        retained: that the broker had kept from before.
        size: bytes of a message, on the average.
        pace: how fast readings come.
        example: one message.
        fields: what was recognised; empty where no format reads them.
        source: keys of `sources[]`; None where there is none.
        channels: names of the values in a reading.
        problem: why there is no source, as a clause.
        notes: what to look at, sentences.
        guess: what is not certain about the source, as a clause; empty where it decodes what came.
        tried: with the decoder.
        made_up: whether the channels' names are not the payload's.
        kept: messages to try with.
        parts: the families that it joins; none where it is of one.
    """

    family: Family
    messages: int
    retained: int
    size: float
    pace: Pace
    example: Message
    fields: Fields
    source: dict[str, Any] | None = None
    channels: tuple[str, ...] = ()
    problem: str = ""
    notes: list[str] = field(default_factory=list)
    guess: str = ""
    tried: Tried | None = None
    made_up: bool = False
    kept: Sequence[Message] = ()
    parts: tuple[Family, ...] = ()


def propose(families: Iterable[Family], topics: Mapping[str, Topic], channels: int | None = None) -> list[Proposal]:
    """Return a proposal for each family: those with a source first, and those with most messages.

    Args:
        families: from `families.group`.
        topics: by name.
        channels: that a model wants, for payloads that do not say how many they have; None: any number.
    """
    found = [_propose(family, [topics[name] for name in family.topics], channels) for family in families]
    found.sort(key=lambda one: (one.source is None, -one.messages, one.family.filters))
    return found


def give_names(proposals: Iterable[Proposal]) -> None:
    """Make the sources' names different."""
    taken: set[str] = set()
    for one in proposals:
        if one.source is not None:
            one.source["name"] = _unused(one.source["name"], taken)


def _propose(family: Family, topics: Sequence[Topic], channels: int | None) -> Proposal:
    messages = _spread(topics)
    looks = [(message, found) for message in messages if _is_like(found := look(message), family)]
    seen = [Seen(message.topic, message.arrival, record) for message, found in looks for record in found.records]
    fields = classify(seen) if seen else Fields()
    readings = sum(found.readings for _, found in looks) / max(1, len(looks))
    pace = pace_of(topics, readings, _keys_per_topic(seen, fields.key))
    total = sum(topic.messages + topic.retained for topic in topics)
    signature = family.signature
    made = Draft(problem=signature.problem)
    if signature.format and signature.format not in FORMATS:
        made.problem = f"this version does not read {signature.format}"
    elif signature.format:
        fullest = max(topics, key=lambda topic: len(topic.kept))
        payloads = [message.payload for message in fullest.kept]
        made = draft(Given(signature, fields, pace, [found for _, found in looks], payloads, channels))
    proposal = Proposal(
        family,
        messages=sum(topic.messages for topic in topics),
        retained=sum(topic.retained for topic in topics),
        size=sum(topic.size for topic in topics) / max(1, total),
        pace=pace.with_readings(made.readings),
        example=looks[-1][0] if looks else messages[-1],
        fields=fields,
        channels=made.channels,
        problem=made.problem,
        notes=made.notes,
        guess=made.guess,
        made_up=made.made_up,
        kept=messages,
    )
    if not made.problem:
        proposal.source = {
            "name": _name(family),
            "topics": list(family.filters),
            "format": signature.format,
            **made.keys,
        }
        attempt(proposal)
    return proposal


def _spread(topics: Sequence[Topic]) -> list[Message]:
    """Return messages of all the topics, in the order of arrival: the latest of each."""
    each = max(1, _MOST_MESSAGES // len(topics))
    chosen = [message for topic in topics for message in list(topic.kept)[-each:]]
    return sorted(chosen[: 2 * _MOST_MESSAGES], key=lambda message: message.arrival)


def _is_like(found: Look, family: Family) -> bool:
    signature = family.signature
    if signature.format == "binary":
        return found.kind == "bytes"
    return (found.format, found.kind, found.details) == (signature.format, signature.kind, signature.details)


def _keys_per_topic(seen: Iterable[Seen], key: str) -> float:
    """Return how many streams share a topic."""
    if not key:
        return 1.0
    keys: dict[str, set[object]] = {}
    for row in seen:
        keys.setdefault(row.topic, set()).add(row.record.get(key))
    return sum(map(len, keys.values())) / len(keys)


def with_fields(one: Proposal, names: Sequence[str]) -> Proposal:
    """Return a proposal with other fields, tried anew."""
    if one.source is None or one.channels == tuple(names):
        return one
    changed = replace(one, source={**one.source, "fields": list(names)}, channels=tuple(names))
    attempt(changed)
    return changed


def attempt(proposal: Proposal) -> None:
    """Decode what was kept, as `mlade run` would, and take note of how that goes."""
    messages = proposal.kept
    source = Source.model_validate(proposal.source)
    arrivals = np.array([message.arrival for message in messages], np.int64)
    topics = [message.topic for message in messages]
    decoded = decoder(source).decode([message.payload for message in messages], arrivals, topics)
    failed = Counter(failure.detail for failure in decoded.failures)
    whole = len(messages) - len(decoded.failures)
    origins = [topics[index] for index in decoded.origin.tolist()]
    named = [""] * len(origins) if decoded.keys is None else decoded.keys
    complaint = failed.most_common(1)[0][0] if failed else ""
    proposal.tried = Tried(
        len(messages), whole, len(decoded.origin), len(set(zip(origins, named, strict=True))), complaint
    )
    if not len(decoded.origin):
        proposal.problem = f"none of {len(messages)} messages gives a reading: {complaint or 'they are empty'}"
        proposal.source = None
    elif whole < _ALL * len(messages):
        proposal.guess = f"{len(messages) - whole} of {len(messages)} messages do not decode: {complaint}"


def _name(family: Family) -> str:
    """Return a source's name: the last word that its topics have in common."""
    words = [level for level in family.filters[0].split("/") if re.search("[A-Za-z]{2}", level)]
    text = re.sub("[^A-Za-z0-9_-]+", "-", words[-1] if words else "").strip("-")
    return text[:48] or family.signature.format


def _unused(name: str, taken: set[str]) -> str:
    """Return a name that no other source has."""
    candidates = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    free = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(free)
    return free
