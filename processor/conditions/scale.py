"""What distances of windows are measured in: the spread of each field, and how far apart windows usually are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from processor.conditions.memory import Row
from processor.types import Floats

_HORIZON: Final = 16_384
"""Windows, at each passing of which what was seen before them counts half."""
_SLOWEST: Final = 4096
"""Windows from one look to the next, at most."""


class Scale:
    """Running mean and variance of each field over windows, looked at anew when their number has grown by a quarter.

    Windows are added up one after another, so that the sums do not depend on how they are cut into batches. Readings
    count in full for about 16,000 windows, then for less and less.

    Attributes:
        seen: windows so far.
        due: the window at which the next look is taken, counted from 1.
        center: (C,) mean of each field as of the last look.
        factors: (C,) one over the standard deviation of each field as of the last look; 1 where there is none.
    """

    def __init__(self) -> None:
        """Begin with no windows."""
        self.seen = 0
        self.due = 1
        self.center: Floats = np.empty(0)
        self.factors: Floats = np.empty(0)
        self._weight = 0.0
        self._origin: Floats = np.empty(0)
        self._sums: Floats = np.empty((2, 0))  # of readings less the origin, and of their squares

    def add(self, values: Floats) -> None:
        """Take note of N >= 1 windows, (N, size, C)."""
        if not self.seen:
            self._origin = values[0].mean(axis=0)
            self._sums = np.zeros((2, values.shape[2]))
        readings = np.ascontiguousarray(np.moveaxis(values, 1, 2)) - self._origin[:, None]
        with np.errstate(over="ignore"):  # of numbers whose squares are none; `look` does without
            sums = np.stack((readings.sum(axis=2), (readings * readings).sum(axis=2)), axis=1)
            self._sums = np.add.accumulate(np.concatenate((self._sums[None], sums)))[-1]
        self.seen += len(values)
        self._weight += len(values) * values.shape[1]

    def look(self) -> None:
        """Take center and factors from what was seen."""
        with np.errstate(over="ignore", invalid="ignore"):
            mean = self._sums[0] / self._weight
            variance = self._sums[1] / self._weight - mean * mean
            usable = np.isfinite(variance) & (variance > 1e-12 * mean * mean)
        self.center = self._origin + np.where(usable, mean, 0.0)
        self.factors = 1.0 / np.sqrt(np.where(usable, variance, 1.0))
        before = self.due
        self.due = self.seen + min(max(1, self.seen // 4), _SLOWEST)
        if self.due // _HORIZON > before // _HORIZON:
            self._sums /= 2
            self._weight /= 2

    def memory(self) -> bytes:
        """Return all of it."""
        rows = (self.center, self.factors, self._origin, *self._sums)
        return np.concatenate(([self.seen, self.due, self._weight], *rows)).astype("<f8").tobytes()

    def restore(self, memory: bytes) -> None:
        """Go on from what `memory` returned."""
        numbers = np.frombuffer(memory, "<f8").astype(np.float64)
        self.seen, self.due, self._weight = int(numbers[0]), int(numbers[1]), float(numbers[2])
        self.center, self.factors, self._origin, *sums = numbers[3:].reshape(5, -1)
        self._sums = np.array(sums)


_MOST: Final = 128
_FEW: Final = 16
_FRACTION: Final = 0.2
_BURST: Final = 4
"""Landmarks on either side, at least, that may be of the same burst."""
_REPEAT: Final = 1.5
"""How much farther apart than usual two repeats may be: noise in few values varies."""
_DISTINCT: Final = 0.5
"""The most of the distance of different windows that this may be: beyond it, repeats cannot be told from them."""


class Landmarks:
    """Windows that lie far apart in the stream: their distances are those of different things, not of one burst.

    Each is followed by the window next to it, which tells how far apart repeats are where most windows are some. There
    are 128 in all, the first pairs 32 windows apart, later ones up to 2048; each is compared with those that are not
    beside it, so that a burst may be 64 windows long from the beginning, and 256 once there are 128.
    """

    KEY: Final = "landmarks"

    def __init__(self) -> None:
        """Begin with none."""
        self._windows: Floats = np.empty((0, 0))
        self._added = 0
        self._changed: dict[int, None] = {}

    def add(self, windows: Floats, first: int) -> None:
        """Take note of windows, (N, values), of which the first has the number `first`, counted from 0."""
        for number in range(first, first + len(windows)):
            apart = 2 << min(max((number // _MOST).bit_length() - 1, 4), 10)
            if number % apart <= 1:
                place = self._added % _MOST
                if place == len(self._windows):
                    self._windows = np.concatenate((self._windows.reshape(-1, windows.shape[1]), windows[:1]))
                self._windows[place] = windows[number - first]
                self._added += 1
                self._changed[place] = None

    def radius(self, factors: Floats) -> float | None:
        """Return a radius that holds repeats and not distinct windows, of values times factors.

        It is a fifth of the median distance from a landmark to its nearest elsewhere, and at least one and a half times
        that of windows next to each other, where this is no more than half of the former.

        None while there are too few, or where more than half of them are the same.
        """
        if len(self._windows) < _FEW:
            return None
        scaled = (self._windows - self._windows.mean(axis=0)) * factors
        squares = (scaled * scaled).sum(axis=1)
        apart = squares[:, None] + squares - 2.0 * (scaled @ scaled.T)
        places = np.arange(count := len(self._windows))
        pairs = count // 2 * 2
        repeats = float(np.median(apart[range(0, pairs, 2), range(1, pairs, 2)]))
        between = np.abs(places[:, None] - places)  # around the ring
        apart[np.minimum(between, count - between) <= max(_BURST, count // 8)] = np.inf
        distinct = float(np.median(apart.min(axis=1)))
        if distinct <= 0:
            return None
        repeats, distinct = (float(np.sqrt(max(each, 0.0) / scaled.shape[1])) for each in (repeats, distinct))
        wider = _REPEAT * repeats
        return max(_FRACTION * distinct, wider if wider <= _DISTINCT * distinct else 0.0)

    def changes(self) -> list[Row]:
        """Return the rows that changed since the last call."""
        rows = [
            Row(self.KEY, place, self._added.to_bytes(8, "little") + self._windows[place].astype("<f8").tobytes())
            for place in self._changed
        ]
        self._changed.clear()
        return rows

    def restore(self, rows: Sequence[Row]) -> None:
        """Go on from an earlier run's rows."""
        values = [row.value or b"" for row in rows]
        if values:
            self._added = max(int.from_bytes(value[:8], "little") for value in values)
            self._windows = np.array([np.frombuffer(value, "<f8", offset=8) for value in values])
