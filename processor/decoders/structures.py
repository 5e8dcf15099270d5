"""Structures of msgspec's, made for a source: what of an object matters is read into them at once, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec.msgpack import Ext

from processor.decoders.values import LONGEST_KEY, Pointer

TIME: Final[Any] = int | float | str | Ext
KEY: Final[Any] = int | Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_KEY)]
"""What a time and a stream's key are in a structure."""
_DEEPEST: Final = 16


class Member(NamedTuple):
    """What is read of an object."""

    steps: Pointer
    type: Any
    optional: bool = False
    """Whether it may be absent or null; it is None then."""


class Structure(NamedTuple):
    """A type, and what to do with one of it."""

    type: Any
    row: Callable[[Any], tuple[Any, ...]]
    """Returns the members, in their order."""


_Node = dict[str, Any]  # by name: a member, or what is inside the member of that name


def structure(members: Iterable[Member]) -> Structure | None:
    """Return a structure with these members; None where there cannot be one."""
    top: _Node = {}
    paths = [_place(top, member) for member in members]
    if any(path is None for path in paths):
        return None
    made = _made(top)
    if not any("." in str(path) for path in paths):
        return Structure(made, msgspec.structs.astuple)
    if len(paths) == 1:
        get = attrgetter(str(paths[0]))
        return Structure(made, lambda one: (get(one),))
    return Structure(made, attrgetter(*map(str, paths)))


def _place(node: _Node, member: Member) -> str | None:
    """Put a member where it belongs; return which attribute it will be, None where it cannot be one."""
    steps = member.steps
    if not 0 < len(steps) <= _DEEPEST or any(step.isdecimal() for step in steps[1:]):
        return None  # the latter are places in arrays
    path: list[str] = []
    for step in steps:
        if any(character in '"\\' or character < " " for character in step):
            return None  # msgspec has no such names
        last = len(path) == len(steps) - 1
        if step in node and (last or not isinstance(node[step], dict)):
            return None  # each once
        node.setdefault(step, member if last else {})
        path.append(f"field_{list(node).index(step)}")
        node = node[step]
    return ".".join(path)


def _made(node: _Node) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for position, inside in enumerate(node.values()):
        name = f"field_{position}"
        if isinstance(inside, Member):
            fields.append((name, inside.type | None, None) if inside.optional else (name, inside.type))
        else:
            made = _made(inside)
            fields.append((name, made, msgspec.field(default_factory=made)) if _optional(inside) else (name, made))
    names = {f"field_{position}": name for position, name in enumerate(node)}
    return msgspec.defstruct("Members", fields, rename=names, gc=False, kw_only=True)


def _optional(node: _Node) -> bool:
    return all(inside.optional if isinstance(inside, Member) else _optional(inside) for inside in node.values())
