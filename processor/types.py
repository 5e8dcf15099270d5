"""The nouns of mlade. From `Readings` on everything is a column over a batch: one array a quantity, one row each."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Times = NDArray[np.int64]  # nanoseconds since the Unix epoch
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
Array = NDArray[Any]

NS = 1_000_000_000
"""Nanoseconds in a second."""

MODEL_SLOT: Final = "default"
"""Name of the model slot where there is only one; part of an event's id."""

INPUTS: Final = "$input/"
"""What the topic of a message starts with that came on an input of an IoT Edge module, before the input's name. No
broker's topic does: `$` is kept for brokers' own."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One MQTT PUBLISH, as it was read from the socket; or what came on an input of an IoT Edge module.

    The one noun of which there is an object for each that comes: a struct of msgspec's is the cheapest.
    """

    topic: str
    payload: bytes
    """At most `broker.max_payload` bytes; the first 64 KiB when `oversize` is not 0."""
    qos: int = 0
    mid: int = 0
    """Packet identifier; 0 at QoS 0."""
    arrival: int = 0
    """When its last byte was read: nanoseconds since the Unix epoch."""
    retain: bool = False
    dup: bool = False
    properties: bytes = b""
    """MQTT 5 properties as they came, without their length; empty on 3.1.1."""
    connection: int = 0
    """Number of the connection it came over; an acknowledgement is only valid on the same one."""
    oversize: int = 0
    """The payload's whole length in bytes when it was over `max_payload` and skipped, else 0."""


class DeadLetter(NamedTuple):
    """A message, or a part of one, that could not be processed."""

    topic: str
    arrival: int
    """Nanoseconds since the Unix epoch."""
    reason: str
    """One word, for counting: `decode`, `field`, `not_finite`, `quality`, `too_large`, `time` …"""
    detail: str
    """A sentence: what was found and what was expected."""
    payload: bytes
    """At most the first 64 KiB."""


class Failure(NamedTuple):
    """What a decoder says of a payload it could not use."""

    position: int
    """Of the payload in what the decoder was given."""
    reason: str
    detail: str


class Request(NamedTuple):
    """A message that is to go back to where readings come from, when what they changed is on disk. It may get lost."""

    topic: str
    payload: bytes
    why: str
    """A sentence: what is asked, of whom, because of what."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a decoder made of N payloads: M readings, in the payloads' order.

    Attributes:
        origin: (M,) position of the payload each reading came from; never decreases.
        times: (M,) nanoseconds since the Unix epoch.
        values: (M, C) finite channel values; images have none.
        keys: M stream keys where the stream is named inside the payload, else None.
        failures: at most one for each payload, of what in it could not be used, ordered by position.
        absent: (M, C) values that were not in the payload and are the stream's last ones; None: there are none. What
            stands in `values` there means nothing.
        requests: what is to be asked of senders; a replay drops it.
        pixels: (M, height, width, C) of readings that are images; None: they are not.
    """

    origin: Ints
    times: Times
    values: Floats
    keys: Sequence[str] | None
    failures: Sequence[Failure]
    absent: Flags | None = None
    requests: Sequence[Request] = ()
    pixels: Pixels | None = None


@dataclass(frozen=True, slots=True)
class Readings:
    """A batch of N readings of any streams, in arrival order.

    Attributes:
        slots: (N,) the stream of each: its row in the windows' rings.
        times: (N,) nanoseconds since the Unix epoch.
        values: (N, C) channel values; images have none.
        pixels: (N, height, width, C) of images; None: the readings are none.
    """

    slots: Ints
    times: Times
    values: Floats
    pixels: Pixels | None = None


@dataclass(frozen=True, slots=True)
class Images:
    """W images.

    Attributes:
        pixels: (W, height, width, C) as the model sees them.
        payloads: W files, JPEG or PNG, as they came.
    """

    pixels: Pixels
    payloads: Sequence[bytes]

    def take(self, rows: Ints) -> Images:
        """Return some of them."""
        return Images(self.pixels[rows], [self.payloads[row] for row in rows.tolist()])

    @classmethod
    def joined(cls, parts: Sequence[Images]) -> Images:
        """Return the images of all parts, at least one of them, one part after another."""
        return cls(
            np.concatenate([part.pixels for part in parts]), [payload for part in parts for payload in part.payloads]
        )


