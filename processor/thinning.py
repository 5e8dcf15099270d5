"""A bounded look at something long: every row of it while there is room, then every second, every fourth and so on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]


class Thinned:
    """Rows of several columns, evenly thinned.

    Attributes:
        seen: rows that came.
        stride: one row in so many is kept.
    """

    def __init__(self, most: int) -> None:
        """Keep at most `most` rows."""
        self.seen = 0
        self.stride = 1
        self._most = most
        self._parts: list[tuple[Column, ...]] = []
        self._kept = 0

    def add(self, *columns: Column) -> None:
        """Take N rows: one array of N a column, the same columns each time."""
        count = len(columns[0])
        rows = slice(-self.seen % self.stride, None, self.stride)
        kept = tuple(column[rows].copy() for column in columns)
        self.seen += count
        if len(kept[0]):
            self._parts.append(kept)
            self._kept += len(kept[0])
        while self._kept > self._most:
            self._parts = [tuple(column[::2].copy() for column in self.columns())]
            self._kept = len(self._parts[0][0])
            self.stride *= 2

    def columns(self) -> tuple[Column, ...]:
        """Return the rows that were kept; no columns where none ever came."""
        if not self._parts:
            return ()
        if len(self._parts) > 1:
            self._parts = [tuple(np.concatenate(parts) for parts in zip(*self._parts, strict=True))]
        return self._parts[0]
