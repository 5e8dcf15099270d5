"""Objects that hold many readings with one time between them: that of the first, and how many there are in a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from processor.decoders.checks import Checks, Unusable
from processor.decoders.codec import Codec
from processor.decoders.structures import KEY, TIME, Member, structure
from processor.decoders.times import evenly, to_nanoseconds
from processor.decoders.values import Missing, checked_key, is_missing, key_field, kind, look_up, number, pointer
from processor.source_sections import BaseKeys, Source
from processor.types import Decoded, Failure, Flags, Floats, Times


class _Head(NamedTuple):
    """What an object says of all its readings."""

    time: object
    """Of the first."""
    rate: float
    key: str


class _Block(NamedTuple):
    """The n readings of one object."""

    times: Times
    values: Floats
    absent: Flags | None
    key: str


class SeriesDecoder:
    """Decoder of a format that writes trees, for sources with a `base`."""

    def __init__(self, codec: Codec, source: Source, base: BaseKeys) -> None:
        """Prepare for one source's fields, times and stream key."""
        self._codec = codec
        self._base = base
        self._names = source.fields
        self._unit = source.time_unit
        self._time = pointer(base.time)
        self._rate = base.rate if isinstance(base.rate, float) else pointer(base.rate)
        self._values = pointer(base.values)
        self._key_name = key_field(source.stream)
        self._key = None if self._key_name is None else pointer(self._key_name)
        self._missing = Missing(source.missing)
        self._checks = Checks(source)
        cell: Any = float | None if self._missing.allowed else float
        # Of one field, [[1], [2]] and [1, 2] are both two readings.
        rows = list[cell | list[cell]] if len(self._names) == 1 else list[list[cell]]
        members = [Member(self._time, TIME), Member(self._values, rows)]
        members += [] if isinstance(self._rate, float) else [Member(self._rate, float)]
        members += [] if self._key is None else [Member(self._key, KEY)]
        self._made = structure(members)
        self._fast = None if self._made is None else codec.typed(self._made.type)

    def decode(self, payloads: Sequence[bytes], arrivals: Times, topics: Sequence[str]) -> Decoded:
        """Decode N payloads; see `protocols.Decoder`."""
        del topics
        failures: list[Failure] = []
        blocks = [_Block(np.empty(0, np.int64), np.empty((0, len(self._names))), None, "")]
        origin = [0]
        for index, payload in enumerate(payloads):
            try:
                found = self._quickly(payload) or self._carefully(payload)
            except Unusable as unusable:
                failures.append(Failure(index, unusable.reason, unusable.detail))
                continue
            blocks += found
            origin += [index] * len(found)
        absent = None
        if any(block.absent is not None for block in blocks):
            absent = np.concatenate(
                [np.zeros(block.values.shape, np.bool_) if block.absent is None else block.absent for block in blocks]
            )
        return self._checks.readings(
            np.repeat(np.array(origin, np.int64), [len(block.times) for block in blocks]),
            np.concatenate([block.times for block in blocks]),
            np.concatenate([block.values for block in blocks]),
            arrivals,
            failures,
            keys=None if self._key is None else [block.key for block in blocks for _ in range(len(block.times))],
            absent=absent,
        )

    def _quickly(self, payload: bytes) -> list[_Block]:
        """Return the readings of an object with nothing wrong; none of any other payload."""
        if self._fast is None or self._made is None:
            return []
        try:
            time, rows, *others = self._made.row(self._fast(payload))
            values = np.array(rows, np.float64).reshape(len(rows), -1)
        except (ValueError, RecursionError):  # another shape, or something to be said about it precisely
            return []
        if values.shape[1] != len(self._names):
            return []
        if not isinstance(rows[0], list):
            rows = [[cell] for cell in rows]
        rate = self._rate if isinstance(self._rate, float) else others[0]
        head = _Head(time, rate, "" if self._key is None else str(others[-1]))
        return [self._block(head, values, rows, "")]

    def _carefully(self, payload: bytes) -> list[_Block]:
        value = self._codec.parse(payload)
        if not isinstance(value, list) or not value:
            return [self._from_object(value, "")]
        return [self._from_object(item, f"item {position}: ") for position, item in enumerate(value)]

    def _from_object(self, value: object, where: str) -> _Block:
        if not isinstance(value, dict):
            named = where.removesuffix(": ") or "the payload"
            raise Unusable("decode", f"{named} is {kind(value)}; expected an object")
        time = look_up(value, self._time)
        if is_missing(time):
            raise Unusable("time", f"{where}no time: field {self._base.time!r} is {kind(time)}")
        rate = self._rate
        if not isinstance(rate, float):
            rate = number(look_up(value, rate), f"{where}field {self._base.rate!r}")
        key = ""
        if self._key is not None:
            key = checked_key(look_up(value, self._key), f"{where}field {self._key_name!r}")
        rows = look_up(value, self._values)
        named = f"{where}field {self._base.values!r}"
        if not isinstance(rows, list) or not rows:
            raise Unusable("field", f"{named} is {kind(rows)}; expected an array of readings")
        cells = [self._row(row, f"{named}, item {position}") for position, row in enumerate(rows)]
        return self._block(_Head(time, rate, key), np.array(cells, np.float64), cells, where)

    def _row(self, row: object, named: str) -> Sequence[float | None]:
        """Return the values of one reading."""
        if len(self._names) == 1 and not isinstance(row, list):
            row = [row]
        if not isinstance(row, list):
            raise Unusable("field", f"{named} is {kind(row)}; expected an array of {len(self._names)} numbers")
        if len(row) != len(self._names):
            expected = ", ".join(self._names)
            raise Unusable("field", f"{named} has {len(row)} numbers; expected {len(self._names)}: {expected}")
        return self._missing.numbers(row, lambda position: f"{named}, field {self._names[position]!r}")

    def _block(self, head: _Head, values: Floats, cells: Sequence[Sequence[float | None]], where: str) -> _Block:
        try:
            times = evenly(to_nanoseconds(head.time, self._unit), len(values), head.rate)
        except ValueError as error:
            raise Unusable("time", f"{where}field {self._base.time!r}: {error}") from None
        return _Block(times, values, self._missing.fill(values, cells), head.key)
