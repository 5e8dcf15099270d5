"""How much faster a recording is replayed than the same messages are processed live, on one core."""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from bench import models
from bench.broker import mosquitto
from bench.errors import BenchError
from bench.load import FIELDS, TOPIC_FILTER, Load, payload, topic
from bench.parts.throughput import SHARE, STREAMS
from bench.processes import PYTHON_MODULE, ROOT
from bench.publisher import publisher
from bench.report import Check, Result, Spread
from bench.sides import PROCESSOR, mlade, wait_received
from processor.recording import Writer
from processor.types import Message

_WARM_UP: Final = 2000
"""Messages before anything is measured."""
_STEADY_RATE: Final = 2000
"""Messages a second at the steady load."""
_WINDOW: Final = 100
_STEP: Final = 20
_TARGET: Final = 10.0
_TIMES: Final = 8
"""How often the recording holds the load: a replay's start, which is taken off, then matters little."""


class Size(NamedTuple):
    """How long it takes."""

    rounds: int
    flood: int
    """Messages as fast as they go."""
    steady: int
    """Messages at the steady load."""


FULL: Final = Size(rounds=3, flood=100_000, steady=6_000)
QUICK: Final = Size(rounds=1, flood=30_000, steady=2_000)


class _Task(NamedTuple):
    """What both sides do with the same messages."""

    title: str
    model: Mapping[str, Any]
    """The configuration's section."""
    confidence: float
    """Predictions at most this sure are accepted."""


class _Cost(NamedTuple):
    """CPU microseconds a message in one round."""

    steady: float
    flood: float
    replay: float
    samples: float
    """As `replay`, with the samples written to a file."""


def measure(size: Size, folder: Path, tell: Callable[[str], None]) -> Result:
    """Process and replay the same messages, `size.rounds` times in turn, for single readings and for windows."""
    load = Load.random(_WARM_UP + size.steady + size.flood, STREAMS)
    recording = _record(load, folder / "recording.jsonl")
    costs: defaultdict[str, list[_Cost]] = defaultdict(list)
    tasks = _tasks(load, folder)
    for number in range(size.rounds):
        for task in tasks:
            tell(f"round {number + 1} of {size.rounds}: {task.title}")
            live = _live(task, load, size)
            costs[task.title].append(_Cost(*live, *_replays(task, load, recording, folder)))
    return _result(costs, size, recording)


def _tasks(load: Load, folder: Path) -> list[_Task]:
    dense = models.write(models.dense(), folder / "dense.onnx")
    path = models.write(models.convolutional(), folder / "convolutional.onnx")
    rows = len(load.values) // STREAMS
    by_stream = load.values[: rows * STREAMS].reshape(-1, STREAMS, len(FIELDS))
    windows = np.moveaxis(by_stream[:_WINDOW], 0, 2)
    section = {"path": str(path), "window": {"size": _WINDOW, "step": _STEP}, "input": {"layout": "NCT"}}
    return [
        _Task("single readings", {"path": str(dense)}, models.least_confident(dense, load.values, SHARE)[0]),
        _Task(f"windows of {_WINDOW}", section, models.least_confident(path, windows, SHARE)[0]),
    ]


def _record(load: Load, path: Path) -> Path:
    """Write the load several times over; its time goes on."""
    writer = Writer(path)
    rows = load.values.tolist()
    for number in range(_TIMES * len(rows)):
        seconds = load.start + number / 1000
        body = payload(seconds, rows[number % len(rows)])
        writer.write([Message(topic(number % load.streams), body, 1, 0, round(seconds * 1e6) * 1000)])
    writer.close()
    return path


