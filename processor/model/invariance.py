"""How to run a model so that a window's answer does not depend on the other windows in the call.

Runtimes choose another kernel for one row than for many, quantised models scale by the batch, and some exports know
one batch size only. So trial windows of many scales are run alone, in several numbers and in changing company, and
the cheapest way is taken in which every window's answer is the same to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from processor.errors import ModelError
from processor.types import Array, Floats, Ints

Call = Callable[[Array], Floats]
"""Runs the model once on (W, …) windows and gives (W, K) numbers; raises ModelError."""

LONGEST_CALL: Final = 0.25
"""Seconds a call may take: so far away keep-alive, commands and shutdown may be."""
_SLOW_WINDOW: Final = 0.01
"""Seconds for one window above which fewer trials are made."""
_SIZES: Final = (1, 2, 3, 4, 7, 8, 16)
_FIXED_SIZES: Final = (8, 4, 2)
_ARRANGEMENTS: Final = 4
"""Companies tried at each size."""


@dataclass(frozen=True, slots=True)
class Execution:
    """How windows are divided into calls of the model.

    Attributes:
        name: `batched`, `padded to 2`, `padded to 8` …, or `one by one`.
        sentence: the same for an operator, with its reason.
        most: windows in a call at most, at least 1.
        least: rows in a call at least; missing ones are filled with copies of the call's last window.
        seconds_per_window: what a window of a full call took at load.
    """

    name: str
    sentence: str
    most: int
    least: int
    seconds_per_window: float

    def run(self, call: Call, values: Array) -> Floats:
        """Return (W, K) answers for W >= 1 windows."""
        count = len(values)
        if self.least <= count <= self.most:
            return call(values)
        parts = [
            call(_filled(values[start : start + self.most], self.least))[: count - start]
            for start in range(0, count, self.most)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Trials:
    """What came of the trial runs.

    Attributes:
        execution: the way to run the model.
        answers: (P, K) answers to the trial windows that the model accepted, each as `execution` gives it.
    """

    execution: Execution
    answers: Floats


def find_execution(call: Call, windows: Array, *, rows: int | None, most: int) -> Trials:
    """Try how the model is to be run.

    The way is found with 16 rows and fewer and does not depend on `most`, nor on how busy the machine is (but that a
    slow model is tried with 3 rows); only the largest call does.

    Args:
        call: runs the model.
        windows: (P, …) trial windows of many scales; those the model raises on are left out.
        rows: the number of rows the model is fixed to; None: any.
        most: windows in a call at most.

    Raises:
        ModelError: the model raises on every trial window.
    """
    probe = _Probe(call, windows, rows or 1)
    cost = probe.seconds
    if not probe.repeatable():
        reason = "the model answers otherwise each time it is given the same window, so nothing can be repeated"
        return probe.trials("one by one", f"windows are run one by one; {reason}", 1, rows or 1, cost)
    if rows is not None:
        return _fixed(probe, rows)
    sizes = _SIZES if cost < _SLOW_WINDOW else _SIZES[:3]
    observed = [arrangement for size in sizes for arrangement in probe.arrangements(size)]
    for least in (1, 2):
        if all(probe.agrees(arrangement, least) for arrangement in observed if len(arrangement) >= least):
            largest, cost = _largest_call(probe, sizes, least, most)
            if least == 1:
                sentence = f"windows are run together, up to {largest} in a call; company does not change an answer"
                return probe.trials("batched", sentence, largest, 1, cost)
            sentence = (
                f"windows are run together, up to {largest} in a call, and one that comes alone beside a copy of "
                "itself: the model answers otherwise when a call has one row"
            )
            return probe.trials("padded to 2", sentence, largest, 2, cost)
    for size in _FIXED_SIZES:
        if size in sizes and all(probe.agrees(arrangement, size) for arrangement in probe.arrangements(size, 16)):
            sentence = (
                f"every call has {size} rows, the missing ones copies of the last: the model's answers depend on the "
                "number of rows"
            )
            return probe.trials(f"padded to {size}", sentence, size, size, probe.timed(size) / size)
    reason = "the model's answer to a window depends on the others in the call"
    if probe.refusal is not None:
        reason = f"the model does not take several ({probe.refusal})"
    return probe.trials("one by one", f"windows are run one by one: {reason}", 1, 1, cost)


class _Probe:
    """Trial windows and the model's answers to them, by how many copies of a window a call had.

    Attributes:
        seconds: that the fastest call took.
        refusal: the last error of a call that mixed windows, each of which the model had accepted alone.
    """

    def __init__(self, call: Call, windows: Array, rows: int) -> None:
        """Run every window alone, as `rows` copies; keep the time of the fastest and the windows that did not raise."""
        self._call = call
        accepted, answers, times = [], [], []
        error: ModelError | None = None
        for number, window in enumerate(windows):
            start = time.perf_counter()
            try:
                answers.append(call(_filled(window[None], rows))[:1])
            except ModelError as raised:
                error = raised
                continue
            times.append(time.perf_counter() - start)
            accepted.append(number)
            if min(times) > _SLOW_WINDOW and len(accepted) >= 6:  # noqa: PLR2004  enough to mix for a slow model
                break
        if not accepted:
            raise error or ModelError("there are no trial windows")
        self.seconds = min(times)
        self.refusal: ModelError | None = None
        self._rows = rows
        self._windows = windows[accepted]
        self._copies: dict[int, Floats] = {rows: np.concatenate(answers)}
        self._random = np.random.default_rng(1)

    def repeatable(self) -> bool:
        """Whether the first windows get the same answer again."""
        again = [self._call(_filled(window[None], self._rows))[:1] for window in self._windows[:2]]
        return _equal(np.concatenate(again), self._copies[self._rows][:2])

    def arrangements(self, size: int, count: int = _ARRANGEMENTS) -> Iterator[Ints]:
        """Yield `count` ways to draw `size` trial windows, (size,) numbers each; a window may stand beside itself."""
        for _ in range(count):
            yield self._random.integers(len(self._windows), size=size)

    def agrees(self, arrangement: Ints, copies: int) -> bool:
        """Whether the arrangement's windows, run together, are each answered as in a call of `copies` of it."""
        try:
            if copies not in self._copies:
                alone = [self._call(_filled(window[None], copies))[:1] for window in self._windows]
                self._copies[copies] = np.concatenate(alone)
            together = self._call(self._windows[arrangement])
        except ModelError as error:
            self.refusal = error
            return False
        return _equal(together, self._copies[copies][arrangement])

    def timed(self, size: int) -> float:
        """Return the seconds a call of `size` takes, the better of two."""
        values = np.resize(self._windows, (size, *self._windows.shape[1:]))
        times = []
        for _ in range(2):
            start = time.perf_counter()
            self._call(values)
            times.append(time.perf_counter() - start)
        return min(times)

    def trials(self, name: str, sentence: str, most: int, least: int, cost: float) -> Trials:
        """Return the result; `agrees` was called with `least` before, or it is the number of the first runs."""
        return Trials(Execution(name, sentence, most, least, cost), self._copies[least])


