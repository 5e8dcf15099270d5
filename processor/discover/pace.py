"""How fast messages and readings come, and the windows that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

from processor.discover.heard import Topic
from processor.types import NS
from processor.units import duration_text

_SPAN: Final = 2.0
"""Seconds that a window of a fast sensor covers, where no model says otherwise."""
_SIZES: Final = (10, 20, 50, 100, 200)
_GAPS: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)
"""Seconds."""


class Pace(NamedTuple):
    """How fast a family's messages come."""

    messages: float
    """In a second, on all its topics; 0 where that is not known."""
    interval: float | None
    """Seconds between two readings of one stream, in the middle of its streams; None where that is not known."""
    longest: float
    """The longest pause on one topic, in seconds."""
    readings: float
    """In a message, on the average."""

    def with_readings(self, more: float) -> Pace:
        """Return the pace where each of these readings is so many."""
        return self._replace(interval=self.interval and self.interval / more, readings=self.readings * more)


def pace_of(topics: Sequence[Topic], readings: float, keys: float) -> Pace:
    """Return the pace of a family.

    Args:
        topics: its topics.
        readings: in a message.
        keys: streams that share a topic.
    """
    rates = [rate for topic in topics if (rate := topic.rate) is not None]
    of_stream = median(rates) * readings / keys if rates else 0.0
    return Pace(
        sum(rates),
        1 / of_stream if of_stream else None,
        max((topic.longest for topic in topics), default=0) / NS,
        readings,
    )


class Window(NamedTuple):
    """A window for a model."""

    size: int
    step: int
    max_gap: str | None
    """As in the configuration."""
    why: str
    """A clause for a comment."""


def window_for(pace: Pace, size: int | None) -> Window:
    """Return a window that goes with a pace.

    Args:
        pace: of the sources.
        size: that the model wants; None: any.
    """
    interval = pace.interval
    if size is None:
        wanted = _SPAN / interval if interval else 0
        size = min(_SIZES, key=lambda each: abs(each - wanted))
    told = "how fast readings come is not known"
    gap = None
    if interval:
        told = f"a stream has a reading every {_seconds(interval)}, so {size} take {_seconds(size * interval)}"
        wanted = max(5 * interval, 2 * pace.longest)
        gap = duration_text(next((each for each in _GAPS if each >= wanted), _GAPS[-1]) * NS)
    if size == 1:
        return Window(1, 1, None, told)
    return Window(size, max(1, size // 2), gap, told)


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"  # noqa: PLR2004 - two minutes
