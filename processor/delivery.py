"""One thread a bridge: takes samples from the outbox to the other side, and says there when they arrived."""

from __future__ import annotations

import logging
import sqlite3
import threading
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from processor.database import is_damaged
from processor.errors import BridgeError
from processor.ledger import FIRST_DELAY, Ledger, jittered, next_delay
from processor.outbox import Claim, Outbox, Waiting
from processor.protocols import Bridge, Clock

log = logging.getLogger(__name__)

_NOTHING_TO_DO: Final = 3600.0
"""Seconds to wait when nothing waits; a notification ends it."""
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

    def __init__(self, name: str, bridge: Bridge, outbox: Outbox, clock: Clock) -> None:
        """Prepare; `run` is the thread."""
        self.name = name
        self.state = BridgeState()
        self._bridge = bridge
        self._outbox = outbox
        self._clock = clock
        self._ledger = Ledger(name, outbox, clock)
        self._wake = threading.Event()
        self._stopping = False
        self._flush_wanted = 0
        self._flush_done = 0
        self._since: float | None = None  # when the oldest unclaimed sample was first seen

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
        self._ledger.deadline = self._clock.monotonic() + _AT_THE_END
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        """Deliver until told to stop. The delivery thread.

        Raises:
            StateDamaged: the database is damaged.
        """
        self._outbox.open(claims=self._bridge.shipment.claims > 0)
        delay = 0.0
        try:
            while True:
                self._wake.clear()  # before looking: what comes after that wakes us again
                flush, stopping = self._flush_wanted, self._stopping
                said, holds = self._ledger.said, self._ledger.holds
                try:
                    pause = self._round(at_once=stopping or flush > self._flush_done)
                    delay = 0.0
                    self._went_well()
                except (BridgeError, sqlite3.Error) as error:
                    if isinstance(error, sqlite3.Error) and is_damaged(error):
                        raise self._outbox.explain(error) from error  # the next start mends it; trying again does not
                    # A delivery that got on before it failed is no failure in a row.
                    delay = next_delay(delay if self._ledger.said == said else 0.0)
                    pause = jittered(delay)
                    self._failed(error, pause)
                self._count()
                self.state.failures += self._ledger.holds - holds
                if pause > 0:
                    self._flush_done = flush
                    if stopping:
                        return
                    self._wait(pause, backing_off=delay > 0)
                elif self._ledger.seconds_left() <= 0:
                    return
        finally:
            self._bridge.close()
            self._outbox.close()

    def _went_well(self) -> None:
        complaint = self._ledger.complaint()
        if self.state.error is not None and complaint is None:
            log.info("Bridge %r delivers again.", self.name)
        self.state.error = complaint

    def _failed(self, error: Exception, pause: float) -> None:
        self.state.failures += 1
        text = str(error)
        if isinstance(error, sqlite3.Error):
            text = f"the state cannot be written ({error}); what has arrived is not sent again meanwhile"
        elif complaint := self._ledger.complaint():
            text = f"{complaint}; {text}"  # some brokers end the connection over what they do not take
        if text != self.state.error:
            log.warning(
                "Bridge %r: %s; trying again in %.1f s, and on. Samples wait in the outbox.", self.name, text, pause
            )
        self.state.error = text

    def _count(self) -> None:
        self.state.delivered = self._outbox.confirmed
        self.state.waiting = self._outbox.waiting

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
            self._count()
            self._bridge.idle()

    def _round(self, *, at_once: bool) -> float:
        """Make one delivery if one is due; return the seconds until the next may be, 0 for at once."""
        self._ledger.settle()
        claims = self._outbox.claimed(max(self._bridge.shipment.claims, 1))
        if not claims:
            if not self._outbox.waiting:
                self._since = None
                self._ledger.forget_holds()
                return _NOTHING_TO_DO
            now = self._clock.monotonic()
            if self._since is None:
                self._since = now
            if not self._due(at_once=at_once):
                return max(0.01, self._since + self._bridge.shipment.linger - now)
            claims = self._choose()
            if not claims:
                return min(self._ledger.seconds_until_retry(), _NOTHING_TO_DO)
        said = self._ledger.said
        try:
            self._bridge.deliver(claims, self._ledger)
        finally:
            self._ledger.settle()
        return 0.0 if self._ledger.said > said else FIRST_DELAY

    def _due(self, *, at_once: bool) -> bool:
        shipment = self._bridge.shipment
        if at_once or not shipment.linger or self._outbox.waiting_bytes >= shipment.max_bytes:
            return True
        return self._since is not None and self._clock.monotonic() >= self._since + shipment.linger

    def _choose(self) -> list[Claim]:
        """Put together what leaves next; nothing when all that waits is held."""
        shipment, bridge = self._bridge.shipment, self._bridge
        parts = max(shipment.claims, 1)
        waiting = self._outbox.peek(shipment.samples * parts, shipment.max_bytes * parts, self._ledger.held())
        if not waiting:
            return []
        if not shipment.claims:
            return [Claim(0, "", list(takewhile(lambda sample: bridge.together(waiting[0], sample), waiting)))]
        parcels = self._pack(waiting)
        claims = self._outbox.claim([(bridge.name(parcel[0]), parcel) for parcel in parcels])
        if sum(map(len, parcels)) == len(waiting):
            self._since = None
        return claims

    def _pack(self, waiting: list[Waiting]) -> list[list[Waiting]]:
        """Sort samples into parcels of what goes together, within the bounds of each and of their number."""
        shipment, together = self._bridge.shipment, self._bridge.together
        parcels: list[list[Waiting]] = []
        filling: list[int] = []  # which of them take more
        room: list[int] = []  # bytes that each can still take
        for sample in waiting:
            at = next((at for at in filling if together(parcels[at][0], sample)), None)
            if at is not None and (sample.size > room[at] or len(parcels[at]) >= shipment.samples):
                filling.remove(at)
                at = None
            if at is None:
                if len(parcels) == shipment.claims:
                    continue
                at = len(parcels)
                parcels.append([])
                filling.append(at)
                room.append(shipment.max_bytes)
            parcels[at].append(sample)
            room[at] -= sample.size
        return parcels
