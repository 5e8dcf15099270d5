"""Where time comes from. Only the edges of the process look at a clock; the computation is given times."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from processor.types import NS

if TYPE_CHECKING:
    from processor.protocols import Clock

_PLAUSIBLE: Final = 0.5
"""Part of the longest age that a time switched off may count for."""


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
        self._wall += round(seconds * NS)
        self._monotonic += seconds

    def set_wall(self, wall: int) -> None:
        """Set the wall clock, as an operator or a time server does."""
        self._wall = wall


class AgeClock:
    """How old things are, whatever the wall clock does: it goes on evenly, also over restarts.

    While the process runs, the monotonic clock moves it. The time it was switched off is what the wall clock says, but
    never less than nothing, and not so much that one wrong clock at one start would age everything away.
    """

    def __init__(self, clock: Clock, kept: Mapping[str, int] | None, longest: int) -> None:
        """Go on from where an earlier run was.

        Args:
            clock: the machine's.
            kept: what `memory` returned then; None at the first start.
            longest: age in ns at which things are dropped.
        """
        self._clock = clock
        self._began = clock.monotonic()
        wall = clock.wall()
        if kept is None:
            self._start = wall
        else:
            self._start = kept["age"] + max(0, min(wall - kept["wall"], int(longest * _PLAUSIBLE)))

    def now(self) -> int:
        """Return nanoseconds; only differences mean something."""
        return self._start + round((self._clock.monotonic() - self._began) * NS)

    def memory(self) -> dict[str, int]:
        """Return what has to survive a restart."""
        return {"age": self.now(), "wall": self._clock.wall()}
