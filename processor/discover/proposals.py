"""A source for each family, tried with the decoder that `mlade run` uses: what it does not decode is no sure guess."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np

from processor.decoders import decoder
from processor.discover.drafts import Draft, Given, draft
from processor.discover.families import Family
from processor.discover.fields import Fields, Seen, classify
from processor.discover.heard import Topic
from processor.discover.look import Look, Record
from processor.discover.looks import Sighting, Signature, look
from processor.discover.pace import Pace, pace_of
from processor.source_sections import Source
from processor.types import Message

_MOST_MESSAGES: Final = 480
"""Of one family that are looked at."""
_MOST_IMAGES: Final = 8
"""As many, of images: they take milliseconds each."""
_MOST_VALUES: Final = 200_000
"""In the readings of one family that are looked at; of a message beyond them, one reading is."""
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
        record: what was read of it; None where nothing was.
        fields: what was recognised; empty where no format reads them.
        source: keys of `sources[]`; None where there is none.
        channels: names of the values in a reading.
        problem: why there is no source, as a clause.
        notes: what to look at, sentences.
        unsure: what is not certain about the source whatever it decodes, as a clause.
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
    unsure: str = ""
    tried: Tried | None = None
    made_up: bool = False
    kept: Sequence[Message] = ()
    parts: tuple[Family, ...] = ()
    record: Record | None = None

    @property
    def guess(self) -> str:
        """What is not certain about the source, as a clause; empty where it decodes nearly all that came."""
        tried = self.tried
        if self.unsure or tried is None or tried.decoded >= _ALL * tried.messages:
            return self.unsure
        return f"{tried.messages - tried.decoded} of {tried.messages} messages do not decode: {tried.complaint}"


class Evidence(NamedTuple):
    """What is known of a family before anything is concluded."""

    topics: Sequence[Topic]
    sightings: Sequence[Sighting]
    """Of its shape."""
    kept: Sequence[Message]
    """All that a source for it would get, in the order of arrival."""


def gather(family: Family, topics: Mapping[str, Topic]) -> Evidence:
    """Return what is known of a family whose messages stand each for themselves."""
    mine = [topics[name] for name in family.topics]
    most = _MOST_IMAGES if family.signature.format == "image" else _MOST_MESSAGES
    each = max(1, most // len(mine))
    chosen = [message for topic in mine[:most] for message in list(topic.kept)[-each:]]
    kept = sorted(chosen, key=lambda message: message.arrival)
    sightings = []
    values = 0
    for message in kept:
        found = look(message.payload)
        if _is_like(found, family):
            values += sum(map(len, found.records))
            if values > _MOST_VALUES:
                found = found._replace(records=found.records[:1])
            sightings.append(Sighting(message.topic, message, found))
    return Evidence(mine, sightings, kept)


def propose(found: Iterable[tuple[Family, Evidence]], channels: Sequence[int] = ()) -> list[Proposal]:
    """Return a proposal for each family: those with a source first, and those with most messages.

    Args:
        found: families, and what is known of them.
        channels: what a model may want, for payloads that do not say how many they have; empty: any number.
    """
    proposals = [_propose(family, evidence, channels) for family, evidence in found]
    proposals.sort(key=lambda one: (one.source is None, -one.messages, one.family.filters))
    return proposals


def give_names(proposals: Iterable[Proposal]) -> None:
    """Make the sources' names different."""
    taken: set[str] = set()
    for one in proposals:
        if one.source is not None:
            one.source["name"] = _unused(one.source["name"], taken)


def _propose(family: Family, evidence: Evidence, channels: Sequence[int]) -> Proposal:
    topics, sightings, kept = evidence
    seen = [Seen(one.key, one.message.arrival, record) for one in sightings for record in one.look.records]
    signature = family.signature
    fields = classify(seen, sparse=signature.kind == "nodes") if seen else Fields()
    readings = sum(one.look.readings for one in sightings) / max(1, len(sightings))
    pace = pace_of(topics, readings, _streams_per_topic(seen, fields, signature))
    made = Draft(problem=signature.problem or "its payloads are of several kinds")
    if signature.format and sightings:
        fullest = max(topics, key=lambda topic: len(topic.kept))
        payloads = [message.payload for message in fullest.kept]
        made = draft(Given(signature, fields, pace, [one.look for one in sightings], payloads, channels))
    total = sum(topic.messages + topic.retained for topic in topics)
    proposal = Proposal(
        family,
        messages=sum(topic.messages for topic in topics),
        retained=sum(topic.retained for topic in topics),
        size=sum(topic.size for topic in topics) / max(1, total),
        pace=pace.with_readings(made.readings),
        example=sightings[-1].message if sightings else kept[-1],
        fields=fields,
        channels=made.channels,
        problem=made.problem,
        notes=made.notes,
        unsure=made.guess,
        made_up=made.made_up,
        kept=kept,
        record=sightings[-1].look.records[0] if sightings and sightings[-1].look.records else None,
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


def _is_like(found: Look, family: Family) -> bool:
    signature = family.signature
    if signature.format == "binary":
        return found.kind == "bytes"
    return (found.format, found.kind, found.details) == (signature.format, signature.kind, signature.details)


def _streams_per_topic(seen: Iterable[Seen], fields: Fields, signature: Signature) -> float:
    """Return how many streams share a topic."""
    streams: dict[str, set[object]] = {}
    for row in seen:
        if signature.kind == "nodes":
            streams.setdefault(row.topic, set()).update(row.record.keys() & set(fields.measured))
        elif fields.key:
            streams.setdefault(row.topic, set()).add(row.record.get(fields.key))
    return sum(map(len, streams.values())) / len(streams) if streams else 1.0


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
    mine = set(proposal.family.topics)
    failed = Counter(
        failure.detail
        for failure in decoded.failures
        if topics[failure.position] in mine and failure.reason != "incomplete"  # of sensors that are joined
    )
    count = sum(topic in mine for topic in topics)
    whole = count - failed.total()
    origins = [topics[index] for index in decoded.origin.tolist()]
    keys = origins if decoded.keys is None else decoded.keys
    places = origins if "{topic" in source.stream_template else [""] * len(origins)
    complaint = failed.most_common(1)[0][0] if failed else ""
    proposal.tried = Tried(count, whole, len(origins), len(set(zip(places, keys, strict=True))), complaint)
    if not origins:
        proposal.problem = f"none of {count} messages gives a reading: {complaint or 'they are empty'}"
        proposal.source = None


def _name(family: Family) -> str:
    """Return a source's name: the last word that its topics have in common."""
    if family.signature.format == "sparkplug":
        return "sparkplug"
    words = [level for level in family.filters[0].split("/") if re.search("[A-Za-z]{2}", level)]
    text = re.sub("[^A-Za-z0-9_-]+", "-", words[-1] if words else "").strip("-")
    return text[:48] or family.signature.format


def _unused(name: str, taken: set[str]) -> str:
    """Return a name that no other source has."""
    candidates = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    free = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(free)
    return free
