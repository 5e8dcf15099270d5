"""A restart with a million samples in the outbox: how soon it is ready, how fast they leave, and who waits for it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from bench import models
from bench.broker import mosquitto
from bench.errors import BenchError
from bench.load import FIELDS, Load, identifiers, payload, publish_packet, topic
from bench.parts.throughput import STREAMS
from bench.processes import PYTHON_MODULE, Child, running, wait_until
from bench.publisher import Publisher, publisher
from bench.report import MIB, Check, Result, percentile
from bench.sides import PROCESSOR, Mlade, mlade, wait_received
from bench.watch import Seen, watching
from processor.admission import Bounds
from processor.events import sample_event
from processor.store import Changes, Store
from processor.types import NS, Sample

_QOS: Final = 1
_WINDOW: Final = 100
_RATE: Final = 500
"""Messages a second that come in while the backlog leaves."""
_EVENT_READINGS: Final = 6
"""In each sample, which makes it about a KiB."""
_AT_ONCE: Final = 1000
_MAX_BYTES: Final = 8 << 30
_ROOM: Final = 4096
"""Bytes on the disk for a sample: in the database, and delivered."""
_PREDICTIONS: Final = f"mlade/{PROCESSOR}/inference/#"
_DRAINED: Final = 0.9
"""The share of the backlog over which the rate is taken: the last, smaller file waits until it is old enough."""
_READY: Final = 3.0
_DELIVERED: Final = 20_000.0
_MEMORY: Final = 160.0
_LATENCY: Final = 100.0


class Size(NamedTuple):
    """How long it takes."""

    samples: int
    """In the outbox at the restart."""
    seconds: int
    """For which messages come in, while the backlog leaves and again after it."""


FULL: Final = Size(samples=1_000_000, seconds=10)
QUICK: Final = Size(samples=200_000, seconds=3)


class _Look(NamedTuple):
    """What was seen of the processor."""

    delivered: int
    resident: int
    log: int
    """Bytes in SQLite's write-ahead log."""


class _Found(NamedTuple):
    """What was measured."""

    event_bytes: int
    filled: float
    """Seconds to make the backlog."""
    idle: float
    """Seconds until ready without it."""
    ready: float
    """Seconds until ready with it."""
    ages: Sequence[float]
    """Milliseconds from publication to prediction while the backlog left, sorted."""
    quiet: Sequence[float]
    """And after."""


def measure(size: Size, folder: Path, tell: Callable[[str], None]) -> Result:
    """Make a backlog, start the processor, and follow it until the backlog is gone."""
    if shutil.disk_usage(folder).free < 2 * _ROOM * size.samples:
        raise BenchError(f"{folder} has less room than {2 * _ROOM * size.samples >> 30} GiB, which this takes")
    tell(f"{size.samples:,} samples into the outbox")
    state = folder / "state"
    started = time.perf_counter()
    event_bytes = _fill(state, size.samples)
    filled = time.perf_counter() - started
    _forget_cached(state)
    model = {
        "path": str(models.write(models.convolutional(), folder / "convolutional.onnx")),
        "window": {"size": _WINDOW, "step": 1, "max_gap": None},
        "input": {"layout": "NCT"},
    }
    sections = {
        "outbox": {"durability": "full", "max_bytes": _MAX_BYTES},
        "bridges": [{"type": "files", "path": str(folder / "accepted"), "rotate": {"max_age": "2s"}}],
        "publish_inference": True,
    }
    with mosquitto() as broker:
        tell("starting without a backlog")
        started = time.perf_counter()
        with mlade(broker, _QOS, model, -1.0, **sections, state_dir=str(folder / "empty")) as side:
            idle = _seconds_until_ready(side, started)
    with (
        mosquitto() as broker,
        running(
            "observer",
            [*PYTHON_MODULE, "bench.sides.observing", str(broker.port), _PREDICTIONS],
            broker.folder,
            pipes=True,
        ) as observer,
        publisher(broker.port) as source,
    ):
        broker.wait_for_subscription(_PREDICTIONS, observer)
        tell("starting with it")
        started = time.perf_counter()
        with (
            mlade(broker, _QOS, model, -1.0, **sections, state_dir=str(state)) as side,
            watching(lambda: _look(side, state), 0.1) as seen,
        ):
            ready = _seconds_until_ready(side, started)
            traffic = _Traffic(side, source, observer, size.seconds)
            tell("it leaves, while messages come in")
            ages = traffic.ages()
            wait_until(
                lambda: bool(seen) and seen[-1].value.delivered >= size.samples,
                f"it had delivered {size.samples:,} samples",
                side.child,
                timeout=300,
                every=0.1,
            )
            tell("messages come in, and nothing leaves")
            quiet = traffic.ages()
    _check_files(folder / "accepted", size.samples)
    return _result(size, seen, _Found(event_bytes, filled, idle, ready, ages, quiet))


def _fill(state: Path, count: int) -> int:
    """Put `count` samples into the outbox, as the pipeline does; return how many bytes one of them has."""
    bounds = Bounds(_MAX_BYTES, 7 * 86_400 * NS, "block")
    store = Store(state, durability="normal", bounds=bounds, bridges=["files"])
    now = time.time_ns() // 1000 * 1000
    event = _event(now)
    before, after = event.split(b"<id>")
    for first in range(0, count, _AT_ONCE):
        samples = [
            Sample(name, "unsure", "0", topic(number % STREAMS), "dense", now, 0, before + name.encode() + after)
            for number in range(first, min(first + _AT_ONCE, count))
            for name in (f"{number:032x}",)
        ]
        store.commit(Changes(samples=samples), now)
    store.tidy(now)
    store.close()
    return len(event)