def _live(task: _Task, load: Load, size: Size) -> tuple[float, float]:
    """Return CPU µs a message of `mlade run` with everything on, at the steady load and in the flood, at QoS 1."""
    packets = load.packets(1)
    until = _WARM_UP + size.steady
    with (
        mosquitto() as broker,
        mlade(broker, 1, task.model, task.confidence) as side,
        publisher(broker.port) as source,
    ):
        source.flood(packets[:_WARM_UP], 1)
        wait_received(side, _WARM_UP)
        cpu = [side.child.cpu_seconds()]
        source.pace(size.steady, _STEADY_RATE, lambda number: packets[_WARM_UP + number], 1)
        wait_received(side, until)
        cpu.append(side.child.cpu_seconds())
        source.flood(packets[until:], 1)
        wait_received(side, len(packets))
        cpu.append(side.child.cpu_seconds())
    return (cpu[1] - cpu[0]) / size.steady * 1e6, (cpu[2] - cpu[1]) / size.flood * 1e6


def _replays(task: _Task, load: Load, recording: Path, folder: Path) -> tuple[float, float]:
    """Return CPU µs a message of `mlade replay`, and of it with --out; what an empty recording takes is left out."""
    configuration = {
        "id": PROCESSOR,
        "sources": [{"name": "imu", "topics": [TOPIC_FILTER], "qos": 1, "fields": list(FIELDS), "time": "ts"}],
        "model": task.model,
        "filter": {"rules": [{"name": "unsure", "measure": "confidence", "band": {"max": task.confidence}}]},
    }
    file = folder / "replay.yaml"  # JSON is YAML
    file.write_bytes(msgspec.json.encode(configuration))
    empty = folder / "empty.jsonl"
    empty.touch()
    count = _TIMES * len(load.values)
    start = _run(empty, file, 0)
    counting = _run(recording, file, count)
    writing = _run(recording, file, count, "--out", str(folder / "events.jsonl"))
    return (counting - start) / count * 1e6, (writing - start) / count * 1e6


def _run(recording: Path, configuration: Path, count: int, *options: str) -> float:
    """Replay a recording; return the CPU seconds of the process."""
    command = [*PYTHON_MODULE, "processor", "replay", str(recording), "-c", str(configuration), "--json", *options]
    before = os.times()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)  # noqa: S603 - the package's own
    after = os.times()
    if done.returncode:
        raise BenchError(f"mlade replay ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
    found = msgspec.json.decode(done.stdout.splitlines()[-1])
    if found["messages"] != count:
        raise BenchError(f"mlade replay has read {found['messages']} messages of {count}")
    return after.children_user + after.children_system - before.children_user - before.children_system


def _result(costs: Mapping[str, list[_Cost]], size: Size, recording: Path) -> Result:
    result = Result(
        "Replay: a recording beside the same messages live, CPU µs a message",
        ("", "live, 2,000/s", "live, flood", "replay", "replay --out", "flood/replay", "2,000/s/replay"),
        notes=(
            f"{STREAMS} streams of 6 floats as JSON, {SHARE:.0%} accepted, QoS 1. Readings: dense model;",
            f"windows: convolution, step {_STEP}.",
            f"The recording, {recording.stat().st_size / 1e6:.0f} MB, holds the load {_TIMES} times.",
            f"{size.rounds} rounds in turn, {size.flood:,} messages in a flood; median (lowest to highest).",
            "Live is mlade run with everything on. A replay's start, as of an empty recording, is left out.",
            "Both use one core: a replay has one thread, and live the path has one.",
        ),
    )
    for title, rounds in costs.items():
        spreads = [Spread(values) for values in zip(*rounds, strict=True)]
        flood = Spread(tuple(one.flood / one.replay for one in rounds))
        steady = Spread(tuple(one.steady / one.replay for one in rounds))
        cells = [spread.text(0 if name == "steady" else 1) for name, spread in zip(_Cost._fields, spreads, strict=True)]
        result.rows.append((title, *cells, f"{flood.median:.1f}", f"{steady.median:.0f}"))
        result.figures[title] = {
            **{name: spread.as_json() for name, spread in zip(_Cost._fields, spreads, strict=True)},
            "flood_ratio": flood.as_json(),
            "steady_ratio": steady.as_json(),
        }
        result.checks.append(Check(f"{title}: live at 2,000/s / replay", steady.median, ">=", _TARGET))
        result.checks.append(Check(f"{title}: live in a flood / replay", flood.median, ">=", _TARGET))
    return result
