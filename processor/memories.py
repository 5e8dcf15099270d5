"""Whose memory is whose: what conditions remember survives a restart, and a filter change that leaves them as they are.

A memory belongs to a rule's name, a kind of condition, and what that condition says; while these are the same, it goes
on. Each memory has a number, under which the store keeps its rows; a number is never used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar, cast

from processor.conditions.memory import Condition, Row

C = TypeVar("C", bound=Condition)

OF_SOURCES: Final = 0
"""Number of the sources' memory, which does not depend on the filter; those of conditions begin with 1."""


class Remembered(NamedTuple):
    """A row of the store."""

    memory: int
    key: str
    part: int
    value: bytes | None


class _Owner(NamedTuple):
    rule: str
    kind: str
    says: str


class _Memory(NamedTuple):
    number: int
    condition: Condition | None
    rows: Sequence[Row] = ()


class Memories:
    """The memories of one filter's conditions. Used by one thread."""

    def __init__(self, known: Mapping[_Owner, _Memory] | None = None, following: int = 1) -> None:
        """Begin with those that may be taken, and the number of the next new one."""
        self._known = known or {}
        self._next = following
        self._memories: dict[_Owner, _Memory] = {}

    @classmethod
    def kept(cls, meta: Mapping[str, Any] | None, rows: Iterable[tuple[int, str, int, bytes]]) -> Memories:
        """Return those of an earlier run, to be taken.

        Args:
            meta: what `meta` returned then; None: there was none.
            rows: of the store, ordered by memory, key and part.
        """
        if meta is None:
            return cls()
        of = {number: [Row(*row[1:]) for row in group] for number, group in groupby(rows, key=itemgetter(0))}
        known = {_Owner(*owner): _Memory(number, None, of.get(number, ())) for number, *owner in meta["known"]}
        return cls(known, meta["next"])

    def successor(self) -> Memories:
        """Return these to be taken by the next filter; once that is in force, these are not used any more."""
        return Memories(self._memories, self._next)

    def take(self, rule: str, kind: str, says: str, make: Callable[[], C]) -> C:
        """Return a rule's condition, with what it remembers if it did not change.

        Args:
            rule: its name.
            kind: which of its conditions.
            says: what the condition says, and whatever else its memory depends on.
            make: makes one that remembers nothing.
        """
        owner = _Owner(rule, kind, says)
        known = self._known.get(owner)
        if known is None:
            known = _Memory(self._next, None)
            self._next += 1
        condition = known.condition
        if condition is None:
            condition = make()
            condition.restore(known.rows)
        self._memories[owner] = _Memory(known.number, condition)
        return cast("C", condition)

    def settle(self) -> None:
        """All were taken: let those go that were not."""
        self._known = {}

    def meta(self) -> dict[str, Any]:
        """Return which memories there are, as JSON holds it; to be kept with the filter."""
        return {"next": self._next, "known": [[memory.number, *owner] for owner, memory in self._memories.items()]}

    def changes(self) -> list[Remembered]:
        """Return the rows that changed since the last call."""
        return [
            Remembered(memory.number, *row)
            for memory in self._memories.values()
            if memory.condition is not None
            for row in memory.condition.changes()
        ]
