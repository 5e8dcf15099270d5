"""One thread a bridge: takes samples from the outbox to the other side, and says there when they arrived."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from processor.errors import BridgeError
from processor.outbox import Claim, Outbox, Totals, Waiting
from processor.protocols import Bridge, Clock

log = logging.getLogger(__name__)

_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 30.0
_PATIENCE: Final = 30.0
"""Seconds one delivery may take."""
_AT_THE_END: Final = 2.0
"""Seconds for what is left when the process stops; the rest stays in the outbox."""


@dataclass(slots=True)
class BridgeState:
    """What a delivery thread says of itself; written by it, read by anyone.

    Attributes:
        delivered: samples confirmed since the start.
        failures: deliveries that failed since the start.
        waiting: samples not confirmed yet.
        error: why the last delivery failed; None when it did not.
    """

    delivered: int = 0
    failures: int = 0
    waiting: int = 0
    error: str | None = None


class Delivery:
    """Drains the outbox into one bridge."""

    def __init__(self, name: str, bridge: Bridge, outbox: Outbox, totals: Totals, clock: Clock) -> None:
        """Prepare; `run` is the thread."""
        self.name = name
        self.state = BridgeState()
        self._bridge = bridge
        self._outbox = outbox
        self._totals = totals
        self._clock = clock
        self._wake = threading.Event()
        self._stopping = False
        self._flush_wanted = 0
        self._flush_done = 0
        self._since: float | None = None  # when the oldest unclaimed sample was first seen
        self._counted = self._measured = float("-inf")
        self._full = False
        self._deadline = float("inf")

    def notify(self) -> None:
        """There may be something new. Any thread."""
        self._wake.set()

    def flush(self) -> int:
        """Ask for everything to be delivered now; returns a number for `flushed`. Any thread."""
        self._flush_wanted += 1
        self._wake.set()
        return self._flush_wanted

    def flushed(self, number: int) -> bool:
        """Whether everything from before that flush was tried. Any thread."""
        return self._flush_done >= number

    def stop(self) -> None:
        """Deliver what can be delivered soon, then end. Any thread."""
        self._deadline = self._clock.monotonic() + _AT_THE_END
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        """Deliver until told to stop. The delivery thread."""
        self._outbox.open()
        delay = 0.0
        try:
            while True:
                self._wake.clear()  # before looking: what comes after that wakes us again
                flush, stopping = self._flush_wanted, self._stopping
                try:
                    pause = self._round(at_once=stopping or flush > self._flush_done)
                    delay = 0.0
                    self.state.error = None
                except (BridgeError, sqlite3.Error) as error:
                    delay = min(max(_FIRST_DELAY, 2 * delay), _LONGEST_DELAY)
                    pause = delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
                    self._flush_done = flush
                    self._failed(error, pause)
                    if stopping:
                        return
                if pause > 0:
                    self._flush_done = flush
                    if stopping:
                        return
                    self._wait(pause, backing_off=delay > 0)
                elif self._clock.monotonic() >= self._deadline:
                    return
        finally:
            self._bridge.close()
            self._outbox.close()

    def _failed(self, error: Exception, pause: float) -> None:
        self.state.failures += 1
        text = str(error)
        if text != self.state.error:
            log.warning(
                "Bridge %r: %s; trying again in %.1f s, and on. Samples wait in the outbox.", self.name, text, pause
            )
        self.state.error = text

    def _wait(self, seconds: float, *, backing_off: bool) -> None:
        """Wait for news; new samples do not end a pause after a failure, a stop does."""
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            if self._wake.wait(min(left, 1.0)):
                self._wake.clear()
                # While samples gather for a delivery that is due later, more of them change nothing.
                news = not backing_off and (self._since is None or self._due(at_once=False))
                if news or self._stopping or self._flush_wanted > self._flush_done:
                    return
            self._bridge.idle()

    def _round(self, *, at_once: bool) -> float:
        """Make one delivery if one is due; return the seconds until the next may be, 0 for at once."""
        shipment = self._bridge.shipment
        claim = self._outbox.claimed() if shipment.claimed else None
        if claim is None:
            waiting = self._outbox.peek(shipment.samples if self._due(at_once=at_once) else 1, shipment.max_bytes)
            if not waiting:
                self._since = None
                self.state.waiting = 0
                return 3600.0
            now = self._clock.monotonic()
            if self._since is None:
                self._since = now
            if not self._due(at_once=at_once):
                self._count()
                return max(0.01, self._since + shipment.linger - now)
            claim = self._claim(waiting)
        give_up = self._clock.monotonic() + _PATIENCE
        try:
            self._bridge.deliver(
                claim.name,
                self._outbox.events(claim.samples),
                lambda: min(give_up, self._deadline) - self._clock.monotonic(),
            )
        except BridgeError as error:
            confirmed = set(error.confirmed)
            done = [sample for sample in claim.samples if sample.seq in confirmed]
            self._confirm(done, None)
            raise
        self._confirm(claim.samples, claim.number if shipment.claimed else None)
        return 0.0

    def _due(self, *, at_once: bool) -> bool:
        shipment = self._bridge.shipment
        if at_once or not shipment.linger or self._is_full(shipment.max_bytes):
            return True
        return self._since is not None and self._clock.monotonic() >= self._since + shipment.linger

    def _is_full(self, max_bytes: int) -> bool:
        """Whether a whole delivery waits; looked up at most once a second, and only when the outbox holds as much."""
        if self._totals.bytes < max_bytes:
            return False
        now = self._clock.monotonic()
        if now >= self._measured + 1.0:
            self._measured = now
            self._full = self._outbox.waiting_bytes() >= max_bytes
        return self._full

    def _claim(self, waiting: list[Waiting]) -> Claim:
        first = waiting[0]
        chosen = [sample for sample in waiting if self._bridge.together(first, sample)]
        if not self._bridge.shipment.claimed:
            return Claim(0, "", list(takewhile(lambda sample: self._bridge.together(first, sample), waiting)))
        self._measured = float("-inf")
        claim = self._outbox.claim(chosen, self._bridge.name(first))
        if len(chosen) == len(waiting):
            self._since = None
        return claim

    def _confirm(self, samples: list[Waiting], claim: int | None) -> None:
        if samples or claim is not None:
            self._outbox.confirm(samples, claim)
        self.state.delivered += len(samples)
        self._count()

    def _count(self) -> None:
        """Count what waits, at most once a second: with a million samples it takes a while."""
        now = self._clock.monotonic()
        if now >= self._counted + 1.0:
            self._counted = now
            self.state.waiting = self._outbox.waiting()
