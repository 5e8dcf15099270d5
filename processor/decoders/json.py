"""JSON: objects, arrays of objects, arrays of numbers, columns, bare numbers.

Nearly every message of a plant is one object or an array of them, with all its fields as numbers. Those go straight
into a typed structure made for the source; whatever does not fit is looked at again, slowly and with a precise answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import numpy as np

from processor.decoders.checks import Checks, Unusable
from processor.decoders.times import KINDS
from processor.source_sections import Source
from processor.types import Decoded, Failure, Ints, Times

_LONGEST_KEY: Final = 65_535
"""Characters of a stream's key in a payload: as many as a topic may have."""
_PLAIN: Final = frozenset((int, float))
_EXACT: Final = 400
"""Digits of an integer beyond which it is infinite as a float anyway."""

_Row = tuple[Any, ...]  # time if the source has one, stream key if it is in the payload, then the fields


class JsonDecoder:
    """Decoder of `format: json`."""

    def __init__(self, source: Source) -> None:
        """Prepare for one source's fields, time and stream key."""
        self._fields = [_pointer(field) for field in source.fields]
        self._names = source.fields
        self._time = None if source.time is None else _pointer(source.time)
        self._time_name = source.time
        self._checks = Checks(source)
        self._key_name = key_field(source.stream)
        self._key = None if self._key_name is None else _pointer(self._key_name)
        self._lead = (self._time is not None) + (self._key is not None)
        self._fast = _typed(self._time, self._key, self._fields)

    def decode(self, payloads: Sequence[bytes], arrivals: Times, topics: Sequence[str]) -> Decoded:
        """Decode N payloads; see `protocols.Decoder`."""
        del topics
        failures: list[Failure] = []
        if self._fast is None:
            rows, origin = self._carefully(payloads, failures)
        else:
            decode, astuple = self._fast.one, msgspec.structs.astuple
            try:
                rows, origin = list(map(astuple, map(decode, payloads))), range(len(payloads))
            except (ValueError, RecursionError):  # all of msgspec's are ValueErrors, and UnicodeDecodeError is one
                rows, origin = self._carefully(payloads, failures)
        return self._columns(rows, np.fromiter(origin, np.int64, len(rows)), arrivals, failures)

    def _columns(self, rows: list[_Row], origin: Ints, arrivals: Times, failures: list[Failure]) -> Decoded:
        columns = list(zip(*rows, strict=True)) if rows else [()] * (self._lead + len(self._fields))
        flat = chain.from_iterable(columns[self._lead :])
        shape = len(self._fields), len(rows)
        values = np.fromiter(flat, np.float64, math.prod(shape)).reshape(shape).T
        keys = None if self._key is None else [str(key) for key in columns[self._lead - 1]]
        return self._checks.readings(
            origin, None if self._time is None else columns[0], values, arrivals, failures, keys=keys
        )

    def _carefully(self, payloads: Sequence[bytes], failures: list[Failure]) -> tuple[list[_Row], list[int]]:
        """Decode one by one; what cannot be used is added to `failures`."""
        rows: list[_Row] = []
        origin: list[int] = []
        for index, payload in enumerate(payloads):
            try:
                found = self._quickly(payload) or self._rows(_parse(payload))
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
        try:
            found = self._fast.many(payload) if payload.startswith(b"[") else [self._fast.one(payload)]
        except (ValueError, RecursionError):  # another shape, or something to be said about it precisely
            return []
        return list(map(msgspec.structs.astuple, found))

    def _rows(self, value: object) -> list[_Row]:
        """Return the readings in a decoded payload of any of the shapes."""
        if isinstance(value, dict):
            firsts = [_look_up(value, pointer) for pointer in self._fields]
            if all(isinstance(first, list) for first in firsts):
                return self._from_columns(value, firsts)
            return [self._from_object(value, "")]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = []
            for position, item in enumerate(value):
                if not isinstance(item, dict):
                    raise Unusable("decode", f"item {position} is {_kind(item)}; expected an object like the first")
                rows.append(self._from_object(item, f"item {position}: "))
            return rows
        if isinstance(value, list) and value:
            return [self._from_numbers(value)]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return [self._from_numbers([value])]
        raise Unusable("decode", f"the payload is {_kind(value)}; expected an object, an array or a number")

    def _from_object(self, value: dict[str, Any], where: str) -> _Row:
        found = [_look_up(value, pointer) for pointer in self._fields]
        numbers = _numbers(found, lambda position: f"{where}field {self._names[position]!r}")
        return (*self._leading(value, where), *numbers)

    def _leading(self, value: Mapping[str, Any], where: str) -> list[Any]:
        lead: list[Any] = []
        if self._time is not None:
            time = _look_up(value, self._time)
            if time is _ABSENT or time is None:
                raise Unusable("time", f"{where}no time: field {self._time_name!r} is {_kind(time)}")
            lead.append(time)
        if self._key is not None:
            lead.append(_checked_key(_look_up(value, self._key), f"{where}field {self._key_name!r}"))
        return lead

    def _from_columns(self, value: dict[str, Any], columns: list[Any]) -> list[_Row]:
        lengths = {name: len(column) for name, column in zip(self._names, columns, strict=True)}
        lead: list[list[Any]] = []
        if self._time is not None:
            time = _look_up(value, self._time)
            if not isinstance(time, list):
                raise Unusable("time", f"field {self._time_name!r} is {_kind(time)}; expected an array like the fields")
            lengths[str(self._time_name)] = len(time)
            lead.append(time)
        key = None if self._key is None else _look_up(value, self._key)
        if isinstance(key, list):
            lengths[str(self._key_name)] = len(key)
        count = len(columns[0])
        if len(set(lengths.values())) != 1 or not count:
            raise Unusable(
                "decode", f"columns of different or no length: {lengths}; expected one value a reading in each"
            )
        if self._key is not None:
            of_each = key if isinstance(key, list) else [key] * count
            lead.append([_checked_key(one, f"field {self._key_name!r}") for one in of_each])
        numbers = [_numbers(column, partial(_item_of, name)) for name, column in zip(self._names, columns, strict=True)]
        return list(zip(*lead, *numbers, strict=True))

    def _from_numbers(self, value: list[Any]) -> _Row:
        if self._lead:
            wanted = self._time_name if self._time is not None else self._key_name
            raise Unusable("field", f"the payload is bare numbers; expected an object with field {wanted!r}")
        if len(value) != len(self._fields):
            expected = ", ".join(self._names)
            raise Unusable("field", f"{len(value)} numbers; expected {len(self._fields)}: {expected}")
        return tuple(_numbers(value, "item {}".format))


