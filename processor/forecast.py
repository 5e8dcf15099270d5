"""What a recording's counts come to in a day, schedules considered.

An hour that was recorded while the schedule was active says what such an hour brings, not what a day does, most of
which the schedule may rule out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from processor.filter import FilterDocument
from processor.schedule import Schedule
from processor.types import NS, Floats, Times

DAY: Final = 86_400
"""Seconds."""
_LOOKS: Final = 50_021
"""Times at which the schedule is asked: a prime number, so that they are in step with no duty cycle."""
_DAYS: Final = 28


def per_day(document: FilterDocument, ends: Times, seconds: float) -> Floats:
    """Return by how much to multiply what each rule kept of a recording to have what it keeps in a day.

    Args:
        document: the filter.
        ends: (N,) times of the recording's windows, or of some of them spread evenly; ns since the Unix epoch.
        seconds: how long was recorded, by arrival.

    Returns:
        One factor a rule; 0 where its schedule was never active in the recording, infinite where that has no length.
        An average over the four weeks that begin in the recording.
    """
    days = DAY / seconds if seconds > 0 else np.inf
    if document.schedule is None and all(rule.schedule is None for rule in document.rules):
        return np.full(len(document.rules), days)
    if not len(ends):
        return np.zeros(len(document.rules))
    weeks = int(np.median(ends)) + np.arange(_LOOKS, dtype=np.int64) * (_DAYS * DAY * NS // _LOOKS)
    of_filter = Schedule(document.schedule)
    both: Sequence[Times] = (weeks, ends)
    whole = [of_filter.active(times) for times in both]
    factors = []
    for rule in document.rules:
        own = Schedule(rule.schedule)
        usual, recorded = (
            float((active & own.active(times)).mean()) for active, times in zip(whole, both, strict=True)
        )
        factors.append(days * usual / recorded if recorded else 0.0)
    return np.array(factors)
