"""What a rule's conditions cost, window by window: those that need nothing but the window, and those that remember."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from bench.report import Check, Result, Spread
from processor.events import uniform
from processor.filter import validate_filter
from processor.selection import Selection
from processor.types import NS, Predictions, StreamName, Windows

_BATCH: Final = 256
_SIZE: Final = 100
_FIELDS: Final = ("ax", "ay", "az", "gx", "gy", "gz")
_LABELS: Final = ("a", "b", "c", "d")
_STREAMS: Final = 16
_RULES: Final = 20
_START: Final = 1_795_341_600 * NS
_STATELESS: Final = 1.0
_DEDUP: Final = 30.0


class Size(NamedTuple):
    """How long it takes."""

    batches: int
    """Of each measurement."""


FULL: Final = Size(batches=60)
QUICK: Final = Size(batches=15)

_MANY: Final[Mapping[str, Any]] = {
    "schedule": {"timezone": "Europe/Berlin", "weekly": [{"from": "00:00", "to": "24:00"}]},
    "where": {"labels": ["a", "b", "c"], "streams": ["plant/+/imu"], "fields": {"ax": {"min": -5}, "gz": {"max": 5}}},
    "measure": "entropy",
    "band": {"min": 0.2, "max": 0.999},
}
"""All conditions that need nothing but the window. Most windows pass each."""


def measure(size: Size, _folder: Path, tell: Callable[[str], None]) -> Result:
    """Judge batches of windows that are all different, with filters of one kind of condition each."""
    stateless = [{"name": f"r{number}", **_MANY} for number in range(_RULES)]
    memory = {"name": "r", "dedup": {"distance": "auto", "memory": 1000}}
    cases: dict[str, tuple[list[dict[str, Any]], int]] = {
        f"schedule, where, measure, band; {_RULES} rules, each": (stateless, _RULES),
        "keep over 5,000": ([{"name": "r", "measure": "margin", "keep": {"share": 0.1, "over": 5000}}], 1),
        "keep over 100,000": ([{"name": "r", "measure": "margin", "keep": {"share": 0.1, "over": 100_000}}], 1),
        "dedup of 1,000 x 600 values": ([memory], 1),
        "sample": ([{"name": "r", "sample": 0.5}], 1),
        "cooldown and limit": (
            [{"name": "r", "cooldown": {"for": "1ms"}, "limit": {"max": 1000, "per": "1m", "by": "stream"}}], 1
        ),
    }  # fmt: skip
    found = {}
    for name, (rules, share) in cases.items():
        tell(name)
        warm = 400 if "100,000" in name else 40
        found[name] = _microseconds(rules, share, size.batches, warm)
    names = list(found)
    return Result(
        f"Conditions: µs a window, batches of {_BATCH} windows of {_SIZE} x {len(_FIELDS)}",
        ("", "µs a window"),
        [(name, spread.text(2)) for name, spread in found.items()],
        [
            Check("conditions that do not remember, a rule", found[names[0]].median, "<=", _STATELESS, "µs"),
            Check("dedup", found[names[3]].median, "<=", _DEDUP, "µs"),
        ],
        {name: spread.as_json() for name, spread in found.items()},
        notes=("CPU time of one thread, with the memory full; sampling includes the hash of each window.",),
    )


def _microseconds(rules: list[dict[str, Any]], share: int, batches: int, warm: int) -> Spread:
    selection = Selection(validate_filter({"rules": rules}), _LABELS, [("imu", _FIELDS)])
    random = np.random.default_rng(1)
    rounds = []
    for number in range(warm + batches):
        windows, predictions, names = _batch(random, number)

        def number_of(row: int, text: str, windows: Windows = windows) -> float:
            return uniform(windows.values[row].tobytes().hex()[:64], text)

        started = time.thread_time()
        selection.judge(windows, predictions, names, number_of)
        rounds.append(time.thread_time() - started)
        selection.memories.changes()
    return Spread(tuple(seconds / _BATCH / share * 1e6 for seconds in rounds[warm:]))


def _batch(random: np.random.Generator, number: int) -> tuple[Windows, Predictions, dict[int, StreamName]]:
    slots = random.integers(0, _STREAMS, _BATCH)
    times = _START + (number * _BATCH + np.arange(_BATCH)[:, None]) * 10_000_000 + np.arange(_SIZE) * 10_000
    values = random.normal(size=(_BATCH, _SIZE, len(_FIELDS)))
    chances = random.dirichlet(np.ones(len(_LABELS)), _BATCH)
    names = {slot: StreamName("imu", f"plant/{slot}/imu") for slot in range(_STREAMS)}
    return Windows(slots, times, values), Predictions("probabilities", _LABELS, chances, None), names
