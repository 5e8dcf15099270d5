"""Binary: numbers one after another. A batch is joined, and becomes an array at once."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from processor.decoders.checks import Checks
from processor.source_sections import Source
from processor.types import NS, Decoded, Failure, Floats, Ints, Times

_LONGEST: Final = 1 << 62
"""Nanoseconds that readings may lie back: 146 years. What goes further cannot be meant, and would not fit an int64."""


_LATEST: Final = 2**63 - 1


class BinaryDecoder:
    """Decoder of `format: binary`."""

    def __init__(self, source: Source) -> None:
        """Prepare for one source's numbers."""
        keys = source.binary
        self._dtype = np.dtype(keys.dtype)
        self._name = keys.dtype
        self._skip = keys.skip
        self._by_channel = keys.order == "CT"
        self._width = len(source.fields)
        self._row = self._dtype.itemsize * self._width  # bytes of a reading
        self._spacing = None if keys.rate is None else _Spacing(keys.rate)
        self._checks = Checks(source)

    def decode(self, payloads: Sequence[bytes], arrivals: Times, topics: Sequence[str]) -> Decoded:
        """Decode N payloads; see `protocols.Decoder`."""
        del topics
        failures: list[Failure] = []
        sizes = np.array([len(payload) for payload in payloads], np.int64) - self._skip
        counts = np.where((sizes > 0) & (sizes % self._row == 0), sizes // self._row, 0)
        failures += [self._misfit(index, len(payloads[index])) for index in np.flatnonzero(counts == 0).tolist()]
        back = None if self._spacing is None else self._spacing.back(int(counts.max(initial=1)))
        if back is not None and (far := (back[counts - 1] >= _LONGEST) & (counts > 0)).any():
            failures += [self._too_far(index, int(counts[index])) for index in np.flatnonzero(far).tolist()]
            counts[far] = 0
        bodies = [payloads[index][self._skip :] for index in np.flatnonzero(counts).tolist()]
        values = (
            self._by_channels(bodies, counts[counts > 0]) if self._by_channel else self._numbers(bodies, self._width)
        )
        origin = np.repeat(np.arange(len(payloads)), counts)
        times = arrivals[origin]
        if back is not None:
            times -= back[np.repeat(np.cumsum(counts), counts) - 1 - np.arange(len(origin))]
        return self._checks.readings(origin, times, values, arrivals, failures)

    def _numbers(self, bodies: Sequence[bytes], columns: int) -> Floats:
        """Return (…, columns) numbers that lie one after another."""
        joined = b"".join(bodies)
        found: NDArray[Any] = np.frombuffer(joined, self._dtype if self._dtype.kind != "b" else np.uint8)
        if self._dtype.kind == "b":
            found = found != 0  # numpy's booleans are 0 and 1 only
        with np.errstate(invalid="ignore"):  # a NaN that signals is a NaN
            numbers: Floats = found.astype(np.float64)
        return numbers.reshape(-1, columns)

    def _by_channels(self, bodies: Sequence[bytes], counts: Ints) -> Floats:
        """Return (M, C) values of payloads that hold one channel after another; equally long ones at once."""
        values = np.empty((int(counts.sum()), self._width))
        starts = np.cumsum(counts) - counts
        for count in np.unique(counts).tolist():
            which = np.flatnonzero(counts == count)
            numbers = self._numbers([bodies[index] for index in which.tolist()], count)
            rows = starts[which][:, None] + np.arange(count)
            values[rows] = numbers.reshape(len(which), -1, count).swapaxes(1, 2)
        return values

    def _misfit(self, index: int, size: int) -> Failure:
        one = f"{self._width} of {self._name}" if self._width > 1 else self._name
        header = f" after a header of {self._skip}" if self._skip else ""
        expected = f"a multiple of {self._row}{header}: a reading is {one}"
        return Failure(index, "decode", f"the payload has {size} bytes; expected {expected}")

    def _too_far(self, index: int, count: int) -> Failure:
        detail = f"{count} readings at binary.rate would begin over {_LONGEST // NS // 31_557_600} years ago"
        return Failure(index, "time", detail)


class _Spacing:
    """How far evenly spaced readings lie apart, in whole nanoseconds: rounded for each, so that nothing adds up."""

    def __init__(self, rate: float) -> None:
        """Take readings in a second; 0.1 means a tenth."""
        exact = Fraction(repr(rate))
        self._dividend, self._divisor = NS * exact.denominator, exact.numerator
        self._back: Times = np.zeros(1, np.int64)

    def back(self, count: int) -> Times:
        """Return at least (count,) how long before the last reading each lies, it itself first; _LONGEST at most."""
        known = len(self._back)
        if count > known:
            more = self._between(known, max(count, 2 * known))
            self._back = np.concatenate((self._back, np.minimum(more, _LONGEST)))
        return self._back

    def _between(self, start: int, stop: int) -> Times:
        if stop * self._dividend + self._divisor < _LATEST:
            return (np.arange(start, stop) * self._dividend + self._divisor // 2) // self._divisor
        half = self._divisor // 2
        exact = ((place * self._dividend + half) // self._divisor for place in range(start, stop))
        return np.array([min(each, _LONGEST) for each in exact], np.int64)