class _Absent:
    """Stands for a field that is not there; None is JSON's null."""


_ABSENT: Final = _Absent()


def key_field(template: str) -> str | None:
    """Return the field that a stream template takes its key from, if any."""
    start = template.find("{field:")
    return None if start < 0 else template[start + 7 : template.index("}", start)]


def _pointer(field: str) -> tuple[str, ...]:
    """Return the steps to a field: a name, or a JSON pointer (RFC 6901) when it starts with a slash."""
    if not field.startswith("/"):
        return (field,)
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in field[1:].split("/"))


def _look_up(value: object, pointer: tuple[str, ...]) -> object:
    for step in pointer:
        if isinstance(value, dict):
            value = value.get(step, _ABSENT)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _ABSENT
    return value


def _item_of(name: str, position: int) -> str:
    return f"field {name!r}, item {position}"


def _numbers(values: list[Any], what: Callable[[int], str]) -> list[float]:
    """Return values as floats; `what` names the one at a position in a sentence."""
    if _PLAIN.issuperset(map(type, values)):
        try:
            return list(map(float, values))
        except OverflowError:
            pass
    return [_number(value, what(position)) for position, value in enumerate(values)]


def _number(value: object, what: str) -> float:
    if isinstance(value, int | float):  # true and false are 1 and 0
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str):
        try:
            return float(value.replace("_", "no digit"))
        except ValueError:
            raise Unusable("field", f"{what} is {value!r:.60}; expected a number") from None
    raise Unusable("field", f"{what} is {_kind(value)}; expected a number")


def _checked_key(value: object, what: str) -> str:
    """Return a stream's key; `what` names its field in a sentence."""
    named = f"{what} names the stream"
    refused = isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value))
    if refused or not isinstance(value, str | int | float):
        raise Unusable("field", f"{named}; expected text, found {_kind(value)}")
    key = str(value)
    if not 0 < len(key) <= _LONGEST_KEY:
        raise Unusable("field", f"{named}; expected 1 to {_LONGEST_KEY} characters, found {len(key)}")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise Unusable("field", f"{named}; {key!r:.60} holds half a surrogate pair, which is no character") from None
    return key


def _kind(value: object) -> str:
    if value is _ABSENT:
        return "missing"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return "empty" if value in ([], {}, "") else KINDS[type(value)]


def _parse(payload: bytes) -> object:
    """Return what a payload holds."""
    if not payload.strip():
        raise Unusable("decode", "the payload is empty; expected JSON")
    try:
        return msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        pass
    # Python's own reader takes NaN and numbers of any size, so that it can be said which field holds one.
    try:
        return json.loads(payload.decode("utf-8-sig"), parse_int=_whole)
    except UnicodeDecodeError as error:
        detail = f"byte {error.start} is 0x{payload[error.start]:02x}, which is not UTF-8"
    except json.JSONDecodeError as error:
        detail = f"{error.msg} at character {error.pos}"
    except RecursionError:
        detail = "it has too many arrays or objects inside one another"
    raise Unusable("decode", f"the payload is not JSON: {detail}")


def _whole(digits: str) -> float:
    return int(digits) if len(digits) <= _EXACT else float(digits)


class _Typed(NamedTuple):
    """Decoders to a structure of time, key and fields."""

    one: Callable[[bytes], msgspec.Struct]
    """Of an object."""
    many: Callable[[bytes], list[msgspec.Struct]]
    """Of an array of objects."""


def _typed(
    time: tuple[str, ...] | None, key: tuple[str, ...] | None, fields: Sequence[tuple[str, ...]]
) -> _Typed | None:
    """Return the decoders; None where time, key or a field cannot be in such a structure."""
    text = Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_KEY)]
    leads: list[tuple[tuple[str, ...] | None, Any]] = [(time, int | float | str), (key, int | text)]
    wanted = [(pointer, kind) for pointer, kind in leads if pointer is not None]
    wanted += [(pointer, float) for pointer in fields]
    names = [pointer[0] for pointer, _ in wanted]
    if any(len(pointer) > 1 for pointer, _ in wanted) or len(set(names)) < len(names):
        return None
    if any(character in '"\\' or character < " " for name in names for character in name):
        return None  # msgspec has no such names
    attributes = [f"field_{position}" for position in range(len(wanted))]
    structure = msgspec.defstruct(
        "Reading",
        [(attribute, kind) for attribute, (_, kind) in zip(attributes, wanted, strict=True)],
        rename=dict(zip(attributes, names, strict=True)),
        gc=False,
    )
    one, many = msgspec.json.Decoder(structure), msgspec.json.Decoder(list[structure])  # type: ignore[valid-type]
    return _Typed(one.decode, many.decode)
