"""How long the model takes for calls of different sizes on this machine, and which size is worth it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from processor.errors import ModelError
from processor.model.invariance import LONGEST_CALL, Call, Execution
from processor.types import Array

LARGEST_AUTO: Final = 512
"""Windows in a call that are tried at most."""
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Windows in a call that are tried."""
_AS_FAST: Final = 1.05
"""How much slower than the fastest a size may be."""
_FEWEST_RUNS: Final = 3
_MOST_RUNS: Final = 200
_TIME: Final = 0.04
"""Seconds for one size, where that allows more than the fewest runs."""


def measure(call: Call, windows: Array, sizes: Sequence[int]) -> dict[int, float]:
    """Return seconds a window by the number of windows in a call, the fastest of several runs.

    Args:
        call: runs the model.
        windows: (P, …) trial windows; those the model raises on are left out.
        sizes: numbers of windows, in growing order; none is tried after one that takes longer than a call may.
    """
    accepted = windows[[_accepts(call, window[None]) for window in windows]]
    found: dict[int, float] = {}
    for size in sizes if len(accepted) else ():
        values = np.resize(accepted, (size, *accepted.shape[1:]))
        times: list[float] = []
        while len(times) < _FEWEST_RUNS or (len(times) < _MOST_RUNS and sum(times) < _TIME):
            start = time.perf_counter()
            call(values)
            times.append(time.perf_counter() - start)
        found[size] = min(times) / size
        if min(times) > LONGEST_CALL:
            break
    return found


def fastest(execution: Execution, call: Call, windows: Array) -> Execution:
    """Return how the model is run, with calls no larger than is worth it; the same where calls cannot be chosen.

    Raises:
        ModelError: the model raises on windows together that it took alone.
    """
    if execution.most <= execution.least:
        return execution
    sizes = [size for size in SIZES if execution.least <= size < execution.most]
    speeds = measure(lambda values: execution.run(call, values), windows, [*sizes, execution.most])
    if not speeds:
        return execution
    most = smallest_as_fast(speeds)
    sentence = execution.sentence.replace(f"up to {execution.most} in a call", f"up to {most} in a call")
    said = f"{sentence}; measured, in µs a window by the size of a call: {table(speeds)}"
    return replace(execution, most=most, sentence=said, seconds_per_window=speeds[most])


def smallest_as_fast(speeds: Mapping[int, float]) -> int:
    """Return the smallest size that is about as fast as the fastest."""
    best = min(speeds.values())
    return next(size for size, seconds in sorted(speeds.items()) if seconds <= _AS_FAST * best)


def table(speeds: Mapping[int, float]) -> str:
    """Return speeds in one line."""
    return ", ".join(f"{size}: {seconds * 1e6:.3g}" for size, seconds in sorted(speeds.items()))


def _accepts(call: Call, window: Array) -> bool:
    try:
        call(window)
    except ModelError:
        return False
    return True
