"""The adaptive band: `keep` the most extreme share of the last scores."""

from __future__ import annotations

import math
import struct
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np

from processor.conditions.memory import HEAD, Row, Tail
from processor.types import Flags, Floats

_STRETCH: Final = 200
"""Windows in a row that may not hold more than three times the share."""
_HEAD: Final = struct.Struct(f"<qqd{_STRETCH // 8}s")
_STEEPNESS: Final = 8.0


class AdaptiveBand:
    """Keeps `share` of the scores it is asked about: the most extreme among the last `over`.

    A plain quantile keeps nothing or everything where scores are tied, and everything after a step. Here a score's rank
    r, ties broken by a number of its own, is compared with a threshold that a credit moves: every score adds `share` to
    the credit, every score kept takes 1 from it. Scores are kept while

        credit >= 1  and  r < share * 2^(steepness * (credit - d / 2) / d),  d = max(200 * share, 2),

    so that the threshold is the share itself while the share is met, nothing is kept that would exceed it by much, and
    any score is kept once it falls short by much. The credit stays between 0 and d (1/2 + log2(1 / share) / steepness),
    at which the threshold is 1; so the number kept never differs by more than that from the share of all.
    """

    def __init__(self, share: float, of: Literal["highest", "lowest"], over: int) -> None:
        """Keep `share`, 0 < share <= 1, of the scores."""
        self._share = share
        self._sign = -1.0 if of == "highest" else 1.0  # the most extreme is the lowest
        self._over = over
        width = max(_STRETCH * share, 2.0)
        self._middle = width / 2
        # Steeper where the share is small, so that the number kept is within 2 of the share of all.
        self._slope = max(_STEEPNESS, 1.1 * -math.log2(share)) / width
        self._credit = self._middle
        # A window and the 199 before it may hold so many; a share under 1/600 has one all the same.
        self._most = max(1, math.floor(3 * _STRETCH * share))
        self._kept = 0  # a bit for each of the last scores, the newest is the lowest
        self._scores = Tail("d")
        self._ordered: list[float] = []

    def judge(self, scores: Floats, uniform: Callable[[int], float]) -> Flags:
        """Return which of N scores to keep, in their order; one that is not a number is not kept, and does not count.

        Args:
            scores: (N,).
            uniform: the number in [0, 1), by position, that breaks ties; asked only where it matters.
        """
        kept = np.zeros(len(scores), np.bool_)
        for position, score in enumerate((self._sign * scores).tolist()):
            if score == score:  # noqa: PLR0124 - NaN is not equal to itself
                kept[position] = self._keeps(score, position, uniform)
        return kept

    def _keeps(self, score: float, position: int, uniform: Callable[[int], float]) -> bool:
        ordered, scores = self._ordered, self._scores
        if len(ordered) == self._over:
            del ordered[bisect_left(ordered, scores[0])]
            scores.drop()
        insort(ordered, score)
        scores.append(score)
        self._credit += self._share
        self._kept = (self._kept << 1) & _MASK
        if self._credit < 1.0 or self._kept.bit_count() >= self._most:
            return False
        threshold = len(ordered) * self._share * 2.0 ** (self._slope * (self._credit - self._middle))
        more = bisect_left(ordered, score)
        if more >= threshold:
            return False
        equal = bisect_right(ordered, score, more) - more
        if more + equal > threshold and more + uniform(position) * equal >= threshold:
            return False
        self._credit -= 1.0
        self._kept |= 1
        return True

    def changes(self) -> list[Row]:
        """Return the rows that changed since the last call."""
        pages = self._scores.changes("")
        if not pages:
            return []
        kept = self._kept.to_bytes(_STRETCH // 8, "little")
        return [Row("", HEAD, _HEAD.pack(self._scores.first, self._scores.end, self._credit, kept)), *pages]

    def restore(self, rows: Sequence[Row]) -> None:
        """Go on from an earlier run's rows."""
        if rows:
            head, *pages = rows
            first, end, self._credit, kept = _HEAD.unpack(head.value or b"")
            self._kept = int.from_bytes(kept, "little")
            self._scores.restore(first, end, pages)
            self._ordered = sorted(self._scores[at] for at in range(len(self._scores)))


_MASK: Final = (1 << _STRETCH) - 1
