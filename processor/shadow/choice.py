"""Which windows the shadow judges: those that end in the tenths of a second that a hash chooses.

Neither the clock nor the load decides, so that a replay, or a restart, chooses the same. Whole tenths of a second, and
not single windows: what comes together is one call, and a call for a quarter of a batch takes about as long as one for
all of it; and a window's own number is a hash of all its readings, which takes longer than many a model.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from processor.events import uniform
from processor.types import NS, Flags, Times

STRETCH: Final = NS // 10
"""Nanoseconds whose windows are chosen together."""
_FEW: Final = 16


@lru_cache(maxsize=1024)
def number(processor: str, stretch: int) -> float:
    """Return the number in [0, 1) that decides on a stretch of time.

    Args:
        processor: its id, so that not all of a plant's are busy at once.
        stretch: windows' time in ns since the Unix epoch, divided by STRETCH and rounded down.
    """
    return uniform(processor, f"shadow/{stretch}")


def chosen(processor: str, part: float, ends: Times) -> Flags:
    """Return (W,) which windows are the shadow's.

    Args:
        processor: its id.
        part: of all stretches of time that are chosen, 0 to 1.
        ends: (W,) the windows' times, ns since the Unix epoch.
    """
    if part >= 1.0:
        return np.ones(len(ends), np.bool_)
    if len(ends) <= _FEW:  # this runs for every batch, and numpy takes as long for one window as for a hundred
        return np.array([number(processor, end // STRETCH) < part for end in ends.tolist()], np.bool_)
    first, last = int(ends.min()) // STRETCH, int(ends.max()) // STRETCH
    if first == last:
        return np.full(len(ends), number(processor, first) < part)
    different, which = np.unique(ends // STRETCH, return_inverse=True)
    return np.array([number(processor, stretch) < part for stretch in different.tolist()], np.bool_)[which]
