"""What must come of a recording, computed reading by reading in plain Python: nothing here is the processor's."""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime as ort

from tests.crash.recording import MAX_GAP, REMEMBERING, SECOND, START, Entry, Reading, Rule, first_filter
from tests.unit.naive_filter import Band, Counted, Near

SOURCE: Final = "imu"
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What the windows look like.

    Attributes:
        size: readings in a window.
        step: readings from one window to the next.
        max_streams: streams that are known at a time.
    """

    size: int
    step: int
    max_streams: int = 10_000

    @property
    def remembers(self) -> bool:
        """Whether a window looks back."""
        return self.size > 1 or self.step > 1


class Expected(NamedTuple):
    """What an event must say."""

    stream: str
    rule: str
    revision: int
    label: str
    confidence: float


class _Memory:
    """What a rule remembers."""

    def __init__(self, rule: Rule) -> None:
        more = rule.more
        self.band, self.near = Band(**more["keep"]), Near(**more["dedup"])
        self.cooldown = Counted(1, more["cooldown"]["for"], more["cooldown"]["by"])
        self.limit = Counted(more["limit"]["max"], more["limit"]["per"], more["limit"]["by"])


@dataclass(slots=True)
class _Window:
    """A complete window, with what the model says."""

    place: int
    oldest: int  # number of its oldest reading
    identifier: str
    values: np.ndarray[Any, Any]
    time: int  # ns
    label: str
    confidence: float


@dataclass(slots=True)
class _Stream:
    window: deque[Reading]
    count: int = 0
    last: int = 0
    numbers: deque[int] = field(default_factory=deque)  # of the readings in the window
    before: _Window | None = None
    sent: int = 0  # place of the newest window that was sent
    wanted: int = 0  # place of the window that is wanted beside a sample


@dataclass(slots=True)
class Expectation:
    """Takes a recording entry by entry.

    Attributes:
        processor: id of the processor.
        prefix: what stands before the streams' names in topics.
        shape: of the windows.
        model: with one input (N, C, size) and probabilities.
        labels: the model's.
        samples: by event id, those that must be there.
        accepted: how many windows they are: where readings are equal, so may windows be.
        garbage: (topic, payload) of the dead letters that must be there, in order.
        windows: complete ones.
        readings: taken in.
    """

    processor: str
    prefix: str
    shape: Shape
    model: Path
    labels: Sequence[str]
    samples: dict[str, Expected] = field(default_factory=dict)
    garbage: list[tuple[str, bytes]] = field(default_factory=list)
    accepted: int = 0
    windows: int = 0
    readings: int = 0
    revision: int = 1
    _session: Any = None
    _streams: OrderedDict[str, _Stream] = field(default_factory=OrderedDict)  # the least recently heard first
    remembers: bool = False
    _rules: Sequence[Rule] = ()
    _memories: dict[str, _Memory] = field(default_factory=dict)
    _since: int = 0
    _from_file: bool = True
    _last_filter: bytes | None = None

    def __post_init__(self) -> None:
        """Load the model."""
        self._use(first_filter(remembers=self.remembers))
        self._session = ort.InferenceSession(str(self.model))

    def take(self, entry: Entry) -> None:
        """Take note of what was published."""
        if entry.kind == "filter":
            self._change(entry)
        elif entry.kind == "garbage":
            self.garbage.append((self.prefix + entry.topic, entry.payload))
        for reading in entry.readings:
            self._append(reading)

    def _change(self, entry: Entry) -> None:
        if entry.payload == self._last_filter:
            return
        self._last_filter = entry.payload
        if entry.payload and entry.rules is None:  # rejected
            return
        if not entry.payload and self._from_file:
            return
        self._from_file = not entry.payload
        self._use(first_filter(remembers=self.remembers) if entry.rules is None else entry.rules)
        self.revision += 1

    def _use(self, rules: Sequence[Rule]) -> None:
        """Put rules in force; one that was there before goes on with what it remembers."""
        self._rules = rules
        if not self._memories:
            self._since = self.readings  # from here on, what is before a sample is kept
        self._memories = {rule.name: self._memories.get(rule.name) or _Memory(rule) for rule in rules if rule.more}
        if not self._memories:
            for stream in self._streams.values():
                stream.wanted = 0

    def _append(self, reading: Reading) -> None:
        self.readings += 1
        stream = self._streams.get(reading.stream)
        if stream is None:
            if len(self._streams) == self.shape.max_streams:
                self._streams.popitem(last=False)
            window, numbers = deque[Reading](maxlen=self.shape.size), deque[int](maxlen=self.shape.size)
            stream = self._streams[reading.stream] = _Stream(window, numbers=numbers)
        self._streams.move_to_end(reading.stream)
        if stream.count and abs(reading.time - stream.last) > MAX_GAP:
            stream.window.clear()
            stream.numbers.clear()
            stream.count = stream.sent = stream.wanted = 0
            stream.before = None
        stream.count += 1
        stream.last = reading.time
        stream.window.append(reading)
        stream.numbers.append(self.readings - 1)
        if stream.count >= self.shape.size and (stream.count - self.shape.size) % self.shape.step == 0:
            self._judge(reading.stream, stream)

    def _judge(self, name: str, stream: _Stream) -> None:
        self.windows += 1
        window = self._look(name, stream)
        rule = next((rule for rule in self._rules if self._accepts(rule, name, window)), None)
        if rule is not None:
            if rule.more:
                before = stream.before
                if before is not None and stream.sent < before.place and before.oldest >= self._since:
                    self._send(name, before, rule.name)
                stream.wanted = stream.count + self.shape.step
            self._send(name, window, rule.name)
            stream.sent = window.place
        elif stream.wanted == window.place:
            self._send(name, window, REMEMBERING.name)
            stream.sent = window.place
        stream.before = window

    def _look(self, name: str, stream: _Stream) -> _Window:
        values = np.array([reading.values for reading in stream.window])
        times = np.array([START * _NS + reading.time * (_NS // SECOND) for reading in stream.window], "<i8")
        inputs = (values if self.shape.size == 1 else values.T[None]).astype(np.float32)
        (row,) = self._session.run(None, {"x": inputs})[0]
        identifier = identify(self.processor, self.prefix + name, times, values)
        label = self.labels[int(row.argmax())]
        return _Window(stream.count, stream.numbers[0], identifier, values, int(times[-1]), label, float(row.max()))

    def _send(self, name: str, window: _Window, rule: str) -> None:
        self.accepted += 1
        expected = Expected(self.prefix + name, rule, self.revision, window.label, window.confidence)
        self.samples[window.identifier] = expected

    def _accepts(self, rule: Rule, name: str, window: _Window) -> bool:
        """Whether a rule takes a window; if so, it is spent: rules are asked until one does."""
        memory = self._memories.get(rule.name)
        if rule.band is not None and not rule.band[0] <= window.confidence <= rule.band[1]:
            return False
        sampled = _uniform(window.identifier, rule.name) < rule.sample
        if memory is None:
            return sampled
        if not memory.band.keeps(window.confidence, _uniform(window.identifier, f"{rule.name}/keep")):
            return False
        if memory.near.is_near(window.values) or not sampled:
            return False
        if not (
            memory.cooldown.accepts(name, window.time, reached=True)
            and memory.limit.accepts(window.label, window.time, reached=True)
        ):
            return False
        memory.near.keep(window.values)
        memory.cooldown.spend(name)
        memory.limit.spend(window.label)
        return True


def identify(
    processor: str, stream: str, times: np.ndarray[Any, np.dtype[np.int64]], values: np.ndarray[Any, Any]
) -> str:
    """Return a window's event id."""
    digest = hashlib.sha256()
    for text in (processor, SOURCE, "default", stream):
        digest.update(struct.pack("<I", len(text)) + text.encode())
    digest.update(times.tobytes() + values.astype("<f8").tobytes())
    return digest.hexdigest()[:32]


def _uniform(event: str, rule: str) -> float:
    return float(int.from_bytes(hashlib.sha256(f"{event}/{rule}".encode()).digest()[:8], "big") / 2**64)
