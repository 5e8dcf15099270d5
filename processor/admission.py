"""Who gets into the outbox: its bounds, what it holds, and what it lost to them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final, Literal

from processor.errors import StateFull
from processor.types import Sample

WhenFull = Literal["drop_oldest", "drop_newest", "block"]

ROW_OVERHEAD = 200
"""Bytes a sample takes beside its event, roughly: its row, its keys, its place in each bridge's queue."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much the outbox may hold."""

    max_bytes: int
    """Events and their overhead, in bytes."""
    max_age: int
    """Nanoseconds; older samples are dropped."""
    when_full: WhenFull


LOSSES: Final = ("expired", "displaced", "refused", "undeliverable")
"""Why samples left that not every bridge had confirmed: their age, others' priority, no room for them, a refusal.

`undeliverable` counts for each bridge that refuses a sample, the others once for a sample.
"""


@dataclass(slots=True)
class Queue:
    """What waits for one bridge."""

    rows: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Totals:
    """What the outbox holds and, by `LOSSES`, what it lost since the start. Changed under the store's lock only.

    Attributes:
        queues: what waits for each bridge, by its number.
    """

    rows: int = 0
    bytes: int = 0
    expired: int = 0
    displaced: int = 0
    refused: int = 0
    undeliverable: int = 0
    queues: dict[int, Queue] = field(default_factory=dict)

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> Totals:
        """Count what an existing outbox holds; reads indices only: the samples themselves can be gigabytes."""
        rows, size = connection.execute(
            "SELECT count(*), total(size) FROM outbox INDEXED BY outbox_by_priority"
        ).fetchone()
        totals = cls(rows, int(size))
        for (bridge,) in connection.execute("SELECT bridge FROM bridges").fetchall():
            (waiting,) = connection.execute("SELECT count(*) FROM delivery WHERE bridge = ?", (bridge,)).fetchone()
            size = totals.bytes
            if waiting != rows:  # half a second for a million; mostly they are few, or all
                (size,) = connection.execute(
                    "SELECT total(o.size) FROM delivery d JOIN outbox o INDEXED BY outbox_by_priority "
                    "ON o.priority = -d.rank AND o.seq = d.seq WHERE d.bridge = ?",
                    (bridge,),
                ).fetchone()
            totals.queues[bridge] = Queue(waiting, int(size))
        return totals

    def copy(self) -> Totals:
        """Return the present values."""
        return replace(self, queues={bridge: replace(queue) for bridge, queue in self.queues.items()})

    def restore(self, values: Totals) -> None:
        """Go back to `values`, after a transaction that did not happen."""
        for one in fields(values):
            setattr(self, one.name, getattr(values, one.name))


_UNCLAIMED = (
    "NOT EXISTS (SELECT 1 FROM bridges b CROSS JOIN delivery d ON d.bridge = b.bridge AND d.rank = -outbox.priority "
    "AND d.seq = outbox.seq WHERE d.claim IS NOT NULL)"
)
"""What a claim holds is not taken from under it: a retry has to be identical.

CROSS tells SQLite to look a sample up in each bridge's queue. It would rather look through all that is claimed, for
each sample: minutes, where a hundred thousand are.
"""
_EXPIRED_AT_ONCE = 2000
"""Samples looked at in one go for their age: about 25 ms, for which the pipeline waits."""


