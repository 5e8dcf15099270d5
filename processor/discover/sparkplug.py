"""Sparkplug B: edge nodes and their devices, and the metrics that their births name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from processor.decoders.checks import Unusable
from processor.decoders.sparkplug.addresses import NAMESPACE, Address, Addresses
from processor.decoders.sparkplug.payloads import Metric, number, parse
from processor.discover.families import Family, group
from processor.discover.heard import Topic
from processor.discover.look import MOST_FIELDS, Look, Record, can_be_written
from processor.discover.looks import Sighting, Signature
from processor.discover.proposals import Evidence
from processor.types import Message

FILTER: Final = f"{NAMESPACE}/#"
"""A node's messages are counted, over those of all its devices: a source takes all of them, or asks for births."""
_BIRTHS: Final = ("NBIRTH", "DBIRTH")
_DATA: Final = ("NDATA", "DDATA")
_ABOUT: Final = ("bdSeq", "Node Control/", "Device Control/")
"""Metrics of the standard's own."""


def is_sparkplug(topic: str) -> bool:
    """Whether a topic is one of Sparkplug B's."""
    return topic.startswith(f"{NAMESPACE}/")


@dataclass(slots=True)
class Party:
    """A node itself, or one of its devices.

    Attributes:
        topics: that its messages came on.
        seen: its state after each message.
        nameless: values that came under a number of which no birth was seen.
        early: messages before its first birth.
        born: whether there was one.
    """

    topics: set[str] = field(default_factory=set)
    seen: list[tuple[Message, Look]] = field(default_factory=list)
    nameless: int = 0
    early: list[Message] = field(default_factory=list)
    born: bool = False
    _names: dict[int, str] = field(default_factory=dict)
    _types: dict[str, int] = field(default_factory=dict)
    _state: Record = field(default_factory=dict)

    def take(self, address: Address, message: Message, metrics: Iterable[Metric]) -> None:
        """Take in what a message says."""
        is_birth = address.kind in _BIRTHS
        self.topics.add(message.topic)
        self.born |= is_birth
        if not self.born:
            self.early.append(message)
        if is_birth:
            self._names.clear()
            self._state.clear()
        changed = False
        for metric in metrics:
            name = metric.name.decode(errors="replace") if metric.name else self._names.get(metric.alias, "")
            if not name:
                self.nameless += 1
                continue
            if is_birth and metric.HasField("alias"):
                self._names[metric.alias] = name
            if (
                name.startswith(_ABOUT)
                or not can_be_written(name)
                or (name not in self._state and len(self._state) >= MOST_FIELDS)
            ):
                continue
            kind = self._types[name] = metric.datatype or self._types.get(name, 0)
            self._state[name] = _value(metric, kind)
            changed = True
        if changed:
            self.seen.append((message, Look("sparkplug", "metrics", [dict(self._state)], 1)))

    @property
    def signature(self) -> Signature:
        """What it has in common with others of its kind."""
        names = frozenset(name for _, look in self.seen for record in look.records for name in record)
        if names or not self.nameless:
            return Signature("sparkplug", "metrics", (), names)
        problem = "its birth, which names its metrics, did not come: start it anew, or ask it for a rebirth, meanwhile"
        return Signature("", "metrics", (), names, problem)


def parties(topics: Iterable[Topic]) -> Mapping[str, Party]:
    """Return what is known of nodes and devices, by <group>/<edge node>/<device>, the last of them empty for a node."""
    addresses = Addresses()
    found: dict[str, Party] = {}
    messages = [message for topic in topics for message in topic.kept]
    for message in sorted(messages, key=lambda one: one.arrival):
        try:
            address = addresses.read(message.topic)
            if address.kind not in _BIRTHS + _DATA:
                continue
            payload = parse(message.payload)
        except Unusable:
            continue
        key = address.party if address.kind.startswith("D") else f"{address.party}/"
        found.setdefault(key, Party()).take(address, message, payload.metrics)
    return {key: party for key, party in found.items() if party.seen or party.nameless}


def _value(metric: Metric, datatype: int) -> object:
    found = number(metric, datatype)
    if not isinstance(found, float):
        return None if found.missing else found.why
    kind = metric.WhichOneof("value")
    if kind == "boolean_value":
        return bool(found)
    return int(found) if kind in ("int_value", "long_value") else found


def families(topics: Sequence[Topic]) -> list[tuple[Family, Evidence]]:
    """Return families of nodes and devices that have the same metrics, and what is known of them."""
    known = parties(topics)
    # What comes before a birth cannot be read; `mlade run` asks for births, and one that listens does not.
    early = {id(message) for party in known.values() if party.born for message in party.early}
    messages = (message for topic in topics for message in topic.kept if id(message) not in early)
    kept = sorted(messages, key=lambda message: message.arrival)
    found = []
    for family in group({key: party.signature for key, party in known.items()}):
        members = [known[key] for key in family.topics]
        names = {name for party in members for name in party.topics}
        mine = [topic for topic in topics if topic.name in names]
        sightings = [Sighting(key, message, look) for key in family.topics for message, look in known[key].seen]
        sightings.sort(key=lambda one: one.message.arrival)
        whole = family._replace(topics=tuple(sorted(names)), filters=(FILTER,))
        found.append((whole, Evidence(mine, sightings, kept)))
    return found
