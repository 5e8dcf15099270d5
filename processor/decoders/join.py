"""One reading from several sensors, each on topics of its own: an object of their payloads by the sensors' names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from msgpack import Timestamp

from processor import topics as topic_names
from processor.conditions.memory import Row
from processor.decoders.checks import Checks, Unusable
from processor.decoders.codec import Codec
from processor.decoders.groups import Groups, Joined
from processor.decoders.structures import TIME, Member, structure
from processor.decoders.values import is_missing, look_up, numbers, pointer
from processor.source_sections import JoinKeys, Source
from processor.types import Decoded, Failure, Times

_KEYS: Final = 10_000
"""Keys whose sensors are remembered: as many as there are streams unless told otherwise."""
_ROUTES: Final = 100_000
"""Topics remembered; with more, all are forgotten and found again."""
_LONGEST_ROUTE: Final = 1024
"""Characters of a topic that is remembered."""


class JoinDecoder:
    """Decoder of any format whose payload is a tree or a number, for sources with a `join`."""

    def __init__(self, codec: Codec, source: Source, join: JoinKeys) -> None:
        """Prepare for one source's sensors."""
        self._source = source
        self._join = join
        self._sensors = [_Sensor(codec, source, name) for name in join.topics]
        self._groups = Groups(list(join.topics), join.within, fill=join.fill == "last", most=_KEYS)
        order = [field for sensor in self._sensors for field in sensor.fields]
        self._columns = [order.index(field) for field in source.fields]
        self._routes: dict[str, tuple[int, str]] = {}

    def decode(self, payloads: Sequence[bytes], arrivals: Times, topics: Sequence[str]) -> Decoded:
        """Decode N payloads; see `protocols.Decoder`. A reading comes from the payload that completed or closed it."""
        routes = [self._routes.get(topic) or self._route(topic) for topic in topics]
        failures: list[Failure] = []
        parts: list[tuple[int, int, tuple[float, ...]]] = []  # position, time, values
        for index, sensor in enumerate(self._sensors):
            positions = [position for position, route in enumerate(routes) if route[0] == index]
            if positions:
                decoded = sensor.read([payloads[position] for position in positions], arrivals[positions])
                failures += [failed._replace(position=positions[failed.position]) for failed in decoded.failures]
                places = np.array(positions, np.int64)[decoded.origin].tolist()
                rows = map(tuple, decoded.values.tolist())
                parts += zip(places, decoded.times.tolist(), rows, strict=True)
        origin: list[int] = []
        readings: list[Joined] = []
        for position, time, values in sorted(parts):
            sensor_index, key = routes[position]
            closed = self._groups.take(key, sensor_index, (time, values))
            if isinstance(closed, Joined):
                origin.append(position)
                readings.append(closed)
            elif closed is not None:
                failures.append(Failure(position, "incomplete", closed.why))
        failures.sort()
        rows_of = np.array([reading.values for reading in readings], np.float64).reshape(-1, len(self._columns))
        return Decoded(
            np.array(origin, np.int64),
            np.array([reading.time for reading in readings], np.int64),
            rows_of[:, self._columns],
            [reading.key for reading in readings],
            failures,
        )

    def changes(self) -> list[Row]:
        """Return the rows that changed; see `protocols.RememberingDecoder`."""
        return self._groups.changes()

    def restore(self, rows: Sequence[Row]) -> None:
        """Go on from these rows; see `protocols.RememberingDecoder`."""
        self._groups.restore(rows)

    def _route(self, topic: str) -> tuple[int, str]:
        """Return which sensor a topic is of, and its key."""
        filters = enumerate(self._join.topics.values())
        sensor = next(index for index, text in filters if topic_names.matches(text, topic))
        route = sensor, "".join(topic_names.render(self._join.by, self._source.name, topic))
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        if len(topic) <= _LONGEST_ROUTE:
            self._routes[topic] = route
        return route


class _Sensor:
    """Reads the payloads of one sensor: those fields of a reading that are in them, and their time if they have one.

    Attributes:
        fields: these.
    """

    def __init__(self, codec: Codec, source: Source, name: str) -> None:
        """Prepare."""
        self.fields = [field for field in source.fields if pointer(field)[0] == name]
        self._codec = codec
        self._steps = [pointer(field)[1:] for field in self.fields]
        self._time = None if source.time is None else pointer(source.time)
        self._checks = Checks(source.model_copy(update={"fields": self.fields}))
        members = [Member(steps, float) for steps in self._steps]
        made = structure([*members, *([] if self._time is None else [Member(self._time, TIME, optional=True)])])
        self._fast = None if made is None else codec.typed(made.type)
        self._row = None if made is None else made.row
        self._number = codec.typed(float) if self._steps == [()] else None

    def read(self, payloads: Sequence[bytes], arrivals: Times) -> Decoded:
        """Return the parts of readings, at most one from each of N payloads."""
        failures: list[Failure] = []
        try:
            rows, origin = self._quickly(payloads), list(range(len(payloads)))
        except (ValueError, RecursionError):  # something is to be said about it precisely, or it is only unusual
            rows, origin = [], []
            for index, payload in enumerate(payloads):
                try:
                    rows.append(self._alone(payload))
                except Unusable as unusable:
                    failures.append(Failure(index, unusable.reason, unusable.detail))
                    continue
                origin.append(index)
        values = np.array([row[: len(self.fields)] for row in rows], np.float64).reshape(-1, len(self.fields))
        times = [row[-1] for row in rows]
        positions = np.array(origin, np.int64)
        given = None
        if self._time is not None and any(time is not None for time in times):
            came = arrivals[positions].tolist()
            given = [
                Timestamp.from_unix_nano(arrival) if time is None else time
                for time, arrival in zip(times, came, strict=True)
            ]
        return self._checks.readings(positions, given, values, arrivals, failures)

    def _alone(self, payload: bytes) -> tuple[Any, ...]:
        """Return the row of any payload: quickly first, so that its neighbours do not decide how closely it is read."""
        try:
            return self._quickly([payload])[0]
        except (ValueError, RecursionError):
            return self._carefully(payload)

    def _quickly(self, payloads: Sequence[bytes]) -> list[tuple[Any, ...]]:
        """Return rows of payloads with nothing wrong: the fields, then the time if there is one.

        Raises:
            ValueError: there is another one among them.
            RecursionError: so is there.
        """
        if self._number is not None:
            return [(value, None) for value in map(self._number, payloads)]
        if self._fast is None or self._row is None:
            raise ValueError("no structure has such members")
        return list(map(self._row, map(self._fast, payloads)))

    def _carefully(self, payload: bytes) -> tuple[Any, ...]:
        value = self._codec.parse(payload)
        found = numbers(
            [look_up(value, steps) for steps in self._steps], lambda position: f"field {self.fields[position]!r}"
        )
        time = None if self._time is None else look_up(value, self._time)
        return (*found, None if is_missing(time) else time)
