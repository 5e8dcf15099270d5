"""What a condition remembers, as rows of the store."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

HEAD: Final = -1
"""The part of a key that is not a page."""
ALL: Final = -2
"""In a row without a value: every part of the key is gone."""

PAGE: Final = 256
"""Numbers in a page: 2 KiB."""
_PLACE: Final = struct.Struct("<q")
_MOST_GONE: Final = 1024


class Row(NamedTuple):
    """A piece of what a condition remembers."""

    key: str
    part: int
    value: bytes | None
    """None: it is gone."""


class Condition(Protocol):
    """A condition that remembers. Used by one thread."""

    def changes(self) -> list[Row]:
        """Return the rows that changed since the last call, in the order in which they are to be written."""

    def restore(self, rows: Sequence[Row]) -> None:
        """Go on from what `changes` returned over the time, ordered by key and part. Called once, before anything."""


class Tail:
    """The newest of an endless row of numbers, written page by page.

    Attributes:
        first: place of the oldest number that is kept; the very first number has place 0.
    """

    def __init__(self, kind: Literal["d", "q"]) -> None:
        """Start with none; `kind` is `d` for floats, `q` for 64-bit integers."""
        self.first = 0
        self._numbers: array[Any] = array(kind)
        self._gone = 0  # numbers at the front that are not kept any more
        self._written = 0  # numbers before this place are in rows
        self._page = 0  # the oldest page that there may be a row of

    def __len__(self) -> int:
        """Return how many numbers are kept."""
        return len(self._numbers) - self._gone

    def __getitem__(self, index: int) -> float:
        """Return a number by its position among those that are kept."""
        number: float = self._numbers[self._gone + index]
        return number

    @property
    def end(self) -> int:
        """The place of the next number."""
        return self.first + len(self)

    def append(self, number: float) -> None:
        """Add a number."""
        self._numbers.append(number)

    def drop(self) -> None:
        """Let the oldest number go."""
        self._gone += 1
        self.first += 1
        if self._gone > _MOST_GONE and 2 * self._gone > len(self._numbers):
            del self._numbers[: self._gone]
            self._gone = 0

    def changes(self, key: str) -> list[Row]:
        """Return the pages that changed since the last call; whoever owns this keeps `first` and `end` elsewhere."""
        oldest, end = self.first // PAGE, self.end
        rows = [Row(key, page, None) for page in range(self._page, min(oldest, -(-self._written // PAGE)))]
        self._page = oldest
        for page in range(max(self._written, self.first) // PAGE, -(-end // PAGE)):
            low, high = max(self.first, page * PAGE), min(end, (page + 1) * PAGE)
            if high > self._written:
                start = self._gone - self.first
                numbers = self._numbers[low + start : high + start]
                rows.append(Row(key, page, _PLACE.pack(low) + numbers.tobytes()))
        self._written = end
        return rows

    def restore(self, first: int, end: int, pages: Iterable[Row]) -> None:
        """Go on from what was kept."""
        self.first, self._written, self._page = first, end, first // PAGE
        for page in pages:
            if page.value is not None:
                (low,) = _PLACE.unpack_from(page.value)
                numbers = array(self._numbers.typecode, page.value[_PLACE.size :])
                self._numbers.extend(numbers[max(0, first - low) :])