class Admission:
    """Lets samples into the outbox within its bounds. Called inside the pipeline's transaction."""

    def __init__(self, connection: sqlite3.Connection, bounds: Bounds, totals: Totals, bridges: Sequence[int]) -> None:
        """Keep `totals` up to date with what `connection` is told."""
        self._db = connection
        self._bounds = bounds
        self._totals = totals
        self._bridges = bridges
        (self._next,) = connection.execute("SELECT ifnull(max(seq), 0) + 1 FROM outbox").fetchone()

    def admit(self, samples: Sequence[Sample], now: int) -> None:
        """Insert samples, making room as `when_full` says.

        Raises:
            StateFull: there is no room and `when_full` is `block`.
        """
        if not self._bridges:
            return
        needed = sum(len(sample.event) + ROW_OVERHEAD for sample in samples)
        excess = self._totals.bytes + needed - self._bounds.max_bytes
        if excess > 0 and self._bounds.when_full == "block":
            # A batch bigger than the whole outbox would wait for ever: it goes in alone.
            if self._totals.rows:
                raise StateFull(f"the outbox is full ({self._totals.bytes} bytes) and outbox.when_full is block")
        elif excess > 0 and self._bounds.when_full == "drop_newest":
            samples = self._without_excess(samples, excess)
        self._insert(samples, now)
        if excess > 0 and self._bounds.when_full == "drop_oldest":
            # Afterwards, so that among newcomers and those that are there the least important goes.
            self._displace(excess)

    def _insert(self, samples: Sequence[Sample], now: int) -> None:
        rows = [
            (seq, *sample[:7], now, len(sample.event) + ROW_OVERHEAD, len(self._bridges), sample.event)
            for seq, sample in enumerate(samples, start=self._next)
        ]
        self._next += len(rows)
        self._db.executemany("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        queued = [(bridge, -row[7], row[0]) for bridge in self._bridges for row in rows]
        self._db.executemany("INSERT INTO delivery VALUES (?, ?, ?, NULL)", queued)
        size = sum(row[9] for row in rows)
        self._totals.rows += len(rows)
        self._totals.bytes += size
        for bridge in self._bridges:
            self._totals.queues[bridge].rows += len(rows)
            self._totals.queues[bridge].bytes += size

    def _without_excess(self, samples: Sequence[Sample], excess: int) -> Sequence[Sample]:
        """Return the newcomers but those that give way: the least important first, among equals the newest."""
        refused: set[int] = set()
        for position in sorted(range(len(samples)), key=lambda at: (samples[at].priority, -at)):
            if excess <= 0:
                break
            refused.add(position)
            excess -= len(samples[position].event) + ROW_OVERHEAD
        self._totals.refused += len(refused)
        return [sample for position, sample in enumerate(samples) if position not in refused]

    def _displace(self, excess: int) -> None:
        """Drop the oldest of the lowest priority that no bridge is busy with."""
        query = f"SELECT seq, priority, size FROM outbox WHERE {_UNCLAIMED} ORDER BY priority, seq"  # noqa: S608 - a constant
        rows = self._db.execute(query)
        victims: list[tuple[int, int, int]] = []
        while excess > 0 and (row := rows.fetchone()):
            victims.append(row)
            excess -= row[2]
        rows.close()
        self._drop(victims)
        self._totals.displaced += len(victims)

    def expire(self, now: int, after: int) -> int:
        """Drop what entered the outbox more than `max_age` before `now`, so many at once.

        Args:
            now: as for `admit`.
            after: where to go on, as the call before returned it; 0 for the beginning.

        Returns:
            Up to where all were looked at, those that are left being claimed; 0 when there are no more to look at.
        """
        before = now - self._bounds.max_age
        some = "SELECT seq, priority, size, created FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?"
        query = f"SELECT seq, priority, size FROM ({some}) AS outbox WHERE created < ? AND {_UNCLAIMED}"  # noqa: S608 - as above
        victims = self._db.execute(query, (after, _EXPIRED_AT_ONCE, before)).fetchall()
        count, last, youngest = self._db.execute(
            f"SELECT count(*), max(seq), max(created) FROM ({some})",  # noqa: S608 - as above
            (after, _EXPIRED_AT_ONCE),
        ).fetchone()
        self._drop(victims)
        self._totals.expired += len(victims)
        return int(last) if count == _EXPIRED_AT_ONCE and youngest < before else 0

    def _drop(self, victims: Sequence[tuple[int, int, int]]) -> None:
        """Delete samples, given as (seq, priority, size)."""
        sizes = {seq: size for seq, _, size in victims}
        for bridge in self._bridges:
            gone = dequeue(self._db, bridge, [(seq, priority) for seq, priority, _ in victims])
            self._totals.queues[bridge].rows -= len(gone)
            self._totals.queues[bridge].bytes -= sum(sizes[seq] for seq in gone)
        self._db.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq, _, _ in victims])
        self._totals.rows -= len(victims)
        self._totals.bytes -= sum(size for _, _, size in victims)


def numbers_array(values: Iterable[int]) -> str:
    """Return integers as the JSON array that json_each takes: one statement text, however many there are."""
    return f"[{','.join(map(str, values))}]"


def dequeue(connection: sqlite3.Connection, bridge: int, samples: Sequence[tuple[int, int]]) -> list[int]:
    """Take samples, given as (seq, priority), from a bridge's queue; return the numbers of those that were in it."""
    gone: list[int] = []
    for priority in {priority for _, priority in samples}:
        rows = connection.execute(
            "DELETE FROM delivery WHERE bridge = ? AND rank = ? AND seq IN (SELECT value FROM json_each(?)) "
            "RETURNING seq",
            (bridge, -priority, numbers_array(seq for seq, own in samples if own == priority)),
        )
        gone += [row[0] for row in rows.fetchall()]
    return gone
