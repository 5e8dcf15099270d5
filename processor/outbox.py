"""The durable queue between selection and bridges: one bridge's view of what is in it. Who gets in: admission.py."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from processor import deadletters
from processor.admission import ROW_OVERHEAD, Totals, dequeue, numbers_array
from processor.database import WriteLock, configure, explained, is_damage, is_full, state_error, transaction
from processor.reserve import Reserve
from processor.types import DeadLetter

log = logging.getLogger(__name__)


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
    """Samples that leave together."""

    number: int
    """0: what leaves together is not fixed in the store, and may be something else the next time."""
    name: str
    samples: list[Waiting]


_READ_AT_ONCE = 1 << 20
"""Bytes of events read in one query, one event excepted."""
_ROWS_AT_ONCE = 250
"""Samples changed in one transaction: about 2 ms with the lock, for which the pipeline waits."""
_BEING_MADE = ""
"""Name of a claim whose samples are not all marked yet."""
_COLUMNS = "o.seq, o.id, o.rule, o.label, o.stream, o.model, o.time, o.priority, o.size"


class Outbox:
    """What waits for one bridge. Opened and used by that bridge's delivery thread.

    A claim of many samples is made, and confirmed, in several transactions. A claim that is `_BEING_MADE` after a crash
    is undone. Samples marked with a claim that is no longer there are those of a confirmed one: they leave.

    Attributes:
        confirmed: samples that this bridge confirmed, of those it still had to, since `open`.
    """

    def __init__(
        self,
        path: Path,
        lock: WriteLock,
        totals: Totals,
        *,
        bridge: int,
        memory: str,
        durability: str,
        reserve: Reserve,
    ) -> None:
        """Keep where the store is; `open` connects, on the thread that will use it.

        Args:
            path: of the file.
            lock: that all writers take.
            totals: kept up to date.
            bridge: its number.
            memory: the key under which the store keeps what it has to remember.
            durability: of claims.
            reserve: given up when the disk is full.
        """
        self.confirmed = 0
        self._path = path
        self._lock = lock
        self._totals = totals
        self._bridge = bridge
        self._durability = durability
        self._reserve = reserve
        self._memory_key = memory
        self._memory: str | None = None  # not written yet
        self._mended = False  # nothing is left of a claim that was interrupted
        self._claims = True
        self._without: frozenset[str] = frozenset()
        self._passed: dict[int, int] = {}  # by rank: up to there all samples are of the rules in _without

    @property
    def waiting(self) -> int:
        """How many samples this bridge has still to confirm. Any thread."""
        return self._totals.queues[self._bridge].rows

    @property
    def waiting_bytes(self) -> int:
        """How many bytes they are. Any thread."""
        return self._totals.queues[self._bridge].bytes

    def open(self, *, claims: bool = True) -> None:
        """Connect. A claim is as durable as a batch; a lost confirmation only means a repeat with the same id.

        Args:
            claims: whether this bridge claims; otherwise its claims, of a former configuration, are undone.
        """
        self._claims = claims
        with explained(self._path.parent):
            self._db = sqlite3.connect(self._path, isolation_level=None, timeout=10.0)
            self._db.execute("PRAGMA synchronous = NORMAL")
            configure(self._db, self._path.parent)

    def close(self) -> None:
        """Disconnect."""
        self._db.close()

    def raise_if_hopeless(self, error: sqlite3.Error) -> None:
        """Raise an error after which trying again is no use.

        Raises:
            StateError: the file is damaged.
        """
        if is_damage(error):
            raise state_error(error, self._path.parent) from error

    def peek(self, limit: int, max_bytes: int, without: Collection[str] = ()) -> list[Waiting]:
        """Return the next unclaimed samples, as `look` does."""
        return self.look(limit, max_bytes, without)[0]

    def look(
        self, limit: int, max_bytes: int, without: Collection[str] = (), *, overhead: int = ROW_OVERHEAD
    ) -> tuple[list[Waiting], bool]:
        """Return the next unclaimed samples: highest priority first, oldest first; at least one if there is any.

        Their events are left out; `events` reads them. What `without` hides is looked at once, not with each call.

        Args:
            limit: the most samples.
            max_bytes: the most bytes, one sample excepted.
            without: rules whose samples are left out.
            overhead: bytes that each counts for beside its event.

        Returns:
            The samples, and whether there may be more.
        """
        self._mend()
        hidden = frozenset(without)
        if not hidden >= self._without:
            self._passed.clear()
        self._without = hidden
        samples: list[Waiting] = []
        size = 0
        for sample in self._unclaimed(limit, hidden):
            size += sample.size - ROW_OVERHEAD + overhead
            if samples and size > max_bytes:
                return samples, True
            samples.append(sample)
            if len(samples) == limit:
                return samples, True
        return samples, False

    def _unclaimed(self, limit: int, hidden: Collection[str]) -> Iterator[Waiting]:
        query = (
            f"SELECT {_COLUMNS} FROM delivery d JOIN outbox o ON o.seq = d.seq "  # noqa: S608 - a constant
            "WHERE d.bridge = ? AND d.claim IS NULL"
        )
        if not hidden:
            yield from map(
                Waiting._make, self._db.execute(f"{query} ORDER BY d.rank, d.seq LIMIT ?", (self._bridge, limit))
            )
            return
        names = json.dumps(sorted(hidden))
        for rank in self._ranks():
            (newest,) = self._db.execute(
                "SELECT max(seq) FROM delivery WHERE bridge = ? AND rank = ?", (self._bridge, rank)
            ).fetchone()
            after = self._passed.get(rank, -1)
            rows = self._db.execute(
                f"{query} AND d.rank = ? AND d.seq > ? AND o.rule NOT IN (SELECT value FROM json_each(?)) "  # noqa: S608 - as above
                "ORDER BY d.seq LIMIT ?",
                (self._bridge, rank, after, names, limit),
            ).fetchall()
            self._passed[rank] = rows[0][0] - 1 if rows else max(newest or -1, after)
            yield from map(Waiting._make, rows)

    def _ranks(self) -> list[int]:
        """Return the ranks in this bridge's queue, each found by one look into its index."""
        rank = -1 << 63
        ranks: list[int] = []
        while rank is not None:
            (rank,) = self._db.execute(
                "SELECT min(rank) FROM delivery WHERE bridge = ? AND rank > ?", (self._bridge, rank)
            ).fetchone()
            ranks += [] if rank is None else [rank]
        return ranks

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
                    (numbers_array(sample.seq for sample in chunk),),
                )
            )
            for sample in chunk:
                if sample.seq in events:
                    yield sample, events[sample.seq]
            start = end

    def claimed(self, limit: int = 1) -> list[Claim]:
        """Return the oldest claims that were not confirmed yet, at most `limit`."""
        self._mend()
        claims: list[Claim] = []
        while made := self._made(claims[-1].number if claims else 0, limit - len(claims)):
            claims += self._filled(made)
        return claims

    def _made(self, after: int, limit: int) -> list[Claim]:
        rows = self._db.execute(
            "SELECT claim, name FROM claims WHERE bridge = ? AND claim > ? ORDER BY claim LIMIT ?",
            (self._bridge, after, limit),
        )
        return [Claim(number, name, []) for number, name in rows.fetchall()]

    def _filled(self, claims: Sequence[Claim]) -> list[Claim]:
        """Return claims with what they hold; those that hold nothing are undone."""
        filled = []
        for claim in claims:
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM delivery d JOIN outbox o ON o.seq = d.seq "  # noqa: S608 - a constant
                "WHERE d.claim = ? ORDER BY d.rank, d.seq",
                (claim.number,),
            )
            if samples := list(map(Waiting._make, rows)):
                filled.append(claim._replace(samples=samples))
            else:  # each of them was settled by itself
                self._undo(claim.number)
        return filled

    def claim(self, parcels: Sequence[tuple[str, Sequence[Waiting]]]) -> list[Claim]:
        """Fix which samples leave together under which name, each a new one; on disk when this returns.

        Returns:
            The claims, without what has aged out or was displaced meanwhile.
        """
        self._mend()
        with self._writing():
            (last,) = self._db.execute(
                "SELECT max(ifnull((SELECT max(claim) FROM claims), 0), "
                "ifnull((SELECT max(claim) FROM delivery WHERE claim IS NOT NULL), 0))"
            ).fetchone()
            claims = [Claim(last + 1 + at, name, list(samples)) for at, (name, samples) in enumerate(parcels)]
            made = [(claim.number, self._bridge, _BEING_MADE) for claim in claims]
            self._db.executemany("INSERT INTO claims (claim, bridge, name) VALUES (?, ?, ?)", made)
        self._mended = False  # until the last transaction has happened
        rows = [
            (claim.number, self._bridge, -sample.priority, sample.seq) for claim in claims for sample in claim.samples
        ]
        marked = 0
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            with self._writing():
                marked += self._db.executemany(
                    "UPDATE delivery SET claim = ? WHERE bridge = ? AND rank = ? AND seq = ?",
                    rows[first : first + _ROWS_AT_ONCE],
                ).rowcount
        with self._writing(self._durability):
            self._db.executemany(
                "UPDATE claims SET name = ? WHERE claim = ?", [(claim.name, claim.number) for claim in claims]
            )
        self._mended = True
        return claims if marked == len(rows) else self._filled(claims)

    @contextmanager
    def _writing(self, durability: str = "NORMAL") -> Iterator[None]:
        """Write all or nothing, with the totals; on a full disk the next try has the reserve, since it frees more."""
        with self._lock:
            before = self._totals.copy()
            try:
                self._db.execute(f"PRAGMA synchronous = {durability}")
                with transaction(self._db):
                    yield
                    if self._memory is not None:
                        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (self._memory_key, self._memory))
            except BaseException as error:
                self._totals.restore(before)
                if isinstance(error, sqlite3.Error) and is_full(error):
                    self._reserve.release()
                raise
            self._memory = None

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Keep what the bridge has to remember, with whatever is written next."""
        self._memory = json.dumps(memory)

    def write_memory(self) -> None:
        """See that what the bridge has to remember is written."""
        if self._memory is not None:
            with self._writing():
                pass

    def confirm(self, samples: Sequence[Waiting], claim: int | None = None) -> None:
        """Take note that this bridge is done with `samples`; each leaves when no other bridge waits for it.

        Args:
            samples: of which some may have aged out meanwhile, or been confirmed by a call that failed half-way.
            claim: whose samples they all are: a crash finds all of them confirmed, or none.
        """
        for first in range(0, max(len(samples), 1), _ROWS_AT_ONCE):
            with self._writing():
                if claim is not None and first == 0:
                    self._db.execute("DELETE FROM claims WHERE claim = ?", (claim,))
                done = self._let_go(samples[first : first + _ROWS_AT_ONCE])
            self.confirmed += len(done)

    def bury(self, refused: Sequence[tuple[Waiting, str]], now: int) -> None:
        """Make dead letters of samples that this bridge can never deliver, so that the others go on.

        Args:
            refused: each with why, as a sentence.
            now: wall time in ns.
        """
        reasons = {sample.seq: why for sample, why in refused}
        with self._writing():
            events = list(self.events([sample for sample, _ in refused]))
            gone = self._let_go([sample for sample, _ in refused])
            letters = [
                DeadLetter(sample.stream, now, "undeliverable", reasons[sample.seq], event)
                for sample, event in events
                if sample.seq in gone
            ]
            deadletters.keep(self._db, letters)
            self._totals.undeliverable += len(gone)

    def _let_go(self, samples: Sequence[Waiting]) -> Collection[int]:
        """Drop this bridge's interest in samples; return the numbers of those in which it had one."""
        done = dequeue(self._db, self._bridge, [(sample.seq, sample.priority) for sample in samples])
        numbers = numbers_array(done)
        gone = self._db.execute(
            "DELETE FROM outbox WHERE seq IN (SELECT value FROM json_each(?)) AND waiting <= 1 RETURNING size",
            (numbers,),
        ).fetchall()
        if len(gone) < len(done):
            self._db.execute(
                "UPDATE outbox SET waiting = waiting - 1 WHERE seq IN (SELECT value FROM json_each(?))", (numbers,)
            )
        sizes = {sample.seq: sample.size for sample in samples}
        queue = self._totals.queues[self._bridge]
        queue.rows -= len(done)
        queue.bytes -= sum(sizes[seq] for seq in done)
        self._totals.rows -= len(gone)
        self._totals.bytes -= sum(size for (size,) in gone)
        return frozenset(done)

    def _mend(self) -> None:
        """Finish or undo what a crash, or an error, has interrupted."""
        if self._mended:
            return
        known = dict(self._db.execute("SELECT claim, name FROM claims WHERE bridge = ?", (self._bridge,)))
        marked = {
            number
            for (number,) in self._db.execute(
                "SELECT DISTINCT claim FROM delivery WHERE claim IS NOT NULL AND bridge = ?", (self._bridge,)
            )
        }
        for number in sorted(marked - known.keys()):
            while samples := self._marked(number):
                self.confirm(samples)
        for number, name in known.items():
            if number not in marked or name == _BEING_MADE or not self._claims:
                self._undo(number)
        self._mended = True

    def _marked(self, claim: int) -> list[Waiting]:
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM delivery d JOIN outbox o ON o.seq = d.seq WHERE d.claim = ? LIMIT ?",  # noqa: S608 - a constant
            (claim, _ROWS_AT_ONCE),
        )
        return list(map(Waiting._make, rows.fetchall()))

    def _undo(self, claim: int) -> None:
        """Let the samples of a claim wait as if it had never been."""
        self._passed.clear()
        while samples := self._marked(claim):
            with self._writing():
                self._db.executemany(
                    "UPDATE delivery SET claim = NULL WHERE bridge = ? AND rank = ? AND seq = ?",
                    [(self._bridge, -sample.priority, sample.seq) for sample in samples],
                )
        with self._writing():
            self._db.execute("DELETE FROM claims WHERE claim = ?", (claim,))
