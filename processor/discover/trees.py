"""Objects and arrays inside one another: what JSON, MessagePack and CBOR hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from processor.decoders.times import TIMESTAMPS
from processor.decoders.values import look_up
from processor.discover.look import MOST_FIELDS, MOST_RECORDS, Look, Record, can_be_written, unknown
from processor.discover.moments import is_moment

_DEEPEST: Final = 8
_LONGEST_AXES: Final = 16
"""Numbers in an array that are fields of one reading rather than a field of so many readings."""
_SCALAR: Final = (int, float, str, type(None), *TIMESTAMPS)


def look_at(tree: object, format_: str) -> Look:
    """Return what a decoded payload holds."""
    if isinstance(tree, dict):
        return _of_object(tree, format_)
    if isinstance(tree, list) and tree:
        if all(isinstance(item, dict) for item in tree):
            records = [flat(item) for item in tree[:MOST_RECORDS]]
            return Look(format_, "objects", records, len(tree))
        if all(map(is_number, tree)):
            return Look(format_, "numbers", [{name(n): value for n, value in _enumerated(tree)}], 1, (len(tree),))
        return unknown("array", "an array of neither objects nor numbers")
    if is_number(tree):
        return Look(format_, "number", [{"value": tree}], 1)
    kinds = {str: "text", bool: "true or false", type(None): "null", list: "an empty array"}
    return unknown("scalar", f"{format_} that is {kinds.get(type(tree), 'of another kind')}")


def _enumerated(values: list[Any]) -> Iterator[tuple[int, Any]]:
    return enumerate(values[:MOST_FIELDS])


def name(position: int) -> str:
    """Return what a field without a name is called: c0, c1 …."""
    return f"c{position}"


def is_number(value: object) -> bool:
    """Whether a value is a number that a field may have; true and false are, null is not."""
    return isinstance(value, int | float)


def flat(tree: dict[str, Any]) -> Record:
    """Return an object's values by field: its own keys, and JSON pointers to what lies deeper."""
    if len(tree) <= MOST_FIELDS and _is_flat(tree):  # nearly always
        return dict(tree)
    found: Record = {}
    for steps, value in _leaves(tree, ()):
        if len(found) >= MOST_FIELDS:
            break
        found[field_name(steps)] = value
    return found


def _is_flat(tree: dict[str, Any]) -> bool:
    """Whether an object's keys are its fields as they stand there."""
    if any(isinstance(value, dict | list) for value in tree.values()):
        return False
    return all(isinstance(key, str) and key and key[0] != "/" for key in tree) and can_be_written("".join(tree))


def field_name(steps: tuple[str, ...]) -> str:
    """Write the way to a value as a source's field: a name, or a JSON pointer (RFC 6901)."""
    if len(steps) == 1 and not steps[0].startswith("/"):
        return steps[0]
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def _leaves(tree: object, steps: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield with the way to it what is no object and no short array: scalars, longer arrays, and what is deepest."""
    if isinstance(tree, dict) and tree and len(steps) < _DEEPEST:
        for key, value in tree.items():
            if can_be_written(str(key)):
                yield from _leaves(value, (*steps, str(key)))
    elif isinstance(tree, list) and 0 < len(tree) <= _LONGEST_AXES and len(steps) < _DEEPEST:
        for position, value in enumerate(tree):
            yield from _leaves(value, (*steps, str(position)))
    elif steps and steps[0]:
        yield steps, tree


def _of_object(tree: dict[str, Any], format_: str) -> Look:
    arrays = dict(_arrays(tree, ()))
    base = next((steps for steps, values in arrays.items() if _is_table(values)), None)
    if base is not None:
        return _of_base(tree, format_, base, arrays)
    columns = {steps: values for steps, values in arrays.items() if all(isinstance(v, _SCALAR) for v in values)}
    lengths = {len(values) for values in columns.values()}
    timed = any(all(map(is_moment, values)) for values in columns.values())
    if columns and len(lengths) == 1 and (timed or max(lengths) > _LONGEST_AXES):
        series = None if timed or len(columns) > 1 else _of_series(tree, format_, next(iter(columns)))
        return series or _of_columns(tree, format_, columns)
    return Look(format_, "object", [flat(tree)], 1)


def _arrays(tree: object, steps: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Yield the arrays in an object that are in no other array."""
    if isinstance(tree, list) and tree:
        yield steps, tree
    elif isinstance(tree, dict) and len(steps) < _DEEPEST:
        for key, value in tree.items():
            if can_be_written(str(key)):
                yield from _arrays(value, (*steps, str(key)))


def _is_table(values: list[Any]) -> bool:
    """Whether an array holds readings: arrays of numbers, all of one length."""
    if not isinstance(values[0], list):
        return False
    width = len(values[0])
    return width > 0 and all(isinstance(row, list) and len(row) == width and all(map(is_number, row)) for row in values)


def _of_base(
    tree: dict[str, Any], format_: str, steps: tuple[str, ...], arrays: dict[tuple[str, ...], list[Any]]
) -> Look:
    """Look at `{"t0": …, "values": [[…], …]}`."""
    rows = arrays[steps]
    width = len(rows[0])
    called = next(
        (tuple(names) for names in arrays.values() if len(names) == width and all(map(_is_name, names))),
        tuple(name(n) for n in range(width)),
    )
    scalars: Record = {key: value for key, value in _outside(tree, tuple(arrays)) if isinstance(value, _SCALAR)}
    values = field_name(steps)
    return Look(format_, "base", [scalars], len(rows), (values, called if len(set(called)) == width else ()))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and can_be_written(value)


def _of_series(tree: dict[str, Any], format_: str, steps: tuple[str, ...]) -> Look | None:
    """Look at `{"t0": …, "values": […]}`, many readings of one field with one time; None where there is no time."""
    scalars: Record = {key: value for key, value in _outside(tree, (steps,)) if isinstance(value, _SCALAR)}
    values = look_up(tree, steps)
    if not isinstance(values, list) or not all(map(is_number, values)) or not any(map(is_moment, scalars.values())):
        return None
    name_of_all = field_name(steps)
    return Look(format_, "base", [scalars], len(values), (name_of_all, (steps[-1],)))


def _of_columns(tree: dict[str, Any], format_: str, columns: dict[tuple[str, ...], list[Any]]) -> Look:
    """Look at `{"ts": […], "ax": […]}`."""
    count = len(next(iter(columns.values())))
    names = {field_name(steps): values for steps, values in columns.items()}
    around = {key: value for key, value in _outside(tree, tuple(columns)) if isinstance(value, _SCALAR)}
    records: list[Record] = [
        {**around, **{key: values[row] for key, values in names.items()}} for row in range(min(count, MOST_RECORDS))
    ]
    return Look(format_, "columns", records, count, (frozenset(around),))


def _outside(tree: dict[str, Any], columns: tuple[tuple[str, ...], ...]) -> Iterator[tuple[str, object]]:
    """Yield the values of an object that are in none of its columns."""
    for steps, value in _leaves(tree, ()):
        if not any(steps[: len(column)] == column for column in columns):
            yield field_name(steps), value
