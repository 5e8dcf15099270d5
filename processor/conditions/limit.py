"""At most so many samples in any stretch of time: `limit`, and `cooldown`, which is a limit of one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

from processor.conditions.memory import ALL, HEAD, Row, Tail

_HEAD: Final = struct.Struct("<4q")
_MOST_KEYS: Final = 100_000
"""Streams or labels known at a time; of more, the one that was reached least recently is forgotten."""
_MOST_TIMES: Final = 1_000_000
"""Samples remembered at a time, over all keys. As many as a limit can have; 8 MB."""


class _Account:
    """One key's clock and the samples that count on it."""

    __slots__ = ("clock", "reached", "times")

    def __init__(self, clock: int) -> None:
        self.clock = clock
        self.reached = 0
        self.times = Tail("q")


class SlidingLimit:
    """Counts, for each key, the samples of the last `per` nanoseconds on the key's own clock.

    The clock is the running maximum of the times of the windows that came this far. A sample counts from its time on
    the clock, t, in [t, t + per).
    """

    def __init__(self, most: int, per: int) -> None:
        """Allow `most` samples in any `per` nanoseconds."""
        self._most = most
        self._per = per
        self._accounts: dict[str, _Account] = {}  # the least recently reached first
        self._reached = 0
        self._times = 0
        self._changed: set[str] = set()
        self._forgotten: dict[str, None] = {}

    def __len__(self) -> int:
        """Return how many keys are known."""
        return len(self._accounts)

    def accepts(self, key: str, time: int) -> bool:
        """Take note of a window that comes this far; whether it may be kept.

        Args:
            key: the stream, the label, or always the same.
            time: the window's, ns since the Unix epoch.
        """
        account = self._accounts.pop(key, None) or _Account(time)
        self._accounts[key] = account
        self._reached += 1
        account.reached = self._reached
        account.clock = max(account.clock, time)
        times, since = account.times, account.clock - self._per
        while times and times[0] <= since:
            times.drop()
            self._times -= 1
        self._changed.add(key)
        if len(self._accounts) > _MOST_KEYS:
            self._forget(next(iter(self._accounts)))
        return len(times) < self._most

    def would_accept(self, key: str, time: int) -> bool:
        """Whether a window might be kept if it came this far; nothing changes."""
        account = self._accounts.get(key)
        if account is None or len(account.times) < self._most:
            return True
        since = max(account.clock, time) - self._per
        # Full: there is room when as many as are too many, at least one, are past.
        return account.times[len(account.times) - self._most] <= since

    def spend(self, key: str) -> None:
        """A window was kept, which was the last that the key was asked about."""
        account = self._accounts[key]
        account.times.append(account.clock)
        self._times += 1
        while self._times > _MOST_TIMES:
            self._forget(next(iter(self._accounts)))

    def _forget(self, key: str) -> None:
        self._times -= len(self._accounts.pop(key).times)
        self._changed.discard(key)
        self._forgotten[key] = None

    def changes(self) -> list[Row]:
        """Return the rows that changed since the last call."""
        rows = [Row(key, ALL, None) for key in self._forgotten]
        for key in sorted(self._changed):
            account = self._accounts[key]
            times = account.times
            rows.append(Row(key, HEAD, _HEAD.pack(account.clock, account.reached, times.first, times.end)))
            rows += times.changes(key)
        self._forgotten.clear()
        self._changed.clear()
        return rows

    def restore(self, rows: Sequence[Row]) -> None:
        """Go on from an earlier run's rows."""
        found = []
        for key, (head, *pages) in groupby(rows, attrgetter("key")):
            clock, reached, first, end = _HEAD.unpack(head.value or b"")
            account = _Account(clock)
            account.reached = reached
            account.times.restore(first, end, pages)
            found.append((reached, key, account))
            self._times += len(account.times)
        for self._reached, key, account in sorted(found, key=lambda one: one[0]):
            self._accounts[key] = account
