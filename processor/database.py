"""The state directory's one SQLite file: made, migrated, or set aside where it is not ours."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from processor.errors import StateError, StateForeign, StateFull
from processor.reserve import share

log = logging.getLogger(__name__)

FILE_NAME: Final = "mlade.db"
_APPLICATION_ID: Final = 0x6D6C6164  # "mlad"
_VERSION: Final = 4
_WAL_PAGES: Final = 1000
"""Pages in SQLite's log from which on a commit writes them back into the file; the log then begins anew."""
_PAGE: Final = 4096
_WAL_SHARE: Final = 4
"""Of a smaller reserve, the log takes at most this part before that, and a transaction: they have to fit into the file
when the disk is full, since nothing can be deleted before."""
_WAL_LIMIT: Final = 64 << 20
"""Bytes that the log's file keeps after a transaction that was larger."""
_CHECKED: Final = 64 << 20
"""Bytes up to which a file is checked as a whole at every start; it takes about a tenth of a second."""
_NEEDED: Final = ("meta", "streams", "journal", "snapshots", "receipts", "remembered", "bridges", "claims", "slots")
"""Tables of a larger file that are checked: what the start needs."""
_MARK: Final = ".damaged"
"""Suffix of the file beside it that says: found damaged while in use, so check it however big it is."""
_NO_ROOM: Final = frozenset(
    (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_SHMSIZE,
    )
)

_DAMAGED: Final = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))

_PATIENCE: Final = 10.0
"""Seconds to wait for another program to be done with the file."""

_SLOTS: Final = """
-- Model slots, and what there is for each (slot_state.py).
CREATE TABLE slots (slot INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
-- The windows' journal: a row a batch, pruned to what windows still need (journal.py).
CREATE TABLE streams (
    slot INTEGER NOT NULL, stream INTEGER NOT NULL, source TEXT NOT NULL, key TEXT NOT NULL,
    PRIMARY KEY (slot, stream));
CREATE TABLE journal (
    slot INTEGER NOT NULL, first INTEGER NOT NULL, past BLOB NOT NULL, PRIMARY KEY (slot, first));
CREATE TABLE snapshots (
    slot INTEGER NOT NULL, stream INTEGER NOT NULL, next INTEGER NOT NULL, past BLOB NOT NULL, numbers BLOB NOT NULL,
    PRIMARY KEY (slot, stream));
-- What sources and the filter's conditions remember (memories.py).
CREATE TABLE remembered (
    slot INTEGER NOT NULL, memory INTEGER NOT NULL, key TEXT NOT NULL, part INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (slot, memory, key, part));
"""

_SCHEMA: Final = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
{_SLOTS}
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

_STEPS: Final = {
    # From that version to the next; every step stays for ever.
    1: """
-- What a dead letter takes in all, not its payload alone: a topic may have 64 KiB.
UPDATE deadletters SET size = length(payload) + length(CAST(topic AS BLOB)) + length(CAST(detail AS BLOB));
""",
    2: """
CREATE TABLE remembered (
    memory INTEGER NOT NULL, key TEXT NOT NULL, part INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (memory, key, part));
ALTER TABLE snapshots ADD COLUMN numbers BLOB NOT NULL DEFAULT x'';
""",
    # There was one slot, which had no name.
    3: """
ALTER TABLE streams RENAME TO old_streams;
ALTER TABLE journal RENAME TO old_journal;
ALTER TABLE snapshots RENAME TO old_snapshots;
ALTER TABLE remembered RENAME TO old_remembered;
"""  # noqa: S608 - nothing but names from this file
    + _SLOTS
    + """
INSERT INTO slots VALUES (1, 'default');
INSERT INTO streams SELECT 1, stream, source, key FROM old_streams;
INSERT INTO journal SELECT 1, first, past FROM old_journal;
INSERT INTO snapshots SELECT 1, stream, next, past, numbers FROM old_snapshots;
INSERT INTO remembered SELECT 1, memory, key, part, value FROM old_remembered;
UPDATE meta SET key = 'model default ' || key WHERE key IN ('filter', 'look_back', 'memories', 'windows');
DROP TABLE old_streams;
DROP TABLE old_journal;
DROP TABLE old_snapshots;
DROP TABLE old_remembered;
""",
}


