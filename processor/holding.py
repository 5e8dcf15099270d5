"""Fields that a reading lacks are those that its stream had last: for sensors that send only what has changed."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from processor.conditions.memory import HEAD, Row
from processor.types import Flags, Floats

_PLACE: Final = struct.Struct("<q")


class Holding:
    """The last values of one source's streams, field by field. Used by one thread."""

    def __init__(self, fields: Sequence[str], most: int) -> None:
        """Begin with none, and keep those of `most` streams: the least recently heard is forgotten."""
        self._fields = fields
        self._most = most
        self._last: dict[str, Floats] = {}  # (C,), NaN where a field never came; the least recently heard stream first
        self._changed: dict[str, None] = {}  # streams, those heard last at the end
        self._written = 0  # rows so far: their numbers tell which stream was heard last

    def fill(self, streams: Sequence[str], values: Floats, absent: Flags | None) -> Flags:
        """Put last values into readings that lack some, and take note of the newest.

        Args:
            streams: N keys, one a reading.
            values: (N, C); changed.
            absent: (N, C) what is to be filled in; None: nothing.

        Returns:
            (N, C) what is still missing, because it never came. It is NaN.
        """
        if absent is not None:
            values[absent] = np.nan
        heard = list(dict.fromkeys(reversed(streams)))[::-1]
        if len(self._last) + sum(stream not in self._last for stream in heard) <= self._most:
            self._fill(streams, heard, values)
        else:  # one by one, because which stream is forgotten depends on which was heard before
            for row, stream in enumerate(streams):
                self._fill([stream], [stream], values[row : row + 1])
                if len(self._last) > self._most:
                    forgotten = next(iter(self._last))
                    del self._last[forgotten]
                    self._note(forgotten)
        return np.isnan(values)

    def _fill(self, streams: Sequence[str], heard: Sequence[str], values: Floats) -> None:
        """Fill in readings none of whose streams is forgotten meanwhile; `heard` are these, the last one heard last."""
        count, channels = values.shape
        number = {stream: index for index, stream in enumerate(heard)}
        group = np.array([number[stream] for stream in streams], np.int64)
        order = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[order], np.arange(len(heard) + 1))
        sorted_values = values[order]
        # The newest row up to each that has the field; before the stream's first row it is what was known before.
        newest = np.maximum.accumulate(np.where(np.isnan(sorted_values), -1, np.arange(count)[:, None]), axis=0)
        never = np.full(channels, np.nan)
        before = np.array([self._last.get(stream, never) for stream in heard]).reshape(-1, channels)
        group = group[order]
        here = np.take_along_axis(sorted_values, np.maximum(newest, 0), axis=0)
        filled = np.where(newest >= starts[group][:, None], here, before[group])
        values[order] = filled
        for stream, last in zip(heard, filled[starts[1:] - 1], strict=True):
            self._last.pop(stream, None)
            self._last[stream] = last
            self._note(stream)

    def _note(self, stream: str) -> None:
        self._changed.pop(stream, None)
        self._changed[stream] = None

    def lacking(self, missing: Flags) -> str:
        """Say, as a sentence, which of its (C,) fields a reading never had."""
        names = ", ".join(repr(name) for name, gone in zip(self._fields, missing.tolist(), strict=True) if gone)
        return f"no value for {names}, here or earlier in this stream; missing: hold needs one to begin with"

    def changes(self) -> list[Row]:
        """Return the rows that changed since the last call."""
        rows = []
        for stream in self._changed:
            last = self._last.get(stream)
            self._written += 1
            value = None if last is None else _PLACE.pack(self._written) + last.astype("<f8").tobytes()
            rows.append(Row(stream, HEAD, value))
        self._changed.clear()
        return rows

    def restore(self, rows: Iterable[Row]) -> None:
        """Go on from what `changes` returned over the time. Called once, before anything."""
        values = {row.key: row.value for row in rows if row.value is not None}
        for stream, value in sorted(values.items(), key=lambda item: _PLACE.unpack_from(item[1])):
            self._last[stream] = np.frombuffer(value, "<f8", offset=_PLACE.size).astype(np.float64)
            (self._written,) = _PLACE.unpack_from(value)
