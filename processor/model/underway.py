"""Calls of models that are under way, so that another thread can end one that would never end by itself."""

from __future__ import annotations

import time
from typing import Final

import onnxruntime

LONGEST: Final = 60.0
"""Seconds that a call may take where somebody looks; a loop in a model may have any number of turns."""


class Call:
    """A model's call, one at a time.

    Attributes:
        options: with which ONNX Runtime is called.
        was_ended: whether the last one was ended by `end_long_ones`.
    """

    def __init__(self) -> None:
        """Nothing is under way."""
        self.options = onnxruntime.RunOptions()
        self.was_ended = False
        self._since = 0.0

    def __enter__(self) -> None:
        """Begin."""
        self._since = time.monotonic()
        _underway.add(self)

    def __exit__(self, *_: object) -> None:
        """End, however it went."""
        _underway.discard(self)
        if self.options.terminate:
            self.options, self.was_ended = onnxruntime.RunOptions(), True

    def end_if_long(self, now: float) -> None:
        """End it where it has taken too long. Another thread."""
        if now - self._since > LONGEST:
            self.options.terminate = True


_underway: Final[set[Call]] = set()


def end_long_ones() -> None:
    """Have every other thread's call that takes too long raise."""
    now = time.monotonic()
    for call in tuple(_underway):
        call.end_if_long(now)
