"""What a second model beside the model takes: of both models' time, and of the whole processor's."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from bench import models
from bench.broker import mosquitto
from bench.load import FIELDS, Load
from bench.parts.throughput import SHARE, STREAMS
from bench.publisher import publisher
from bench.report import Check, Result, Spread
from bench.sides import mlade, wait_received
from processor.model.onnx_model import OnnxModel, load_model
from processor.shadow.choice import STRETCH
from processor.shadow.comparison import Comparison
from processor.shadow.judge import Shadow
from processor.shadow.timing import measure as measure_times
from processor.shadow.timing import part_of
from processor.types import NS, Windows

_CPU: Final = 0.2
_WINDOW: Final = 100
_STEP: Final = 5
_WARM_UP: Final = 6000
"""Messages before anything is measured: every stream's first window, imports, caches."""
_RATE: Final = 2000
"""Messages a second at the steady load."""
_CALLS: Final = (1, 8, 64, 512)
"""Windows in a batch; the last as in a flood, where a batch is half a second of its readings' time."""
_FLOOD_APART: Final = NS // 2
_START: Final = 1_795_341_600 * NS
_TOLERANCE: Final = 1.15
"""Of the share: what is measured at load is so on an idle machine."""
_SIDES: Final = {"without": "no shadow", "shadow": f"shadow, cpu: {_CPU}", "all": "shadow, sample: 1"}


class Size(NamedTuple):
    """How long it takes."""

    rounds: int
    flood: int
    """Messages as fast as they go."""
    steady: int
    """Messages at the steady load."""
    batches: int
    """Of each size, in one process."""


FULL: Final = Size(rounds=3, flood=60_000, steady=6_000, batches=4000)
QUICK: Final = Size(rounds=1, flood=20_000, steady=2_000, batches=2000)


def measure(size: Size, folder: Path, tell: Callable[[str], None]) -> Result:
    """Measure the share in one process, then the processor with a shadow, with one that judges all, and without."""
    dense = models.write(models.dense(), folder / "dense.onnx")
    convolution = models.write(models.convolutional(), folder / "convolutional.onnx")
    result = Result(
        "Shadow: its share of both models' time, and what it adds to the processor's",
        ("", "part", *(f"batches of {count}" for count in _CALLS)),
        notes=(
            f"cpu: {_CPU}. In one process: time of the shadow, with the choice of windows and the comparison.",
            f"As `mlade run`: {STREAMS} streams, windows of {_WINDOW} by {_STEP}, convolution beside itself, QoS 1;",
            f"{size.rounds} rounds in turn, {size.flood:,} messages in a flood, {size.steady:,} at {_RATE:,}/s.",
        ),
    )
    pairs = {
        "dense beside dense": (_load(dense, 1), _load(dense, 1)),
        "convolution beside convolution": (_load(convolution, _WINDOW), _load(convolution, _WINDOW)),
    }
    shares = []
    for name, (model, second) in pairs.items():
        tell(name)
        part, found = _shares(model, second, size.batches)
        result.rows.append((name, f"{part:.3f}", *(f"{share:.1%}" for share in found)))
        result.figures[name] = {"part": part, "shares": dict(zip(map(str, _CALLS), found, strict=True))}
        shares.append(found[:-1] if name.startswith("dense") else found)
    result.checks.append(Check("share of both models' time", max(map(max, shares)), "<=", _CPU * _TOLERANCE))
    _measure_runs(size, convolution, tell, result)
    return result


def _load(path: Path, window: int) -> OnnxModel:
    return load_model(path, window_size=window, channels=len(FIELDS), layout="NC" if window == 1 else "NCT")


def _shares(model: OnnxModel, second: OnnxModel, batches: int) -> tuple[float, list[float]]:
    """Return the shadow's part of the windows, and its share of the time for each size of batch."""
    shadow = Shadow(second, model.sha256, "bench", 1.0, Comparison(model, second, "probabilities"))
    part = part_of(_CPU, measure_times(model, shadow))
    shadow = replace(shadow, part=part)
    shape = (max(_CALLS), model.input.values_per_window // len(FIELDS), len(FIELDS))
    values = np.random.default_rng(3).normal(size=shape)
    found = []
    for count in _CALLS:
        flood = count == max(_CALLS)
        gaps = np.arange(count, dtype=np.int64)[:, None] * (NS // 1000 if flood else 1000)
        slots = np.zeros(count, np.int64)
        ours, theirs = [], []
        number = batches // 4 if flood else batches
        for start in (_START + np.arange(number) * (_FLOOD_APART if flood else STRETCH)).tolist():
            windows = Windows(slots, start + gaps, values[:count])
            started = time.perf_counter()
            answers = model.infer(windows.seen)
            ours.append(time.perf_counter() - started)
            said = shadow.judge(windows, answers).shadow
            if said is not None and len(said.rows):
                theirs.append(said.seconds)
        # Medians, because others use the machine, too.
        took = len(theirs) / number * statistics.median(theirs)
        found.append(took / (statistics.median(ours) + took))
    return part, found


def _measure_runs(size: Size, model: Path, tell: Callable[[str], None], result: Result) -> None:
    load = Load.random(_WARM_UP + size.steady + size.flood, STREAMS)
    packets = load.packets(1)
    rows = load.values.reshape(-1, STREAMS, len(FIELDS))
    confidence, _ = models.least_confident(model, np.moveaxis(rows[:_WINDOW], 0, 2), SHARE)
    costs: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for number in range(size.rounds):
        for name in list(_SIDES) if number % 2 == 0 else reversed(_SIDES):
            tell(f"round {number + 1} of {size.rounds}: {_SIDES[name]}")
            section: dict[str, object] = {
                "path": str(model),
                "window": {"size": _WINDOW, "step": _STEP},
                "input": {"layout": "NCT"},
            }
            if name != "without":
                section["shadow"] = {"path": str(model), **({"cpu": _CPU} if name == "shadow" else {"sample": 1})}
            with mosquitto() as broker, mlade(broker, 1, section, confidence) as side, publisher(broker.port) as source:
                source.flood(packets[:_WARM_UP], 1)
                wait_received(side, _WARM_UP)
                cpu = [side.child.cpu_seconds()]
                source.pace(size.steady, _RATE, lambda at: packets[_WARM_UP + at], 1)
                wait_received(side, _WARM_UP + size.steady)
                cpu.append(side.child.cpu_seconds())
                source.flood(packets[_WARM_UP + size.steady :], 1)
                wait_received(side, len(packets))
                cpu.append(side.child.cpu_seconds())
            costs[name].append(((cpu[1] - cpu[0]) / size.steady * 1e6, (cpu[2] - cpu[1]) / size.flood * 1e6))
    for place, load_name in enumerate((f"{_RATE:,} messages/s", "a flood")):
        without = Spread(tuple(one[place] for one in costs["without"]))
        for name, title in _SIDES.items():
            spread = Spread(tuple(one[place] for one in costs[name]))
            ratio = spread.median / without.median
            result.rows.append((f"{title}, {load_name}: CPU µs a message", "", spread.text(), f"x {ratio:.2f}", "", ""))
            result.figures[f"{name}, {load_name}"] = {**spread.as_json(), "ratio": ratio}
        ratio = result.figures[f"shadow, {load_name}"]["ratio"]
        result.checks.append(Check(f"CPU with the shadow / without, {load_name}", ratio, "<=", 1 / (1 - _CPU)))
