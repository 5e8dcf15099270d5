"""Counts over time in a bounded number of bins, which grow as the time does."""

from __future__ import annotations

from typing import Final

import numpy as np

from processor.types import NS, Ints, Times

_MOST: Final = 240
"""Bins."""


class Timeline:
    """How many events of each kind there were in each bin.

    Attributes:
        width: of a bin, ns; a power of two of seconds.
    """

    def __init__(self, kinds: int) -> None:
        """Begin with bins of a second."""
        self.width = NS
        self._kinds = kinds
        self._bins: dict[int, Ints] = {}

    def add(self, times: Times, kinds: Ints) -> None:
        """Count N events.

        Args:
            times: (N,) ns since the Unix epoch, in any order.
            kinds: (N,) 0 to the number of kinds - 1.
        """
        bins, inverse = np.unique(times // self.width, return_inverse=True)
        counts = np.bincount(inverse * self._kinds + kinds, minlength=len(bins) * self._kinds)
        for number, row in zip(bins.tolist(), counts.reshape(-1, self._kinds), strict=True):
            self._put(number, row)
        while len(self._bins) > _MOST:
            self.width *= 2
            narrow, self._bins = self._bins, {}
            for number, row in narrow.items():
                self._put(number // 2, row)

    def _put(self, number: int, counts: Ints) -> None:
        if number in self._bins:
            self._bins[number] += counts
        else:
            self._bins[number] = counts.copy()

    def bins(self) -> tuple[Times, Ints]:
        """Return (B,) the middle of each bin that is not empty, in order, and (B, kinds) its counts."""
        order = sorted(self._bins)
        middles = np.array(order, np.int64) * self.width + self.width // 2
        return middles, np.array([self._bins[number] for number in order], np.int64).reshape(len(order), self._kinds)
