"""The windows' journal: which readings the store must keep so that a restart finds every window as it was.

Each batch appends one row with its readings. Old rows are dropped once windows have moved past them; a stream so slow
that it still needs a reading in an old row gets a snapshot of its own instead.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

import numpy as np

from processor.slot_state import SlotChanges, SlotState, StreamSnapshot
from processor.types import Ints
from processor.windows import Past, WindowBuffer

log = logging.getLogger(__name__)

_LEAST_BYTES: Final = 4 << 20
_SLACK: Final = 4
"""The journal may grow to this many times what windows need before rows are dropped."""


class Journal:
    """Keeps the store's journal of one window buffer. Used by the pipeline thread."""

    def __init__(self, windows: WindowBuffer, signature: str, state: SlotState) -> None:
        """Restore `windows` from the state, or begin anew when `signature` says that they look different now."""
        self._windows = windows
        self._next: Ints = np.zeros(0, np.int64)  # by slot: readings from this number on are in the journal only
        self._rows: deque[tuple[int, int]] = deque()  # (first reading's number, bytes)
        self._bytes = 0
        self._known: set[int] = set()
        kept = state.meta("windows")
        if kept is not None and kept != signature:
            log.warning("The sources or model.window changed: windows that were under way are forgotten.")
        elif kept is not None:
            self._restore(state)
        if kept != signature:
            state.commit(SlotChanges(meta={"windows": signature}, windows_anew=kept is not None))

    def _restore(self, state: SlotState) -> None:
        streams, snapshots, rows = state.windows()
        slots = {number: self._windows.restore(name, number) for number, name in streams}
        self._known = set(slots)
        self._fit()
        for snapshot in snapshots:
            if (slot := slots.get(snapshot.stream)) is not None:
                past = decode(snapshot.past, self._windows.shape.channels)
                count = len(past.streams)
                numbers = np.frombuffer(snapshot.numbers, "<i8").astype(np.int64)
                if not len(numbers):
                    numbers = np.arange(snapshot.next - count, snapshot.next)
                self._windows.replay(np.full(count, slot), past, numbers)
                self._next[slot] = snapshot.next
        for first, blob in rows:
            past = decode(blob, self._windows.shape.channels)
            self._rows.append((first, len(blob)))
            self._bytes += len(blob)
            numbers = first + np.arange(len(past.streams))
            owners = np.array([slots.get(stream, -1) for stream in past.streams.tolist()], np.int64)
            wanted = (owners >= 0) & (numbers >= self._next[owners])  # not forgotten since, and in no snapshot
            kept = Past(past.streams[wanted], past.counts[wanted], past.times[wanted], past.values[wanted])
            self._windows.replay(owners[wanted], kept, numbers[wanted])
            self._windows.sequence = max(self._windows.sequence, first + len(numbers))
        self._windows.trim()
        if streams:
            log.info("Restored the windows of %d streams.", len(streams))

    def begin_anew(self) -> None:
        """Know nothing: the windows have begun anew, and the store has dropped what it kept of them."""
        self._next = np.zeros(0, np.int64)
        self._rows.clear()
        self._bytes = 0
        self._known = set()

    def _fit(self) -> None:
        missing = len(self._windows.names) - len(self._next)
        if missing > 0:
            self._next = np.concatenate([self._next, np.zeros(missing + len(self._next), np.int64)])

    def record(self, changes: SlotChanges, slots: Ints, past: Past | None) -> None:
        """Add to `changes` what the batch just appended means for the journal. Call once a batch.

        Args:
            changes: the batch's.
            slots: (N,) of the batch's readings.
            past: what `WindowBuffer.append` returned for them.
        """
        if past is None or not len(slots):
            return
        self._fit()
        first = self._windows.sequence - len(slots)
        blob = encode(past)
        changes.journal = (first, blob)
        self._record_streams(changes, slots, past)
        self._rows.append((first, len(blob)))
        self._bytes += len(blob)
        self._prune(changes, 2 * len(blob) + 4096)

    def _record_streams(self, changes: SlotChanges, slots: Ints, past: Past) -> None:
        heard = set(past.streams.tolist())
        heard.discard(0)  # readings of a stream that was forgotten in the same batch
        new = heard - self._known
        if not new and len(self._known) == len(self._windows):
            return
        alive = dict(self._windows.streams())
        changes.forgotten = sorted(self._known - alive.keys())
        changes.opened = sorted((number, alive[number]) for number in new)
        self._known = set(alive) & (self._known | new)
        for slot in np.unique(slots).tolist():
            if self._windows.stream_number(slot) in new:
                self._next[slot] = 0

    def _prune(self, changes: SlotChanges, budget: int) -> None:
        """Drop about `budget` bytes of old rows if the journal holds much more than windows need."""
        row_bytes = 8 * (3 + self._windows.shape.channels)
        if self._bytes <= max(_LEAST_BYTES, _SLACK * row_bytes * self._windows.live_readings):
            return
        while budget > 0 and len(self._rows) > 1:
            _, size = self._rows.popleft()
            self._bytes -= size
            budget -= size
        below = self._rows[0][0]
        snapshots = []
        for slot in self._windows.heard_from(below, self._next).tolist():
            # Numbered by the stream's own newest reading: which stream was heard least recently depends on it.
            self._next[slot] = after = self._windows.last_heard(slot) + 1
            past, numbers = self._windows.past_of(slot)
            number = self._windows.stream_number(slot)
            snapshots.append(StreamSnapshot(number, after, encode(past), numbers.astype("<i8").tobytes()))
        changes.snapshots = snapshots
        changes.pruned = below


def encode(past: Past) -> bytes:
    """Pack readings with their places as little-endian columns."""
    columns = (past.streams, past.counts, past.times)
    return b"".join(c.astype("<i8").tobytes() for c in columns) + past.values.astype("<f8").tobytes()


def decode(blob: bytes, channels: int) -> Past:
    """Unpack what `encode` packed."""
    count = len(blob) // (8 * (3 + channels))
    whole = np.frombuffer(blob, "<i8", 3 * count).reshape(3, count).astype(np.int64)
    values = np.frombuffer(blob, "<f8", offset=24 * count).reshape(count, channels).astype(np.float64)
    return Past(whole[0], whole[1], whole[2], values)
