"""Samples as JSON Lines, one CloudEvent a line, in a folder a day."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from processor.errors import BridgeError
from processor.events import date
from processor.outbox import Waiting
from processor.protocols import Shipment


class FilesBridge:
    """Writes `date=YYYY-MM-DD/<name>.jsonl`; only finished files carry that name.

    A delivery is a file: claimed in the store, written beside its place, fsynced, renamed, confirmed. A retry after a
    crash finds the finished file, or writes the same one again.
    """

    def __init__(self, directory: Path, processor: str, *, max_bytes: int, max_age: float) -> None:
        """Write under `directory`; a file is finished at `max_bytes`, or `max_age` seconds after its first sample."""
        self._directory = directory
        self._processor = processor
        self.shipment = Shipment(samples=1_000_000, max_bytes=max_bytes, linger=max_age, claimed=True)

    def together(self, first: Waiting, other: Waiting) -> bool:
        """Whether both belong to the same UTC date."""
        return date(first.time) == date(other.time)

    def name(self, first: Waiting) -> str:
        """Return a path under the directory; random, so that a lost state directory never overwrites old files."""
        return f"date={date(first.time)}/{self._processor}-{first.seq:010d}-{secrets.token_hex(4)}.jsonl"

    def deliver(
        self, name: str, samples: Iterable[tuple[Waiting, bytes]], seconds_left: Callable[[], float]
    ) -> Mapping[int, str]:
        """Write one file; see `protocols.Bridge`."""
        del seconds_left  # a disk answers or fails
        target = self._directory / name
        part = target.with_name(f".{target.name}.part")
        try:
            if target.exists():  # whole, since it has its name: only the confirmation was lost
                return {}
            if not target.parent.exists():
                target.parent.mkdir(parents=True)
                _sync_directory(target.parent.parent)
            with part.open("wb") as file:
                for _, event in samples:
                    file.write(event + b"\n")
                file.flush()
                os.fsync(file.fileno())
            part.rename(target)
            _sync_directory(target.parent)
        except OSError as error:
            raise BridgeError(f"{target} cannot be written: {error.strerror}") from error
        return {}

    def idle(self) -> None:
        """Files need no attention."""

    def close(self) -> None:
        """Nothing is held open between deliveries."""


def _sync_directory(directory: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