def _fixed(probe: _Probe, rows: int) -> Trials:
    """Decide for a model whose number of rows is fixed."""
    if rows == 1:
        sentence = "windows are run one by one: the model's batch dimension is fixed at 1"
        return probe.trials("one by one", sentence, 1, 1, probe.seconds)
    if all(probe.agrees(arrangement, rows) for arrangement in probe.arrangements(rows, 16)):
        sentence = f"every call has the {rows} rows the model is fixed to, the missing ones copies of the last"
        return probe.trials(f"padded to {rows}", sentence, rows, rows, probe.seconds / rows)
    sentence = (
        f"windows are run one by one, each as {rows} copies: the model is fixed to {rows} rows, and its answer to a "
        "window depends on the others"
    )
    return probe.trials("one by one", sentence, 1, rows, probe.seconds)


def _largest_call(probe: _Probe, tried: Sequence[int], least: int, most: int) -> tuple[int, float]:
    """Return the largest number of windows, up to `most`, that agrees and stays under LONGEST_CALL, and its cost.

    A size that was not tried, or beyond which answers change, is not used: this narrows the calls and never changes
    the way. Sizes grow through odd numbers, so kernels' remainders are tried too.
    """
    largest = least
    cost = probe.seconds
    limit = max(most, least)
    sizes = [size for size in tried if least < size < limit]
    size = tried[-1]
    while size < limit:
        size = min(2 * size + 1, limit)
        sizes.append(size)
    for size in sizes if tried[-1] < limit else [*sizes, limit]:
        if cost * size > LONGEST_CALL:
            break
        if size not in tried and not all(
            probe.agrees(arrangement, least) for arrangement in probe.arrangements(size, 2)
        ):
            break
        seconds = probe.timed(size)
        if seconds > LONGEST_CALL:
            break
        largest, cost = size, seconds / size
    return largest, cost


def _filled(values: Array, rows: int) -> Array:
    """Return `values` with copies of its last window up to `rows` of them."""
    missing = rows - len(values)
    return values if missing <= 0 else np.concatenate((values, np.repeat(values[-1:], missing, axis=0)))


def _equal(left: Floats, right: Floats) -> bool:
    """Whether the numbers are the same to the last bit; NaN equals NaN."""
    if left.shape != right.shape:
        return False
    same = (left.view(np.int64) == right.view(np.int64)) | (np.isnan(left) & np.isnan(right))
    return bool(same.all())
