"""One model after another under load, and every sample compared with what the model that it names says offline."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from bench.errors import BenchError
from bench.load import BLOCK, FIELDS, identifiers, payload, publish_packet, topic
from bench.publisher import publisher
from processor.model.onnx_model import load_model
from processor.remote_model import set_model
from processor.settings import Settings

WINDOW: Final = 20
STEP: Final = 5
LABELS: Final = ("standing", "walking", "running", "lifting")
EVERYTHING: Final = {"rules": [{"name": "audit", "sample": 1.0}]}
_AHEAD: Final = 4000
"""Messages that may wait in the broker: there are always some, so that the processor works as fast as it can."""
_LEAST: Final = 400
"""Messages taken in between two swaps, so that each model judges windows of each stream."""
_PATIENCE: Final = 120.0


def write_model(path: Path, seed: int, padding: int = 0) -> str:
    """Write a convolution over windows with weights of its own, and so many MiB beside; return its SHA-256."""
    random = np.random.default_rng(seed)
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        swap (float[N, {len(FIELDS)}, {WINDOW}] x) => (float[N, {len(LABELS)}] probabilities)
        {{
            across = Conv <kernel_shape = [5]> (x, w1)
            active = Relu (across)
            pooled = ReduceMean <axes = [2], keepdims = 0> (active)
            sums = MatMul (pooled, w2)
            rows = Shape <start = 2, end = 3> (x)
            nothing = Gather (padding, rows)
            zero = ReduceSum <keepdims = 0> (nothing)
            same = Add (sums, zero)
            probabilities = Softmax <axis = 1> (same)
        }}"""
    )
    weights = {
        "w1": random.normal(size=(16, len(FIELDS), 5)),
        "w2": random.normal(size=(16, len(LABELS))),
        "padding": np.zeros((WINDOW + 1, max(1, (padding << 20) // (4 * (WINDOW + 1))))),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value.astype("f4"), name) for name, value in weights.items())
    onnx.helper.set_model_props(model, {"labels": ",".join(LABELS)})
    path.write_bytes(model.SerializeToString())
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(slots=True)
class Played:
    """What was done.

    Attributes:
        start: time of the first reading, seconds since the Unix epoch.
        streams: sensors.
        values: (N, 6) readings, one of each sensor in turn.
        models: SHA-256 of each model in the order in which they were in force.
        waits: seconds from a document to its answer.
        seconds: from the first swap to the last.
        messages: taken in meanwhile.
    """

    start: int
    streams: int
    values: list[NDArray[np.float64]] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    seconds: float = 0.0
    messages: int = 0

    @property
    def sent(self) -> int:
        """Messages published."""
        return sum(map(len, self.values))


def play(
    settings: Settings,
    port: int,
    received: Callable[[], int],
    *,
    swaps: int,
    streams: int,
    padding: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Played:
    """Publish readings all the time, as fast as a processor takes them, and change its model again and again.

    Args:
        settings: the processor's configuration, with `models/0.onnx` as its model, which `write_model` wrote.
        port: of the broker.
        received: returns how many messages the processor has taken in.
        swaps: how often its model is changed.
        streams: sensors.
        padding: MiB of each model's file.
        tell: told how far it is.

    Raises:
        BenchError: a model was not applied, or not everything was taken in.
    """
    folder = settings.path("models")
    played = Played(int(time.time()) - 3600, streams)
    played.models.append(hashlib.sha256((folder / "0.onnx").read_bytes()).hexdigest())
    ended = threading.Event()
    failures: list[Exception] = []

    def publish() -> None:
        try:
            _publish(port, played, received, ended)
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    try:
        _wait(lambda: received() >= _LEAST or failures, "no message was taken in")
        started, before = time.monotonic(), received()
        for number in range(1, swaps + 1):
            tell(f"model {number} of {swaps}")
            played.models.append(write_model(folder / f"{number}.onnx", number, padding))
            asked = time.monotonic()
            state = set_model(settings.slots[0], json.dumps({"path": f"models/{number}.onnx"}).encode(), _PATIENCE)
            played.waits.append(time.monotonic() - asked)
            if (state.status, state.revision, state.active.sha256) != ("applied", number + 1, played.models[-1]):
                raise BenchError(f"model {number} was not applied: {state}")
            until = received() + _LEAST
            _wait(lambda: received() >= until or failures, f"nothing more was taken in after model {number}")  # noqa: B023
        played.seconds, played.messages = time.monotonic() - started, received() - before
    finally:
        ended.set()
        thread.join()
    if failures:
        raise failures[0]
    return played


def _publish(port: int, played: Played, received: Callable[[], int], ended: threading.Event) -> None:
    random = np.random.default_rng(11)
    packet_ids = identifiers()
    names = [topic(stream) for stream in range(played.streams)]
    sent = 0
    with publisher(port) as source:
        while not ended.is_set():
            values = random.normal(size=(BLOCK - BLOCK % played.streams or played.streams, len(FIELDS))).round(4)
            packets = [
                publish_packet(
                    names[(sent + row) % played.streams],
                    payload(played.start + (sent + row) / 1000, reading),
                    1,
                    next(packet_ids),
                )
                for row, reading in enumerate(values.tolist())
            ]
            played.values.append(values)
            source.flood(packets, 1)
            sent += len(packets)
            if sent % 1000 < len(packets):
                while sent - received() > _AHEAD and not ended.is_set():
                    ended.wait(0.01)
        # Connected until then: with the connection goes what the broker has not read yet.
        _wait(lambda: received() >= sent, f"not all of {sent} messages were taken in")


def _wait(condition: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{otherwise} within {_PATIENCE:g} s")
        time.sleep(0.01)  # between two looks


@dataclass(frozen=True, slots=True)
class Compared:
    """What came out, beside what should have.

    Attributes:
        windows: that the readings complete.
        samples: that came out.
        lost: windows without a sample.
        twice: samples of a window that had one already.
        strange: samples of what is no window, or whose readings are others.
        different: samples whose probabilities are not, to the last bit, those of the model that they name.
        backwards: samples that name an older model than one before them in their stream.
        fewest: models that a stream's samples name, in the stream with the fewest.
    """

    windows: int
    samples: int
    lost: int
    twice: int
    strange: int
    different: int
    backwards: int
    fewest: int

    @property
    def faultless(self) -> bool:
        """Whether nothing is missing, too much or wrong."""
        return not (self.lost or self.twice or self.strange or self.different or self.backwards)


def read_events(folder: Path) -> list[Mapping[str, Any]]:
    """Return the events in a files bridge's finished files, in the order in which they were written."""
    files = sorted(folder.glob("date=*/*.jsonl"), key=lambda path: path.name)
    return [msgspec.json.decode(line) for file in files for line in file.read_bytes().splitlines()]


def compare(played: Played, events: Iterable[Mapping[str, Any]], folder: Path) -> Compared:
    """Run every window offline, by the model that its sample names.

    Args:
        played: what was done.
        events: the samples.
        folder: holds the models.
    """
    values = np.concatenate(played.values)
    by_stream = [values[stream :: played.streams] for stream in range(played.streams)]
    expected = {
        (topic(stream), end): readings[end - WINDOW : end]
        for stream, readings in enumerate(by_stream)
        for end in range(WINDOW, len(readings) + 1, STEP)
    }
    numbers = {sha256: number for number, sha256 in enumerate(played.models)}
    seen: set[tuple[str, int]] = set()
    of_model: dict[str, list[Mapping[str, Any]]] = {}
    order: dict[str, list[tuple[int, int]]] = {}
    strange = twice = samples = 0
    for event in events:
        samples += 1
        data = event["data"]
        end = _end(data["readings"]["end"], event["subject"], played)
        window = expected.get((event["subject"], end))
        sha256 = data["model"]["sha256"]
        if window is None or sha256 not in numbers or not np.array_equal(window, data["readings"]["values"]):
            strange += 1
            continue
        twice += (event["subject"], end) in seen
        seen.add((event["subject"], end))
        of_model.setdefault(sha256, []).append(data)
        order.setdefault(event["subject"], []).append((end, numbers[sha256]))
    backwards = 0
    for found in order.values():
        models = [number for _, number in sorted(found)]
        backwards += sum(later < earlier for earlier, later in pairwise(models))
    different = sum(
        _different(numbers[sha256], sha256, found, folder) for sha256, found in of_model.items()
    )  # fmt: skip
    return Compared(
        len(expected),
        samples,
        len(expected.keys() - seen),
        twice,
        strange,
        different,
        backwards,
        min((len({number for _, number in found}) for found in order.values()), default=0),
    )


def _end(time_of_newest: str, stream: str, played: Played) -> int:
    """Return how many readings a stream has up to that time."""
    moment = np.datetime64(time_of_newest.removesuffix("Z"), "us") - np.datetime64(played.start, "s")
    number = int(moment / np.timedelta64(1, "ms"))
    position = int(stream.split("-")[1].split("/", maxsplit=1)[0])
    return (number - position) // played.streams + 1 if number % played.streams == position else -1


def _different(number: int, sha256: str, found: Sequence[Mapping[str, Any]], folder: Path) -> int:
    """Return how many samples have other probabilities than the model gives offline."""
    path = folder / f"{number}.onnx"
    if not path.exists():
        return len(found)
    model = load_model(path, window_size=WINDOW, channels=len(FIELDS), layout="NCT")
    if model.sha256 != sha256:
        return len(found)
    windows = np.array([data["readings"]["values"] for data in found])
    answers = model.infer(windows).probabilities
    told = np.array([[data["inference"]["probabilities"][label] for label in LABELS] for data in found])
    same: list[bool] = [] if answers is None else (answers == told).all(axis=1).tolist()
    return len(found) - same.count(True)
