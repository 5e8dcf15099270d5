"""What the store keeps of one model slot: the windows' journal, what sources and conditions remember, the filter."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from processor.conditions.memory import ALL
from processor.database import explained, transaction
from processor.memories import OF_SOURCES, Remembered
from processor.types import StreamName

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

_WINDOWS: Final = ("streams", "snapshots", "journal")
"""Tables of the windows' journal."""


class StreamSnapshot(NamedTuple):
    """What windows need of one stream, so that older journal rows can go."""

    stream: int
    next: int
    """Number of the first reading that is not in it."""
    past: bytes
    numbers: bytes
    """Of its readings, as the journal numbers them; empty where an older version wrote it."""


@dataclass(slots=True)
class SlotChanges:
    """What one batch changes of a slot.

    Attributes:
        journal: number of the batch's first reading and its encoded past; None when nothing is to be journaled.
        pruned: journal rows with a `first` below this are dropped; 0: none.
        snapshots: streams that would lose something by the pruning.
        opened: streams first heard in this batch.
        forgotten: streams dropped in this batch.
        remembered: what sources and the filter's conditions remember, where it changed.
        meta: values to set, as anything JSON holds.
        windows_anew: whether all that was kept of the windows is forgotten first.
    """

    journal: tuple[int, bytes] | None = None
    pruned: int = 0
    snapshots: Sequence[StreamSnapshot] = ()
    opened: Sequence[tuple[int, StreamName]] = ()
    forgotten: Sequence[int] = ()
    remembered: Sequence[Remembered] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    windows_anew: bool = False

    @property
    def grow(self) -> bool:
        """Whether they take room that counts; values under `meta` replace others."""
        return bool(self.journal or self.opened or self.remembered)

    @property
    def matter(self) -> bool:
        """Whether there is anything to remember."""
        return self.grow or self.windows_anew or bool(self.forgotten or self.meta)


