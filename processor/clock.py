"""Where time comes from. Only the edges of the process look at a clock; the computation is given times."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's clocks."""

    def wall(self) -> int:
        """Return nanoseconds since the Unix epoch; may jump in either direction."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back; for deadlines only."""
        return time.monotonic()


class ManualClock:
    """A clock that moves when told to, for tests and replays."""

    def __init__(self, wall: int = 0, monotonic: float = 0.0) -> None:
        """Start at `wall` ns since the Unix epoch and `monotonic` seconds."""
        self._wall = wall
        self._monotonic = monotonic

    def wall(self) -> int:
        """Return nanoseconds since the Unix epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Return seconds since this clock's start."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks on by `seconds`."""
        self._wall += round(seconds * 1e9)
        self._monotonic += seconds
