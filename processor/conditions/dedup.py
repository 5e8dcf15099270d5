"""Near-duplicates: a window that is too close to a sample kept lately is not kept again."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from processor.conditions.memory import ALL, HEAD, Row
from processor.conditions.scale import Landmarks, Scale
from processor.types import Floats

Singles = NDArray[np.float32]

_MOST_VALUES: Final = 16 << 20
"""Values of samples that are remembered at most, whatever `memory` says: 200 MB. Windows of images are long."""
_AT_ONCE: Final = 256
"""Windows that are compared at once, at most."""
_FIRST_RADIUS: Final = 0.05
"""Used for `auto` while nothing is known of the data."""
_HEAD: Final = struct.Struct("<3qd")
_SCALE: Final = "scale"
_SAMPLES: Final = "samples"


class NearDuplicates:
    """Compares windows with the last samples that were kept.

    The distance of two windows is the root mean square, over all their values, of the differences of readings divided
    by their field's standard deviation. Standard deviations, and the radius that `auto` stands for, are those of the
    windows that came this far; they are looked at anew at certain counts, whatever the batches.

    Distances to all samples are computed at once in single precision, and exactly where that leaves a doubt.
    """

    def __init__(self, distance: float | Literal["auto"], memory: int) -> None:
        """Reject windows closer than `distance` to one of the last `memory` samples; `auto` takes it from the data."""
        self._distance = distance
        self._memory = memory
        self._begin_with(0, 0)
        # The windows underway: those of the batch, and those of them that are compared at once.
        self._values: Floats = np.empty((0, 0, 0))
        self._position = self._begin = self._end = 0
        self._flat: Floats = self._samples
        self._rows: Singles = self._scaled
        self._row_norms: Singles = self._norms
        self._apart: Singles = self._scaled  # (rows, samples) squared distances, about
        self._longest = 0.0  # norm
        self._among: Singles | None = None  # (rows, rows), once one of them is kept

    def _begin_with(self, size: int, channels: int) -> None:
        """Begin with no samples, for windows of a shape."""
        self.radius = _FIRST_RADIUS if self._distance == "auto" else self._distance
        self._landmarks = Landmarks() if self._distance == "auto" else None
        self._scale = Scale()
        self._size, self._channels = size, channels
        values = size * channels
        self._kept = 0  # samples ever; the newest is in place (kept - 1) % room
        self._doubt = _doubt(values)
        self._room = max(1, min(self._memory, _MOST_VALUES // max(values, 1)))
        self._samples: Floats = np.empty((0, values))  # as they came
        self._scaled: Singles = np.empty((0, values), np.float32)
        self._norms: Singles = np.empty(0, np.float32)
        self._changed: dict[int, None] = {}  # places
        self._written = 0  # windows seen when it was written last
        self._is_new = True  # nothing that was written before holds any more

    def start(self, values: Floats) -> None:
        """Take the windows of a batch that come this far, (N, size, C); each is asked about next, in order."""
        if len(values) and values.shape[1:] != (self._size, self._channels):
            self._begin_with(*values.shape[1:])  # model.window changed
        self._values = values
        self._position, self._begin, self._end = -1, 0, 0

    def is_near(self) -> bool:
        """Whether the next window is a near-duplicate."""
        self._position += 1
        if self._position == self._end:
            self._compare_next()
        row = self._position - self._begin
        apart = self._apart[row]
        if not len(apart):
            return False
        limit = self.radius * self.radius * self._flat.shape[1]
        doubt = self._doubt * (float(self._row_norms[row]) + self._longest)
        nearest = float(apart.min())
        if nearest >= limit + doubt:
            return False
        if nearest < limit - doubt:
            return True
        return any(self._is_near_exactly(row, place, limit) for place in np.flatnonzero(apart < limit + doubt).tolist())

    def _is_near_exactly(self, row: int, place: int, limit: float) -> bool:
        difference = (self._flat[row] - self._samples[place]) * np.tile(self._scale.factors, self._size)
        return float((difference * difference).sum()) < limit

    def keep(self) -> None:
        """The window asked about last was kept."""
        row, place = self._position - self._begin, self._kept % self._room
        self._kept += 1
        if place >= len(self._samples):
            self._grow()
        self._samples[place], self._scaled[place] = self._flat[row], self._rows[row]
        self._norms[place] = self._row_norms[row]
        self._changed[place] = None
        if place >= self._apart.shape[1]:
            more = np.full((len(self._apart), place + 1 + len(self._apart) - self._apart.shape[1]), np.inf, np.float32)
            self._apart = np.concatenate((self._apart, more), axis=1)
        later = slice(row + 1, None)
        if self._among is None:
            self._among = _apart(self._rows, self._row_norms, self._rows, self._row_norms)
        self._apart[later, place] = self._among[later, row]

    def _grow(self) -> None:
        length = min(self._room, max(16, 2 * len(self._samples)))
        for field in ("_samples", "_scaled", "_norms"):
            old = getattr(self, field)
            new = np.zeros((length, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, field, new)

    def _compare_next(self) -> None:
        """Compare the next windows for which one scale holds with the samples."""
        scale, begin = self._scale, self._end
        count = min(_AT_ONCE, len(self._values) - begin)
        if scale.seen + 1 == scale.due:
            self._take_in(self._values[begin : begin + 1])
            self._look()
            count = min(count, scale.due - scale.seen)
            self._take_in(self._values[begin + 1 : begin + count])
        else:
            count = min(count, scale.due - scale.seen - 1)
            self._take_in(self._values[begin : begin + count])
        self._begin, self._end = begin, begin + count
        self._flat = self._values[begin : self._end].reshape(count, -1)
        self._rows = self._to_scale(self._flat)
        self._row_norms = _norms(self._rows)
        # Of the samples and those that may still become some.
        self._longest = float(max(self._norms.max(initial=0), self._row_norms.max()))
        used, self._among = min(self._kept, self._room), None
        self._apart = _apart(self._rows, self._row_norms, self._scaled[:used], self._norms[:used])

    def _take_in(self, values: Floats) -> None:
        if len(values):
            if self._landmarks is not None:
                self._landmarks.add(values.reshape(len(values), -1), self._scale.seen)
            self._scale.add(values)

    def _look(self) -> None:
        """Bring the scale, and what depends on it, up to date."""
        self._scale.look()
        if self._landmarks is not None:
            self.radius = self._landmarks.radius(np.tile(self._scale.factors, self._size)) or self.radius
        self._scaled = self._to_scale(self._samples)
        self._norms = _norms(self._scaled)

    def _to_scale(self, flat: Floats) -> Singles:
        center, factors = (np.tile(each, self._size) for each in (self._scale.center, self._scale.factors))
        with np.errstate(over="ignore", invalid="ignore"):
            return ((flat - center) * factors).astype(np.float32)

    def changes(self) -> list[Row]:
        """Return the rows that changed since the last call."""
        if self._scale.seen == self._written:
            return []
        rows = [Row(key, ALL, None) for key in ("", _SCALE, _SAMPLES, Landmarks.KEY)] if self._is_new else []
        self._is_new = False
        self._written = self._scale.seen
        rows += [Row(_SAMPLES, place, self._samples[place].astype("<f8").tobytes()) for place in self._changed]
        self._changed.clear()
        rows += [] if self._landmarks is None else self._landmarks.changes()
        rows.append(Row(_SCALE, 0, self._scale.memory()))
        rows.append(Row("", HEAD, _HEAD.pack(self._size, self._channels, self._kept, self.radius)))
        return rows

    def restore(self, rows: Sequence[Row]) -> None:
        """Go on from an earlier run's rows."""
        if not rows:
            return
        head, *others = rows
        size, channels, kept, radius = _HEAD.unpack(head.value or b"")
        self._begin_with(size, channels)
        self._is_new = False
        self._kept, self.radius = kept, radius
        (scale,) = (row.value for row in others if row.key == _SCALE)
        self._scale.restore(scale or b"")
        self._written = self._scale.seen
        if self._landmarks is not None:
            self._landmarks.restore([row for row in others if row.key == Landmarks.KEY])
        samples = [np.frombuffer(row.value or b"", "<f8") for row in others if row.key == _SAMPLES]
        self._samples = np.array(samples).reshape(-1, size * channels)
        self._scaled = self._to_scale(self._samples)
        self._norms = _norms(self._scaled)


def _norms(rows: Singles) -> Singles:
    with np.errstate(over="ignore"):
        squares: Singles = (rows * rows).sum(axis=1)
    return squares


def _apart(rows: Singles, row_norms: Singles, samples: Singles, norms: Singles) -> Singles:
    """Return about the squared distances of N rows and M samples, (N, M); NaN, which is not near, of too large ones."""
    with np.errstate(over="ignore", invalid="ignore"):
        apart: Singles = (-2 * rows) @ samples.T
        apart += row_norms[:, None]
        apart += norms
    return apart


def _doubt(values: int) -> float:
    """Return how far a squared distance in single precision may be from the true one, for norms that sum to 1."""
    return 1e-7 * (10 + 4 * math.sqrt(values))
