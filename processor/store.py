"""Everything that outlives the process, in one SQLite file. One transaction a batch.

The pipeline thread owns the connection here; every delivery thread has one of its own (outbox.py). All of them write
under one lock, and only this connection runs checkpoints.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from processor.errors import StateError, StateForeign, StateFull, StateLocked
from processor.outbox import Admission, Bounds, Outbox, Totals, transaction
from processor.types import DeadLetter, Sample, StreamName

log = logging.getLogger(__name__)

Durability = Literal["full", "normal"]

FILE_NAME: Final = "mlade.db"
_APPLICATION_ID: Final = 0x6D6C6164  # "mlad"
_VERSION: Final = 1
_TELL_EVERY: Final = 10.0
_WAL_LIMIT: Final = 64 << 20
_CHECKED: Final = 64 << 20
"""Bytes up to which a file is checked as a whole at the start; it takes about a tenth of a second."""
_DEAD_LETTERS: Final = 10_000
_DEAD_LETTER_BYTES: Final = 64 << 20
_PAYLOAD_KEPT: Final = 64 << 10

RECEIPT_BYTES: Final = 6
"""A packet identifier (u16) and a CRC-32 of topic and payload."""
RECEIPTS_KEPT: Final = 65_535
"""As many as there are packet identifiers: no broker can hold more unacknowledged. (Mosquitto 2.0 exceeds both
`receive_maximum` and its own `max_inflight_messages` once acknowledgements flow.)"""

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- The windows' journal: a row a batch, pruned to what windows still need (journal.py).
CREATE TABLE streams (stream INTEGER PRIMARY KEY, source TEXT NOT NULL, key TEXT NOT NULL);
CREATE TABLE journal (first INTEGER PRIMARY KEY, past BLOB NOT NULL);
CREATE TABLE snapshots (stream INTEGER PRIMARY KEY, next INTEGER NOT NULL, past BLOB NOT NULL);
CREATE TABLE receipts (first INTEGER PRIMARY KEY, packets BLOB NOT NULL);

-- Samples on their way out, and which bridges still have to confirm each.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL, rule TEXT NOT NULL, label TEXT NOT NULL,
    stream TEXT NOT NULL, model TEXT NOT NULL, time INTEGER NOT NULL, priority INTEGER NOT NULL,
    created INTEGER NOT NULL, size INTEGER NOT NULL, waiting INTEGER NOT NULL, event BLOB NOT NULL);
CREATE INDEX outbox_by_priority ON outbox (priority, seq, size);
CREATE TABLE bridges (bridge INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE delivery (
    bridge INTEGER NOT NULL, rank INTEGER NOT NULL, seq INTEGER NOT NULL, claim INTEGER,
    PRIMARY KEY (bridge, rank, seq)) WITHOUT ROWID;
CREATE INDEX delivery_by_claim ON delivery (claim) WHERE claim IS NOT NULL;
CREATE TABLE claims (claim INTEGER PRIMARY KEY, bridge INTEGER NOT NULL, name TEXT NOT NULL);

CREATE TABLE deadletters (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, arrival INTEGER NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL,
    detail TEXT NOT NULL, size INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE INDEX deadletters_by_size ON deadletters (size);
"""


class StreamSnapshot(NamedTuple):
    """What windows need of one stream, so that older journal rows can go."""

    stream: int
    next: int
    """Number of the first reading that is not in it."""
    past: bytes


@dataclass(slots=True)
class Changes:
    """What one batch changes on disk: all of it or nothing.

    Attributes:
        journal: number of the batch's first reading and its encoded past; None when nothing is to be journaled.
        pruned: journal rows with a `first` below this are dropped; 0: none.
        snapshots: streams that would lose something by the pruning.
        opened: streams first heard in this batch.
        forgotten: streams dropped in this batch.
        receipts: packed packet identifiers and digests of the batch's QoS 1 messages (receipts.py).
        samples: for the outbox.
        dead_letters: what could not be processed.
        meta: values to set, as anything JSON holds.
    """

    journal: tuple[int, bytes] | None = None
    pruned: int = 0
    snapshots: Sequence[StreamSnapshot] = ()
    opened: Sequence[tuple[int, StreamName]] = ()
    forgotten: Sequence[int] = ()
    receipts: bytes = b""
    samples: Sequence[Sample] = ()
    dead_letters: Sequence[DeadLetter] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def matter(self) -> bool:
        """Whether there is anything to remember. Receipts alone are not: a message without effect may come again."""
        return bool(self.journal or self.opened or self.forgotten or self.samples or self.dead_letters or self.meta)


