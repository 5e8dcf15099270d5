"""OPC UA PubSub's JSON, and the samples mode of OPC Publisher: a stream a node, or a reading a DataSet message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np

from processor.decoders.checks import Checks, Unusable, refuse_too_many
from processor.decoders.json import JSON
from processor.decoders.opcua_messages import DataSet, data_sets, joined_samples
from processor.decoders.opcua_values import value_and_time
from processor.decoders.times import TimeUnit, column_to_nanoseconds, to_nanoseconds
from processor.decoders.values import ABSENT, checked_key, is_missing, key_field, number, numbers
from processor.source_sections import Source
from processor.types import Decoded, Failure, Flags, Floats, Ints, Times

_NODES: Final = 10_000
"""Node ids of which it is remembered whether they are read; with more, all are forgotten and found again."""
_LONGEST_NODE: Final = 1024
"""Characters of one that is remembered; most have 50, some 4,000."""
_NUMBERS: Final = frozenset((float, int, bool))
"""What becomes a number without another look."""


@dataclass(slots=True)
class _Batch:
    """What was found in payloads: M readings of C fields, with T times, at least one each.

    Attributes:
        origin: M positions of payloads.
        keys: M stream keys; none where the topic alone tells the stream.
        values: M · C numbers, one reading after another; integers may be too large for a float.
        absent: as many, whether they are to be held; none where that cannot be.
        times: T times, as they stand in the payloads; None: the arrival.
        nodes: T nodes that they came with.
        starts: M positions in `times`, of each reading's first.
        wrong: what could not be used, by payload: the first, and how many.
    """

    origin: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    absent: list[bool] = field(default_factory=list)
    times: list[object] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    wrong: dict[int, tuple[Failure, int]] = field(default_factory=dict)

    def refuse(self, index: int, why: Unusable, node: str | None = None) -> None:
        """Take note of what cannot be used, and of the node that it belongs to."""
        if index in self.wrong:
            first, count = self.wrong[index]
            self.wrong[index] = first, count + 1
        else:
            where = "" if node is None else f"node {node!r:.120}: "
            self.wrong[index] = Failure(index, why.reason, where + why.detail), 1


class _Reader(Protocol):
    """Finds the readings in a payload."""

    many: str
    """What readings are called in sentences."""

    def take(self, payload: object, size: int, index: int, batch: _Batch) -> None:
        """Add what is in a decoded payload of `size` bytes to `batch`; `index` is its position."""
        ...


class OpcuaDecoder:
    """Decoder of `format: opcua`."""

    def __init__(self, source: Source) -> None:
        """Prepare for one source's nodes."""
        self._channels = len(source.fields)
        self._unit = source.time_unit
        self._reader: _Reader = _Joined(source) if source.opcua.join else _Nodes(source.opcua.nodes)
        self._keyed = not source.opcua.join or key_field(source.stream) is not None
        self._checks = Checks(source, partly=True)

    def decode(self, payloads: Sequence[bytes], arrivals: Times, topics: Sequence[str]) -> Decoded:
        """Decode N payloads; see `protocols.Decoder`."""
        del topics
        batch = _Batch()
        for index, payload in enumerate(payloads):
            try:
                parsed = JSON.parse(payload)
            except Unusable as unusable:
                batch.refuse(index, unusable)
            else:
                self._reader.take(parsed, len(payload), index, batch)
        origin = np.array(batch.origin, np.int64)
        offered = np.bincount(origin, minlength=len(payloads))
        for index, (_, count) in batch.wrong.items():
            offered[index] += count
        moments, good = _moments(batch, origin, arrivals, self._unit)
        values = _floats(batch.values).reshape(-1, self._channels)
        absent = np.array(batch.absent, np.bool_).reshape(-1, self._channels) if any(batch.absent) else None
        keys: Sequence[str] | None = batch.keys if self._keyed else None
        if not good.all():
            origin, moments, values = origin[good], moments[good], values[good]
            absent = None if absent is None else absent[good]
            keys = None if keys is None else [key for key, usable in zip(keys, good.tolist(), strict=True) if usable]
        failures = [first for first, _ in batch.wrong.values()]
        decoded = self._checks.readings(origin, moments, values, arrivals, failures, keys=keys, absent=absent)
        left_out = offered - np.bincount(decoded.origin, minlength=len(payloads))
        for position, (index, reason, detail) in enumerate(failures):
            if left_out[index] > 1:
                how_many = f"{left_out[index]} of the payload's {offered[index]} {self._reader.many} cannot be used"
                failures[position] = Failure(index, reason, f"{detail}; {how_many}")
        return decoded


