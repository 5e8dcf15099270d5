"""The durable queue between selection and bridges: who gets in, and one bridge's view of what is in it."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

from processor import deadletters
from processor.database import is_full, transaction
from processor.errors import StateFull
from processor.reserve import Reserve
from processor.types import DeadLetter, Sample

log = logging.getLogger(__name__)

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
"""Why samples left that no bridge had confirmed: their age, others' priority, no room for them, a bridge's refusal."""


@dataclass(slots=True)
class Totals:
    """What the outbox holds and, by `LOSSES`, what it lost since the start. Changed under the store's lock only."""

    rows: int = 0
    bytes: int = 0
    expired: int = 0
    displaced: int = 0
    refused: int = 0
    undeliverable: int = 0

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> Totals:
        """Count what an existing outbox holds; reads an index only."""
        rows, size = connection.execute(
            "SELECT count(*), total(size) FROM outbox INDEXED BY outbox_by_priority"
        ).fetchone()
        return cls(rows, int(size))

    def copy(self) -> Totals:
        """Return the present values."""
        return replace(self)

    def restore(self, values: Totals) -> None:
        """Go back to `values`, after a transaction that did not happen."""
        for name, value in asdict(values).items():
            setattr(self, name, value)


_UNCLAIMED = (
    "NOT EXISTS (SELECT 1 FROM bridges b JOIN delivery d ON d.bridge = b.bridge AND d.rank = -outbox.priority "
    "AND d.seq = outbox.seq WHERE d.claim IS NOT NULL)"
)
"""What a claim holds is not taken from under it: a retry has to be identical."""
_EXPIRED_AT_ONCE = 5000
"""Samples dropped for their age in one go, so that the pipeline never waits long for it."""


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
        self._totals.rows += len(rows)
        self._totals.bytes += sum(row[9] for row in rows)

    def _without_excess(self, samples: Sequence[Sample], excess: int) -> Sequence[Sample]:
        """Return the newcomers but those that give way: the least important first, among equals the newest."""
        kept = list(samples)
        for _, sample in sorted(enumerate(samples), key=lambda numbered: (numbered[1].priority, -numbered[0])):
            if excess <= 0:
                break
            kept.remove(sample)
            excess -= len(sample.event) + ROW_OVERHEAD
            self._totals.refused += 1
        return kept

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

    def expire(self, now: int) -> None:
        """Drop what entered the outbox more than `max_age` before `now`."""
        oldest = "SELECT seq, priority, size, created FROM outbox ORDER BY seq LIMIT ?"
        query = f"SELECT seq, priority, size FROM ({oldest}) AS outbox WHERE created < ? AND {_UNCLAIMED}"  # noqa: S608 - as above
        victims = self._db.execute(query, (_EXPIRED_AT_ONCE, now - self._bounds.max_age)).fetchall()
        self._drop(victims)
        self._totals.expired += len(victims)

    def _drop(self, victims: Sequence[tuple[int, int, int]]) -> None:
        """Delete samples, given as (seq, priority, size)."""
        queued = [(bridge, -priority, seq) for bridge in self._bridges for seq, priority, _ in victims]
        self._db.executemany("DELETE FROM delivery WHERE bridge = ? AND rank = ? AND seq = ?", queued)
        self._db.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq, _, _ in victims])
        self._totals.rows -= len(victims)
        self._totals.bytes -= sum(size for _, _, size in victims)


class Waiting(NamedTuple):
    """A sample that waits for a bridge."""

    seq: int
    """Place in the outbox; a later sample has a higher one."""
    id: str
    rule: str
    label: str
    stream: str
    model: str
    time: int
    """Nanoseconds since the Unix epoch of the newest reading."""
    priority: int
    size: int
    """Bytes it takes in the outbox."""


class Claim(NamedTuple):
    """Samples that leave together, under one name; a retry finds the same ones."""

    number: int
    name: str
    samples: list[Waiting]


_READ_AT_ONCE = 1 << 20
"""Bytes of events read in one query, one event excepted."""


def _numbers(values: Iterable[int]) -> str:
    """Return integers as the JSON array that json_each takes: one statement text, however many there are."""
    return f"[{','.join(map(str, values))}]"


_COLUMNS = "o.seq, o.id, o.rule, o.label, o.stream, o.model, o.time, o.priority, o.size"


