"""Room on the disk that is kept back, so that a full disk can still be emptied.

Deleting a row takes room too: SQLite first writes the change to its log. Without a reserve a full disk would keep every
sample that was delivered, for ever. What was given up is kept back again only when as much stays free beside it: taken
back at once, it would be gone when that deletion is tried again.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from processor.units import size_text

log = logging.getLogger(__name__)

FILE_NAME: Final = "reserve"
_MOST: Final = 16 << 20
_SHARE: Final = 8
"""Of a small file system, at most this part of it is kept back."""
_PLENTY: Final = 1 << 62


def share(directory: Path) -> int:
    """Return how many bytes are kept back on the file system of `directory`."""
    total, _ = _room(directory)
    return min(_MOST, total // _SHARE)


class Reserve:
    """A file of zeros beside the state, given up when the disk is full and made again when there is room. Any thread.

    Attributes:
        size: in bytes.
    """

    def __init__(self, directory: Path) -> None:
        """Keep room in `directory`; `hold` takes it."""
        self._path = directory / FILE_NAME
        self._lock = threading.Lock()
        self._possible = True
        self.size = share(directory)
        self._held = self._path.exists() and self._path.stat().st_blocks * 512 >= self.size

    def hold(self) -> bool:
        """Keep the room, if there is twice as much; whether it is kept."""
        with self._lock:
            if self._possible and not self._held:
                self._held = self._allocate()
            return self._held or not self._possible

    def _allocate(self) -> bool:
        try:
            _, free = _room(self._path.parent)
            if free < 2 * self.size:
                return False
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.posix_fallocate(file, 0, 2 * self.size)  # a user's quota may leave less than the disk does
                os.ftruncate(file, self.size)
            finally:
                os.close(file)
        except OSError as error:
            with suppress(OSError):  # something else may be there, such as a directory
                self._path.unlink()  # what it got of the room
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                log.warning(
                    "%s (%s) cannot be kept back for a full disk: %s.", self._path, size_text(self.size), error.strerror
                )
                self._possible = False
            return False
        return True

    def release(self) -> bool:
        """Give the room up, for what frees more of it; whether there was any."""
        with self._lock:
            given, self._held = self._held, False
            if given:
                self._path.unlink(missing_ok=True)
            return given


def _room(directory: Path) -> tuple[int, int]:
    """Return the bytes of a file system and those free on it; plenty where it does not tell."""
    try:
        total, _, free = shutil.disk_usage(directory)
    except OSError:
        total, free = 0, 0
    return (total, free) if total else (_PLENTY, _PLENTY)