class Store:
    """The state directory: locked by one process, one SQLite file inside. Used by the pipeline thread.

    Attributes:
        totals: rows and bytes in the outbox and what was lost from it; written under the lock, read by anyone.
    """

    def __init__(self, directory: Path, *, durability: Durability, bounds: Bounds, bridges: Sequence[str]) -> None:
        """Open or create the store.

        Args:
            directory: made when missing.
            durability: `full` makes every commit survive a power cut, `normal` a crash of the process.
            bounds: of the outbox.
            bridges: names of those that have to confirm a sample before it leaves the outbox.

        Raises:
            StateLocked: another process uses the directory.
            StateForeign: the file was written by a newer version.
            StateError: the directory cannot be written.
        """
        self._directory = directory
        self._durability = durability
        self._losses: Counter[str] = Counter()
        self._next_telling = 0.0
        self.lock = threading.Lock()
        self._lock_file = _lock(directory)
        try:
            self._connection = _open(directory / FILE_NAME)
            self._connection.execute(f"PRAGMA synchronous = {durability}")
            self._bridges = self._register(bridges)
            self.totals = Totals.of(self._connection)
            self._admission = Admission(self._connection, bounds, self.totals, list(self._bridges.values()))
            (self._next_receipt,) = self._connection.execute(
                "SELECT ifnull(max(first + length(packets) / ?), 0) FROM receipts", (RECEIPT_BYTES,)
            ).fetchone()
        except BaseException:
            os.close(self._lock_file)
            raise

    def _register(self, names: Sequence[str]) -> dict[str, int]:
        """Give each bridge its number; what waited only for a bridge that left the configuration goes with it."""
        db = self._connection
        with transaction(db):
            known = {name: number for number, name in db.execute("SELECT bridge, name FROM bridges")}
            for name, number in known.items():
                if name in names:
                    continue
                count = db.execute(
                    "UPDATE outbox SET waiting = waiting - 1 WHERE seq IN (SELECT seq FROM delivery WHERE bridge = ?)",
                    (number,),
                ).rowcount
                db.execute("DELETE FROM delivery WHERE bridge = ?", (number,))
                db.execute("DELETE FROM claims WHERE bridge = ?", (number,))
                db.execute("DELETE FROM bridges WHERE bridge = ?", (number,))
                gone = db.execute("DELETE FROM outbox WHERE waiting <= 0").rowcount
                if count:
                    log.warning(
                        "Bridge %r is no longer configured: %d samples no longer wait for it, and %d that waited for "
                        "nothing else were dropped.", name, count, gone,
                    )  # fmt: skip
            for name in names:
                if name not in known:
                    known[name] = int(db.execute("INSERT INTO bridges (name) VALUES (?)", (name,)).lastrowid or 0)
        return {name: known[name] for name in names}

    def outbox(self, bridge: str) -> Outbox:
        """Return one bridge's view of the outbox, for its delivery thread to open."""
        return Outbox(self._directory / FILE_NAME, self.lock, self.totals, self._bridges[bridge], self._durability)

    def commit(self, changes: Changes, now: int) -> None:
        """Make a batch's changes durable, all or none. `now` is wall time in ns.

        Raises:
            StateFull: the disk, or the outbox under `when_full: block`, has no room; nothing changed, try again later.
            StateError: the database cannot be written for another reason.
        """
        with self._writing() as before:
            self._write(changes, now)
        self._next_receipt += len(changes.receipts) // RECEIPT_BYTES
        self._tell_losses(before)

    @contextmanager
    def _writing(self) -> Iterator[Totals]:
        """Write under the lock, all or nothing; yields the totals as they were."""
        with self.lock:
            before = self.totals.copy()
            try:
                with transaction(self._connection):
                    yield before
            except StateError:
                self.totals.restore(before)
                raise
            except sqlite3.Error as error:
                self.totals.restore(before)
                raise _state_error(error, self._directory) from error

    def _tell_losses(self, before: Totals) -> None:
        """Log what the outbox lost, at most every ten seconds."""
        self._losses += Counter(
            {name: getattr(self.totals, name) - getattr(before, name) for name in ("expired", "displaced", "refused")}
        )
        if self._losses and time.monotonic() >= self._next_telling:
            self._next_telling = time.monotonic() + _TELL_EVERY
            lost = ", ".join(f"{count} {reason}" for reason, count in sorted(self._losses.items()))
            log.warning("Samples were lost from the outbox (%d wait in it): %s.", self.totals.rows, lost)
            self._losses.clear()

    def _write(self, changes: Changes, now: int) -> None:
        db = self._connection
        if changes.opened:
            rows = [(number, name.source, name.key) for number, name in changes.opened]
            db.executemany("INSERT OR REPLACE INTO streams VALUES (?, ?, ?)", rows)
        if changes.forgotten:
            gone = [(number,) for number in changes.forgotten]
            db.executemany("DELETE FROM streams WHERE stream = ?", gone)
            db.executemany("DELETE FROM snapshots WHERE stream = ?", gone)
        if changes.journal:
            db.execute("INSERT INTO journal VALUES (?, ?)", changes.journal)
        if changes.snapshots:
            db.executemany("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", changes.snapshots)
        if changes.pruned:
            db.execute("DELETE FROM journal WHERE first < ?", (changes.pruned,))
        if changes.receipts:
            self._keep_receipts(changes.receipts)
        if changes.meta:
            values = [(key, json.dumps(value)) for key, value in changes.meta.items()]
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values)
        if changes.dead_letters:
            self._bury(changes.dead_letters)
        if changes.samples:
            self._admission.admit(changes.samples, now)

    def _keep_receipts(self, packets: bytes) -> None:
        first = self._next_receipt
        self._connection.execute("INSERT INTO receipts VALUES (?, ?)", (first, packets))
        # By whole rows: at least RECEIPTS_KEPT stay.
        self._connection.execute("DELETE FROM receipts WHERE first < ?", (first - 2 * RECEIPTS_KEPT,))

    def receipts(self) -> bytes:
        """Return the packet identifiers and digests of the last acknowledged messages, oldest first."""
        return b"".join(row[0] for row in self._connection.execute("SELECT packets FROM receipts ORDER BY first"))

    def forget_receipts(self) -> None:
        """Forget them: the broker started a new session, so packet identifiers mean something else.

        Raises:
            StateFull: there is no room; they stay, and may be forgotten later.
        """
        with self._writing():
            self._connection.execute("DELETE FROM receipts")

    def tidy(self, now: int) -> None:
        """Drop samples older than the outbox's `max_age`, and keep the log that SQLite writes first from growing.

        Does nothing where there is no room to do it.
        """
        with suppress(StateFull):
            with self._writing() as before:
                self._admission.expire(now)
            self._tell_losses(before)
            with self.lock:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _bury(self, letters: Sequence[DeadLetter]) -> None:
        db = self._connection
        rows = [
            (letter.arrival, letter.topic, letter.reason, letter.detail, len(payload), payload)
            for letter in letters
            for payload in (letter.payload[:_PAYLOAD_KEPT],)
        ]
        db.executemany(
            "INSERT INTO deadletters (arrival, topic, reason, detail, size, payload) VALUES (?, ?, ?, ?, ?, ?)", rows
        )
        db.execute("DELETE FROM deadletters WHERE seq <= (SELECT max(seq) FROM deadletters) - ?", (_DEAD_LETTERS,))
        (excess,) = db.execute("SELECT total(size) - ? FROM deadletters", (_DEAD_LETTER_BYTES,)).fetchone()
        while excess > 0:
            seq, size = db.execute("SELECT seq, size FROM deadletters ORDER BY seq LIMIT 1").fetchone()
            db.execute("DELETE FROM deadletters WHERE seq = ?", (seq,))
            excess -= size

    def meta(self, key: str) -> Any:  # noqa: ANN401 - whatever JSON holds; the caller wrote it
        """Return a value kept under `key`, or None."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def remember(self, meta: Mapping[str, Any]) -> None:
        """Keep values at once, outside any batch."""
        self.commit(Changes(meta=meta), 0)

    def windows(self) -> tuple[list[tuple[int, StreamName]], list[StreamSnapshot], Iterator[tuple[int, bytes]]]:
        """Return streams, snapshots and journal rows in the order they were written, for a restart."""
        db = self._connection
        streams = [
            (n, StreamName(s, k)) for n, s, k in db.execute("SELECT stream, source, key FROM streams ORDER BY 1")
        ]
        snapshots = [
            StreamSnapshot(*row) for row in db.execute("SELECT stream, next, past FROM snapshots ORDER BY next")
        ]
        return streams, snapshots, iter(db.execute("SELECT first, past FROM journal ORDER BY first"))

    def forget_windows(self) -> None:
        """Drop the journal: the windows' shape changed and what was kept does not fit them any more."""
        with self._writing():
            for table in ("streams", "snapshots", "journal"):
                self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names from this line

    def close(self) -> None:
        """Close the file and let another process have the directory. Delivery threads must have ended."""
        self._connection.close()
        os.close(self._lock_file)


