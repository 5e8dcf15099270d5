"""How many of a kind may pass: so many a second, and those saved up in quiet times."""

from __future__ import annotations

from collections.abc import Callable


class Allowance:
    """A token bucket; full at first. Whoever shares one between threads locks it."""

    def __init__(self, monotonic: Callable[[], float], per_second: float, most: int) -> None:
        """Fill it.

        Args:
            monotonic: the time in seconds.
            per_second: how many more may pass each second.
            most: how many may pass at once, after a quiet time.
        """
        self._monotonic = monotonic
        self._per_second = per_second
        self._most = most
        self._left = float(most)
        self._at = monotonic()

    def take(self, wanted: int) -> int:
        """Return how many of those `wanted` may pass now."""
        self._refill()
        taken = min(wanted, int(self._left))
        self._left -= taken
        return taken

    def is_full(self) -> bool:
        """Tell whether it is as it was at first, so that a new one would do as well."""
        self._refill()
        return self._left >= self._most

    def _refill(self) -> None:
        now = self._monotonic()
        self._left = min(self._left + (now - self._at) * self._per_second, self._most)
        self._at = now
