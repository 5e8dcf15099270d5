"""Which messages of several sensors go together: groups by key, closed by completeness, time, or what comes next.

No clock: only messages decide, in the order they arrive, so that any batches and restarts give the same readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from processor.conditions.memory import HEAD, Row
from processor.types import NS

_Part = tuple[int, tuple[float, ...]]  # time in ns, values


class Joined(NamedTuple):
    """A reading of all sensors."""

    key: str
    time: int
    """The newest of those that came, in ns since the Unix epoch."""
    values: tuple[float, ...]
    """Of the sensors, one after another."""


class Incomplete(NamedTuple):
    """A group that gave no reading."""

    why: str
    """A sentence."""


@dataclass(slots=True)
class _Sensors:
    """What is known of one key.

    Attributes:
        last: what each sensor sent last.
        came: those of the open group, in order; empty: there is none.
        first: time of the first of these.
    """

    last: list[_Part | None]
    came: list[int] = field(default_factory=list)
    first: int = 0


_Kept = tuple[int, list[int], int, list[_Part | None]]  # when it was heard, then the attributes of `_Sensors`
_decode: Final = msgspec.msgpack.Decoder(_Kept).decode


class Groups:
    """The groups of one source. Used by one thread."""

    def __init__(self, sensors: Sequence[str], within: int, *, fill: bool, most: int) -> None:
        """Begin with none.

        Args:
            sensors: their names.
            within: ns that a message's time may be away from that of its group's first.
            fill: whether what did not come is what came last.
            most: keys remembered: the least recently heard is forgotten, and its open group closed.
        """
        self._names = sensors
        self._within = within
        self._fill = fill
        self._most = most
        self._known: dict[str, _Sensors] = {}  # the least recently heard key first
        self._changed: dict[str, None] = {}  # keys, those heard last at the end
        self._heard = 0  # rows so far: their numbers tell which key was heard last

    def take(self, key: str, sensor: int, part: _Part) -> Joined | Incomplete | None:
        """Take a sensor's message; return what came of the group that it completed or closed."""
        closed: Joined | Incomplete | None = None
        known = self._known.pop(key, None)
        if known is None:
            known = _Sensors([None] * len(self._names))
            if len(self._known) >= self._most:
                closed = self._forget()
        elif known.came and (sensor in known.came or abs(part[0] - known.first) > self._within):
            closed = self._close(key, known)
        self._known[key] = known
        self._note(key)
        if not known.came:
            known.first = part[0]
        known.came.append(sensor)
        known.last[sensor] = part
        return self._close(key, known) if len(known.came) == len(self._names) else closed

    def _forget(self) -> Joined | Incomplete | None:
        key = next(iter(self._known))
        known = self._known.pop(key)
        self._note(key)
        return self._close(key, known) if known.came else None

    def _close(self, key: str, known: _Sensors) -> Joined | Incomplete:
        time = max(part[0] for sensor in known.came if (part := known.last[sensor]))
        parts = [part for sensor, part in enumerate(known.last) if part and (self._fill or sensor in known.came)]
        lacking = [sensor for sensor in range(len(self._names)) if sensor not in known.came]
        if self._fill:
            lacking = [sensor for sensor in lacking if known.last[sensor] is None]
        known.came = []
        if not lacking:
            return Joined(key, time, tuple(value for part in parts for value in part[1]))
        names = " and ".join(repr(self._names[sensor]) for sensor in lacking)
        when = "has never come" if self._fill else f"did not come within {self._within / NS:.12g} s of the others"
        return Incomplete(f"no reading of {key!r:.100} before this message: {names} {when}")

    def _note(self, key: str) -> None:
        self._changed.pop(key, None)
        self._changed[key] = None

    def changes(self) -> list[Row]:
        """Return the rows that changed since the last call."""
        rows = []
        for key in self._changed:
            known = self._known.get(key)
            self._heard += 1
            kept = None if known is None else (self._heard, known.came, known.first, known.last)
            rows.append(Row(key, HEAD, None if kept is None else msgspec.msgpack.encode(kept)))
        self._changed.clear()
        return rows

    def restore(self, rows: Sequence[Row]) -> None:
        """Go on from what `changes` returned over the time."""
        kept = sorted((*_decode(row.value), row.key) for row in rows if row.value is not None)
        for self._heard, came, first, last, key in kept:
            self._known[key] = _Sensors(last, came, first)
