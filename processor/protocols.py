"""The seams: one Protocol each, with what an implementation may and may not do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from processor.admission import ROW_OVERHEAD
from processor.conditions.memory import Row
from processor.outbox import Claim, Waiting
from processor.types import Array, Decoded, Message, OutputKind, Predictions, Times


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

    def renew(self, connection: int) -> None:
        """Make a connection anew, if it is still the present one: the broker sends again what was not acknowledged."""
        ...

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Ask the broker to send nothing more for `filters`. Never blocks; does nothing while disconnected."""
        ...

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, correlation: bytes | None = None
    ) -> None:
        """Queue one message of our own. Never blocks; while disconnected QoS 0 is dropped."""
        ...


class Decoder(Protocol):
    """Turns payloads of one format into readings. Pure: no clock, no I/O."""

    def decode(self, payloads: Sequence[bytes], arrivals: Times, topics: Sequence[str]) -> Decoded:
        """Decode N payloads at once.

        Args:
            payloads: N payloads of one source, in arrival order.
            arrivals: (N,) when each was read, nanoseconds since the Unix epoch.
            topics: N topics that they came on.

        Never raises for anything in a payload: a payload gives readings, a Failure of what could not be used, or both;
        nothing at all only where it holds nothing for this source. Time and memory are bounded by its size.
        """
        ...


@runtime_checkable
class RememberingDecoder(Decoder, Protocol):
    """A decoder for which what came before matters. What it remembers is on disk with the batch, and is bounded."""

    def changes(self) -> list[Row]:
        """Return the rows that changed since the last call, each once."""
        ...

    def restore(self, rows: Sequence[Row]) -> None:
        """Go on from what `changes` returned over the time, ordered by key and part. Called once, before anything."""
        ...


class Model(Protocol):
    """A loaded model. Called by the pipeline thread only."""

    name: str
    sha256: str
    kind: OutputKind
    labels: tuple[str, ...]

    @property
    def seconds_per_window(self) -> float:
        """About what a window takes, in a call as large as they get."""
        ...

    def infer(self, values: Array) -> Predictions:
        """Judge W windows.

        Args:
            values: (W, size, C) raw channel values, float64; of images (W, height, width, C) bytes.

        A row's answer does not depend on the other rows or on W. Raises ModelError when the model fails.
        """
        ...


class Shipment(NamedTuple):
    """How a bridge wants its samples put together; looked at before each delivery, so that it may change."""

    samples: int
    """The most in one claim; without claims, in one delivery."""
    max_bytes: int
    """The most bytes they have, one sample excepted."""
    linger: float
    """Seconds a smaller one waits for company: a claim since its oldest sample was first seen."""
    claims: int = 0
    """The most claims in one delivery. What a claim holds is fixed in the store first, under a name, so that a retry is
    identical, also after a crash. 0: nothing is claimed; what waits is delivered as it comes."""
    overhead: int = ROW_OVERHEAD
    """Bytes that each sample counts for beside its event."""


class Handover(Protocol):
    """What a bridge may ask, and has to say, about the samples of one delivery; for its delivery thread only.

    What is said is on disk soon, at the latest when the delivery ends. Where the store cannot take note of it, because
    the disk is full, that is tried again until it can, and nothing is delivered meanwhile: what was said counts, and is
    forgotten only by a crash. None of this raises because of the store's state, but for `events`.
    """

    def seconds_left(self) -> float:
        """Return how long the delivery may still take; drops to a second or two when the process is told to stop."""
        ...

    def events(self, samples: Sequence[Waiting]) -> Iterator[tuple[Waiting, bytes]]:
        """Yield samples with their events, read as they are asked for; those that have aged out are left out."""
        ...

    def confirm(self, claim: Claim, samples: Sequence[Waiting] | None = None) -> None:
        """Say that samples are safe on the other side.

        Args:
            claim: that they belong to.
            samples: some of it; absent: all, and after a crash all of them are confirmed, or none.
        """
        ...

    def refuse(self, sample: Waiting, why: str) -> None:
        """Say, as a clause, why the other side will never take this sample: it becomes a dead letter, counted lost."""
        ...

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Keep something for the bridge's next start, in place of what was kept before.

        It is written with the next confirmation, at the latest when the delivery ends. The last one may be lost in a
        power cut.
        """
        ...

    def hold(self, sample: Waiting, why: str) -> None:
        """Say that the other side does not take samples of this one's rule, and that an operator there can mend it.

        They wait and are given again with growing pauses; those of other rules are not affected. Nothing that is
        claimed can be held. `why` is a clause that names the place and what to do.
        """
        ...


class Bridge(Protocol):
    """Where samples go.

    Made on any thread, without touching the other side: a processor starts whatever its bridges' other sides do.
    Everything else is called by the bridge's own delivery thread, one call at a time.

    A delivery is a call of `deliver`. It may keep as many sends in flight as it likes, and need not keep the samples'
    order. Those about which it said nothing, because it raised or for whatever reason, are given again: soon when it
    returned, after a pause when it raised, which grows while it gets nowhere. At a crash what was confirmed last may
    be forgotten, and comes again with the same ids, in a claim under the same name: a bridge makes a repeat
    recognisable, or harmless.
    """

    shipment: Shipment

    def together(self, first: Waiting, other: Waiting) -> bool:
        """Return whether `other` may be in one claim, or one delivery, with `first`. Pure."""
        ...

    def name(self, first: Waiting) -> str:
        """Return a name, never given before and not empty, for a claim that begins with `first`."""
        ...

    def deliver(self, claims: Sequence[Claim], handover: Handover) -> None:
        """Deliver the samples of claims, and tell `handover` of each what became of it.

        May block: for a connection, acknowledgements or a rate limit, as long as `handover.seconds_left()` is positive
        and for not much longer than a second after. It decides itself when the other side is to be given up: when
        nothing has moved for a while, not when much takes long.

        Args:
            claims: at least one and at most `shipment.claims`; without claims one, with the number 0.
            handover: for the time of this call.

        Raises:
            BridgeError: the other side, as a whole, cannot be reached or does not take what it should; the text is a
                clause for an operator. What was told to `handover` before stands.
        """
        ...

    def idle(self) -> str | None:
        """Keep a connection alive between deliveries. Called about once a second; neither blocks nor raises.

        Returns:
            What is known to be wrong with the other side, as a clause; None where nothing is.
        """
        ...

    def figures(self) -> Mapping[str, float]:
        """Return what it counts itself, by the names of metrics.BRIDGE_FIGURES. Any thread; does not block."""
        ...

    def close(self) -> None:
        """Give back what it holds. Does not raise; may follow a failure, and comes once, after everything else."""
        ...