class _Nodes:
    """Each value is a reading of its node."""

    many = "values"

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [_pattern(text) for text in patterns]
        self._known: dict[str, bool] = {}

    def take(self, payload: object, size: int, index: int, batch: _Batch) -> None:
        """See `_Reader`."""
        del size  # each value takes room in the payload
        known, before = self._known, len(batch.keys)
        keys, values, times = batch.keys, batch.values, batch.times
        value: Any
        for found in data_sets(payload):
            if isinstance(found, Unusable):
                batch.refuse(index, found)
                continue
            status, message_time = found.status, found.time
            for node, entry in found.entries.items():
                is_read = known.get(node)
                if is_read and type(entry) is dict and "StatusCode" not in entry and "Status" not in entry:
                    value, time = entry.get("Value"), entry.get("SourceTimestamp")
                    if type(value) in _NUMBERS and type(time) is str:  # nearly always; what is below says the same
                        keys.append(node)
                        values.append(value)
                        times.append(time)
                        continue
                try:
                    if not (self._is_read(node) if is_read is None else is_read):
                        continue
                    value, time = value_and_time(entry, status)
                    value = _number(value)
                except Unusable as unusable:
                    batch.refuse(index, unusable, node)
                    continue
                if time is None:
                    batch.refuse(index, Unusable("time", "it has a value, but no SourceTimestamp"), node)
                    continue
                keys.append(node)
                values.append(value)
                times.append(message_time if time is ABSENT else time)
        new = range(before, len(keys))
        batch.origin += [index] * len(new)
        batch.nodes += keys[before:]
        batch.starts += new

    def _is_read(self, node: str) -> bool:
        """Return whether a node is read.

        Raises:
            Unusable: it is, and its id cannot be a stream's key.
        """
        is_read = any(matches(node) for matches in self._patterns)
        if is_read:
            checked_key(node, "its id")
        if len(node) <= _LONGEST_NODE:
            if len(self._known) >= _NODES:
                self._known.clear()
            self._known[node] = is_read
        return is_read


class _Joined:
    """Each DataSet message is a reading of the fields."""

    many = "DataSet messages"

    def __init__(self, source: Source) -> None:
        self._fields = source.fields
        self._key = key_field(source.stream)
        self._holds = source.missing == "hold"
        self._stand_in = source.missing if isinstance(source.missing, float) else 0.0 if self._holds else None

    def take(self, payload: object, size: int, index: int, batch: _Batch) -> None:
        """See `_Reader`."""
        everything = list(joined_samples(data_sets(payload)))
        try:
            refuse_too_many(len(everything), len(self._fields), size)
        except Unusable as unusable:
            batch.refuse(index, unusable)
            return
        for found in everything:
            if isinstance(found, Unusable):
                batch.refuse(index, found)
            elif not found.entries.keys().isdisjoint(self._fields):
                self._take_one(found, index, batch)

    def _take_one(self, found: DataSet, index: int, batch: _Batch) -> None:
        values, absent, times, nodes = [], [], [], []
        node = None
        try:
            if self._key is not None:
                key = checked_key(found.look_up(self._key), f"field {self._key!r}")
            for node in self._fields:
                entry = found.entries.get(node, ABSENT)
                value, time = (ABSENT, ABSENT) if entry is ABSENT else value_and_time(entry, found.status)
                missing = is_missing(value)
                values.append(self._stand_in if missing and self._stand_in is not None else _number(value))
                absent.append(missing)
                if time is not ABSENT and time is not None:
                    times.append(time)
                    nodes.append(node)
        except Unusable as unusable:
            batch.refuse(index, unusable, node)
            return
        if self._key is not None:
            batch.keys.append(key)
        if self._holds:
            batch.absent += absent
        batch.starts.append(len(batch.times))
        batch.origin.append(index)
        batch.values += values
        batch.times += times or [found.time]
        batch.nodes += nodes or self._fields[:1]


def _moments(batch: _Batch, origin: Ints, arrivals: Times, unit: TimeUnit) -> tuple[Times, Flags]:
    """Return (M,) times of the readings, of each its newest, and whether it can be read; if not, that is taken note of.

    Args:
        batch: its times are texts, in nearly every message.
        origin: (M,) positions of payloads.
        arrivals: (N,) of the payloads.
        unit: that times are in.
    """
    good = np.ones(len(origin), np.bool_)
    if not len(origin):
        return np.empty(0, np.int64), good
    starts = np.array(batch.starts, np.int64)
    owners = np.repeat(np.arange(len(origin)), np.diff(starts, append=len(batch.times)))
    moments = arrivals[origin[owners]]
    given = [position for position, time in enumerate(batch.times) if time is not None]
    try:
        if len(given) == len(moments):
            moments = column_to_nanoseconds(batch.times, unit)
        elif given:
            moments[given] = column_to_nanoseconds([batch.times[position] for position in given], unit)
    except ValueError:
        for position in given:
            try:
                moments[position] = to_nanoseconds(batch.times[position], unit)
            except ValueError as error:
                owner = owners[position]
                if good[owner]:
                    good[owner] = False
                    batch.refuse(int(origin[owner]), Unusable("time", f"its time: {error}"), batch.nodes[position])
    return np.maximum.reduceat(moments, starts), good


def _floats(values: list[float]) -> Floats:
    try:
        return np.array(values, np.float64)
    except OverflowError:  # an integer that is infinite as a float
        return np.array(numbers(values, str), np.float64)


def _number(value: Any) -> float:  # noqa: ANN401 - as it stands in a payload
    return value if type(value) in _NUMBERS else number(value, "its value")


def _pattern(text: str) -> Callable[[str], bool]:
    """Return what tells whether a text matches one in which each `*` stands for any text, and nothing else for more."""
    start, *between = text.split("*")
    if not between:
        return text.__eq__
    *between, end = between

    def matches(node: str) -> bool:
        at, last = len(start), len(node) - len(end)
        if at > last or not node.startswith(start) or not node.endswith(end):
            return False
        for part in between:
            at = node.find(part, at, last)
            if at < 0:
                return False
            at += len(part)
        return True

    return matches
