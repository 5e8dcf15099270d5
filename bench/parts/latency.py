"""Time from a reading's publication to its sample on the accepted topic, with the commits' fsync on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bench import models
from bench.broker import mosquitto
from bench.errors import BenchError
from bench.load import Load, identifiers, payload, publish_packet, topic
from bench.parts.throughput import SHARE, STREAMS
from bench.processes import PYTHON_MODULE, Child, fsync_seconds, running, wait_until
from bench.publisher import publisher
from bench.report import Check, Result, percentile
from bench.sides import PROCESSOR, mlade, wait_received

_QOS: Final = 1
_RATE: Final = 500
_WARM_UP: Final = 500
_TARGET: Final = 30.0
_SAMPLES: Final = f"mlade/{PROCESSOR}/accepted/#"


class Size(NamedTuple):
    """How long it takes."""

    messages: int
    """With the usual share accepted."""
    all_accepted: int
    """With every message accepted."""


FULL: Final = Size(messages=10_000, all_accepted=5_000)
QUICK: Final = Size(messages=3_000, all_accepted=1_500)


def measure(size: Size, folder: Path, tell: Callable[[str], None]) -> Result:
    """Publish at a steady rate and have another process note when samples come out."""
    model = models.write(models.dense(), folder / "dense.onnx")
    load = Load.random(_WARM_UP + max(size), STREAMS)
    confidence, _ = models.least_confident(model, load.values, SHARE)
    result = Result(
        f"Latency at {_RATE} messages a second: from publication to the sample on the accepted topic",
        ("accepted", "samples", "p50 ms", "p99 ms", "highest ms"),
    )
    for title, messages, highest in (("5 %", size.messages, confidence), ("all", size.all_accepted, 1.0)):
        tell(f"{messages:,} messages, {title} accepted")
        ages = _ages(load, messages, model, highest)
        p50, p99 = percentile(ages, 0.5), percentile(ages, 0.99)
        result.rows.append((title, f"{len(ages):,}", f"{p50:.1f}", f"{p99:.1f}", f"{ages[-1]:.1f}"))
        result.checks.append(Check(f"p99, {title} accepted", p99, "<=", _TARGET, "ms"))
        result.figures[f"accepted_{title}"] = {"samples": len(ages), "p50_ms": p50, "p99_ms": p99, "max_ms": ages[-1]}
    fsync = fsync_seconds(folder)
    fsync_ms = [percentile(fsync, share) * 1e3 for share in (0.5, 0.99)]
    result.figures["fsync_ms"] = {"p50": fsync_ms[0], "p99": fsync_ms[1]}
    result.notes = (
        f"{STREAMS} streams, QoS 1, evenly spaced; both bridges on, each commit with fsync.",
        f"fsync of 4 KiB on this disk: p50 {fsync_ms[0]:.2f} ms, p99 {fsync_ms[1]:.2f} ms.",
    )
    return result


def _ages(load: Load, messages: int, model: Path, confidence: float) -> list[float]:
    """Return how old each sample was when it came out, milliseconds, sorted."""
    numbers = identifiers()
    rows = load.values.tolist()

    def packet(number: int) -> bytes:
        return publish_packet(topic(number % STREAMS), payload(time.time(), rows[number]), _QOS, next(numbers))

    with (
        mosquitto() as broker,
        running(
            "observer",
            [*PYTHON_MODULE, "bench.sides.observing", str(broker.port), _SAMPLES],
            broker.folder,
            pipes=True,
        ) as observer,
        mlade(broker, _QOS, {"path": str(model)}, confidence) as side,
        publisher(broker.port) as source,
    ):
        broker.wait_for_subscription(_SAMPLES, observer)
        source.pace(_WARM_UP, _RATE, packet, _QOS)
        wait_received(side, _WARM_UP)
        before = side.accepted()
        _take_ages(observer, before)
        source.pace(messages, _RATE, packet, _QOS)
        wait_received(side, _WARM_UP + messages)
        return sorted(_take_ages(observer, side.accepted() - before))


def _take_ages(observer: Child, count: int) -> list[float]:
    """Return the ages of the next `count` samples, as soon as they are out."""
    ages: list[float] = []

    def complete() -> bool:
        ages.extend(json.loads(observer.ask()))
        return len(ages) >= count

    wait_until(complete, f"it had seen {count} samples", observer, timeout=30)
    if len(ages) > count:
        raise BenchError(f"{count} samples were accepted, but {len(ages)} came out")
    return ages
