"""The seams: one Protocol each, with what an implementation may and may not do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from processor.outbox import Waiting
from processor.types import Decoded, Floats, Message, OutputKind, Predictions, Times


class Clock(Protocol):
    """Where time comes from."""

    def wall(self) -> int:
        """Return nanoseconds since the Unix epoch; may jump in either direction."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back; for deadlines only."""
        ...


class Source(Protocol):
    """Where messages come from and where their acknowledgement goes. Called by the pipeline thread only."""

    def read(self, limit: int, timeout: float) -> list[Message]:
        """Return up to `limit` messages that have arrived, in the order they were sent.

        Waits at most `timeout` seconds for the first and not at all for more. Empty means that nothing came.
        Keeps the connection alive and makes it again with backoff; raises BrokerError only when that is hopeless.
        """
        ...

    def serve(self, timeout: float) -> None:
        """Keep the connection alive for `timeout` seconds without reading from it."""
        ...

    def buffered(self, limit: int) -> list[Message]:
        """Return up to `limit` messages that were read from the socket already, without touching it."""
        ...

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Tell the broker that `messages` need not be sent again. Never blocks; skips those of a lost connection."""
        ...

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, correlation: bytes | None = None
    ) -> None:
        """Queue one message of our own. Never blocks; while disconnected QoS 0 is dropped."""
        ...


class Decoder(Protocol):
    """Turns payloads of one format into readings. Pure: no clock, no I/O, no state between calls."""

    def decode(self, payloads: Sequence[bytes], arrivals: Times) -> Decoded:
        """Decode N payloads at once.

        Args:
            payloads: N payloads of one source, in arrival order.
            arrivals: (N,) when each was read, nanoseconds since the Unix epoch.

        Never raises for anything in a payload: a payload gives readings or exactly one Failure.
        """
        ...


class Model(Protocol):
    """A loaded model. Called by the pipeline thread only."""

    name: str
    sha256: str
    kind: OutputKind
    labels: tuple[str, ...]

    def infer(self, values: Floats) -> Predictions:
        """Judge W windows.

        Args:
            values: (W, size, C) raw channel values.

        A row's answer does not depend on the other rows or on W. Raises ModelError when the model fails.
        """
        ...


class Shipment(NamedTuple):
    """How a bridge wants its samples put together."""

    samples: int
    """The most in one delivery."""
    max_bytes: int
    """The most bytes in one delivery, one sample excepted."""
    linger: float
    """Seconds a smaller delivery waits for company."""
    claimed: bool
    """Whether what goes together is fixed in the store first, so that a retry is identical."""


class Bridge(Protocol):
    """Where samples go. Made on any thread; everything else is called by its delivery thread only."""

    shipment: Shipment

    def together(self, first: Waiting, other: Waiting) -> bool:
        """Return whether `other` may leave in one delivery with `first`."""
        ...

    def name(self, first: Waiting) -> str:
        """Return a new name for a claimed delivery that begins with `first`."""
        ...

    def deliver(
        self, name: str, samples: Iterable[tuple[Waiting, bytes]], seconds_left: Callable[[], float]
    ) -> Mapping[int, str]:
        """Deliver samples with their events, in order; return when each is safe on the other side, or refused for good.

        May block while `seconds_left` is positive; it can drop at any time, when the process is told to stop. What was
        confirmed is never given again by this process, even when the store cannot take note of it at once; after a
        crash it may be.

        Returns:
            Why, by `Waiting.seq`, for samples that the other side will never take: they become dead letters. What an
            operator there may mend is not among them.

        Raises:
            BridgeError: not all were confirmed. What it names as confirmed or refused is settled, the rest comes again
                after a pause.
        """
        ...

    def idle(self) -> None:
        """Keep a connection alive while there is nothing to deliver. Called about once a second; never blocks."""
        ...

    def close(self) -> None:
        """Give back what it holds. Does not raise."""
        ...
