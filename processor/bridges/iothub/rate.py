"""How much is sent: a bucket of a second's worth, a day's quota, and how many messages may be under way.

Pure: times come from a clock, and what has to survive a restart is returned and given back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from processor.protocols import Clock
from processor.types import NS

_DAY: Final = 86_400 * NS
_NOTHING: Final = 1e-6
"""Of a message: what floating-point sums may lack."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_FORGIVEN: Final = 4
"""Windows full of acknowledgements after which a lost connection is no sign of push-back any more."""
_SOUND: Final = 60.0
"""Seconds of a connection after which its loss is none, either."""


class Rate:
    """What may be sent now: `messages_per_second` from a bucket of one second's worth, and what is left of the day.

    A message's blocks count for the day, as the hub bills it; for the second it counts once, as the hub throttles.
    The day is UTC's, as the hub's quota is. A clock that is set back gives nothing back.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        per_second: float | None,
        per_day: int | None,
        kept: Mapping[str, Any] | None = None,
    ) -> None:
        """Go on from where an earlier run was.

        Args:
            clock: both of its clocks are used.
            per_second: messages a second; None: any number.
            per_day: blocks a day; None: any number.
            kept: what `memory` returned then. Where the last one was lost, at most a second's worth is sent again.
        """
        self._clock = clock
        self._per_second = per_second
        self._per_day = per_day
        self._most = max(1.0, per_second or 0.0)
        self._at = clock.monotonic()
        wall = clock.wall()
        self._today = wall // _DAY
        self._level = 1.0
        self._used = 0
        if kept is not None:
            since = max(0, wall - int(kept["wall"])) / NS
            self._level = min(self._most, float(kept["level"]) + since * (per_second or 0.0))
            self._today, self._used = int(kept["day"]), int(kept["used"])

    def wait(self, blocks: int) -> float:
        """Return the seconds until a message of so many blocks may be sent; 0: now."""
        self._refill()
        day = self._seconds_of_the_day_left() if self._is_over(blocks) else 0.0
        if self._per_second is None:
            return day
        missing = 1.0 - self._level
        return max(day, missing / self._per_second if missing > _NOTHING else 0.0)

    def is_used_up(self, blocks: int) -> bool:
        """Return whether it is the day's quota that such a message waits for."""
        self._refill()
        return self._is_over(blocks)

    def take(self, blocks: int) -> None:
        """Count a message that is sent."""
        self._refill()
        self._level -= 1.0
        self._used += blocks

    def left(self) -> int | None:
        """Return how many blocks may still be sent today; None: any number. Any thread."""
        if self._per_day is None:
            return None
        used = 0 if self._clock.wall() // _DAY > self._today else self._used
        return max(0, self._per_day - used)

    def memory(self) -> dict[str, Any]:
        """Return what has to survive a restart."""
        self._refill()
        return {"level": round(self._level, 3), "wall": self._clock.wall(), "day": self._today, "used": self._used}

    def _is_over(self, blocks: int) -> bool:
        # A message that is larger than the whole quota would wait for ever: it is a day's only one.
        return self._per_day is not None and self._used > 0 and self._used + blocks > self._per_day

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._level = min(self._most, self._level + (now - self._at) * (self._per_second or 0.0))
        self._at = now
        today = self._clock.wall() // _DAY
        if today > self._today:
            self._used = 0
        self._today = today

    def _seconds_of_the_day_left(self) -> float:
        return (_DAY - self._clock.wall() % _DAY) / NS


class Flow:
    """How many messages may be under way, and how soon a lost connection is made again.

    A hub has no way to say "slower": it stops acknowledging, or ends the connection. So each loss halves the window,
    which acknowledgements open again by one for each window full of them; and while connections are lost without
    much getting through, the pauses before the next one double.
    """

    def __init__(self, most: int) -> None:
        """Begin with a window of `most` messages."""
        self._most = most
        self._size = float(most)
        self._losses = 0
        self._acknowledged = 0

    @property
    def window(self) -> int:
        """How many messages may be under way."""
        return int(self._size)

    @property
    def share(self) -> float:
        """How much of the whole window that is."""
        return self._size / self._most

    @property
    def losses(self) -> int:
        """How many connections were lost in a row, without much getting through in between."""
        return self._losses

    def acknowledged(self) -> None:
        """Take note that a message was acknowledged."""
        self._size = min(float(self._most), self._size + 1.0 / self._size)
        self._acknowledged += 1
        if self._acknowledged >= _FORGIVEN * self._most:
            self._losses = 0

    def lost(self, lasted: float = 0.0) -> float:
        """Take note that a connection was lost, or could not be made; return the seconds until the next, at most.

        Args:
            lasted: seconds for which there was one.
        """
        if lasted >= _SOUND:
            self._losses = 0
        self._size = max(1.0, self._size / 2)
        self._losses += 1
        self._acknowledged = 0
        return float(min(_FIRST_PAUSE * 2 ** min(self._losses - 1, 10), _LONGEST_PAUSE))