def is_full(error: sqlite3.Error) -> bool:
    """Whether a statement failed because there was no room on the disk."""
    return getattr(error, "sqlite_errorcode", None) in _NO_ROOM


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite found the file itself broken. Trying again does not mend that."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def state_error(error: sqlite3.Error, directory: Path) -> StateError:
    """Return what SQLite said as an error of ours; a damaged file is marked for the next start."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StateFull(f"there is no room to write in {directory} ({error}); free some disk space")
    if is_full(error):
        return StateFull(
            f"the disk of {directory} does not take what is written ({error}); is it full, over a quota, read-only or "
            "failing? see the system's log, and free some disk space"
        )
    if is_damage(error):
        path = directory / FILE_NAME
        with suppress(OSError):  # then the next start finds out for itself, as this one did
            path.with_name(path.name + _MARK).touch()
        return StateError(
            f"{path} is damaged ({error}); start mlade again: it then checks the whole file, and sets it aside if that "
            "is so. The disk may be failing: see the system's log"
        )
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
        return StateError(
            f"another program keeps {directory / FILE_NAME} locked ({error}); end it (a backup? an SQLite shell?) and "
            "start mlade again"
        )
    return StateError(f"the state in {directory} cannot be used: {error}")


@contextmanager
def explained(directory: Path) -> Iterator[None]:
    """Raise what SQLite says inside as a `state_error`."""
    try:
        yield
    except sqlite3.Error as error:
        raise state_error(error, directory) from error


class WriteLock:
    """A lock that whoever waits for it gets before the one who has just given it back.

    A delivery that writes thousands of times in a row would otherwise keep the pipeline out: an ordinary lock goes to
    the thread that is running.
    """

    def __init__(self) -> None:
        """Start free."""
        self._turn = threading.Lock()  # of the one who is next
        self._writing = threading.Lock()

    def __enter__(self) -> None:
        """Wait for it."""
        with self._turn:
            self._writing.acquire()

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self._writing.release()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done inside, or nothing of it. The caller holds the store's lock."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def configure(connection: sqlite3.Connection, directory: Path) -> None:
    """Set what every connection needs to keep the log small: whoever commits writes it back, under the store's lock.

    Deleted content is not overwritten, which Debian's SQLite does unless told otherwise: to let a sample go would cost
    as much writing as to keep it.
    """
    kept = share(directory)
    pages = max(1, min(_WAL_PAGES, kept // _WAL_SHARE // _PAGE))
    connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT if pages == _WAL_PAGES else kept}")
    connection.execute("PRAGMA secure_delete = FAST")


def open_database(path: Path) -> sqlite3.Connection:
    """Return a connection to the file, made or brought up to date if need be.

    A file that is damaged or another program's is renamed, never changed.

    Raises:
        StateForeign: a newer version wrote it.
        StateFull: there is no room to open it.
        StateError: it cannot be opened for another reason.
    """
    try:
        return _connect(path)
    except sqlite3.Error as error:
        if not is_damage(error):
            raise state_error(error, path.parent) from error
        reason = " ".join(str(error).split())
    except _NotOursError:
        reason = "it belongs to another program"
    aside = _set_aside(path)
    log.error(
        "%s cannot be used (%s). It was set aside as %s and a new one was begun: samples that waited in it are not "
        "delivered, and windows begin anew.", path, reason, aside,
    )  # fmt: skip
    with explained(path.parent):
        return _connect(path)


class _NotOursError(Exception):
    """The file is a database, of another program."""


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_PATIENCE)
    try:
        version = _examine(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        configure(connection, path.parent)
        if version != _VERSION:
            _bring_up_to_date(connection, version)
    except BaseException:
        connection.close()
        raise
    return connection


def _bring_up_to_date(connection: sqlite3.Connection, version: int) -> None:
    """Go from `version`, 0 for an empty file, to the present one; all of it or nothing."""
    scripts = [_STEPS[step] for step in range(version, _VERSION)] if version else [_SCHEMA]
    with transaction(connection):
        for statement in ";\n".join(scripts).split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    if version:
        log.info("The state was brought from schema %d to %d.", version, _VERSION)


def _examine(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of a database of ours, 0 for an empty file; raise when it is another's, damaged or newer."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        return 0
    if application != _APPLICATION_ID:
        raise _NotOursError
    if version > _VERSION:
        raise StateForeign(
            f"{path} was written by a newer mlade (schema {version}, this one knows {_VERSION}); "
            "run that version, or move the file away"
        )
    mark = path.with_name(path.name + _MARK)
    if mark.exists():
        log.warning("%s was found damaged when it was last used; checking the whole file.", path)
        _check(connection, "integrity_check(1)")
        log.warning("%s is sound. See the system's log whether the disk is.", path)
        mark.unlink()
    elif path.stat().st_size < _CHECKED:
        _check(connection, "quick_check(1)")
    else:
        for table in _NEEDED:
            _check(connection, f"quick_check({table})")
    return int(version)


def _check(connection: sqlite3.Connection, how: str) -> None:
    (answer,) = connection.execute(f"PRAGMA {how}").fetchone()
    if answer != "ok":
        error = sqlite3.DatabaseError(answer)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.set-aside-{number}")).exists():
        number += 1
    try:
        path.rename(aside)
        for suffix in ("-wal", "-shm"):
            companion = path.with_name(path.name + suffix)
            if companion.exists():
                companion.rename(aside.with_name(aside.name + suffix))
        path.with_name(path.name + _MARK).unlink(missing_ok=True)
    except OSError as error:
        raise StateError(f"{path} cannot be used, and not be set aside: {error.strerror}") from error
    return aside
