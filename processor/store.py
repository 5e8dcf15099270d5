"""Everything that outlives the process, in one SQLite file. One transaction a batch.

The pipeline thread owns the connection here; every delivery thread has one of its own (outbox.py). All of them write
under one lock, and whoever commits writes SQLite's log back when it has grown.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from processor import deadletters, slot_state
from processor.admission import LOSSES, Admission, Bounds, Totals
from processor.database import FILE_NAME, WriteLock, explained, open_database, transaction
from processor.errors import StateError, StateFull, StateLocked
from processor.outbox import Outbox
from processor.reserve import Reserve
from processor.slot_state import SlotChanges, SlotState
from processor.types import MODEL_SLOT, DeadLetter, Sample
from processor.units import size_text
from processor.wal import WriteAheadLog

log = logging.getLogger(__name__)

Durability = Literal["full", "normal"]

_TELL_EVERY: Final = 10.0

RECEIPT_BYTES: Final = 6
"""A packet identifier (u16) and a CRC-32 of topic and payload."""
RECEIPTS_KEPT: Final = 65_535
"""As many as there are packet identifiers: no broker can hold more unacknowledged. (Mosquitto 2.0 exceeds both
`receive_maximum` and its own `max_inflight_messages` once acknowledgements flow.)"""


@dataclass(slots=True)
class Changes:
    """What one batch changes on disk: all of it or nothing.

    Attributes:
        receipts: packed packet identifiers and digests of the batch's QoS 1 messages (receipts.py).
        samples: for the outbox.
        dead_letters: what could not be processed.
        meta: values to set, as anything JSON holds.
        slots: by its name, what changes of a model slot.
    """

    receipts: bytes = b""
    samples: Sequence[Sample] = ()
    dead_letters: Sequence[DeadLetter] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    slots: dict[str, SlotChanges] = field(default_factory=dict)

    def of(self, slot: str) -> SlotChanges:
        """Return what changes of a model slot, to be completed."""
        return self.slots.setdefault(slot, SlotChanges())

    @property
    def grow(self) -> bool:
        """Whether they take room that counts; values under `meta` replace others."""
        return bool(self.samples or self.dead_letters) or any(own.grow for own in self.slots.values())

    @property
    def matter(self) -> bool:
        """Whether there is anything to remember. Receipts alone are not: a message without effect may come again."""
        return self.grow or bool(self.meta) or any(own.matter for own in self.slots.values())


class Store:
    """The state directory: locked by one process, one SQLite file inside. Used by the pipeline thread.

    Attributes:
        totals: rows and bytes in the outbox and what was lost from it; written under the lock, read by anyone.
    """

    def __init__(
        self,
        directory: Path,
        *,
        durability: Durability,
        bounds: Bounds,
        bridges: Sequence[str],
        slots: Sequence[str] = (MODEL_SLOT,),
    ) -> None:
        """Open or create the store.

        Args:
            directory: made when missing.
            durability: `full` makes every commit survive a power cut, `normal` a crash of the process.
            bounds: of the outbox.
            bridges: names of those that have to confirm a sample before it leaves the outbox.
            slots: names of the model slots.

        Raises:
            StateLocked: another process uses the directory.
            StateForeign: the file was written by a newer version.
            StateError: the directory cannot be written.
        """
        self._directory = directory
        self._durability = durability
        self._losses: Counter[str] = Counter()
        self._next_telling = 0.0
        self._aged = 0  # how far `tidy` has come
        self.lock = WriteLock()
        with ExitStack() as cleanup:
            cleanup.callback(os.close, _lock(directory))
            self._reserve = Reserve(directory)
            self._connection = cleanup.enter_context(closing(open_database(directory / FILE_NAME)))
            self._log = WriteAheadLog(self._connection, directory / FILE_NAME)
            with explained(directory):
                self._connection.execute(f"PRAGMA synchronous = {durability}")
                self._bridges = self._register(bridges)
                self._slots = {
                    name: SlotState(self._connection, directory, self._writing, number=number, name=name)
                    for name, number in slot_state.register(self._connection, slots).items()
                }
                self.totals = Totals.of(self._connection)
                self._admission = Admission(self._connection, bounds, self.totals, list(self._bridges.values()))
                (self._next_receipt,) = self._connection.execute(
                    "SELECT ifnull(max(first + length(packets) / ?), 0) FROM receipts", (RECEIPT_BYTES,)
                ).fetchone()
            self._reserve.hold()
            self._resources = cleanup.pop_all()

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
                db.execute("DELETE FROM meta WHERE key = ?", (_memory_key(name),))
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
        return Outbox(
            self._directory / FILE_NAME,
            self.lock,
            self.totals,
            bridge=self._bridges[bridge],
            memory=_memory_key(bridge),
            durability=self._durability,
            reserve=self._reserve,
        )

    def slot(self, name: str) -> SlotState:
        """Return what is kept of a model slot."""
        return self._slots[name]

    def drop_other_slots(self) -> None:
        """Drop what is kept of model slots that are not this store's: they left the configuration."""
        with self._writing():
            slot_state.drop_others(self._connection, self._slots)

    def bridge_memory(self, bridge: str) -> Any:  # noqa: ANN401 - as in `meta`
        """Return what a bridge has remembered in an earlier run, or None."""
        return self.meta(_memory_key(bridge))

    def commit(self, changes: Changes, now: int) -> None:
        """Make a batch's changes durable, all or none.

        Args:
            changes: what is to be on disk.
            now: nanoseconds on the clock that samples age by (clock.AgeClock).

        Raises:
            StateFull: the disk, or the outbox under `when_full: block`, has no room; nothing changed, try again later.
            StateError: the database cannot be written for another reason.
        """
        if changes.grow:
            self._require_room()
        try:
            with self._writing() as before:
                self._write(changes, now)
        except StateFull:
            if changes.grow or not self._reserve.release():
                raise
            with self._writing() as before:
                self._write(changes, now)
        self._next_receipt += len(changes.receipts) // RECEIPT_BYTES
        self._tell_losses(before)
        if self._log.is_long:
            self._checkpoint()

    def _require_room(self) -> None:
        """See that more may be kept: the log is not too long, and the reserve is whole, or the file has as much room.

        Raises:
            StateFull: it may not.
        """
        if self._log.problem:
            self._checkpoint()
        if problem := self._log.problem:
            raise StateFull(problem)
        if self._reserve.hold():
            return
        with explained(self._directory):
            (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
            (page,) = self._connection.execute("PRAGMA page_size").fetchone()
        if free * page <= self._reserve.size:
            least = size_text(2 * self._reserve.size)
            raise StateFull(f"less than {least} is left on the disk of {self._directory}; free some space")

    def _checkpoint(self) -> None:
        """Carry what the log holds into the file; where that finds no room, the next time has the reserve."""
        try:
            with self.lock, explained(self._directory):
                self._log.checkpoint()
        except StateFull:
            self._reserve.release()

    @contextmanager
    def _writing(self) -> Iterator[Totals]:
        """Write under the lock, all or nothing; yields the totals as they were."""
        with self.lock, explained(self._directory):
            before = self.totals.copy()
            try:
                with transaction(self._connection):
                    yield before
            except BaseException:
                self.totals.restore(before)
                raise

    def _tell_losses(self, before: Totals) -> None:
        """Log what the outbox lost, at most every ten seconds."""
        self._losses += Counter({name: getattr(self.totals, name) - getattr(before, name) for name in LOSSES})
        if self._losses and time.monotonic() >= self._next_telling:
            self._next_telling = time.monotonic() + _TELL_EVERY
            lost = ", ".join(f"{count} {reason}" for reason, count in sorted(self._losses.items()))
            log.warning("Samples were lost from the outbox (%d wait in it): %s.", self.totals.rows, lost)
            self._losses.clear()

    def _write(self, changes: Changes, now: int) -> None:
        db = self._connection
        for slot, own in changes.slots.items():
            self._slots[slot].write(own)
        if changes.receipts:
            self._keep_receipts(changes.receipts)
        self._set(changes.meta)
        if changes.dead_letters:
            deadletters.keep(db, changes.dead_letters)
        if changes.samples:
            self._admission.admit(changes.samples, now)

    def _set(self, meta: Mapping[str, Any]) -> None:
        values = [(key, json.dumps(value)) for key, value in meta.items()]
        self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values)

    def _keep_receipts(self, packets: bytes) -> None:
        first = self._next_receipt
        self._connection.execute("INSERT INTO receipts VALUES (?, ?)", (first, packets))
        # By whole rows: at least RECEIPTS_KEPT stay.
        self._connection.execute("DELETE FROM receipts WHERE first < ?", (first - 2 * RECEIPTS_KEPT,))

    def receipts(self) -> bytes:
        """Return the packet identifiers and digests of the last acknowledged messages, oldest first."""
        with explained(self._directory):
            return b"".join(row[0] for row in self._connection.execute("SELECT packets FROM receipts ORDER BY first"))

    def forget_session(self, meta: Mapping[str, Any]) -> None:
        """Forget the receipts: the broker began a new session, so packet identifiers mean something else.

        Args:
            meta: values to set in the same transaction.

        Raises:
            StateFull: there is no room; they stay, and may be forgotten later.
        """
        with self._writing():
            self._connection.execute("DELETE FROM receipts")
            self._set(meta)

    def tidy(self, now: int, meta: Mapping[str, Any] | None = None) -> bool:
        """Drop samples older than the outbox's `max_age`, and keep the log that SQLite writes first from growing.

        Where even that finds no room, it gives up the reserve for the next time.

        Args:
            now: as for `commit`.
            meta: values to set on the way.

        Returns:
            Whether there may be more of them; they are dropped by the next calls.
        """
        # Where it fails, the next call begins at the oldest again: what a claim held meanwhile may be free by then.
        after, self._aged = self._aged, 0
        try:
            with self._writing() as before:
                aged = self._admission.expire(now, after)
                self._set(meta or {})
        except StateFull:
            self._reserve.release()
            return False
        self._aged = aged
        self._tell_losses(before)
        self._checkpoint()
        return aged > 0

    def meta(self, key: str) -> Any:  # noqa: ANN401 - whatever JSON holds; the caller wrote it
        """Return a value kept under `key`, or None."""
        with explained(self._directory):
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def remember(self, meta: Mapping[str, Any]) -> None:
        """Keep values at once, outside any batch."""
        self.commit(Changes(meta=meta), 0)

    def close(self) -> None:
        """Close the file and let another process have the directory. Delivery threads must have ended."""
        self._resources.close()


def _memory_key(bridge: str) -> str:
    return f"bridge {bridge}"


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
