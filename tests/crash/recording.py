"""What is played: an endless recording of several streams, made from a seed.

It holds what makes redelivery hard: readings equal to the one before in time and values, streams of very different
rates, gaps that empty windows, clocks that jump back, several readings in a message, retained readings, garbage, and
filters that change in between.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

FIELDS: Final = ("ax", "ay", "az", "gx", "gy", "gz")
START: Final = 1_790_000_000
"""Seconds since the Unix epoch; 2026."""
SECOND: Final = 1_000_000
MAX_GAP: Final = 5 * SECOND
"""µs between two neighbours above which a window starts anew."""
_RATES: Final = (1.0, 1.0, 0.7, 0.5, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
"""How often each stream has its turn."""
_QUIET: Final = 40
"""Streams with a retained reading from before the first start, and hardly any after it; more than Mosquitto's default
number of messages in flight."""
_STAYS: Final = 0.6
"""How often a field of a sparse recording keeps its value."""
_EACH_FILTER: Final = 120
"""Messages from one filter to the next, on average."""


class Reading(NamedTuple):
    """One reading."""

    stream: str
    time: int
    """µs since `START`."""
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a filter, of the kinds that `expectation` can compute.

    Attributes:
        name: its name.
        band: closed interval of the confidence; None: no measure.
        sample: fraction that is kept.
        more: conditions that remember, as in a filter; of one name always the same.
    """

    name: str
    band: tuple[float, float] | None
    sample: float = 1.0
    more: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the rule as it stands in a filter."""
        rule: dict[str, Any] = {"name": self.name, "sample": self.sample}
        if self.band is not None:
            rule |= {"measure": "confidence", "band": {"min": self.band[0], "max": self.band[1]}}
        return rule | dict(self.more)


FIRST_FILTER: Final = (Rule("unsure", (0.0, 0.6)), Rule("audit", None, 0.3))
REMEMBERING: Final = Rule(
    "remembering",
    (0.0, 1.0),
    0.8,
    {
        "keep": {"share": 0.5, "of": "lowest", "over": 50},
        "dedup": {"distance": 1.2, "memory": 20},
        "cooldown": {"for": "1s", "by": "stream"},
        "limit": {"max": 12, "per": "20s", "by": "label"},
        "context": {"before": 1, "after": 1},
    },
)
"""A rule with everything that has to survive."""


def first_filter(*, remembers: bool) -> Sequence[Rule]:
    """Return the filter in the configuration."""
    return (REMEMBERING, *FIRST_FILTER) if remembers else FIRST_FILTER


class Entry(NamedTuple):
    """One message.

    Attributes:
        kind: readings, garbage (a dead letter), or a filter, whose topic is the processor's own.
        topic: where it is published, below the recording's own level; empty for a filter.
        payload: what.
        retain: whether the broker keeps it for later subscribers.
        readings: what it holds.
        rules: of a filter that can be applied; None: it cannot, or it is empty and returns to the file's.
    """

    kind: Literal["readings", "garbage", "filter"]
    topic: str
    payload: bytes
    retain: bool = False
    readings: Sequence[Reading] = ()
    rules: Sequence[Rule] | None = None


def document(rules: Sequence[Rule]) -> dict[str, Any]:
    """Return a filter as JSON holds it."""
    return {"rules": [rule.document() for rule in rules]}


class Recording:
    """An endless iterator of entries."""

    def __init__(self, seed: int, *, remembers: bool = False, sparse: bool = False) -> None:
        """Make the recording of a seed.

        Args:
            seed: of everything in it.
            remembers: whether its filters mostly have a rule that remembers.
            sparse: whether a message leaves out the fields that have not changed since the stream's last.
        """
        self._remembers = remembers
        self._sparse = sparse
        self._sent: dict[str, tuple[float, ...]] = {}
        self._random = random.Random(f"recording {seed}")  # noqa: S311 - a plan, not a secret
        self._latest: dict[str, Reading] = {}
        self._filters = 0
        self._last_filter = Entry("filter", "", b"")

    def opening(self) -> list[Entry]:
        """Return what is published, retained, before a processor starts: one reading of many streams."""
        names = [*(f"fast-{number}" for number in range(3)), *(f"quiet-{number}" for number in range(_QUIET))]
        return [self._message([self._next(name)], retain=True) for name in names]

    def __iter__(self) -> Iterator[Entry]:
        """Return itself."""
        return self

    def __next__(self) -> Entry:
        """Return the next message."""
        draw = self._random.random()
        if draw < 1 / _EACH_FILTER:
            return self._filter()
        if draw < 1 / _EACH_FILTER + 0.01:
            return self._garbage()
        stream = self._stream()
        count = self._random.randint(2, 5) if self._random.random() < 0.05 else 1
        return self._message([self._next(stream) for _ in range(count)], retain=self._random.random() < 0.03)

    def _stream(self) -> str:
        if self._random.random() < 0.003:
            return f"quiet-{self._random.randrange(_QUIET)}"
        (number,) = self._random.choices(range(len(_RATES)), _RATES)
        return f"fast-{number}"

    def _next(self, stream: str) -> Reading:
        draw = self._random.random()
        before = self._latest.get(stream)
        if before is not None and draw < 0.1:
            return before  # another reading, equal in time and values
        time = 0 if before is None else before.time
        if draw < 0.12:
            time += MAX_GAP  # not yet a gap
        elif draw < 0.13:
            time += MAX_GAP + self._random.choice((1, SECOND))
        elif draw < 0.135:
            time -= 2 * MAX_GAP
        elif draw > 0.2:
            time += self._random.randrange(1, SECOND)  # else at the same time
        values = tuple(round(self._random.gauss(0, 2), 4) for _ in FIELDS)
        if self._sparse and before is not None:
            kept = [self._random.random() < _STAYS for _ in FIELDS]
            values = tuple(old if stays else new for old, new, stays in zip(before.values, values, kept, strict=True))
        reading = Reading(stream, time, values)
        self._latest[stream] = reading
        return reading

    def _message(self, readings: Sequence[Reading], *, retain: bool) -> Entry:
        objects = []
        for reading in readings:
            objects.append(_object(reading, self._sent.get(reading.stream, ()) if self._sparse else ()))
            self._sent[reading.stream] = reading.values
        text = f"[{','.join(objects)}]" if len(objects) > 1 else objects[0]
        return Entry("readings", readings[0].stream, text.encode(), retain, readings)

    def _garbage(self) -> Entry:
        number = self._random.randrange(1000)
        kinds = [b"not JSON, %d", b'{"ts": "soon", "ax": %d}', b'{"ts": %d, "ax": 1}']
        payload = self._random.choice(kinds[:2] if self._sparse else kinds) % number
        return Entry("garbage", self._stream(), payload)

    def _filter(self) -> Entry:
        """Return the next filter; no reading after it equals one before it, so that no id has two rightful bodies."""
        self._filters += 1
        self._latest = {
            stream: before._replace(values=tuple(round(self._random.gauss(0, 2), 4) for _ in FIELDS))
            for stream, before in self._latest.items()
        }
        draw = self._random.random()
        if draw < 0.1:
            return self._last_filter if self._last_filter.payload else self._filter()
        if draw < 0.2:
            entry = Entry("filter", "", b"", retain=True)
        elif draw < 0.3:
            wrong = {"rules": [{"name": f"n{self._filters}", "measure": "confidence", "band": {"min": 1, "max": 0}}]}
            entry = Entry("filter", "", json.dumps(wrong).encode(), retain=True)
        else:
            rules = self._rules()
            entry = Entry("filter", "", json.dumps(document(rules)).encode(), retain=True, rules=rules)
        self._last_filter = entry
        return entry

    def _rules(self) -> list[Rule]:
        low = round(self._random.uniform(0.2, 0.5), 3)
        band = (low, round(low + self._random.uniform(0.05, 0.3), 3))
        audit = round(self._random.uniform(0.05, 0.4), 3)
        remembering = [REMEMBERING] if self._remembers and self._random.random() < 0.8 else []
        return remembering + self._random.choice(
            (
                [Rule(f"unsure-{self._filters}", band), Rule("audit", None, audit)],
                [Rule("audit", None, audit), Rule("unsure", band, 0.5)],
                [Rule("half", band, 0.5), Rule("half-of-the-rest", band, 0.5)],
            )
        )


def _object(reading: Reading, known: Sequence[float]) -> str:
    """Return a reading as a plant writes it: without the fields that have their `known` values."""
    seconds, micros = divmod(reading.time, SECOND)
    fields = zip(FIELDS, reading.values, known or (None,) * len(FIELDS), strict=True)
    values = "".join(f'"{name}": {value!r}, ' for name, value, before in fields if value != before)
    return f'{{"ts": {START + seconds}.{micros:06d}, {values}"unit": "g"}}'