@dataclass(frozen=True, slots=True)
class Windows:
    """A batch of W complete windows of one size, ordered by the arrival of their newest reading.

    Attributes:
        slots: (W,) the stream of each.
        times: (W, size) nanoseconds since the Unix epoch, oldest reading first.
        values: (W, size, C) channel values; images have none.
        images: where readings are images, of which a window holds one; None: they are not.
    """

    slots: Ints
    times: Times
    values: Floats
    images: Images | None = None

    def __len__(self) -> int:
        """Return W."""
        return len(self.slots)

    @property
    def seen(self) -> Array:
        """What the model sees: (W, size, C) values, or (W, height, width, C) pixels."""
        return self.values if self.images is None else self.images.pixels

    def take(self, rows: Ints) -> Windows:
        """Return some of them."""
        images = None if self.images is None else self.images.take(rows)
        return Windows(self.slots[rows], self.times[rows], self.values[rows], images)

    @classmethod
    def joined(cls, parts: Sequence[Windows]) -> Windows:
        """Return the windows of all parts, at least one of them, one part after another."""
        images = [part.images for part in parts if part.images is not None]
        return cls(
            np.concatenate([part.slots for part in parts]),
            np.concatenate([part.times for part in parts]),
            np.concatenate([part.values for part in parts]),
            Images.joined(images) if images else None,
        )

    @property
    def ends(self) -> Times:
        """(W,) time of each window's newest reading: the window's time."""
        return self.times[:, -1]


class StreamName(NamedTuple):
    """Identity of a stream."""

    source: str
    key: str


OutputKind = Literal["probabilities", "score", "value"]
"""What a prediction is, after logits became probabilities: a distribution, one score s read as [1 - s, s], a number."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """The model's answers for W windows.

    Attributes:
        kind: `probabilities`, `score` (one sigmoid or anomaly score) or `value` (regression).
        labels: the K names of the columns of `probabilities`; empty for `value`.
        probabilities: (W, K), rows sum to 1; for `score` K is 2 and the row is [1 - s, s] with s clipped to [0, 1];
            None for `value`.
        value: (W,) the raw number of `score` and `value`; None for `probabilities`.
        shadow: what a second model says of some of them; None: there is none.
    """

    kind: OutputKind
    labels: tuple[str, ...]
    probabilities: Floats | None
    value: Floats | None
    shadow: ShadowAnswers | None = None

    def __len__(self) -> int:
        """Return W."""
        columns = self.probabilities if self.value is None else self.value
        return 0 if columns is None else len(columns)

    def last(self, count: int) -> Predictions:
        """Return those for the last `count` windows, at least 1, without what the shadow says of them."""
        return self.take(np.arange(max(0, len(self) - count), len(self)))

    def take(self, rows: Ints) -> Predictions:
        """Return those for some of the windows, without what the shadow says of them."""
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return Predictions(self.kind, self.labels, probabilities, None if self.value is None else self.value[rows])


@dataclass(frozen=True, slots=True)
class ShadowAnswers:
    """What a second model, the shadow, says of some of W windows.

    Attributes:
        name: the shadow's.
        sha256: of its file.
        beside: the model's sha256.
        part: of all windows that it judges, above 0.
        rows: (J,) which of the W windows it judged, ascending.
        predictions: its answers to these.
        disagreement: (J,) how far they lie from the model's; NaN where one of the two gave no number.
        failures: windows that it should have judged and failed on.
        failure: what it said of one of them; empty where it did not fail.
        seconds: that all of it took.
    """

    name: str
    sha256: str
    beside: str
    part: float
    rows: Ints
    predictions: Predictions
    disagreement: Floats
    failures: int
    failure: str
    seconds: float

    def place(self, row: int) -> int | None:
        """Return which of the answers is that to a window; None where there is none."""
        place = int(np.searchsorted(self.rows, row))
        return place if place < len(self.rows) and self.rows[place] == row else None


class Reason(enum.IntEnum):
    """Why a window was not kept: the furthest any rule came. The order is the order in which a rule tests."""

    NO_RULE = 0
    DISABLED = 1
    SCHEDULE = 2
    WHERE = 3
    BAND = 4
    KEEP = 5
    DEDUP = 6
    SAMPLED_OUT = 7
    COOLDOWN = 8
    LIMIT = 9
    ACCEPTED = 10

    @property
    def label(self) -> str:
        """The reason's name in metrics and reports."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the filter says of W windows.

    Attributes:
        rule: (W,) index of the rule that accepted the window; -1 where it was rejected.
        reason: (W,) a `Reason` each.
        score: (W,) the accepting rule's score; NaN where there is none.
        probability: (W,) chance that this window was kept, for weighting; 0 where it was rejected.
    """

    rule: Ints
    reason: NDArray[np.uint8]
    score: Floats
    probability: Floats

    def __len__(self) -> int:
        """Return W."""
        return len(self.rule)


class Sample(NamedTuple):
    """An accepted window as the outbox keeps it."""

    id: str
    """32 hex digits, the same for the same window."""
    rule: str
    label: str
    """The predicted one; empty when the model has none."""
    stream: str
    """As written in topics and properties."""
    model: str
    time: int
    """Nanoseconds since the Unix epoch of its newest reading."""
    priority: int
    """Higher leaves first and is dropped last."""
    event: bytes
    """The CloudEvent, serialised."""
