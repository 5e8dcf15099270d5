"""What a bridge says of the samples it was given, and how that comes into the store, whatever the disk does."""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from processor.outbox import Claim, Outbox, Waiting
from processor.protocols import Clock

log = logging.getLogger(__name__)

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
_SETTLE_EVERY: Final = 1.0
"""Seconds after which what was said is brought into the store while a delivery goes on."""
_BURIED_AT_ONCE: Final = 50
_LOGGED: Final = 10
"""Refused samples of one delivery that are logged; all of them are dead letters."""


def next_delay(delay: float) -> float:
    """Return the seconds to wait at most after a failure, given those after the one before, 0 for none."""
    return min(max(FIRST_DELAY, 2 * delay), LONGEST_DELAY)


def jittered(delay: float) -> float:
    """Return half the delay to all of it: processors that lost one place together do not come back together."""
    return delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret


@dataclass(slots=True)
class _Hold:
    """A rule whose samples the other side does not take.

    Attributes:
        why: as the bridge said it.
        delay: seconds of the present pause, at most.
        until: when it ends, monotonic seconds.
    """

    why: str
    delay: float
    until: float


class Ledger:
    """A `protocols.Handover` over one bridge's outbox. Used by the delivery thread.

    Attributes:
        deadline: when a delivery has to end, monotonic seconds; set by any thread.
        said: samples of which something was said.
        holds: times that the other side did not take a rule's samples.
    """

    def __init__(self, bridge: str, outbox: Outbox, clock: Clock) -> None:
        """Start with nothing said. `bridge` is its name in the log."""
        self.deadline = float("inf")
        self.said = 0
        self.holds = 0
        self._bridge = bridge
        self._outbox = outbox
        self._clock = clock
        self._claims: list[Claim] = []  # confirmed as a whole
        self._confirmed: list[Waiting] = []
        self._refused: list[tuple[Waiting, str]] = []
        self._settle_at = float("-inf")
        self._held: dict[str, _Hold] = {}

    def seconds_left(self) -> float:
        """See `protocols.Handover`."""
        return self.deadline - self._clock.monotonic()

    def events(self, samples: Sequence[Waiting]) -> Iterator[tuple[Waiting, bytes]]:
        """See `protocols.Handover`."""
        return self._outbox.events(samples)

    def confirm(self, claim: Claim, samples: Sequence[Waiting] | None = None) -> None:
        """See `protocols.Handover`."""
        taken = claim.samples if samples is None else samples
        self.said += len(taken)
        if samples is None and claim.number:
            self._claims.append(claim)
        else:
            self._confirmed += taken
        if self._held:
            for rule in {sample.rule for sample in taken} & self._held.keys():
                del self._held[rule]
                log.info("Bridge %r: samples of rule %r are taken again.", self._bridge, rule)
        self._settle_now_and_then()

    def refuse(self, sample: Waiting, why: str) -> None:
        """See `protocols.Handover`."""
        self.said += 1
        self._refused.append((sample, why))
        self._settle_now_and_then()

    def remember(self, memory: Mapping[str, Any]) -> None:
        """See `protocols.Handover`."""
        self._outbox.remember(memory)

    def hold(self, sample: Waiting, why: str) -> None:
        """See `protocols.Handover`."""
        self.said += 1
        known = self._held.get(sample.rule)
        now = self._clock.monotonic()
        if known is not None and now < known.until:
            return  # said of an earlier sample of this delivery
        delay = next_delay(0.0 if known is None else known.delay)
        self.holds += 1
        self._held[sample.rule] = _Hold(why, delay, now + jittered(delay))
        if known is None or known.why != why:
            log.warning(
                "Bridge %r: %s. Samples of rule %r wait in the outbox and are tried again, at least every %g s; the "
                "others go on.", self._bridge, why, sample.rule, LONGEST_DELAY,
            )  # fmt: skip

    def held(self) -> list[str]:
        """Return the rules whose samples are not to be tried now."""
        now = self._clock.monotonic()
        return [rule for rule, hold in self._held.items() if now < hold.until]

    def seconds_until_retry(self) -> float:
        """Return how long it is until the next held rule may be tried; infinite when there is none."""
        now = self._clock.monotonic()
        return min((hold.until - now for hold in self._held.values() if now < hold.until), default=float("inf"))

    def complaint(self) -> str | None:
        """Return what the other side does not take and why; None when it takes everything."""
        return "; ".join(dict.fromkeys(hold.why for hold in self._held.values())) or None

    def forget_holds(self) -> None:
        """Nothing waits any more: what was held has aged out."""
        self._held.clear()

    def settle(self) -> None:
        """Bring into the store what was said.

        Raises:
            sqlite3.Error: the store cannot take note of it; what is left is kept for the next call.
        """
        self._settle_at = self._clock.monotonic() + _SETTLE_EVERY
        while self._claims:
            self._outbox.confirm(self._claims[0].samples, self._claims[0].number)
            del self._claims[0]
        if self._confirmed:
            self._outbox.confirm(self._confirmed)
            self._confirmed.clear()
        logged = 0
        while some := self._refused[:_BURIED_AT_ONCE]:
            self._outbox.bury(some, self._clock.wall())
            del self._refused[: len(some)]
            for sample, why in some[: _LOGGED - logged]:
                log.warning(
                    "Bridge %r cannot deliver sample %s: %s. It is a dead letter now.", self._bridge, sample.id, why
                )
            logged = min(_LOGGED, logged + len(some))
        self._outbox.write_memory()

    def _settle_now_and_then(self) -> None:
        """Within a delivery a store that cannot take note of anything must not end it; its end will find out."""
        if self._clock.monotonic() >= self._settle_at:
            with suppress(sqlite3.Error):
                self.settle()