def _state_error(error: sqlite3.Error, directory: Path) -> StateError:
    if error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC):
        return StateFull(f"there is no room to write in {directory} ({error}); free some disk space")
    return StateError(f"the state in {directory} cannot be written: {error}")


def _lock(directory: Path) -> int:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StateError(f"the state directory {directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise StateLocked(
                f"another mlade uses the state directory {directory}; stop it, or give this one its own state_dir"
            ) from error
        raise StateError(f"the state directory {directory} cannot be locked: {error.strerror}") from error
    return file


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise _state_error(error, path.parent) from error
        reason = str(error)
    except _NotOursError:
        reason = "it belongs to another program"
    aside = _set_aside(path)
    log.error("%s cannot be used (%s). It was set aside as %s and a new one was begun.", path, reason, aside)
    return _connect(path)


class _NotOursError(Exception):
    """The file is a database, of another program."""


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    try:
        begun = _examine(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
        if not begun:
            with transaction(connection):
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def _examine(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether there is a database of ours already; raise when it is another's, damaged or newer."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        return False
    if application != _APPLICATION_ID:
        raise _NotOursError
    if version > _VERSION:
        raise StateForeign(
            f"{path} was written by a newer mlade (schema {version}, this one knows {_VERSION}); "
            "run that version, or move the file away"
        )
    if path.stat().st_size < _CHECKED:
        (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if sound != "ok":
            error = sqlite3.DatabaseError(sound)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
    return True


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.set-aside-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    return aside
