"""What a window takes in the model and in the shadow, and how large a part of the windows the shadow may judge."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

from processor.errors import ModelError
from processor.model.onnx_model import OnnxModel
from processor.protocols import Model
from processor.shadow.judge import Shadow, Times
from processor.types import Array, Images, Windows

SMALLEST_PART: Final = 0.001
"""Parts are multiples of it."""
_STEPS: Final = 1000
_SIZES: Final = (1, 8, 64, 512)
"""Windows in a call: from a lone message to a flood."""
_TRIALS: Final = 9
_LONGEST: Final = 0.25
"""Seconds that a call is thought to take above which it is not tried."""
_WINDOWS: Final = 16
"""Trial windows; a call of more has some of them again."""
_KEPT: Final = 16


class Kept(NamedTuple):
    """Times that were measured once, and whose; a row of the state."""

    model: str
    """Its sha256."""
    shadow: str
    """Its sha256."""
    seconds: Times


def part_of(cpu: float, times: Times) -> float:
    """Return the part of the windows that the shadow may judge: a multiple of 1/1000, at least one of them, at most 1.

    Args:
        cpu: the shadow's largest part of both models' computing time, above 0 and below 1.
        times: what a window takes.
    """
    part = cpu / (1 - cpu) * times.model / times.shadow
    return min(max(math.floor(part * _STEPS) / _STEPS, SMALLEST_PART), 1.0)


def measure(model: OnnxModel, shadow: Shadow) -> Times:
    """Return what a window takes in two models, what is made of the second one's answers included.

    Takes about a tenth of a second.

    Args:
        model: the first.
        shadow: the second, judging all windows.
    """
    taken = _taken_by_both(model, shadow.model)
    if not len(taken):
        return Times(model.seconds_per_window, shadow.model.seconds_per_window)
    found: list[Times] = []
    for size in _SIZES:
        if found and size * max(found[-1]) > _LONGEST:
            break
        values = np.resize(taken, (size, *taken.shape[1:]))
        windows = _as_windows(values)
        answers = model.infer(values)
        # By turns, so that what else the machine does falls on both.
        turns = [(_timed(model.infer, values), _timed(shadow.judge, windows, answers)) for _ in range(_TRIALS)]
        found.append(Times(*(min(times) / size for times in zip(*turns, strict=True))))
    return max(found, key=lambda times: times.shadow / times.model)


def _as_windows(values: Array) -> Windows:
    """Return windows of what a model sees; images stay what they are, with payloads of no bytes."""
    count, nothing = len(values), np.zeros((len(values), 1), np.int64)
    if values.dtype != np.uint8:
        return Windows(nothing[:, 0], nothing, values)
    return Windows(nothing[:, 0], nothing, np.empty((count, 1, 0)), Images(values, [b""] * count))


def _taken_by_both(model: OnnxModel, shadow: Model) -> Array:
    """Return trial windows that neither model fails on."""
    windows = model.input.trial_windows(_WINDOWS)
    taken = []
    for row in range(len(windows)):
        try:
            for one in (model, shadow):
                one.infer(windows[row : row + 1])
        except ModelError:
            continue
        taken.append(row)
    return windows[taken]


def _timed(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def read(meta: Iterable[Sequence[object]] | None) -> list[Kept]:
    """Return what `memory` returned in an earlier run, from JSON."""
    return [Kept(str(row[0]), str(row[1]), Times(*row[2])) for row in meta or ()]  # type: ignore[misc]


def memory(known: Sequence[Kept], model: str, shadow: str, times: Times) -> list[Kept]:
    """Return what has to survive a restart, as JSON holds it: the newest measurements, these first."""
    others = [one for one in known if (one.model, one.shadow) != (model, shadow)]
    return [Kept(model, shadow, times), *others][:_KEPT]


def find(known: Iterable[Kept], model: str, shadow: str) -> Times | None:
    """Return what was measured of two models, by their sha256; None where nothing was."""
    return next((one.seconds for one in known if (one.model, one.shadow) == (model, shadow)), None)
