"""What a family's fields are: measurements, the time, what names the device, counters, and what a model cannot use."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from processor.decoders.times import TimeUnit
from processor.discover.look import Record
from processor.discover.moments import moment
from processor.discover.texts import is_number_text
from processor.types import NS

_MOSTLY: Final = 0.95
_NEAR: Final = 86_400 * NS
"""A number so near to the time of arrival is a time, whatever its field is called."""
_TIME_NAME: Final = re.compile(r"ts|t0?|when|.*time.*|.*stamp.*|.*date.*|.*epoch.*|.*_(ts|at)", re.IGNORECASE)
_ID: Final = r"(?i:id|uuid|.*[_-]id)|.*[a-z]I[Dd]"
"""Names of identifiers, of which `humid` is none."""
_DEVICE: Final = r"(?i:.*(device|sensor|machine|asset|station|node)([_-]?(name|no|nr|serial|key|mac|addr|address))?)"
_KEY_NAME: Final = re.compile(rf"(?i:n|tag|name|source|key|mac|serial)|{_DEVICE}|{_ID}")
_NUMBERED_NAME: Final = re.compile(rf"(?i:(.*[_-])?(no|nr|addr|address|slave|unit))|{_DEVICE}|{_ID}")
"""Of a whole number that tells devices apart."""
_COUNTER_NAME: Final = re.compile(
    r".*(seq|sequence|counter|packet|uptime|frame|message|msg|index|idx)([_-]?(id|no|nr|num|number|count))?",
    re.IGNORECASE,
)
_ABOUT_NAME: Final = re.compile(
    rf"(?i:(.*[_-])?(version|firmware|fw|schema|rssi|snr|lqi|link_?quality)|quality|battery|lat|lon|latitude|longitude)|{_ID}"
)
_IDENTIFIER: Final = re.compile(r"(?=.*[0-9])[\w.:-]{1,64}")
_FEW: Final = 3
"""Messages of one topic before a field that never came is taken for one that it does not have."""
_RARE: Final = 0.2
"""The share of readings that a field is in, below which it is left out."""
_STEADY: Final = 0.9
"""The share of steps that are the same where a field counts."""


class Seen(NamedTuple):
    """A reading that came."""

    topic: str
    arrival: int
    record: Record


class TimeField(NamedTuple):
    """The field that holds the time."""

    name: str
    unit: TimeUnit
    ahead: int
    """The median of how far it is after the arrival, in ns."""
    whole: bool
    """Whether it is always a whole second."""


@dataclass(slots=True)
class Fields:
    """What the fields of a family are.

    Attributes:
        measured: names of the numbers that a model may be fed with, in the order of the payload.
        flags: names of the fields that are only true or false.
        time: None where there is none.
        key: the field that tells devices apart which share a topic; empty where topics do.
        key_repeats: whether two topics have one such key in common.
        sometimes: by field, the share of readings that lack it.
        left_out: every other field, with the reason, a clause.
        constant: measured fields that had one value all the time.
    """

    measured: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    time: TimeField | None = None
    key: str = ""
    key_repeats: bool = False
    sometimes: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    constant: list[str] = field(default_factory=list)


class _Column(NamedTuple):
    """The values of one field that are there, with the reading each is in."""

    name: str
    rows: list[Seen]
    values: list[object]

    @property
    def last_name(self) -> str:
        """The name, of a pointer the last step that is no position."""
        steps = [step for step in self.name.split("/") if step and not step.isdecimal()]
        return steps[-1] if steps else self.name


def classify(seen: Sequence[Seen], *, sparse: bool = False) -> Fields:
    """Say what the fields of a family's readings are.

    Args:
        seen: the readings; at least one.
        sparse: whether it means nothing that a reading lacks a field, because each field is a stream of its own.
    """
    found = Fields()
    columns = _columns(seen)
    found.time = _time_of(columns, len(seen))
    found.key = _key_of(columns, len(seen), found.time)
    if found.key:
        topics_of: dict[object, set[str]] = defaultdict(set)
        for row in seen:
            topics_of[row.record.get(found.key)].add(row.topic)
        found.key_repeats = any(len(topics) > 1 for key, topics in topics_of.items() if key is not None)
    counts = Counter(row.topic for row in seen)
    for column in columns:
        if (found.time is not None and column.name == found.time.name) or column.name == found.key:
            continue
        if reason := _why_not(column, found.key) or ("" if sparse else _why_too_rare(column, seen, counts)):
            found.left_out[column.name] = reason
        elif all(isinstance(value, bool) for value in column.values):
            found.flags.append(column.name)
        else:
            found.measured.append(column.name)
            lacking = 1 - len(column.values) / len(seen)
            if lacking:
                found.sometimes[column.name] = lacking
            if len(column.values) >= _FEW and len(set(map(str, column.values))) == 1:
                found.constant.append(column.name)
    return found


def _columns(seen: Iterable[Seen]) -> list[_Column]:
    columns: dict[str, _Column] = {}
    for row in seen:
        for name, value in row.record.items():
            column = columns.get(name)
            if column is None:
                column = columns[name] = _Column(name, [], [])
            if value is not None:
                column.rows.append(row)
                column.values.append(value)
    return list(columns.values())


def is_numeric(value: object) -> bool:
    """Whether a decoder reads a value as a number."""
    return isinstance(value, int | float) or is_number_text(value)


def _why_not(column: _Column, key: str) -> str:
    """Return why a field is no measurement; empty where it may be one."""
    return _why_no_number(column) or _why_another(column, key)


def _why_no_number(column: _Column) -> str:
    if not column.values:
        return "always null"
    numeric = sum(map(is_numeric, column.values))
    if not numeric:
        return _told(column.values)
    if numeric < _MOSTLY * len(column.values):
        odd = next(value for value in column.values if not is_numeric(value))
        return f"not always a number: {str(odd)[:30]!r} came, too"
    return ""


def _why_another(column: _Column, key: str) -> str:
    name = column.last_name
    if all(moment(value) for value in column.values) and (_TIME_NAME.fullmatch(name) or _is_near(column)):
        return "a time, too"
    if _counts(column, key, _STEADY if _COUNTER_NAME.fullmatch(name) is None else 0):
        return "counts up"
    return "about the device rather than measured" if _ABOUT_NAME.fullmatch(name) else ""


def _why_too_rare(column: _Column, seen: Sequence[Seen], counts: Mapping[str, int]) -> str:
    with_it = {row.topic for row in column.rows}
    without = [topic for topic, count in counts.items() if count >= _FEW and topic not in with_it]
    if without:
        return f"never on {len(without)} of {len(counts)} topics, such as {without[0]}"
    if len(column.values) < _RARE * len(seen):
        return f"only in {len(column.values)} of {len(seen)} readings"
    return ""


def _told(values: Sequence[object]) -> str:
    if all(isinstance(value, list) for value in values):
        return "an array"
    if all(isinstance(value, dict) for value in values):
        return "an object"
    distinct = {str(value)[:30] for value in values}
    return f"text: {', '.join(sorted(distinct)[:3])}" + (" …" if len(distinct) > 3 else "")  # noqa: PLR2004


def _counts(column: _Column, key: str, steady: float) -> bool:
    """Whether a field is a whole number that grows from message to message of each device.

    Args:
        column: the field.
        key: the field that tells devices apart which share a topic, if any.
        steady: the share of its steps that have to be the same.
    """
    values_of: dict[tuple[str, object], list[int]] = defaultdict(list)
    for row, value in zip(column.rows, column.values, strict=True):
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        values_of[row.topic, row.record.get(key)].append(value)
    steps = Counter(b - a for values in values_of.values() for a, b in pairwise(values))
    if steps.total() < _FEW or (steady and steps.total() < 2 * _FEW):
        return False
    (step, times), *_ = steps.most_common(1)
    falls = sum(count for step, count in steps.items() if step < 0)
    if max(steps) <= 0 or falls > (1 - _STEADY) * steps.total():
        return False
    return not steady or (step > 0 and times >= steady * steps.total())


def _is_near(column: _Column) -> bool:
    near = 0
    for row, value in zip(column.rows, column.values, strict=True):
        found = moment(value)
        near += found is not None and abs(found[0] - row.arrival) <= _NEAR
    return near >= _MOSTLY * len(column.values)


def _time_of(columns: Iterable[_Column], readings: int) -> TimeField | None:
    """Return the likeliest time: near to the arrival, called so, in this order."""
    best: tuple[tuple[bool, bool, bool], TimeField] | None = None
    for column in columns:
        if len(column.values) < _MOSTLY * readings:
            continue
        moments = [moment(value) for value in column.values]
        units = Counter(found[1] for found in moments if found is not None)
        if not units:
            continue
        (unit, times), *_ = units.most_common(1)
        if times < _MOSTLY * len(column.values):
            continue
        near, named = _is_near(column), _TIME_NAME.fullmatch(column.last_name) is not None
        if not near and not named:
            continue
        ahead = sorted(
            found[0] - row.arrival for row, found in zip(column.rows, moments, strict=True) if found is not None
        )
        rank = (near, named, column.last_name.lower() in ("ts", "time", "timestamp", "t", "t0", "sourcetimestamp"))
        whole = all(found is None or found[0] % NS == 0 for found in moments)
        if best is None or rank > best[0]:
            best = rank, TimeField(column.name, unit, ahead[len(ahead) // 2], whole)
    return best[1] if best is not None else None


def _key_of(columns: Iterable[_Column], readings: int, time: TimeField | None) -> str:
    """Return the field that tells apart the devices that share a topic: it varies within a topic, and comes again."""
    for column in columns:
        if time is not None and column.name == time.name:
            continue
        if len(column.values) < _MOSTLY * readings or not _names_devices(column) or _counts(column, "", _STEADY):
            continue
        by_topic: dict[str, list[object]] = defaultdict(list)
        for row, value in zip(column.rows, column.values, strict=True):
            by_topic[row.topic].append(value)
        varied = [values for values in by_topic.values() if len(set(values)) > 1]
        if any(len(set(values)) * 2 <= len(values) for values in varied):
            return column.name
    return ""


def _names_devices(column: _Column) -> bool:
    """Whether a field's values, and its name, are such as tell devices apart."""
    name = column.last_name
    if "{" in column.name or "}" in column.name:
        return False  # a stream cannot name it
    if all(isinstance(value, int) and not isinstance(value, bool) for value in column.values):
        return _NUMBERED_NAME.fullmatch(name) is not None
    texts = [value for value in column.values if isinstance(value, str)]
    if len(texts) < len(column.values) or any(is_number_text(text) or moment(text) for text in texts):
        return False
    return _KEY_NAME.fullmatch(name) is not None or all(map(_IDENTIFIER.fullmatch, texts))
