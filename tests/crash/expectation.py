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

from tests.crash.recording import FIRST_FILTER, MAX_GAP, SECOND, START, Entry, Reading, Rule

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


@dataclass(slots=True)
class _Stream:
    window: deque[Reading]
    count: int = 0
    last: int = 0


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
    _rules: Sequence[Rule] = FIRST_FILTER
    _from_file: bool = True
    _last_filter: bytes | None = None

    def __post_init__(self) -> None:
        """Load the model."""
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
        self._rules = FIRST_FILTER if entry.rules is None else entry.rules
        self.revision += 1

    def _append(self, reading: Reading) -> None:
        self.readings += 1
        stream = self._streams.get(reading.stream)
        if stream is None:
            if len(self._streams) == self.shape.max_streams:
                self._streams.popitem(last=False)
            stream = self._streams[reading.stream] = _Stream(deque(maxlen=self.shape.size))
        self._streams.move_to_end(reading.stream)
        if stream.count and abs(reading.time - stream.last) > MAX_GAP:
            stream.count = 0
            stream.window.clear()
        stream.count += 1
        stream.last = reading.time
        stream.window.append(reading)
        if stream.count >= self.shape.size and (stream.count - self.shape.size) % self.shape.step == 0:
            self._judge(reading.stream, list(stream.window))

    def _judge(self, name: str, window: Sequence[Reading]) -> None:
        self.windows += 1
        values = np.array([reading.values for reading in window])
        times = np.array([START * _NS + reading.time * (_NS // SECOND) for reading in window], "<i8")
        stream = self.prefix + name
        identifier = identify(self.processor, stream, times, values)
        inputs = (values if self.shape.size == 1 else values.T[None]).astype(np.float32)
        (row,) = self._session.run(None, {"x": inputs})[0]
        confidence = float(row.max())
        for rule in self._rules:
            in_band = rule.band is None or rule.band[0] <= confidence <= rule.band[1]
            if in_band and _uniform(identifier, rule.name) < rule.sample:
                self.accepted += 1
                label = self.labels[int(row.argmax())]
                self.samples[identifier] = Expected(stream, rule.name, self.revision, label, confidence)
                return


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