def _event(now: int) -> bytes:
    values = np.random.default_rng(7).normal(size=(_EVENT_READINGS, len(FIELDS))).round(4)
    answer: dict[str, Any] = {
        "label": "0",
        "confidence": 0.4321,
        "probabilities": {"0": 0.4321, "1": 0.2345, "2": 0.2111, "3": 0.1223},
        "value": None,
    }
    return sample_event(
        identifier="<id>",
        processor=PROCESSOR,
        source="imu",
        stream=topic(0),
        fields=FIELDS,
        times=now + np.arange(1 - _EVENT_READINGS, 1) * 1_000_000,
        values=values,
        answer=answer,
        selection={"rule": "unsure", "measure": "confidence", "score": 0.4321, "band": {"max": 0.5}, "revision": 1},
        model={"name": "dense", "sha256": "0" * 64},
    )


def _forget_cached(state: Path) -> None:
    """Have the kernel forget what it holds of the files, as after a power cut."""
    for path in state.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def _seconds_until_ready(side: Mlade, started: float) -> float:
    wait_until(side.ready, "it was ready", side.child, timeout=60)
    return time.perf_counter() - started


def _look(side: Mlade, state: Path) -> _Look:
    log = state / "mlade.db-wal"
    return _Look(
        side.metrics()["bridge_delivered_total"],
        side.child.resident_bytes(),
        log.stat().st_size if log.exists() else 0,
    )


class _Traffic:
    """Messages at a steady rate, none of them accepted; each but a stream's first ones is a window."""

    def __init__(self, side: Mlade, source: Publisher, observer: Child, seconds: int) -> None:
        """Fill the streams' windows."""
        self._side, self._source, self._observer = side, source, observer
        self._count = seconds * _RATE
        self._rows = Load.random(self._count, STREAMS).values.tolist()
        self._numbers = identifiers()
        self._sent = STREAMS * (_WINDOW - 1)
        source.flood([self._packet(number) for number in range(self._sent)], _QOS)
        wait_received(side, self._sent)

    def _packet(self, number: int) -> bytes:
        row = self._rows[number % self._count]
        return publish_packet(topic(number % STREAMS), payload(time.time(), row), _QOS, next(self._numbers))

    def ages(self) -> list[float]:
        """Return how long after its publication each prediction came out, milliseconds, sorted.

        It is published when the message has been acknowledged, and that is when its commit is on disk.
        """
        first = self._sent
        self._source.pace(self._count, _RATE, lambda number: self._packet(first + number), _QOS)
        self._sent += self._count
        wait_received(self._side, self._sent)
        ages: list[float] = []

        def complete() -> bool:
            ages.extend(json.loads(self._observer.ask()))
            return len(ages) >= self._count

        wait_until(complete, f"it had seen {self._count} predictions", self._observer, timeout=30)
        return sorted(ages)


def _check_files(folder: Path, count: int) -> None:
    """Raise BenchError unless each sample was delivered once."""
    seen: list[int] = []
    for path in folder.rglob("*.jsonl"):
        with path.open("rb") as lines:
            seen += [int(line.partition(b'"id":"')[2][:32], 16) for line in lines]
    if sorted(seen) != list(range(count)):
        raise BenchError(
            f"{count} samples were in the outbox; {len(seen)}, {len(set(seen))} of them different, came out"
        )


def _result(size: Size, seen: Sequence[Seen[_Look]], found: _Found) -> Result:
    far = next(look for look in seen if look.value.delivered >= _DRAINED * size.samples)
    rate = far.value.delivered / (far.at - seen[0].at)
    resident = [look.value.resident / MIB for look in seen if look.at <= far.at]
    log = max(look.value.log for look in seen) / MIB
    p50, p99 = ([percentile(some, share) for some in (found.ages, found.quiet)] for share in (0.5, 0.99))
    filled_per_second = size.samples / found.filled
    every = max(1, len(resident) // 8)
    return Result(
        f"Backlog: a restart with {size.samples:,} samples of {found.event_bytes:,} bytes in the outbox",
        ("", "without", "with the backlog"),
        [
            ("ready after, s (with it: nothing cached)", f"{found.idle:.2f}", f"{found.ready:.2f}"),
            ("delivered to files, samples/s", "", f"{rate:,.0f}"),
            ("RSS meanwhile, MiB", "", " ".join(f"{value:.0f}" for value in resident[::every])),
            ("SQLite's log at its largest, MiB", "", f"{log:.1f}"),
            *(
                (f"a message's acknowledgement, {name} ms", f"{without:.1f}", f"{meanwhile:.1f}")
                for name, (meanwhile, without) in (("p50", p50), ("p99", p99))
            ),
        ],
        [
            Check("ready with the backlog", found.ready, "<=", _READY, "s"),
            Check("delivered to files a second", rate, ">=", _DELIVERED),
            Check("RSS while delivering", max(resident), "<=", _MEMORY, "MiB"),
            Check("acknowledgement while delivering, p99", p99[0], "<=", _LATENCY, "ms"),
        ],
        {
            "filled_per_second": filled_per_second,
            "ready_seconds": found.ready,
            "ready_without_seconds": found.idle,
            "delivered_per_second": rate,
            "resident_mib": resident,
            "log_mib": log,
            "acknowledged_ms": {"p50": p50[0], "p99": p99[0], "max": found.ages[-1]},
            "acknowledged_without_ms": {"p50": p50[1], "p99": p99[1], "max": found.quiet[-1]},
        },
        notes=(
            f"Put there by the store, {filled_per_second:,.0f} a second; durability full. Each was delivered, once.",
            f"Meanwhile {_RATE} messages a second come in, QoS 1, windows of {_WINDOW}, one commit with fsync a batch.",
            "Acknowledgement: from publication to the prediction, published right after it, at another process.",
        ),
    )
