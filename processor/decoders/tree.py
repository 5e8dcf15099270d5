"""Objects and arrays inside one another, however they are written: their shapes, and the readings in them.

Objects, arrays of objects, arrays of numbers, columns, bare numbers. Nearly every message of a plant is one object or
an array of them, with all its fields as numbers. Those go straight into a typed structure made for the source;
whatever does not fit is looked at again, slowly and with a precise answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from processor.decoders.checks import VALUES_A_BYTE, Checks, Unusable, refuse_too_many
from processor.decoders.codec import Codec
from processor.decoders.structures import KEY, TIME, Member, structure
from processor.decoders.values import Missing, checked_key, is_missing, key_field, kind, look_up, pointer
from processor.source_sections import Source
from processor.types import Decoded, Failure, Ints, Times

_Row = tuple[Any, ...]  # time if the source has one, stream key if it is in the payload, then the fields


class TreeDecoder:
    """Decoder of a format that writes trees."""

    def __init__(self, codec: Codec, source: Source) -> None:
        """Prepare for one source's fields, time and stream key."""
        self._codec = codec
        self._fields = [pointer(field) for field in source.fields]
        self._names = source.fields
        self._time = None if source.time is None else pointer(source.time)
        self._time_name = source.time
        self._missing = Missing(source.missing)
        self._checks = Checks(source)
        self._key_name = key_field(source.stream)
        self._key = None if self._key_name is None else pointer(self._key_name)
        self._lead = (self._time is not None) + (self._key is not None)
        members = [Member(steps, float, self._missing.allowed) for steps in self._fields]
        members = [*([] if self._key is None else [Member(self._key, KEY)]), *members]
        made = structure([*([] if self._time is None else [Member(self._time, TIME)]), *members])
        self._fast = made and _Typed(codec.typed(made.type), codec.typed(list[made.type]), made.row)  # type: ignore[name-defined]

    def decode(self, payloads: Sequence[bytes], arrivals: Times, topics: Sequence[str]) -> Decoded:
        """Decode N payloads; see `protocols.Decoder`."""
        del topics
        failures: list[Failure] = []
        if self._fast is None:
            rows, origin = self._carefully(payloads, failures)
        else:
            try:
                rows, origin = list(map(self._fast.row, map(self._fast.one, payloads))), list(range(len(payloads)))
            except (ValueError, RecursionError):  # all of msgspec's are ValueErrors, and UnicodeDecodeError is one
                rows, origin = self._carefully(payloads, failures)
        return self._columns(rows, np.fromiter(origin, np.int64, len(rows)), arrivals, failures)

    def _columns(self, rows: list[_Row], origin: Ints, arrivals: Times, failures: list[Failure]) -> Decoded:
        columns = list(zip(*rows, strict=True)) if rows else [()] * (self._lead + len(self._fields))
        cells = columns[self._lead :]
        shape = len(cells), len(rows)
        values = np.fromiter(chain.from_iterable(cells), np.float64, math.prod(shape)).reshape(shape)
        absent = self._missing.fill(values, cells)
        keys = None if self._key is None else [str(key) for key in columns[self._lead - 1]]
        return self._checks.readings(
            origin,
            None if self._time is None else columns[0],
            values.T,
            arrivals,
            failures,
            keys=keys,
            absent=None if absent is None else absent.T,
        )

    def _carefully(self, payloads: Sequence[bytes], failures: list[Failure]) -> tuple[list[_Row], list[int]]:
        """Decode one by one; what cannot be used is added to `failures`."""
        rows: list[_Row] = []
        origin: list[int] = []
        for index, payload in enumerate(payloads):
            try:
                found = self._quickly(payload) or self._rows(self._codec.parse(payload), len(payload))
            except Unusable as unusable:
                failures.append(Failure(index, unusable.reason, unusable.detail))
                continue
            rows += found
            origin += [index] * len(found)
        return rows, origin

    def _quickly(self, payload: bytes) -> list[_Row]:
        """Return the readings of an object, or an array of them, with nothing wrong; none of any other payload."""
        if self._fast is None:
            return []
        is_array = self._codec.begins_array(payload)
        if is_array and self._missing.allowed and len(self._fields) > VALUES_A_BYTE:
            return []  # an empty object is a byte or two, and a reading of all fields: they are counted first
        try:
            found = self._fast.many(payload) if is_array else [self._fast.one(payload)]
        except (ValueError, RecursionError):  # another shape, or something to be said about it precisely
            return []
        return list(map(self._fast.row, found))

    def _rows(self, value: object, size: int) -> list[_Row]:
        """Return the readings in a decoded payload of any of the shapes, and of `size` bytes."""
        if isinstance(value, dict):
            firsts = [look_up(value, steps) for steps in self._fields]
            if self._are_columns(firsts):
                return self._from_columns(value, firsts, size)
            return [self._from_object(value, "")]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            refuse_too_many(len(value), len(self._fields), size)
            rows = []
            for position, item in enumerate(value):
                if not isinstance(item, dict):
                    raise Unusable("decode", f"item {position} is {kind(item)}; expected an object like the first")
                rows.append(self._from_object(item, f"item {position}: "))
            return rows
        if isinstance(value, list) and value:
            return [self._from_numbers(value)]
        if isinstance(value, int | float):  # true and false are, too
            return [self._from_numbers([value])]
        raise Unusable("decode", f"the payload is {kind(value)}; expected an object, an array or a number")

    def _are_columns(self, values: list[Any]) -> bool:
        lists = [value for value in values if isinstance(value, list)]
        if not self._missing.allowed:
            return len(lists) == len(values)
        return bool(lists) and len(lists) + sum(map(is_missing, values)) == len(values)

    def _from_object(self, value: dict[str, Any], where: str) -> _Row:
        found = [look_up(value, steps) for steps in self._fields]
        fields = self._missing.numbers(found, lambda position: f"{where}field {self._names[position]!r}")
        return (*self._leading(value, where), *fields)

    def _leading(self, value: Mapping[str, Any], where: str) -> list[Any]:
        lead: list[Any] = []
        if self._time is not None:
            time = look_up(value, self._time)
            if is_missing(time):
                raise Unusable("time", f"{where}no time: field {self._time_name!r} is {kind(time)}")
            lead.append(time)
        if self._key is not None:
            lead.append(checked_key(look_up(value, self._key), f"{where}field {self._key_name!r}"))
        return lead

    def _from_columns(self, value: dict[str, Any], columns: list[Any], size: int) -> list[_Row]:
        lengths = {
            name: len(column) for name, column in zip(self._names, columns, strict=True) if not is_missing(column)
        }
        lead: list[list[Any]] = []
        if self._time is not None:
            time = look_up(value, self._time)
            if not isinstance(time, list):
                raise Unusable("time", f"field {self._time_name!r} is {kind(time)}; expected an array like the fields")
            lengths[str(self._time_name)] = len(time)
            lead.append(time)
        key = None if self._key is None else look_up(value, self._key)
        if isinstance(key, list):
            lengths[str(self._key_name)] = len(key)
        count = max(lengths.values())
        if len(set(lengths.values())) != 1 or not count:
            raise Unusable(
                "decode", f"columns of different or no length: {lengths}; expected one value a reading in each"
            )
        refuse_too_many(count, len(columns), size)
        if self._key is not None:
            of_each = key if isinstance(key, list) else [key] * count
            lead.append([checked_key(one, f"field {self._key_name!r}") for one in of_each])
        fields = [
            [None] * count if is_missing(column) else self._missing.numbers(column, partial(_item_of, name))
            for name, column in zip(self._names, columns, strict=True)
        ]
        return list(zip(*lead, *fields, strict=True))

    def _from_numbers(self, value: list[Any]) -> _Row:
        if self._lead:
            wanted = self._time_name if self._time is not None else self._key_name
            raise Unusable("field", f"the payload is bare numbers; expected an object with field {wanted!r}")
        if len(value) != len(self._fields):
            expected = ", ".join(self._names)
            raise Unusable("field", f"{len(value)} numbers; expected {len(self._fields)}: {expected}")
        return tuple(self._missing.numbers(value, "item {}".format))


def _item_of(name: str, position: int) -> str:
    return f"field {name!r}, item {position}"


class _Typed(NamedTuple):
    """Decoders to a structure of time, key and fields."""

    one: Callable[[bytes], Any]
    """Of an object."""
    many: Callable[[bytes], list[Any]]
    """Of an array of objects."""
    row: Callable[[Any], _Row]
    """Returns what is in one."""
