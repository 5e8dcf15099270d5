"""Samples as JSON Lines, one CloudEvent a line, in a folder a day."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from processor.errors import BridgeError
from processor.events import date
from processor.outbox import Claim, Waiting
from processor.protocols import Handover, Shipment
from processor.types import NS

_DAY: Final = 86_400 * NS
_BUFFER: Final = 1 << 20


class FilesBridge:
    """Writes `date=YYYY-MM-DD/<name>.jsonl`; only finished files carry that name.

    A delivery is a file: claimed in the store, written beside its place, fsynced, renamed, confirmed. A retry after a
    crash finds the finished file, or writes the same one again.
    """

    def __init__(self, directory: Path, processor: str, *, max_bytes: int, max_age: float) -> None:
        """Write under `directory`; a file is finished at `max_bytes`, or `max_age` seconds after its first sample."""
        self._directory = directory
        self._processor = processor
        self.shipment = Shipment(samples=1_000_000, max_bytes=max_bytes, linger=max_age, claims=1)

    def together(self, first: Waiting, other: Waiting) -> bool:
        """Whether both belong to the same UTC date."""
        return first.time // _DAY == other.time // _DAY

    def name(self, first: Waiting) -> str:
        """Return a path under the directory; random, so that a lost state directory never overwrites old files."""
        return f"date={date(first.time)}/{self._processor}-{first.seq:010d}-{secrets.token_hex(4)}.jsonl"

    def deliver(self, claims: Sequence[Claim], handover: Handover) -> None:
        """Write a file a claim; see `protocols.Bridge`. A disk answers or fails: the time left is not looked at."""
        for claim in claims:
            target = self._directory / claim.name
            if not _is_there(target):  # else it is whole, since it has its name: only the confirmation was lost
                part = target.with_name(f".{target.name}.part")
                try:
                    _write(part, (event for _, event in handover.events(claim.samples)))
                    part.rename(target)
                    _sync_directory(target.parent)
                except OSError as error:
                    with suppress(OSError):
                        part.unlink(missing_ok=True)  # on a full disk, what it got of the room
                    raise _unwritable(target, error) from error
            handover.confirm(claim)

    def figures(self) -> Mapping[str, float]:
        """Return nothing: what it delivers is counted elsewhere."""
        return {}

    def idle(self) -> None:
        """Files need no attention."""

    def close(self) -> None:
        """Nothing is held open between deliveries."""


def _is_there(target: Path) -> bool:
    try:
        target.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unwritable(target, error) from error
    return True


def _write(path: Path, events: Iterable[bytes]) -> None:
    """Write lines; on disk when this returns."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    for directory in missing:
        _sync_directory(directory.parent)
    with path.open("wb", buffering=_BUFFER) as file:
        for event in events:
            file.write(event + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _unwritable(target: Path, error: OSError) -> BridgeError:
    advice = {
        errno.ENOSPC: "free some disk space",
        errno.EDQUOT: "the user's quota is used up",
        errno.EROFS: "is the disk damaged, or mounted read-only?",
        errno.EACCES: "give the user that mlade runs as the right to write there",
        errno.EPERM: "give the user that mlade runs as the right to write there",
    }.get(error.errno or 0, "see bridges[].path")
    return BridgeError(f"{target} cannot be written: {error.strerror or error}; {advice}")


def _sync_directory(directory: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
