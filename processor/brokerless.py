"""What stands in for the connection where there is no broker: everything comes over a hub's link."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from processor.types import Message


class Brokerless:
    """A `protocols.Source` on which nothing ever comes, and which `wake` wakes. The pipeline thread, but for `wake`.

    Attributes:
        state: as of a connection.
        online: whether there is a connection: never.
        missing: whether one should be there: never.
        subscribing: whether subscriptions were not answered yet: there are none.
        refused: topic filters that a broker refused: none.
        connects: connections made.
        bytes_read: over them.
    """

    state = "There is no broker."
    online = False
    missing = False
    subscribing = False
    connects = 0
    bytes_read = 0

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self.refused: Mapping[str, str] = {}
        self._woken = threading.Event()

    def read(self, limit: int, timeout: float) -> list[Message]:
        """Wait until woken, or for `timeout` seconds."""
        del limit
        self._woken.wait(timeout)
        self._woken.clear()  # what woke us is looked at before the next wait
        return []

    def serve(self, timeout: float) -> None:
        """Wait as `read` does."""
        self.read(0, timeout)

    def buffered(self, limit: int) -> list[Message]:
        """Return nothing."""
        del limit
        return []

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Nothing: on an input a message is acknowledged when it is read."""

    def renew(self, connection: int) -> None:
        """Nothing."""

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Nothing."""

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, correlation: bytes | None = None
    ) -> None:
        """Nothing."""

    def wake(self) -> None:
        """Make a `read` that waits, or the next one to wait, return. Any thread."""
        self._woken.set()

    def close(self, farewell: Iterable[tuple[str, bytes, bool]] = (), timeout: float = 0.0) -> None:
        """Nothing."""
