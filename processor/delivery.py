"""One thread a bridge: takes samples from the outbox to the other side, and says there when they arrived."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from processor.errors import BridgeError
from processor.outbox import Claim, Outbox, Totals, Waiting
from processor.protocols import Bridge, Clock

log = logging.getLogger(__name__)

_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 30.0
_LOGGED: Final = 10
"""Refused samples of one delivery that are logged; all of them are dead letters."""
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


@dataclass(slots=True)
class _Unsettled:
    """What a bridge has said of samples, and the store has not on disk yet.

    Attributes:
        confirmed: those that arrived.
        refused: those that it will never take, and why.
        claim: the claim that is done with; None where there is none, or more of it to come.
    """

    confirmed: list[Waiting]
    refused: list[tuple[Waiting, str]]
    claim: int | None

    @classmethod
    def of(cls, claim: Claim, confirmed: Collection[int], refused: Mapping[int, str], number: int | None) -> _Unsettled:
        """Sort a claim's samples."""
        samples = claim.samples
        return cls(
            [sample for sample in samples if sample.seq in confirmed],
            [(sample, refused[sample.seq]) for sample in samples if sample.seq in refused],
            number,
        )


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
        self._unsettled: _Unsettled | None = None

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
        self._settle()
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
        try:
            refused = self._bridge.deliver(
                claim.name,
                self._outbox.events(claim.samples),
                lambda: self._deadline - self._clock.monotonic(),
            )
        except BridgeError as error:
            self._unsettled = _Unsettled.of(claim, set(error.confirmed), error.refused, None)
            self._settle()
            raise
        confirmed = {sample.seq for sample in claim.samples} - refused.keys()
        self._unsettled = _Unsettled.of(claim, confirmed, refused, claim.number if shipment.claimed else None)
        self._settle()
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

    def _settle(self) -> None:
        """Take note in the store of what the bridge has said; where that fails, it is tried again first of all."""
        if (settled := self._unsettled) is None:
            return
        if settled.refused:
            self._outbox.bury(settled.refused, self._clock.wall())
            for sample, why in settled.refused[:_LOGGED]:
                log.warning(
                    "Bridge %r cannot deliver sample %s: %s. It is a dead letter now.", self.name, sample.id, why
                )
            settled.refused.clear()
        if settled.confirmed or settled.claim is not None:
            self.state.delivered += self._outbox.confirm(settled.confirmed, settled.claim)
        self._unsettled = None
        self._count()

    def _count(self) -> None:
        """Count what waits, at most once a second: with a million samples it takes a while."""
        now = self._clock.monotonic()
        if now >= self._counted + 1.0:
            self._counted = now
            self.state.waiting = self._outbox.waiting()
