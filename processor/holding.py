"""Fields that a reading lacks are those that its stream had last: for sensors that send only what has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from processor.conditions.memory import HEAD, Row
from processor.types import Flags, Floats, Ints


class Holding:
    """The last values of the streams of one source, field by field. Used by one thread."""

    def __init__(self, fields: Sequence[str]) -> None:
        """Begin with none."""
        self._fields = fields
        self._last: dict[int, Floats] = {}  # (C,) by slot; NaN where a field never came
        self._keys: dict[int, str] = {}  # of the streams in these slots
        self._changed: dict[str, int] = {}  # by stream: the slot it has, or had last

    def fill(self, slots: Ints, values: Floats, absent: Flags | None, key: Callable[[int], str]) -> Flags:
        """Put last values into readings that lack some, and take note of the newest.

        Args:
            slots: (N,) the stream of each reading; a stream that was forgotten has another one when it comes again.
            values: (N, C); changed.
            absent: (N, C) what is to be filled in; None: nothing.
            key: returns the stream in a slot.

        Returns:
            (N, C) what is still missing, because it never came.
        """
        count, channels = values.shape
        if not count:
            return np.zeros((0, channels), np.bool_)
        order = np.argsort(slots, kind="stable")
        streams, starts = np.unique(slots[order], return_index=True)
        ends = np.append(starts[1:], count)
        filled = values[order]
        if absent is not None:
            filled[absent[order]] = np.nan
            # The newest row up to each that has the field; before the stream's first row it is what was known before.
            newest = np.maximum.accumulate(np.where(np.isnan(filled), -1, np.arange(count)[:, None]), axis=0)
            group = np.repeat(np.arange(len(streams)), ends - starts)
            never = np.full(channels, np.nan)
            before = np.array([self._last.get(slot, never) for slot in streams.tolist()])
            here = np.take_along_axis(filled, np.maximum(newest, 0), axis=0)
            filled = np.where(newest >= starts[group][:, None], here, before[group])
            values[order] = filled
        # By their newest readings: a stream that was forgotten and came again in this batch is where it is now.
        for index in np.argsort(order[ends - 1]).tolist():
            slot = int(streams[index])
            name = self._keys.get(slot) or self._keys.setdefault(slot, key(slot))
            self._last[slot] = filled[ends[index] - 1]
            self._changed[name] = slot
        return np.isnan(values)

    def forget(self, slots: Iterable[int]) -> None:
        """Drop streams that are not known any more. Before their slots are used again."""
        for slot in slots:
            if self._last.pop(slot, None) is not None:
                self._changed.setdefault(self._keys.pop(slot), slot)

    def begin_anew(self) -> None:
        """Drop all streams."""
        self.forget(list(self._last))

    def lacking(self, missing: Flags) -> str:
        """Say, as a sentence, which of its (C,) fields a reading never had."""
        names = ", ".join(repr(name) for name, gone in zip(self._fields, missing.tolist(), strict=True) if gone)
        return f"no value for {names}, here or earlier in this stream; missing: hold needs one to begin with"

    def changes(self) -> list[Row]:
        """Return the rows that changed since the last call."""
        rows = []
        for key, slot in self._changed.items():
            last = self._last.get(slot)
            rows.append(Row(key, HEAD, None if last is None else last.astype("<f8").tobytes()))
        self._changed.clear()
        return rows

    def restore(self, rows: Iterable[Row], slots: Mapping[str, int]) -> None:
        """Go on from what `changes` returned over the time.

        Args:
            rows: one a stream.
            slots: where the streams are that are known.
        """
        for row in rows:
            slot = slots.get(row.key)
            if row.value is None or slot is None:
                self._changed[row.key] = -1
                continue
            self._last[slot] = np.frombuffer(row.value, "<f8").astype(np.float64)
            self._keys[slot] = row.key
