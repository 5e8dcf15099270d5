"""Calls of models that are under way, so that another thread can end one that would never end by itself."""

from __future__ import annotations

import time
from typing import Final

import onnxruntime

LONGEST: Final = 60.0
"""Seconds that a call may take where somebody looks; a loop in a model may have any number of turns."""


class Calls:
    """A model's calls, one at a time.

    Attributes:
        options: with which ONNX Runtime is called.
    """

    def __init__(self) -> None:
        """Nothing is under way."""
        self.options = onnxruntime.RunOptions()
        self._since = 0.0

    def __enter__(self) -> None:
        """Begin one."""
        self._since = time.monotonic()
        _underway.add(self)

    def __exit__(self, *_: object) -> None:
        """End it, however it went."""
        _underway.discard(self)

    @property
    def were_ended(self) -> bool:
        """Whether one took too long; those after it would raise."""
        return bool(self.options.terminate)

    def end_if_long(self, now: float) -> None:
        """Have the one under way raise where it has taken too long. Another thread."""
        if now - self._since > LONGEST:
            self.options.terminate = True


_underway: Final[set[Calls]] = set()


def end_long_ones() -> None:
    """Have every other thread's call that takes too long raise."""
    now = time.monotonic()
    for calls in tuple(_underway):
        calls.end_if_long(now)
