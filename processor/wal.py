"""SQLite's write-ahead log, kept short.

Every change goes into the log first. A checkpoint carries it into the file; after that the log is written from its
beginning again, but only if nobody reads from it just then. Commits checkpoint by themselves now and then. Our own
readers are done within milliseconds, so a long log waits for them. Another program can read for as long as it likes,
and all that time the log grows.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from processor.units import size_text

log = logging.getLogger(__name__)

_LONG: Final = 64 << 20
"""Bytes from which on readers are waited for."""
_LONGEST: Final = 1 << 30
"""Bytes from which on nothing more is taken in."""
_PATIENCE: Final = 0.1
"""Seconds that readers are waited for, with the store's lock."""
_PAUSE: Final = 1.0
"""Seconds between two times of that."""


class WriteAheadLog:
    """The log of one database. Used by the pipeline thread, with the store's lock."""

    def __init__(self, connection: sqlite3.Connection, database: Path) -> None:
        """Take the pipeline's connection."""
        self._db = connection
        self._database = database
        self._log = f"{database}-wal"
        self._wait_at = 0.0
        self._held_up = False

    @property
    def is_long(self) -> bool:
        """Whether it is time to wait for its readers."""
        return self._size() > _LONG and time.monotonic() >= self._wait_at

    @property
    def problem(self) -> str | None:
        """Why nothing more may be written, as a clause; None when it may."""
        if self._size() <= _LONGEST:
            return None
        return (
            f"another program has been reading {self._database} for so long that its log has grown to "
            f"{size_text(_LONGEST)}; end it (a backup? an SQLite shell?)"
        )

    def _size(self) -> int:
        try:
            return os.stat(self._log).st_size  # noqa: PTH116 - once a commit; a Path takes three times as long
        except FileNotFoundError:
            return 0

    def checkpoint(self) -> None:
        """Carry what it holds into the file, as far as readers let it; of a long log, make a short one.

        Raises:
            sqlite3.Error: the file cannot be written.
        """
        if not self.is_long:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            return
        (before,) = self._db.execute("PRAGMA busy_timeout").fetchone()
        self._db.execute(f"PRAGMA busy_timeout = {round(1000 * _PATIENCE)}")
        try:
            (held_up, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {before}")
            self._wait_at = time.monotonic() + _PAUSE
        if held_up and not self._held_up:
            log.warning(
                "Something reads %s for long (a backup? an SQLite shell?). Until it ends, the log beside it grows; at "
                "%s nothing more is acknowledged.", self._database, size_text(_LONGEST),
            )  # fmt: skip
        self._held_up = bool(held_up)
