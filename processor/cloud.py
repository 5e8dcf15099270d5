"""Between a hub in the cloud and the pipeline: what the cloud asks for, and what we say to it beside samples.

A hub allows one connection an identity, so twin, methods, inputs and samples share the bridge's. What comes in over it
waits here until the pipeline thread takes it, between two batches, and what the pipeline has to say waits here until
the bridge's thread sends it. Nothing here blocks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

_MOST_REQUESTS: Final = 1000
_MOST_NOTICES: Final = 1000
_MOST_BYTES: Final = 32 << 20
"""Of messages on inputs that were not taken yet."""


class Desired(NamedTuple):
    """The twin's desired properties, or a part of them that changed."""

    properties: Mapping[str, Any]
    complete: bool
    """Whether these are all of them, as after a connect; else what is absent stays, and null removes."""


class Method(NamedTuple):
    """A direct method that somebody in the cloud waits for."""

    name: str
    payload: object
    answer: Callable[[int, Mapping[str, Any]], None]
    """Takes a status and a JSON object; any thread, never blocks, and drops the answer where nobody waits any more."""


class Input(NamedTuple):
    """A message on an input of an IoT Edge module."""

    name: str
    payload: bytes
    arrival: int
    """Nanoseconds since the Unix epoch."""


class Notice(NamedTuple):
    """A message of ours that is no sample. It may be lost: nothing waits for it."""

    body: bytes
    properties: Mapping[str, str]
    output: str | None = None
    """Of an IoT Edge module; None: to the hub itself."""


Request = Desired | Method | Input


@dataclass(slots=True)
class _News:
    """Who is told, on whatever thread it happens."""

    requested: Callable[[], None]
    said: Callable[[], None]


class CloudLink:
    """One bridge's link between its hub and the pipeline. Any thread."""

    def __init__(self) -> None:
        """Start with nothing on either side."""
        self._lock = threading.Lock()
        self._requests: deque[Request] = deque()
        self._bytes = 0  # of the inputs among them
        self._notices: deque[Notice] = deque()
        self._reported: dict[str, Any] | None = None
        self._news = _News(_nothing, _nothing)

    def on_request(self, call: Callable[[], None]) -> None:
        """Name what the pipeline wants called when there is something to `take`; it must not block."""
        self._news.requested = call

    def on_said(self, call: Callable[[], None]) -> None:
        """Name what the bridge wants called when there is something to send; it must not block."""
        self._news.said = call

    def ask(self, request: Request) -> bool:
        """Leave a request for the pipeline; whether there was room for it."""
        size = len(request.payload) if isinstance(request, Input) else 0
        with self._lock:
            if len(self._requests) >= _MOST_REQUESTS or (size and self._bytes + size > _MOST_BYTES):
                return False
            self._requests.append(request)
            self._bytes += size
        self._news.requested()
        return True

    def take(self) -> Request | None:
        """Return the oldest request that was not taken yet. The pipeline thread."""
        with self._lock:
            if not self._requests:
                return None
            request = self._requests.popleft()
            if isinstance(request, Input):
                self._bytes -= len(request.payload)
            return request

    def report(self, properties: dict[str, Any]) -> None:
        """Say what the twin's reported properties are to be, over what was said before. The pipeline thread."""
        with self._lock:
            self._reported = (self._reported or {}) | properties
        self._news.said()

    def notify(self, notice: Notice) -> bool:
        """Leave a message for the bridge to send; whether there was room for it. The pipeline thread."""
        with self._lock:
            if len(self._notices) >= _MOST_NOTICES:
                return False
            self._notices.append(notice)
        self._news.said()
        return True

    def take_reported(self) -> dict[str, Any] | None:
        """Return what is to be reported and was not taken yet; the bridge reports it again where that fails."""
        with self._lock:
            reported, self._reported = self._reported, None
            return reported

    def take_notice(self) -> Notice | None:
        """Return the oldest message that was not taken yet."""
        with self._lock:
            return self._notices.popleft() if self._notices else None


def _nothing() -> None:
    """Tell nobody."""
