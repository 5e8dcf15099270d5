"""CPU and memory that a message costs: counting only, a straightforward script, mlade."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from bench import models
from bench.broker import Broker, mosquitto
from bench.load import Load
from bench.publisher import publisher
from bench.report import MIB, Check, Result, Spread
from bench.sides import Side, mlade, script, wait_received

STREAMS: Final = 50
SHARE: Final = 0.05
"""Of the messages that are accepted."""
_STEADY_RATE: Final = 2000
"""Messages a second at the steady load."""
_WARM_UP: Final = 2000
"""Messages before anything is measured: imports, caches, first batches."""
_MAX_DELAY: Final = "5ms"
_SIDES: Final = {
    "a": "(a) paho, counts only",
    "b": "(b) straightforward script",
    "c": "(c) mlade run",
    "d": f"(d) mlade run, max_delay {_MAX_DELAY}",
}


class Size(NamedTuple):
    """How long it takes."""

    rounds: int
    flood: int
    """Messages as fast as they go."""
    steady: int
    """Messages at the steady load."""


FULL: Final = Size(rounds=3, flood=60_000, steady=6_000)
QUICK: Final = Size(rounds=1, flood=20_000, steady=2_000)


class _Cost(NamedTuple):
    """What one side took in one round."""

    steady: float
    """CPU microseconds a message at the steady load."""
    flood: float
    """CPU microseconds a message in the flood."""
    rate: float
    """Messages a second in the flood."""
    peak: float
    """Peak resident set, MiB."""


class _Setting(NamedTuple):
    """What all sides get."""

    model: Path
    confidence: float
    """Predictions at most this sure are accepted."""
    samples: int
    """That many are."""
    load: Load
    size: Size


def measure(size: Size, folder: Path, tell: Callable[[str], None]) -> Result:
    """Run every side at both QoS, `size.rounds` times in turn."""
    model = models.write(models.dense(), folder / "dense.onnx")
    load = Load.random(_WARM_UP + size.steady + size.flood, STREAMS)
    setting = _Setting(model, *models.least_confident(model, load.values, SHARE), load, size)
    costs: defaultdict[tuple[int, str], list[_Cost]] = defaultdict(list)
    for qos in (0, 1):
        packets = load.packets(qos)
        for number in range(size.rounds):
            order = list(_SIDES) if number % 2 == 0 else list(reversed(_SIDES))
            for side in order:
                tell(f"QoS {qos}, round {number + 1} of {size.rounds}: {_SIDES[side]}")
                costs[qos, side].append(_round(side, qos, setting, packets))
    return _result(costs, size)


def _round(name: str, qos: int, setting: _Setting, packets: Sequence[bytes]) -> _Cost:
    steady, flood = setting.size.steady, setting.size.flood
    with mosquitto() as broker, _start(name, broker, qos, setting) as side, publisher(broker.port) as source:
        source.flood(packets[:_WARM_UP], qos)
        wait_received(side, _WARM_UP)
        cpu = [side.child.cpu_seconds()]
        source.pace(steady, _STEADY_RATE, lambda number: packets[_WARM_UP + number], qos)
        wait_received(side, _WARM_UP + steady)
        cpu.append(side.child.cpu_seconds())
        started = time.perf_counter()
        source.flood(packets[_WARM_UP + steady :], qos)
        wait_received(side, len(packets))
        seconds = time.perf_counter() - started
        cpu.append(side.child.cpu_seconds())
        accepted, expected = side.accepted(), 0 if name == "a" else setting.samples
        if accepted != expected:
            raise side.child.failed(f"has accepted {accepted} messages instead of {expected}")
        return _Cost(
            steady=(cpu[1] - cpu[0]) / steady * 1e6,
            flood=(cpu[2] - cpu[1]) / flood * 1e6,
            rate=flood / seconds,
            peak=side.child.peak_bytes() / MIB,
        )


@contextmanager
def _start(name: str, broker: Broker, qos: int, setting: _Setting) -> Iterator[Side]:
    if name == "a":
        with script("counting", broker, qos) as side:
            yield side
    elif name == "b":
        with script("straightforward", broker, qos, str(setting.model), repr(setting.confidence)) as side:
            yield side
    else:
        batch = {"max_delay": _MAX_DELAY if name == "d" else "0ms"}
        with mlade(broker, qos, {"path": str(setting.model), "batch": batch}, setting.confidence) as running:
            yield running


def _result(costs: dict[tuple[int, str], list[_Cost]], size: Size) -> Result:
    result = Result(
        "Throughput: what a message costs",
        ("", "QoS", "CPU µs/message in a flood", "messages/s", "CPU µs/message at 2,000/s", "peak RSS MiB"),
        notes=(
            f"{STREAMS} streams of 6 floats as JSON, windows of 1, dense 6-32-4, {SHARE:.0%} accepted.",
            f"{size.rounds} rounds in turn, {size.flood:,} messages in a flood; median (lowest to highest).",
            "(a) counts only; (b) json.loads, one ONNX call a message, publish what is unsure; both on paho.",
            "(c) with everything on: outbox at durability full, bridges files and mqtt, metrics, http.",
            f"(d) as (c), but a small batch waits {_MAX_DELAY} for company: model.batch.max_delay.",
        ),
    )
    for qos in (0, 1):
        for side, title in _SIDES.items():
            spreads = [Spread(values) for values in zip(*costs[qos, side], strict=True)]
            steady, flood, rate, peak = spreads
            result.rows.append((title, str(qos), flood.text(), rate.text(0), steady.text(), peak.text(0)))
            names = ("steady_cpu_us", "flood_cpu_us", "messages_per_second", "peak_mib")
            result.figures[f"{side}_qos{qos}"] = {
                name: spread.as_json() for name, spread in zip(names, spreads, strict=True)
            }
    for qos in (0, 1):
        for upper, lower, relation, target in (("c", "a", "<=", 0.7), ("b", "c", ">=", 4.0)):
            rounds = zip(costs[qos, upper], costs[qos, lower], strict=True)
            ratio = Spread(tuple(one.flood / other.flood for one, other in rounds)).median
            name = f"QoS {qos}: CPU a message, ({upper}) / ({lower})"
            result.checks.append(Check(name, ratio, "<=" if relation == "<=" else ">=", target))
    return result
