"""Which of the families feed the model: all sources feed one, so they have the same fields."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from processor.discover.drafts import COLORS, last_name
from processor.discover.proposals import Proposal, with_fields
from processor.discover.wishes import Wanted, Wish

_COLORS: Final[Mapping[int, str]] = {1: "grey", 3: "rgb"}
"""What `image.color` is for so many channels."""


class Choice(NamedTuple):
    """What is written as it is, and what as a comment."""

    active: list[Proposal]
    others: list[tuple[Proposal, str]]
    """With the reason, a clause."""
    wish: Wish | None
    """What the model takes; None where there is none."""
    complaint: str
    """What is missing for the model, as a sentence; empty where it fits, or where there is none."""


def choose(proposals: Sequence[Proposal], wanted: Wanted | None, alternatives: Sequence[Proposal] = ()) -> Choice:
    """Choose those that fit the model; without one, or where none does, those of which most is known and comes.

    Args:
        proposals: one a family.
        wanted: the model.
        alternatives: other sources of the same families, taken where only they fit the model.
    """
    usable = [one for one in proposals if one.source is not None]
    wish, fitting = (None, []) if wanted is None else _fitting(usable, wanted)
    if wanted is not None and not fitting:
        wish, fitting = _fitting(alternatives, wanted)
    complaint = ""
    if wanted is not None and wish is not None and not fitting:
        complaint = _complaint(usable, wanted, wish)
        usable = _with_enough(usable, wish)
    active = _best(fitting or usable)
    chosen = {id(one.family) for one in active}
    joined = {id(part) for one in active for part in one.parts}
    others = []
    for one in (*alternatives, *proposals):
        if one.source is None:
            others.append((one, one.problem))
        elif id(one.family) in joined:
            others.append((one, f"{_name(active[0])} joins it with others"))
        elif id(one.family) not in chosen:
            others.append((one, _why_not(one, active[0], wish)))
    return Choice(active, others, wish, complaint)


def _name(one: Proposal) -> str:
    return "" if one.source is None else str(one.source["name"])


def _best(usable: Sequence[Proposal]) -> list[Proposal]:
    """Return those that may feed one model together, the likeliest of them all."""
    kinds: dict[tuple[str, ...], list[Proposal]] = defaultdict(list)
    for one in usable:
        kinds[_kind(one)].append(one)
    return max(kinds.values(), key=_worth, default=[])


def _kind(one: Proposal) -> tuple[str, ...]:
    """Return what sources have in common that may feed one model: names that mean something, in one order."""
    return (*one.family.filters, "") if one.made_up else one.channels


def _worth(alike: Sequence[Proposal]) -> tuple[bool, bool, bool, bool, float]:
    sure = any(not one.guess for one in alike)
    live = any(one.messages for one in alike)
    named = not alike[0].made_up
    return (
        sure and live,
        live,
        named,
        len(alike[0].channels) > 1,
        sum(one.messages * one.pace.readings for one in alike),
    )


def _fitting(usable: Sequence[Proposal], wanted: Wanted) -> tuple[Wish, list[Proposal]]:
    """Return what the model takes, as far as what was heard tells, and what fits that."""
    for wish in wanted.wishes:
        named = [found for one in usable if (found := _as_named(one, wish, wanted.names)) is not None]
        if named:
            return wish, named
    for wish in wanted.wishes:
        if fitting := [_as_wished(one, wish) for one in usable if _fits(one, wish)]:
            return wish, fitting
    return wanted.wishes[0], []


def _as_named(one: Proposal, wish: Wish, names: Sequence[str]) -> Proposal | None:
    """Return a proposal with the fields that the model's metadata names; None where it has not all of them."""
    if not names or wish.channels not in (None, len(names)) or one.made_up:
        return None
    known = {name: name for name in (*one.fields.measured, *one.fields.flags)}
    short = {last_name(name).casefold(): name for name in reversed(known)}
    chosen = [known.get(name) or short.get(name.casefold()) for name in names]
    found = [name for name in chosen if name is not None]
    return with_fields(one, found) if len(set(found)) == len(names) else None


def _fits(one: Proposal, wish: Wish) -> bool:
    if one.family.signature.format == "image":
        return wish.image and wish.channels in (None, *_COLORS)
    return not wish.image and wish.channels in (None, len(one.channels))


def _as_wished(one: Proposal, wish: Wish) -> Proposal:
    """Return a proposal for images with the size and the colours that a model takes; any other as it is."""
    if not wish.image or one.source is None:
        return one
    color = _COLORS[wish.channels or len(one.channels)]
    image = {**one.source["image"], "color": color}
    image |= {"height": wish.height or image["height"], "width": wish.width or image["width"]}
    return replace(one, source={**one.source, "image": image}, channels=COLORS[color])


def _with_enough(usable: Sequence[Proposal], wish: Wish) -> list[Proposal]:
    """Return those of which some fields may be what the model takes; all, where there are none."""
    return [one for one in usable if not one.guess and len(one.channels) > (wish.channels or 0)] or list(usable)


def _complaint(usable: Sequence[Proposal], wanted: Wanted, wish: Wish) -> str:
    """Say what is missing."""
    asked = " or ".join(dict.fromkeys(map(str, wanted.wishes)))
    told = "; ".join(_compared(one, wish) for one in usable[:5])
    return f"Nothing that was heard fits the model {wanted.path.name}, which wants {asked}: {told}."


def _compared(one: Proposal, wish: Wish) -> str:
    name = _name(one)
    if wish.image or wish.channels is None:
        return f"{name} is {one.family.signature.format}"
    lacking = wish.channels - len(one.channels)
    then = f"{lacking} missing" if lacking > 0 else f"choose {wish.channels} of them"
    return f"{name} has {_counted(len(one.channels))} ({', '.join(one.channels[:12])}): {then}"


def _why_not(one: Proposal, active: Proposal, wish: Wish | None) -> str:
    name = _name(active)
    mine, theirs = len(one.channels), len(active.channels)
    if wish is not None and wish.channels not in (None, mine):
        return f"it has {_counted(mine)}, and the model wants {wish.channels}"
    if mine == theirs:
        return f"it has as many fields as {name}, and they are others"
    return f"it has {_counted(mine)} and {name} has {theirs}; all sources feed one model"


def _counted(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"
