"""Which waiting samples leave together, and when: full parcels at once, others when their oldest has waited enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from processor.admission import ROW_OVERHEAD
from processor.outbox import Waiting
from processor.protocols import Bridge


@dataclass(slots=True)
class _Parcel:
    """Samples of one claim, or of one delivery.

    Attributes:
        samples: in the order they leave.
        room: bytes that it can still take.
        full: whether nothing more goes in.
    """

    samples: list[Waiting]
    room: int
    full: bool = False


class Gathering:
    """What waits for one bridge and for company. The delivery thread.

    How long a parcel has waited is told by its oldest sample, whose number stays the same whatever joins it.

    Attributes:
        bytes: of the samples that were seen and wait on.
    """

    def __init__(self, bridge: Bridge) -> None:
        """Begin with nothing seen."""
        self.bytes = 0
        self._bridge = bridge
        self._since: dict[int, float] = {}  # by the number of a parcel's oldest sample: when it was first seen
        self._due_at = float("-inf")
        self._look_again = float("-inf")  # if something has come
        self._full_at = 0

    def forget(self) -> None:
        """Nothing waits: the next that comes is looked at."""
        self.bytes = 0
        self._since.clear()
        self._due_at, self._full_at = float("-inf"), 0

    def seconds_until_due(self, waiting_bytes: int, now: float) -> float:
        """Return the seconds until something may leave; 0: it may now, as far as is known without looking.

        Args:
            waiting_bytes: of all samples, those that are claimed included.
            now: monotonic seconds.
        """
        if not self._bridge.shipment.linger or waiting_bytes >= self._full_at:
            return 0.0
        until = self._due_at if waiting_bytes == self.bytes else min(self._due_at, self._look_again)
        return max(0.0, until - now)

    def choose(
        self, waiting: Sequence[Waiting], free: int, now: float, *, more: bool, at_once: bool
    ) -> list[list[Waiting]]:
        """Return what leaves now, parcel by parcel; the rest is taken note of.

        Args:
            waiting: samples in the order they should leave.
            free: the most parcels.
            now: monotonic seconds.
            more: whether others wait that are not among them.
            at_once: whether none waits for company.
        """
        linger = self._bridge.shipment.linger
        parcels = self._pack(waiting)
        if more and not any(parcel.full for parcel in parcels):
            parcels[0].full = True  # what is needed to fill it is there, but so much is not looked at
        since = {id(parcel): self._since.get(_oldest(parcel), now) for parcel in parcels}
        leaving = [parcel for parcel in parcels if at_once or parcel.full or since[id(parcel)] + linger <= now][:free]
        left = {id(parcel) for parcel in leaving}
        staying = [parcel for parcel in parcels if id(parcel) not in left]
        self._since = {_oldest(parcel): since[id(parcel)] for parcel in staying}
        self.bytes = sum(sample.size for parcel in staying for sample in parcel.samples)
        self._plan(min((parcel.room for parcel in staying), default=0), now, more=more or len(leaving) == free)
        return [parcel.samples for parcel in leaving]

    def _plan(self, least_room: int, now: float, *, more: bool) -> None:
        """Decide when to look again, at what waits then."""
        shipment = self._bridge.shipment
        self._due_at = min(self._since.values(), default=float("inf")) + shipment.linger
        # What comes may be of another kind, with a time of its own. A bridge of one parcel has no such haste.
        hurries = shipment.claims > 1 or not self._since
        self._look_again = now + shipment.linger / 4 if hurries else float("inf")
        self._full_at = 0 if more else self.bytes + max(1, least_room)

    def _pack(self, waiting: Sequence[Waiting]) -> list[_Parcel]:
        """Sort samples into parcels of what goes together, within the bounds of each."""
        shipment, together = self._bridge.shipment, self._bridge.together
        if not shipment.claims:
            waiting = list(takewhile(lambda sample: together(waiting[0], sample), waiting))
        parcels: list[_Parcel] = []
        filling: list[_Parcel] = []
        for sample in waiting:
            weight = sample.size - ROW_OVERHEAD + shipment.overhead
            parcel = next((one for one in filling if together(one.samples[0], sample)), None)
            if parcel is not None and weight > parcel.room:
                parcel.full = True
                filling.remove(parcel)
                parcel = None
            if parcel is None:
                parcel = _Parcel([], shipment.max_bytes)
                parcels.append(parcel)
                filling.append(parcel)
            parcel.samples.append(sample)
            parcel.room -= weight
            if parcel.room <= 0 or len(parcel.samples) >= shipment.samples:
                parcel.full = True
                filling.remove(parcel)
        return parcels


def _oldest(parcel: _Parcel) -> int:
    return min(sample.seq for sample in parcel.samples)
