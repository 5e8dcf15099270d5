"""Which of the families feed the model: all sources feed one, so they have the same fields."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from processor.discover.proposals import Proposal


class Choice(NamedTuple):
    """What is written as it is, and what as a comment."""

    active: list[Proposal]
    others: list[tuple[Proposal, str]]
    """With the reason, a clause."""


def choose(proposals: Sequence[Proposal]) -> Choice:
    """Choose, without a model: the fields of which most is known, and comes."""
    usable = [one for one in proposals if one.source is not None]
    kinds: dict[tuple[str, ...], list[Proposal]] = defaultdict(list)
    for one in usable:
        kinds[_kind(one)].append(one)
    best = max(kinds.values(), key=_worth, default=[])
    others = []
    for one in proposals:
        if one.source is None:
            others.append((one, one.problem))
        elif one not in best:
            others.append((one, _why_not(one, best[0])))
    return Choice(best, others)


def _kind(one: Proposal) -> tuple[str, ...]:
    """Return what sources have in common that may feed one model: names that mean something, in one order."""
    made_up = one.family.signature.kind in ("number", "numbers") or one.channels[0] == "c0"
    return (*one.family.filters, "") if made_up else one.channels


def _worth(alike: Sequence[Proposal]) -> tuple[bool, bool, bool, float]:
    sure = any(not one.guess for one in alike)
    live = any(one.messages for one in alike)
    return sure and live, live, len(alike[0].channels) > 1, sum(one.messages * one.pace.readings for one in alike)


def _why_not(one: Proposal, active: Proposal) -> str:
    name = "" if active.source is None else active.source["name"]
    mine, theirs = len(one.channels), len(active.channels)
    if mine == theirs:
        return f"it has as many fields as {name}, and they are others"
    return f"it has {_counted(mine)} and {name} has {theirs}; all sources feed one model"


def _counted(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"
