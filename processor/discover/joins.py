"""Sensors that publish one value each, on topics or as nodes that differ in what is measured: joined, one reading."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from processor.decoders.values import pointer
from processor.discover.families import Family
from processor.discover.fields import Fields
from processor.discover.looks import Signature
from processor.discover.proposals import Proposal, attempt
from processor.discover.trees import field_name
from processor.types import NS
from processor.units import duration_text

_FORMATS: Final = ("json", "msgpack", "cbor", "number")
_ENOUGH: Final = 0.8
"""The share of the readings that there could be which a join has to give."""
_MOST_APART: Final = 1.25
"""How many times faster one sensor may be than another, and each of its messages have a partner."""
_DEFAULT_WITHIN: Final = NS


class _Kin(NamedTuple):
    """What sensors that may be joined have in common."""

    format: str
    pattern: tuple[str, ...]
    """Levels of their filters; at the one that differs, nothing."""
    place: int
    """The number of that level."""
    time: str
    unit: str


def joins(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Return a source for each group of sensors, or of OPC UA's nodes, that go together and decode so."""
    nodes = [joined for one in proposals if (joined := _joined_nodes(one)) is not None]
    return [*_joined_topics(proposals), *nodes]


def _joined_nodes(one: Proposal) -> Proposal | None:
    """Return the source whose readings are DataSet messages; None where few of them have all the nodes."""
    nodes = one.fields.measured
    if one.source is None or one.family.signature.kind != "nodes" or len(nodes) < 2 or one.tried is None:  # noqa: PLR2004 - one needs no other
        return None
    source = {key: value for key, value in one.source.items() if key != "opcua"}
    source |= {"name": f"{source['name']}-joined", "opcua": {"join": True}, "fields": list(nodes)}
    count = len(one.family.topics)
    pace = one.pace.with_readings(count / max(count, one.tried.streams))
    notes = ["A DataSet message is one reading of all these nodes."]
    joined = replace(one, source=source, channels=tuple(nodes), notes=notes, parts=(one.family,), made_up=False)
    joined.pace = pace
    joined.family = one.family._replace(signature=one.family.signature._replace(kind="join"))
    attempt(joined)
    return None if joined.source is None or joined.guess else joined


def _joined_topics(proposals: Sequence[Proposal]) -> list[Proposal]:
    kin: dict[_Kin, list[Proposal]] = defaultdict(list)
    for one in proposals:
        for key in _keys(one):
            kin[key].append(one)
    found = []
    taken: set[int] = set()
    for key, members in sorted(kin.items(), key=lambda item: (-len(item[1]), item[0])):
        if len(members) > 1 and taken.isdisjoint(map(id, members)):
            joined = _join(key, members)
            if joined is not None:
                found.append(joined)
                taken.update(map(id, members))
    return found


def _keys(one: Proposal) -> Iterator[_Kin]:
    """Yield what a sensor has in common with others, for each level that may tell them apart."""
    source = one.source
    if source is None or len(one.channels) != 1 or source["format"] not in _FORMATS or len(source["topics"]) != 1:
        return
    if one.family.signature.kind not in ("number", "object") or one.fields.key:
        return
    levels = source["topics"][0].split("/")
    for place, level in enumerate(levels):
        if level != "+":
            pattern = (*levels[:place], "", *levels[place + 1 :])
            yield _Kin(source["format"], pattern, place, source.get("time", ""), source.get("time_unit", ""))


def _join(kin: _Kin, members: Sequence[Proposal]) -> Proposal | None:
    """Return the source of joined sensors; None where few of their readings find each other."""
    named: dict[str, Proposal] = {}
    for one in members:
        level = one.family.filters[0].split("/")[kin.place]
        named.setdefault(re.sub("[^A-Za-z0-9_-]+", "-", level)[:64] or "value", one)
    if len(named) < len(members):
        return None
    intervals = [one.pace.interval for one in members]
    known = [interval for interval in intervals if interval is not None]
    if len(known) < len(intervals):
        return None
    in_step = max(known) <= _MOST_APART * min(known)
    for fill in ("none", "last") if in_step else ("last",):
        joined = _proposed(kin, named, min(known), fill)
        tried = joined.tried
        if tried is not None and tried.readings >= _ENOUGH * min(_tried(one) for one in members):
            return joined
    return None


def _tried(one: Proposal) -> int:
    return 0 if one.tried is None else one.tried.messages


def _proposed(kin: _Kin, named: dict[str, Proposal], interval: float, fill: str) -> Proposal:
    members = list(named.values())
    wild = [place for place, level in enumerate(kin.pattern) if level == "+"]
    fixed = [level for level in kin.pattern if level not in ("+", "")]
    by = "/".join(f"{{topic[{place}]}}" for place in wild) or "/".join(fixed) or "joined"
    within = min(_DEFAULT_WITHIN, max(NS // 1000, round(interval / 2 * 1000) * NS // 1000))
    join: dict[str, Any] = {"by": by, "topics": {name: one.family.filters[0] for name, one in named.items()}}
    join["within"] = duration_text(within)
    if fill != "none":
        join["fill"] = fill
    fields = list(named)
    if kin.format != "number":
        fields = [field_name((name, *pointer(one.channels[0]))) for name, one in named.items()]
    source: dict[str, Any] = {"name": "-".join((*fixed[-1:], "joined")), "format": kin.format, "join": join}
    source["fields"] = fields
    if kin.time:
        source |= {"time": kin.time, "time_unit": kin.unit}
    topics = tuple(sorted(topic for one in members for topic in one.family.topics))
    family = Family(
        topics, Signature(kin.format, "join", (), frozenset()), tuple(one.family.filters[0] for one in members)
    )
    slowest = max(members, key=lambda one: one.pace.interval or 0)
    kept = sorted((message for one in members for message in one.kept), key=lambda message: message.arrival)
    joined = Proposal(
        family,
        messages=sum(one.messages for one in members),
        retained=sum(one.retained for one in members),
        size=sum(one.size for one in members) / len(members),
        pace=slowest.pace._replace(messages=sum(one.pace.messages for one in members)),
        example=members[0].example,
        fields=Fields(),
        source=source,
        channels=tuple(fields),
        notes=[f"One reading from {', '.join(named)} of each {by}."],
        kept=kept,
        parts=tuple(one.family for one in members),
    )
    attempt(joined)
    return joined
