"""What a topic's payloads look like: the format that reads most of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Final, NamedTuple

import msgspec

from processor.discover import binary, images, opcua, packed, texts, trees
from processor.discover.heard import Topic
from processor.discover.look import Look, unknown
from processor.types import Message

_NUMBERED: Final = re.compile("[0-9]+")
MOST_LOOKED_AT: Final = 24
"""Messages of one topic that are looked at to say what they are."""


class Signature(NamedTuple):
    """What the payloads of one topic have in common, and with those of its family."""

    format: str
    kind: str
    details: tuple[Hashable, ...]
    names: frozenset[str]
    """Of the fields that came."""
    problem: str = ""


class Sighting(NamedTuple):
    """A message, and what it looks like."""

    key: str
    """Of who sent it: the topic, where nothing else tells."""
    message: Message
    look: Look


def look(payload: bytes) -> Look:
    """Return what a payload looks like to the first format that reads it."""
    if payload.lstrip()[:1] in (b"{", b"["):
        try:
            tree = msgspec.json.decode(payload)
        except (ValueError, RecursionError):
            pass
        else:
            return opcua.look_at(tree) or trees.look_at(tree, "json")
    found = images.look_at(payload) or texts.look_at(payload) or packed.look_at(payload)
    return found or unknown("bytes", "bytes of no format that is known")


def signature(topic: Topic, most: int = MOST_LOOKED_AT) -> Signature | None:
    """Return what most of a topic's payloads look like, of which `most` are looked at; None where none was kept."""
    looks = [look(message.payload) for message in _spread(topic.kept, most)]
    if not looks:
        return None
    votes = Counter((one.format, one.kind, one.details) for one in looks)
    (commonest, _), *_ = votes.most_common(1)
    alike = [one for one in looks if (one.format, one.kind, one.details) == commonest]
    if alike[0].kind == "bytes" and binary.guess([message.payload for message in topic.kept]) is not None:
        sizes = {len(message.payload) for message in topic.kept}
        return Signature("binary", "bytes", (sizes.pop() if len(sizes) == 1 else 0,), frozenset())
    names = {field for one in alike for record in one.records for field in record}
    if alike[0].format == "opcua":  # each machine has nodes of its own: the same but for their numbers
        names = {_NUMBERED.sub("#", node) for node in names}
    return Signature(*commonest, frozenset(names), alike[0].problem)


def _spread(messages: Iterable[Message], most: int) -> list[Message]:
    """Return some of a topic's messages, of its beginning and its end."""
    kept = list(messages)
    if len(kept) <= most:
        return kept
    first = most // 3
    return kept[:first] + kept[first - most :]
