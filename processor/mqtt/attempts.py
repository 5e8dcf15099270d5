"""Attempts to connect: when the next one is due, and a thread for each so that none holds up the pipeline."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from processor.protocols import Clock

_FIRST_BACKOFF = 0.5
"""Seconds that the second attempt waits at most; doubled for each further one."""
_LONGEST_BACKOFF = 30.0
_DOUBLINGS = 6
"""From the first backoff to the longest."""


class Attempts:
    """Exponential backoff with full jitter: processors that lost one broker together do not come back together.

    The pipeline thread calls everything here. Between `start` and `take_result` what `connect` uses belongs to the
    attempt's thread, which ends with the attempt.
    """

    def __init__(self, connect: Callable[[], object], clock: Clock, on_finished: Callable[[], None]) -> None:
        """Attempt with `connect`, which may block and raise; the attempt's thread calls `on_finished` when it has."""
        self._connect = connect
        self._clock = clock
        self._on_finished = on_finished
        self._thread: threading.Thread | None = None
        self._finished = threading.Event()
        self._error: Exception | None = None
        self._failures = 0
        self._due = 0.0

    @property
    def running(self) -> bool:
        """An attempt has been started and its result not been taken."""
        return self._thread is not None

    @property
    def finished(self) -> bool:
        """An attempt's result is there to be taken."""
        return self._thread is not None and self._finished.is_set()

    def seconds_until_due(self) -> float:
        """Return how long to wait before the next attempt; 0 when it is time."""
        return max(self._due - self._clock.monotonic(), 0.0)

    def start(self) -> None:
        """Start an attempt."""
        self._finished.clear()
        self._thread = threading.Thread(target=self._run, name="mqtt-connect", daemon=True)
        self._thread.start()

    def take_result(self) -> Exception | None:
        """Return what the finished attempt raised; None when it has connected."""
        error, self._error, self._thread = self._error, None, None
        return error

    def forget_failures(self) -> None:
        """Begin again with the shortest backoff: a connection has proved good."""
        self._failures = 0

    def wait_longest(self) -> None:
        """Continue with the longest backoff: what is wrong will take somebody's work."""
        self._failures = _DOUBLINGS

    def schedule(self) -> None:
        """Set when the next attempt is due: there is no connection any more, or none yet."""
        longest = min(_FIRST_BACKOFF * 2**self._failures, _LONGEST_BACKOFF)
        self._due = self._clock.monotonic() + random.uniform(0, longest)  # noqa: S311 - jitter is no secret
        self._failures = min(self._failures + 1, _DOUBLINGS)

    def _run(self) -> None:
        """The whole work of an attempt's thread."""
        try:
            self._connect()
        except Exception as error:  # noqa: BLE001 - the pipeline thread tells it, whatever a network has answered
            self._error = error
        self._finished.set()
        self._on_finished()
