"""From samples to messages: body, id, properties and how they count. Pure."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from processor.outbox import Waiting

LARGEST: Final = 256 << 10
"""Bytes of a message with its properties that the hub, and the SDK, take."""
BLOCK: Final = 4 << 10
"""Bytes that the hub bills as one message."""
_LONGEST_PROPERTY: Final = 512
"""Bytes of a value; all of them, encoded twice, have to fit a topic of 64 KiB."""
_OVERHEAD: Final = 200
"""Bytes that the SDK adds when it measures a message: for the body, and for what is not set."""
_ENCODING: Final = "utf-8"
_SINGLE: Final = "application/json"
_BATCH: Final = "application/cloudevents-batch+json"
_ROOM: Final = 256
"""Bytes that a pack leaves for id, properties and brackets, as the hub counts them."""
_MOST_EVENTS: Final = LARGEST - 1600
"""Bytes of events in a message, as the SDK counts the rest."""


class Message(NamedTuple):
    """What is sent in one piece."""

    id: str
    body: bytes
    content_type: str
    properties: Mapping[str, str]
    samples: Sequence[Waiting]
    """Those in it."""

    @property
    def size(self) -> int:
        """Bytes of it as the hub counts: the body, and the properties' names and values."""
        system = {"$.mid": self.id, "$.ct": self.content_type, "$.ce": _ENCODING}
        both = [*system.items(), *self.properties.items()]
        return len(self.body) + sum(len(name) + len(value.encode()) for name, value in both)

    @property
    def blocks(self) -> int:
        """How many messages the hub bills for it."""
        return -(-self.size // BLOCK)

    @property
    def fits(self) -> bool:
        """Whether the hub, and the SDK, which measures Python objects, take it."""
        values = [self.id, self.content_type, _ENCODING, *self.properties.values()]
        measured = len(self.body) + _OVERHEAD + sum(map(sys.getsizeof, values))
        return max(measured, self.size) <= LARGEST


def single(sample: Waiting, event: bytes) -> Message:
    """Return the message of one sample."""
    properties = {
        "rule": sample.rule,
        "label": _short(sample.label),
        "stream": _short(sample.stream),
        "model": _short(sample.model),
    }
    return Message(sample.id, event, _SINGLE, properties, [sample])


def room(max_bytes: int) -> int:
    """Return how many bytes of events, a comma each, go into a message of at most `max_bytes`."""
    return min(max_bytes - _ROOM, _MOST_EVENTS)


def packed(samples: Sequence[tuple[Waiting, bytes]]) -> Message:
    """Return the message of samples of one rule. The same samples always give the same one."""
    first = samples[0][0]
    names = hashlib.sha256("".join(sample.id for sample, _ in samples).encode()).hexdigest()
    properties = {"rule": first.rule, "model": _short(first.model), "count": str(len(samples))}
    body = b"[" + b",".join(event for _, event in samples) + b"]"
    return Message(names[:32], body, _BATCH, properties, [sample for sample, _ in samples])


def packs(samples: Iterable[tuple[Waiting, bytes]]) -> list[Message]:
    """Return the messages of a claim: one, unless it was put together for larger ones than fit.

    A message that does not fit all the same holds a single sample.
    """
    messages: list[Message] = []
    group: list[tuple[Waiting, bytes]] = []
    size = 0
    for sample, event in samples:
        if group and size + len(event) + 1 > _MOST_EVENTS:
            messages.append(packed(group))
            group, size = [], 0
        group.append((sample, event))
        size += len(event) + 1
    return [*messages, packed(group)] if group else messages


def reference(event: bytes, where: str) -> bytes:
    """Return the event that stands for one whose content lies elsewhere (CloudEvents' extension `dataref`).

    Args:
        event: the whole one.
        where: the address of its content.
    """
    whole: dict[str, Any] = msgspec.json.decode(event)
    whole.pop("data", None)
    return msgspec.json.encode({**whole, "dataref": where})


def _short(value: str) -> str:
    encoded = value.encode("utf-8", "surrogatepass")
    if len(encoded) <= _LONGEST_PROPERTY:
        return value
    return f"sha256-{hashlib.sha256(encoded).hexdigest()}"
