"""What holds for every reading, whatever its format: a time that can be, and finite values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from processor.decoders.times import column_to_nanoseconds, to_nanoseconds
from processor.source_sections import Source
from processor.types import NS, Decoded, Failure, Flags, Floats, Ints, Times

_LATEST: Final = 2**63 - 1
_READINGS: Final = 64
VALUES_A_BYTE: Final = 4
"""A payload may hold `_READINGS` readings, and more while their values are not more than so many for each of its bytes:
what is short of most fields is a reading of all of them."""


class Unusable(Exception):
    """A payload that gives no readings, or a part of one."""

    def __init__(self, reason: str, detail: str) -> None:
        """Take a dead letter's reason, one word, and its detail, a sentence."""
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def refuse_too_many(readings: int, fields: int, size: int) -> None:
    """Refuse what would take far more room than the payload that it came in.

    Args:
        readings: in the payload.
        fields: of a reading.
        size: bytes of the payload.

    Raises:
        Unusable: there are too many.
    """
    if readings > _READINGS and readings * fields > VALUES_A_BYTE * size:
        raise Unusable("too_large", f"the payload holds {readings} readings of {fields} fields")


class Checks:
    """Makes what a decoder found into readings, and failures of what cannot be one. Pure."""

    def __init__(self, source: Source, *, partly: bool = False) -> None:
        """Prepare.

        Args:
            source: its fields, time unit, and how far in the future a reading may be.
            partly: whether a payload with a bad reading gives its other readings; else it gives none.
        """
        self._names = source.fields
        self._time_name = source.time if source.base is None else source.base.time
        self._unit = source.time_unit
        self._ahead = source.max_ahead
        self._partly = partly

    def readings(
        self,
        origin: Ints,
        times: Sequence[Any] | Times | None,
        values: Floats,
        arrivals: Times,
        failures: list[Failure],
        *,
        keys: Sequence[str] | None = None,
        absent: Flags | None = None,
    ) -> Decoded:
        """Return M readings without those that cannot be, for which `failures` gets one for each payload.

        Args:
            origin: (M,) position of the payload each came from; never decreases.
            times: M times as they stand in the payloads, or (M,) ns since the Unix epoch; None: their arrivals.
            values: (M, C).
            arrivals: (N,) of the payloads.
            failures: what was found before; sorted by payload afterwards.
            keys: M streams' keys.
            absent: (M, C) values that were not there and are to be held; they may be anything here.
        """
        bad: dict[int, Failure] = {failure.position: failure for failure in failures}
        good = np.ones(len(origin), np.bool_)
        if times is None:
            moments = arrivals[origin]
        elif isinstance(times, np.ndarray):
            moments = times
        else:
            moments = self._moments(origin, times, good, bad)
        finite = np.isfinite(values) if absent is None else np.isfinite(values) | absent
        late = moments > np.minimum(arrivals, _LATEST - self._ahead)[origin] + self._ahead
        if len(bad) == len(failures) and finite.all() and not late.any() and good.all():
            failures.sort()
            return Decoded(origin, moments, values, keys, failures, absent)
        whole = finite.reshape(len(origin), -1)
        for row in np.flatnonzero(good & (~whole.all(axis=1) | late)).tolist():
            good[row] = False
            index = int(origin[row])
            where = f"stream {keys[row]!r:.120}: " if keys and self._partly else ""
            if late[row]:
                detail = where + self._too_late(int(moments[row]), int(arrivals[index]))
                bad.setdefault(index, Failure(index, "time", detail))
            else:
                column = int(np.argmin(whole[row]))
                found = values.reshape(len(origin), -1)[row, column]
                detail = f"{where}field {self._names[column]!r} is {found}; expected a finite number"
                bad.setdefault(index, Failure(index, "not_finite", detail))
        if not self._partly:
            good &= ~np.isin(origin, list(bad))
        failures[:] = sorted(bad.values())
        return Decoded(
            origin[good],
            moments[good],
            values[good],
            keys and [key for key, usable in zip(keys, good.tolist(), strict=True) if usable],
            failures,
            None if absent is None else absent[good],
        )

    def _moments(self, origin: Ints, times: Sequence[Any], good: Flags, bad: dict[int, Failure]) -> Times:
        """Return (M,) times; where one cannot be read, `good` becomes false, and the time is 0."""
        if not times:
            return np.empty(0, np.int64)
        try:
            return column_to_nanoseconds(times, self._unit)
        except ValueError:
            moments = np.zeros(len(origin), np.int64)
        for position, value in enumerate(times):
            try:
                moments[position] = to_nanoseconds(value, self._unit)
            except ValueError as error:
                index = int(origin[position])
                good[position] = False
                bad.setdefault(index, Failure(index, "time", f"field {self._time_name!r}: {error}"))
        return moments

    def _too_late(self, moment: int, arrival: int) -> str:
        named = "the time" if self._time_name is None else f"field {self._time_name!r}"
        return (
            f"{named} is {(moment - arrival) / NS:.12g} s in the future; max_ahead allows {self._ahead / NS:.12g} s; "
            "is this machine's clock right?"
        )
