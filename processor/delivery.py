"""One thread a bridge: takes samples from the outbox to the other side, and says there when they arrived."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from processor.errors import BridgeError
from processor.gathering import Gathering
from processor.ledger import FIRST_DELAY, Ledger, jittered, next_delay
from processor.outbox import Claim, Outbox
from processor.protocols import Bridge, Clock

log = logging.getLogger(__name__)

_NOTHING_TO_DO: Final = 3600.0
"""Seconds to wait when nothing waits; a notification ends it."""
_IDLE: Final = 1.0
"""Seconds between two looks at a bridge that has nothing to deliver."""
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
        self._gathering = Gathering(bridge)

    def notify(self) -> None:
        """There may be something new. Any thread."""
        self._wake.set()

    def figures(self) -> Mapping[str, float]:
        """Return what the bridge counts itself. Any thread."""
        return self._bridge.figures()

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
            StateError: the state is damaged, or cannot be opened.
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
                except (BridgeError, sqlite3.Error) as error:
                    if isinstance(error, sqlite3.Error):
                        self._outbox.raise_if_hopeless(error)
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
            trouble = self._bridge.idle()
            if not backing_off:
                self._look_at(trouble)
            woken = self._wake.wait(min(left, _IDLE, self._seconds_until_due() or _IDLE))
            if woken:
                self._wake.clear()
            # While samples gather for a delivery that is due later, more of them change nothing.
            news = not backing_off and (woken or self._gathering.bytes) and not self._seconds_until_due()
            if news or self._stopping or self._flush_wanted > self._flush_done:
                return
            self._count()

    def _look_at(self, trouble: str | None) -> None:
        """Say what a bridge has noticed while nothing was to be delivered."""
        text = "; ".join(filter(None, (self._ledger.complaint(), trouble))) or None
        if trouble is not None and text != self.state.error:
            log.warning("Bridge %r: %s.", self.name, trouble)
        elif text is None and self.state.error is not None:
            log.info("Bridge %r works again.", self.name)
        self.state.error = text

    def _seconds_until_due(self) -> float:
        return self._gathering.seconds_until_due(self._outbox.waiting_bytes, self._clock.monotonic())

    def _round(self, *, at_once: bool) -> float:
        """Make one delivery if one is due; return the seconds until the next may be, 0 for at once."""
        self._ledger.settle()
        most = max(self._bridge.shipment.claims, 1)
        claims = self._outbox.claimed(most)
        if not claims and not self._outbox.waiting:
            self._gathering.forget()
            self._ledger.forget_holds()
            return _NOTHING_TO_DO
        pause = 0.0
        if len(claims) < most:  # else what is claimed already leaves first
            chosen, pause = self._choose(most - len(claims), at_once=at_once)
            claims += chosen
        if not claims:
            return pause
        said = self._ledger.said
        try:
            self._bridge.deliver(claims, self._ledger)
        finally:
            self._ledger.settle()
        self._went_well()
        return 0.0 if self._ledger.said > said else FIRST_DELAY

    def _choose(self, free: int, *, at_once: bool) -> tuple[list[Claim], float]:
        """Put together what leaves next: up to `free` claims, or what is delivered without.

        Returns:
            The claims, and where there are none the seconds until there may be.
        """
        shipment, gathering = self._bridge.shipment, self._gathering
        now = self._clock.monotonic()
        pause = 0.0 if at_once else gathering.seconds_until_due(self._outbox.waiting_bytes, now)
        if pause > 0:
            return [], max(0.01, pause)
        while True:
            size = shipment.max_bytes * free + (gathering.bytes if shipment.claims > 1 else 0)
            waiting, more = self._outbox.look(
                shipment.samples * free, size, self._ledger.held(), overhead=shipment.overhead
            )
            if not waiting:
                gathering.forget()
                return [], min(self._ledger.seconds_until_retry(), _NOTHING_TO_DO)
            parcels = gathering.choose(waiting, free, now, more=more, at_once=at_once)
            if not parcels:
                return [], max(0.01, gathering.seconds_until_due(gathering.bytes, now))
            if not shipment.claims:
                return [Claim(0, "", parcels[0])], 0.0
            if claims := self._outbox.claim([(self._bridge.name(parcel[0]), parcel) for parcel in parcels]):
                return claims, 0.0  # else all of it has aged out meanwhile