class SlotState:
    """One slot's part of the state. Made by the store, and used by its thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        directory: Path,
        writing: Callable[[], AbstractContextManager[object]],
        *,
        number: int,
        name: str,
    ) -> None:
        """Take the store's connection.

        Args:
            connection: the store's.
            directory: named in errors.
            writing: opens a transaction of the store's, outside any batch.
            number: the slot's, in the tables.
            name: the slot's.
        """
        self._connection = connection
        self._directory = directory
        self._writing = writing
        self._number = number
        self._name = name

    def meta(self, key: str) -> Any:  # noqa: ANN401 - whatever JSON holds; the caller wrote it
        """Return a value kept under `key`, or None."""
        with explained(self._directory):
            row = self._connection.execute(
                "SELECT value FROM meta WHERE key = ?", (meta_key(self._name, key),)
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def windows(self) -> tuple[list[tuple[int, StreamName]], list[StreamSnapshot], Iterator[tuple[int, bytes]]]:
        """Return streams, snapshots and journal rows in the order they were written, for a restart."""
        db, slot = self._connection, (self._number,)
        with explained(self._directory):
            streams = [
                (number, StreamName(source, key))
                for number, source, key in db.execute(
                    "SELECT stream, source, key FROM streams WHERE slot = ? ORDER BY stream", slot
                )
            ]
            snapshots = [
                StreamSnapshot(*row)
                for row in db.execute(
                    "SELECT stream, next, past, numbers FROM snapshots WHERE slot = ? ORDER BY next", slot
                )
            ]
        return streams, snapshots, self._journal()

    def _journal(self) -> Iterator[tuple[int, bytes]]:
        with explained(self._directory):
            yield from self._connection.execute(
                "SELECT first, past FROM journal WHERE slot = ? ORDER BY first", (self._number,)
            )

    def remembered(self) -> list[tuple[int, str, int, bytes]]:
        """Return what sources and the filter's conditions remember, ordered by memory, key and part."""
        with explained(self._directory):
            return self._connection.execute(
                "SELECT memory, key, part, value FROM remembered WHERE slot = ? ORDER BY memory, key, part",
                (self._number,),
            ).fetchall()

    def commit(self, changes: SlotChanges) -> None:
        """Write what changes at once, outside any batch."""
        with self._writing():
            self.write(changes)

    def write(self, changes: SlotChanges) -> None:
        """Write what changes. Within a transaction of the store's."""
        self._write_windows(changes)
        self._set(changes.meta)
        if changes.remembered:
            self._remember(changes.remembered)

    def _write_windows(self, changes: SlotChanges) -> None:
        db, slot = self._connection, self._number
        if changes.windows_anew:
            _drop(db, slot, _WINDOWS)
        if changes.opened:
            rows = [(slot, number, name.source, name.key) for number, name in changes.opened]
            db.executemany("INSERT OR REPLACE INTO streams VALUES (?, ?, ?, ?)", rows)
        if changes.forgotten:
            gone = [(slot, number) for number in changes.forgotten]
            db.executemany("DELETE FROM streams WHERE slot = ? AND stream = ?", gone)
            db.executemany("DELETE FROM snapshots WHERE slot = ? AND stream = ?", gone)
        if changes.journal:
            db.execute("INSERT INTO journal VALUES (?, ?, ?)", (slot, *changes.journal))
        if changes.snapshots:
            rows_of = [(slot, *snapshot) for snapshot in changes.snapshots]
            db.executemany("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?)", rows_of)
        if changes.pruned:
            db.execute("DELETE FROM journal WHERE slot = ? AND first < ?", (slot, changes.pruned))

    def _set(self, meta: Mapping[str, Any]) -> None:
        values = [(meta_key(self._name, key), json.dumps(value)) for key, value in meta.items()]
        self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values)
        if "memories" in meta:  # those that no filter has any more go with the filter that had them
            left = json.dumps([OF_SOURCES, *(number for number, *_ in meta["memories"]["known"])])
            self._connection.execute(
                "DELETE FROM remembered WHERE slot = ? AND memory NOT IN (SELECT value FROM json_each(?))",
                (self._number, left),
            )

    def _remember(self, rows: Sequence[Remembered]) -> None:
        """Write what conditions remember. A batch writes no row twice, so that what is gone can go first."""
        db, slot = self._connection, self._number
        gone = [row for row in rows if row.value is None]
        if gone:
            whole = [(slot, *row[:2]) for row in gone if row.part == ALL]
            db.executemany("DELETE FROM remembered WHERE slot = ? AND memory = ? AND key = ?", whole)
            parts = [(slot, *row[:3]) for row in gone if row.part != ALL]
            db.executemany("DELETE FROM remembered WHERE slot = ? AND memory = ? AND key = ? AND part = ?", parts)
        db.executemany(
            "INSERT OR REPLACE INTO remembered VALUES (?, ?, ?, ?, ?)",
            [(slot, *row) for row in rows if row.value is not None],
        )


def register(connection: sqlite3.Connection, names: Sequence[str]) -> dict[str, int]:
    """Give each slot its number."""
    with transaction(connection):
        known = {name: number for number, name in connection.execute("SELECT slot, name FROM slots")}
        for name in names:
            if name not in known:
                row = connection.execute("INSERT INTO slots (name) VALUES (?)", (name,))
                known[name] = int(row.lastrowid or 0)
    return {name: known[name] for name in names}


def drop_others(connection: sqlite3.Connection, names: Collection[str]) -> None:
    """Drop what is kept of slots that left the configuration. Within a transaction of the store's."""
    for number, name in connection.execute("SELECT slot, name FROM slots").fetchall():
        if name in names:
            continue
        _drop(connection, number, (*_WINDOWS, "remembered", "slots"))
        own = meta_key(name, "")
        connection.execute("DELETE FROM meta WHERE substr(key, 1, ?) = ?", (len(own), own))
        log.warning(
            "The model %r is no longer configured: its windows under way, its filter and model from the topic or the "
            "twin, and what its rules remembered are forgotten.", name,
        )  # fmt: skip


def _drop(connection: sqlite3.Connection, slot: int, tables: Sequence[str]) -> None:
    for table in tables:
        connection.execute(f"DELETE FROM {table} WHERE slot = ?", (slot,))  # noqa: S608 - names from this file


def meta_key(slot: str, key: str) -> str:
    """Return the key of a slot's value; the names of slots have no spaces."""
    return f"model {slot} {key}"
