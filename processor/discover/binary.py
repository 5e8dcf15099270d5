"""Numbers one after another, without a word about what they are: what makes them look like a sensor's.

Nothing in the bytes says it. Each type of number is tried, and each number of channels; what is looked for are sizes
that measured numbers have, and channels that change little from one reading to the next. It stays a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from processor.types import Floats

_FLOATS: Final = ("<f4", ">f4", "<f8", ">f8")
_HEADERS: Final = (1, 2, 4, 8, 12, 16)
"""Bytes in front of floating-point numbers. Whole numbers take any bytes, so that nothing tells where they begin."""
_MOST_CHANNELS: Final = 16
_FEWEST: Final = 16
"""Numbers, in all the payloads, below which chance looks like a sensor."""
_SMALLEST, _LARGEST = 1e-6, 1e7
"""Sizes of measured numbers, 0 aside."""
_USUAL: Final = 0.97
"""The share of them that a sensor's have."""
_NUMBERS: Final = 4096
"""Numbers looked at."""
_WIDE: Final = 1 << 24
"""Whole numbers of four bytes are smaller than this, where they are not two of two bytes each."""
_SIGNAL: Final = 0.5
"""Roughness of what surely is one."""


class Numbers(NamedTuple):
    """What bytes may mean."""

    dtype: str
    skip: int
    channels: int
    order: str
    """TC: a reading's values side by side; CT: a channel's."""
    readings: float
    """In a payload, on the average."""
    roughness: float
    """How much neighbours differ: 1 where nothing connects them, near 0 for a smooth signal."""

    def __str__(self) -> str:
        """Return `<f4, 3 channels side by side`."""
        header = f" after a header of {self.skip} bytes" if self.skip else ""
        way = "side by side" if self.order == "TC" else "one after another"
        return f"{self.dtype}{header}" + (f", {self.channels} channels {way}" if self.channels > 1 else "")


def guess(payloads: Sequence[bytes], channels: Sequence[int] = ()) -> Numbers | None:
    """Return the likeliest meaning of payloads of one kind; None where none is likely.

    Args:
        payloads: in the order of arrival, best of one topic.
        channels: how many there may be, where the numbers do not tell; empty: as many as come together.
    """
    typed = _of_floats(payloads)
    if typed is not None:
        found = _arranged(*typed, payloads, range(1, _MOST_CHANNELS + 1))
        if found is not None and found.roughness >= _SIGNAL:  # noise
            return _arranged(*typed, payloads, channels) or found
        return found
    whole = [_arranged(dtype, 0, payloads, range(1, _MOST_CHANNELS + 1)) for dtype in _whole(payloads)]
    signals = [one for one in whole if one is not None and one.roughness < _SIGNAL]
    return min(signals, key=lambda one: one.roughness, default=None)


def _of_floats(payloads: Sequence[bytes]) -> tuple[str, int] | None:
    """Return the type of floating-point number, and its header, that gives usual sizes; None where none does."""
    for skip in (0, *_HEADERS):
        for dtype in _FLOATS:
            numbers = _read(payloads, dtype, skip)
            if len(numbers) >= _FEWEST and _is_usual(numbers):
                return dtype, skip
    return None


def _whole(payloads: Sequence[bytes]) -> list[str]:
    """Return the types of whole numbers that payloads may hold: of four bytes, else of two, in both orders."""
    wide = [dtype for dtype in ("<i4", ">i4") if len(found := _read(payloads, dtype, 0)) and _is_wide(found)]
    return wide or [dtype for dtype in ("<i2", ">i2") if len(_read(payloads, dtype, 0)) >= _FEWEST]


def _read(payloads: Sequence[bytes], dtype: str, skip: int) -> Floats:
    """Return the first numbers in payloads; none where they do not fit."""
    width = np.dtype(dtype).itemsize
    if any(len(payload) <= skip or (len(payload) - skip) % width for payload in payloads):
        return np.empty(0)
    pieces, left = [], _NUMBERS * width
    for payload in payloads:
        pieces.append(payload[skip : skip + left])
        left -= len(pieces[-1])
        if not left:
            break
    return _floats(b"".join(pieces), dtype)


def _floats(data: bytes, dtype: str) -> Floats:
    numbers: NDArray[Any] = np.frombuffer(data, dtype)
    with np.errstate(invalid="ignore"):  # a NaN that signals is a NaN
        found: Floats = numbers.astype(np.float64)
    return found


def _is_usual(numbers: Floats) -> bool:
    """Whether numbers have sizes that measured ones have."""
    sizes = np.abs(numbers)
    usual = (sizes == 0) | ((sizes >= _SMALLEST) & (sizes <= _LARGEST))
    return bool(np.isfinite(sizes).all()) and bool(usual.mean() >= _USUAL) and bool((sizes > 0).any())


def _is_wide(numbers: Floats) -> bool:
    return len(numbers) >= _FEWEST // 2 and bool((np.abs(numbers) < _WIDE).all())


def _arranged(dtype: str, skip: int, payloads: Sequence[bytes], wanted: Sequence[int]) -> Numbers | None:
    """Return the arrangement in which neighbours differ least; None where no number of channels fits."""
    width = np.dtype(dtype).itemsize
    counts = [(len(payload) - skip) // width for payload in payloads]
    common = gcd(*counts)
    blocks = [_floats(payload[skip:], dtype) for payload in payloads[: 1 + _NUMBERS // common]]
    found = []
    for channels in wanted:
        if common % channels:
            continue
        readings = sum(counts) / len(counts) / channels
        rows = max(2, _NUMBERS // channels)  # of each payload; some are large
        side_by_side = _roughness([block.reshape(-1, channels)[:rows] for block in blocks])
        found.append(Numbers(dtype, skip, channels, "TC", readings, side_by_side))
        if channels > 1 and readings > 1:
            turned = _roughness([block.reshape(channels, -1)[:, :rows].T for block in blocks])
            found.append(Numbers(dtype, skip, channels, "CT", readings, turned))
    smoothest = min((one.roughness for one in found), default=1.0)
    if smoothest >= _SIGNAL and common in wanted:  # noise: what comes together is one reading
        return next(one for one in found if one.channels == common)
    # Multiples of the right number of channels are about as smooth.
    near = [one for one in found if one.roughness <= 1.05 * smoothest + 0.01]
    return min(near, key=lambda one: (one.channels, one.order != "TC"), default=None)


def _roughness(blocks: Sequence[Floats]) -> float:
    """Return how much neighbouring readings differ, beside how much any two do: about 1 for noise, the least is 0.

    Half the mean square of the differences over the variance (von Neumann's ratio), the mean over the channels.
    """
    joined = np.concatenate(blocks)
    variances = joined.var(axis=0)
    if len(joined) < _FEWEST // 2 or not variances.any():
        return 1.0
    differences = np.square(np.diff(joined, axis=0)).mean(axis=0) / 2
    return float((differences[variances > 0] / variances[variances > 0]).mean())
