"""The state directory's one SQLite file: made, migrated, or set aside where it is not ours."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from processor.errors import StateDamaged, StateError, StateForeign, StateFull

log = logging.getLogger(__name__)

FILE_NAME: Final = "mlade.db"
_APPLICATION_ID: Final = 0x6D6C6164  # "mlad"
_VERSION: Final = 2
_WAL_LIMIT: Final = 64 << 20
_CHECKED: Final = 64 << 20
"""Bytes up to which a file is checked as a whole at the start; it takes about a tenth of a second.

Of a larger one that is done for what the start needs. Damage that is met elsewhere leaves a mark for the next start."""
_NEEDED: Final = ("meta", "streams", "journal", "snapshots", "receipts", "bridges", "claims")
_MARK: Final = ".damaged"
_NO_ROOM: Final = frozenset(
    (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_SHMSIZE,
    )
)

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

_STEPS: Final = {
    # From that version to the next; every step stays for ever.
    1: """
-- What a dead letter takes in all, not its payload alone: a topic may have 64 KiB.
UPDATE deadletters SET size = length(payload) + length(CAST(topic AS BLOB)) + length(CAST(detail AS BLOB));
""",
}


def is_full(error: sqlite3.Error) -> bool:
    """Whether a statement failed because there was no room on the disk."""
    return getattr(error, "sqlite_errorcode", None) in _NO_ROOM


def is_damaged(error: sqlite3.Error) -> bool:
    """Whether a statement failed because the file is damaged, or no database at all."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def state_error(error: sqlite3.Error, directory: Path) -> StateError:
    """Return what SQLite said as an error of ours. Damage is marked, so that the next start looks at the whole file."""
    if is_full(error):
        return StateFull(f"there is no room to write in {directory} ({error}); free some disk space")
    if is_damaged(error):
        with suppress(OSError):  # a disk that is full, or read-only now: the damage will be met again
            (directory / f"{FILE_NAME}{_MARK}").touch()
        return StateDamaged(
            f"the state {directory / FILE_NAME} is damaged ({error}); at the next start it is set aside, and a new one "
            "is begun"
        )
    return StateError(f"the state in {directory} cannot be written: {error}")


@contextmanager
def explained(directory: Path) -> Iterator[None]:
    """Raise what SQLite says inside as an error of ours.

    Raises:
        StateFull: there is no room.
        StateError: something else.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise state_error(error, directory) from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is done inside, or nothing of it. The caller holds the store's lock."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


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
    except sqlite3.DatabaseError as error:
        if not is_damaged(error):
            raise state_error(error, path.parent) from error
        reason = str(error)
    except _NotOursError:
        reason = "it belongs to another program"
    aside = _set_aside(path)
    log.error(
        "%s cannot be used (%s). It was set aside as %s, with the samples in it that were not delivered yet, and a new "
        "one was begun.", path, reason, aside,
    )  # fmt: skip
    return _connect(path)


class _NotOursError(Exception):
    """The file is a database, of another program."""


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    try:
        version = _examine(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
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
    _check(connection, path)
    return int(version)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise when the file is found to be damaged."""
    mark = path.with_name(path.name + _MARK)
    if mark.exists():
        checks = ["integrity_check(1)"]
    elif path.stat().st_size < _CHECKED:
        checks = ["quick_check(1)"]
    else:
        checks = [f"quick_check({table})" for table in _NEEDED]
    for check in checks:
        (found,) = connection.execute(f"PRAGMA {check}").fetchone()
        if found != "ok":
            error = sqlite3.DatabaseError(found)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
    mark.unlink(missing_ok=True)


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.set-aside-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    path.with_name(path.name + _MARK).unlink(missing_ok=True)
    return aside