class Outbox:
    """What waits for one bridge. Opened and used by that bridge's delivery thread."""

    def __init__(
        self, path: Path, lock: threading.Lock, totals: Totals, *, bridge: int, durability: str, reserve: Reserve
    ) -> None:
        """Keep where the store is; `open` connects, on the thread that will use it."""
        self._path = path
        self._lock = lock
        self._totals = totals
        self._bridge = bridge
        self._durability = durability
        self._reserve = reserve

    def open(self) -> None:
        """Connect. A claim is as durable as a batch; a lost confirmation only means a repeat with the same id."""
        self._db = sqlite3.connect(self._path, isolation_level=None, timeout=10.0)
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA wal_autocheckpoint = 0")

    def close(self) -> None:
        """Disconnect."""
        self._db.close()

    def waiting(self) -> int:
        """Return how many samples this bridge has still to confirm."""
        (count,) = self._db.execute("SELECT count(*) FROM delivery WHERE bridge = ?", (self._bridge,)).fetchone()
        return int(count)

    def waiting_bytes(self) -> int:
        """Return how many bytes wait for this bridge, unclaimed."""
        (size,) = self._db.execute(
            "SELECT total(o.size) FROM delivery d JOIN outbox o ON o.seq = d.seq "
            "WHERE d.bridge = ? AND d.claim IS NULL",
            (self._bridge,),
        ).fetchone()
        return int(size)

    def peek(self, limit: int, max_bytes: int) -> list[Waiting]:
        """Return the next unclaimed samples: highest priority first, oldest first; at least one if there is any.

        Their events are left out; `events` reads them.
        """
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM delivery d JOIN outbox o ON o.seq = d.seq "  # noqa: S608 - a constant
            "WHERE d.bridge = ? AND d.claim IS NULL ORDER BY d.rank, d.seq LIMIT ?",
            (self._bridge, limit),
        )
        samples: list[Waiting] = []
        size = 0
        for row in rows:
            size += row[-1]
            if samples and size > max_bytes:
                break
            samples.append(Waiting(*row))
        rows.close()
        return samples

    def events(self, samples: Sequence[Waiting]) -> Iterator[tuple[Waiting, bytes]]:
        """Yield samples with their serialised events, skipping any that aged out meanwhile."""
        start = 0
        while start < len(samples):
            end, size = start + 1, samples[start].size
            while end < len(samples) and (size := size + samples[end].size) <= _READ_AT_ONCE:
                end += 1
            chunk = samples[start:end]
            events = dict(
                self._db.execute(
                    "SELECT seq, event FROM outbox WHERE seq IN (SELECT value FROM json_each(?))",
                    (_numbers(sample.seq for sample in chunk),),
                )
            )
            for sample in chunk:
                if sample.seq in events:
                    yield sample, events[sample.seq]
            start = end

    def claimed(self) -> Claim | None:
        """Return the oldest claim that was not confirmed yet."""
        row = self._db.execute(
            "SELECT claim, name FROM claims WHERE bridge = ? ORDER BY claim LIMIT 1", (self._bridge,)
        ).fetchone()
        if row is None:
            return None
        samples = self._db.execute(
            f"SELECT {_COLUMNS} FROM delivery d JOIN outbox o ON o.seq = d.seq "  # noqa: S608 - a constant
            "WHERE d.claim = ? ORDER BY d.rank, d.seq",
            (row[0],),
        )
        return Claim(row[0], row[1], [Waiting(*sample) for sample in samples])

    def claim(self, samples: Sequence[Waiting], name: str) -> Claim:
        """Fix that `samples` leave together under `name`; on disk when this returns."""
        with self._lock:
            self._db.execute(f"PRAGMA synchronous = {self._durability}")
            try:
                with self._writing():
                    number = self._db.execute(
                        "INSERT INTO claims (bridge, name) VALUES (?, ?)", (self._bridge, name)
                    ).lastrowid
                    self._db.executemany(
                        "UPDATE delivery SET claim = ? WHERE bridge = ? AND rank = ? AND seq = ?",
                        [(number, self._bridge, -sample.priority, sample.seq) for sample in samples],
                    )
            finally:
                self._db.execute("PRAGMA synchronous = NORMAL")
        return Claim(int(number or 0), name, list(samples))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Write all or nothing; on a full disk the next try has the reserve, since it frees more than it takes."""
        try:
            with transaction(self._db):
                yield
        except sqlite3.Error as error:
            if is_full(error):
                self._reserve.release()
            raise

    def confirm(self, samples: Sequence[Waiting], claim: int | None = None) -> int:
        """Take note that this bridge is done with `samples`; each leaves when no other bridge waits for it.

        Returns:
            How many this bridge still had to confirm: some may have aged out meanwhile.
        """
        with self._lock:
            with self._writing():
                done, sizes = self._let_go(samples)
                if claim is not None:
                    self._db.execute("DELETE FROM claims WHERE claim = ?", (claim,))
            self._totals.rows -= len(sizes)
            self._totals.bytes -= sum(sizes)
        return done

    def bury(self, refused: Sequence[tuple[Waiting, str]], now: int) -> None:
        """Make dead letters of samples that this bridge can never deliver, so that the others go on.

        Args:
            refused: each with why, as a sentence.
            now: wall time in ns.
        """
        reasons = {sample.seq: why for sample, why in refused}
        letters = [
            DeadLetter(sample.stream, now, "undeliverable", reasons[sample.seq], event)
            for sample, event in self.events([sample for sample, _ in refused])
        ]
        with self._lock:
            with self._writing():
                deadletters.keep(self._db, letters)
                done, sizes = self._let_go([sample for sample, _ in refused])
            self._totals.rows -= len(sizes)
            self._totals.bytes -= sum(sizes)
            self._totals.undeliverable += done

    def _let_go(self, samples: Sequence[Waiting]) -> tuple[int, list[int]]:
        """Drop this bridge's interest in samples; returns in how many it had one, and the sizes of those that left."""
        done: list[int] = []
        for priority in {sample.priority for sample in samples}:
            numbers = _numbers(sample.seq for sample in samples if sample.priority == priority)
            rows = self._db.execute(
                "DELETE FROM delivery WHERE bridge = ? AND rank = ? AND seq IN (SELECT value FROM json_each(?)) "
                "RETURNING seq",
                (self._bridge, -priority, numbers),
            )
            done += [row[0] for row in rows.fetchall()]
        numbers = _numbers(done)
        gone = self._db.execute(
            "DELETE FROM outbox WHERE seq IN (SELECT value FROM json_each(?)) AND waiting <= 1 RETURNING size",
            (numbers,),
        ).fetchall()
        if len(gone) < len(done):
            self._db.execute(
                "UPDATE outbox SET waiting = waiting - 1 WHERE seq IN (SELECT value FROM json_each(?))", (numbers,)
            )
        return len(done), [row[0] for row in gone]
