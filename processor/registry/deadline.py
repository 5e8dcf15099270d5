"""The time that a fetch may take, whatever the other side does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from processor.errors import ModelUnavailable

Result = TypeVar("Result")
_GRACE: Final = 1.0
"""Seconds after the deadline for a work that looks at it to end by itself."""


class Deadline:
    """When a piece of work has to be done; on the monotonic clock. Any thread."""

    def __init__(self, seconds: float, what: str) -> None:
        """Begin to count; `what` it is goes into the error, as `oci://… was not there`."""
        self._end = time.monotonic() + seconds
        self._sentence = f"{what} after {seconds:g} s (model.registry.timeout)"
        self._abandoned = threading.Event()
        self._ends: list[Callable[[], None]] = []

    @property
    def left(self) -> float:
        """Seconds that are left, 0 at least."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise ModelUnavailable where the time is over."""
        if self._abandoned.is_set() or not self.left:
            raise ModelUnavailable(self._sentence)

    def at_the_end(self, end: Callable[[], None]) -> None:
        """Have `end` called, in another thread, when the work is abandoned or done."""
        self._ends.append(end)

    def abandon(self) -> None:
        """Let `check` raise from now on."""
        self._abandoned.set()
        for end in self._ends:
            end()


def within(deadline: Deadline, work: Callable[[], Result]) -> Result:
    """Return what `work` does, in a thread of its own, or raise ModelUnavailable at the deadline.

    A name server, a proxy, a TLS handshake or headers that drip can hold a call for longer than any timeout of its
    socket. The thread is then left behind, until what it does `at_the_end` ends it: whatever it still does, it has to
    `check` the deadline before anything counts.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="model-fetch", daemon=True)
    thread.start()
    try:
        thread.join(deadline.left + _GRACE)
    finally:
        deadline.abandon()
    if errors:
        raise errors[0]
    if not results:
        deadline.check()
    return results[0]
