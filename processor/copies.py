"""What is subscribed to, and which of a message's copies counts.

A message can come more than once, in three ways. Where several filters match its topic, MQTT 5 brings a copy for each:
one of them counts, by its subscription's identifier, as told here. What a broker retains comes again with a later
SUBSCRIBE: `retained` tells it. What it holds no acknowledgement for comes again after a lost connection: `receipts`
tell it. `session` knows which filters the broker holds and which of their copies may be under way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from processor import topics
from processor.mqtt.properties import subscription_identifiers
from processor.source_sections import Source
from processor.types import Message

_MOST_IDENTIFIERS: Final = 268_435_455


def filters(sources: Sequence[Source]) -> list[tuple[int, str]]:
    """Return every subscription, as (position of its source, topic filter).

    A filter is subscribed to once: a broker keeps one subscription for it, and the first source gets its messages.
    """
    first: dict[str, int] = {}
    for position, source in enumerate(sources):
        for text in source.topics:
            first.setdefault(text, position)
    return [(position, text) for text, position in first.items()]


def identifier(text: str) -> int:
    """Return a topic filter's MQTT 5 subscription identifier.

    Of its text alone: what the broker keeps for us while we are away carries it, and must mean the same to the next
    configuration.
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % _MOST_IDENTIFIERS + 1


def source_of(filters: Sequence[tuple[int, str]], topic: str) -> int:
    """Return the position of the source that a topic's messages feed, -1 for none; `filters` as that returns them."""
    return next((position for position, text in filters if topics.matches(text, topic)), -1)


def counting_copy(held: Iterable[str], topic: str) -> int:
    """Return the subscription whose copy of a message counts where several filters match its topic; else 0."""
    matching = [text for text in held if topics.matches(text, topic)]
    return identifier(matching[0]) if len(matching) > 1 else 0


def is_copy(message: Message, identifier: int) -> bool:
    """Whether this is the copy of the subscription that counts; brokers without identifiers send one copy only."""
    identifiers = subscription_identifiers(message.properties)
    return not identifiers or identifier in identifiers
