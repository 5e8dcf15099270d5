"""CPU that durability costs: the same load with the state on disk and in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np

from bench import models
from bench.broker import mosquitto
from bench.errors import BenchError
from bench.load import FIELDS, Load
from bench.parts.throughput import SHARE, STREAMS
from bench.processes import file_system, fsync_seconds
from bench.publisher import publisher
from bench.report import Check, Result, Spread, percentile
from bench.sides import mlade, wait_received

_QOS: Final = 1
_WINDOW: Final = 100
_STEP: Final = 20
_WARM_UP: Final = STREAMS * _WINDOW
"""Messages before anything is measured: until every stream has its first window."""
_STEADY_RATE: Final = 2000
_TARGET: Final = 1.35
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a file system in memory is what is wanted
_SIDES: Final = {"memory": "full, state in memory", "normal": "normal, state on disk", "full": "full, state on disk"}
_LOADS: Final = {"1": "windows of 1", str(_WINDOW): f"windows of {_WINDOW}, step {_STEP}"}


class Size(NamedTuple):
    """How long it takes."""

    rounds: int
    flood: int
    """Messages as fast as they go."""
    steady: int
    """Messages at a steady 2,000 a second."""


FULL: Final = Size(rounds=5, flood=60_000, steady=4_000)
QUICK: Final = Size(rounds=1, flood=30_000, steady=1_000)


class _Cost(NamedTuple):
    """What a message took in one round, CPU microseconds."""

    flood: float
    steady: float


class _Setting(NamedTuple):
    """What all sides get of one load."""

    model: Mapping[str, Any]
    """The configuration's section."""
    confidence: float
    """Predictions at most this sure are accepted."""
    samples: int
    """That many are."""


def measure(size: Size, folder: Path, tell: Callable[[str], None]) -> Result:
    """Run each load with each kind of state, in turn."""
    load = Load.random(_WARM_UP + size.steady + size.flood, STREAMS)
    packets = load.packets(_QOS)
    settings = {"1": _dense(load, folder), str(_WINDOW): _convolutional(load, folder)}
    costs: defaultdict[tuple[str, str], list[_Cost]] = defaultdict(list)
    with ExitStack() as stack:
        disk = Path(stack.enter_context(TemporaryDirectory(prefix="mlade-bench-", dir=_disk())))
        for number in range(size.rounds):
            for name, setting in settings.items():
                for side in list(_SIDES) if number % 2 == 0 else reversed(_SIDES):
                    tell(f"round {number + 1} of {size.rounds}, {_LOADS[name]}: {_SIDES[side]}")
                    costs[name, side].append(_round(side, disk, setting, packets, size))
        fsync = [percentile(fsync_seconds(disk), share) * 1e3 for share in (0.5, 0.99)]
        kind = file_system(disk)
    return _result(costs, size, kind, fsync)


def _dense(load: Load, folder: Path) -> _Setting:
    model = models.write(models.dense(), folder / "dense.onnx")
    return _Setting({"path": str(model)}, *models.least_confident(model, load.values, SHARE))


def _convolutional(load: Load, folder: Path) -> _Setting:
    """Accept as many of the windows that will be complete."""
    model = models.write(models.convolutional(), folder / "convolutional.onnx")
    by_stream = load.values[: len(load.values) // STREAMS * STREAMS].reshape(-1, STREAMS, len(FIELDS))
    ends = range(_WINDOW, len(by_stream) + 1, _STEP)
    windows = np.concatenate([np.moveaxis(by_stream[end - _WINDOW : end], 0, 2) for end in ends])
    section = {"path": str(model), "window": {"size": _WINDOW, "step": _STEP}, "input": {"layout": "NCT"}}
    return _Setting(section, *models.least_confident(model, windows, SHARE))


def _disk() -> Path:
    """Return a directory for temporary files that is not in memory."""
    for place in (Path("/tmp"), Path("/var/tmp")):  # noqa: S108 - a directory of one's own is made there
        if file_system(place) != "tmpfs":
            return place
    raise BenchError("the directories for temporary files are in memory; without a disk there is nothing to compare")


def _round(side: str, disk: Path, setting: _Setting, packets: Sequence[bytes], size: Size) -> _Cost:
    if side == "memory" and file_system(_MEMORY) != "tmpfs":
        raise BenchError(f"{_MEMORY} is not in memory (tmpfs)")
    steady_end = _WARM_UP + size.steady
    with (
        TemporaryDirectory(prefix="mlade-bench-", dir=_MEMORY if side == "memory" else disk) as state,
        mosquitto() as broker,
        mlade(
            broker,
            _QOS,
            setting.model,
            setting.confidence,
            state_dir=state,
            outbox={"durability": "normal" if side == "normal" else "full"},
            bridges=[{"type": "files", "path": "accepted"}],
        ) as running,
        publisher(broker.port) as source,
    ):
        source.flood(packets[:_WARM_UP], _QOS)
        wait_received(running, _WARM_UP)
        cpu = [running.child.cpu_seconds()]
        source.pace(size.steady, _STEADY_RATE, lambda number: packets[_WARM_UP + number], _QOS)
        wait_received(running, steady_end)
        cpu.append(running.child.cpu_seconds())
        source.flood(packets[steady_end:], _QOS)
        wait_received(running, len(packets))
        cpu.append(running.child.cpu_seconds())
        if (accepted := running.accepted()) != setting.samples:
            raise running.child.failed(f"has accepted {accepted} windows instead of {setting.samples}")
        return _Cost((cpu[2] - cpu[1]) / size.flood * 1e6, (cpu[1] - cpu[0]) / size.steady * 1e6)


def _result(costs: Mapping[tuple[str, str], Sequence[_Cost]], size: Size, kind: str, fsync: Sequence[float]) -> Result:
    result = Result(
        "Durability: what it costs at QoS 1",
        (
            "windows",
            "outbox.durability",
            "CPU µs/message in a flood",
            "ratio",
            "CPU µs/message at 2,000/s",
            "ratio",
        ),
        notes=(
            f"{STREAMS} streams of 6 floats as JSON, {SHARE:.0%} of windows accepted, bridge files, on disk for all.",
            f"In memory: state_dir on a tmpfs ({_MEMORY}): the same transactions, no disk, and fsync costs nothing.",
            f"On disk: {kind}; fsync of 4 KiB there takes p50 {fsync[0]:.2f} ms, p99 {fsync[1]:.2f} ms.",
            f"{size.rounds} rounds in turn, {size.flood:,} messages in a flood; medians; ratios are within a round.",
        ),
    )
    for load, title in _LOADS.items():
        memory = costs[load, "memory"]
        for side, words in _SIDES.items():
            own = costs[load, side]
            flood, steady = (Spread(values) for values in zip(*own, strict=True))
            ratio = Spread(tuple(one.flood / other.flood for one, other in zip(own, memory, strict=True)))
            steady_ratio = Spread(tuple(one.steady / other.steady for one, other in zip(own, memory, strict=True)))
            result.rows.append((title, words, flood.text(), ratio.text(2), steady.text(), steady_ratio.text(2)))
            result.figures[f"windows_{load}_{side}"] = {
                "flood_cpu_us": flood.as_json(),
                "flood_ratio": ratio.as_json(),
                "steady_cpu_us": steady.as_json(),
                "steady_ratio": steady_ratio.as_json(),
            }
            if side == "full":
                result.checks.append(Check(f"{title}: CPU a message, full / in memory", ratio.median, "<=", _TARGET))
    return result
