"""Public data that comes inside packages, as streams of windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from processor.demo import data as demo
from processor.types import Floats

_HELD_OUT: Final = 0.3
_REPEATS: Final = 10
_JITTER: Final = 0.01
"""Standard deviations of a field."""

Labels = NDArray[np.int64]


class Examples(NamedTuple):
    """N windows with their labels."""

    windows: Floats
    """(N, size, C)."""
    labels: Labels
    """(N,) 0 to K - 1."""
    groups: Labels
    """(N,) windows of one recording have the same; they are held out together."""

    def part(self, rows: Labels) -> Examples:
        """Return some of them."""
        return Examples(self.windows[rows], self.labels[rows], self.groups[rows])


class Split(NamedTuple):
    """What comes as a stream, and what is held out."""

    stream: Examples
    held_out: Examples


def _digits() -> Examples:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - the benchmark's own dependencies are not everybody's

    digits = load_digits()
    return Examples(
        digits.data[:, None].astype(np.float64), digits.target.astype(np.int64), np.arange(digits.target.size)
    )


def _river(name: str) -> Examples:
    from river import datasets  # noqa: PLC0415 - as above

    rows, labels = [], []
    for features, label in getattr(datasets, name)():
        rows.append([float(value) for value in features.values()])
        labels.append(str(label))
    _, numbers = np.unique(labels, return_inverse=True)
    return Examples(np.array(rows)[:, None], numbers.astype(np.int64), np.arange(len(labels)))


def _motions() -> Examples:
    """Return windows of 2 s, beginning every second, of the smart watch recordings of the demo."""
    halves = [demo.load("train"), demo.load("test")]
    series = np.moveaxis(np.concatenate([half.values for half in halves]), 1, 2)
    _, labels = np.unique([name for half in halves for name in half.activities], return_inverse=True)
    starts = range(0, series.shape[1] - demo.WINDOW_SIZE + 1, demo.WINDOW_STEP)
    windows = np.concatenate([series[:, start : start + demo.WINDOW_SIZE] for start in starts])
    groups = np.tile(np.arange(len(series)), len(starts))
    return Examples(windows.astype(np.float64), np.tile(labels, len(starts)).astype(np.int64), groups)


SETS: Final[Mapping[str, Callable[[], Examples]]] = {
    "digits": _digits,
    "segments": lambda: _river("ImageSegments"),
    "phishing": lambda: _river("Phishing"),
    "motions": _motions,
}


def split(examples: Examples, random: np.random.Generator) -> Split:
    """Hold 30 % out; the rest comes in random order."""
    groups = random.permutation(np.unique(examples.groups))
    held = np.isin(examples.groups, groups[: round(_HELD_OUT * len(groups))])
    order = random.permutation(len(held))
    return Split(*(examples.part(order[held[order] == out]) for out in (False, True)))


def in_bursts(examples: Examples, random: np.random.Generator) -> Examples:
    """Repeat each window ten times in a row, with noise of a hundredth of each field's standard deviation."""
    windows = np.repeat(examples.windows, _REPEATS, axis=0)
    spread: Any = examples.windows.std(axis=(0, 1))
    windows += _JITTER * spread * random.normal(size=windows.shape)
    return Examples(windows, examples.labels.repeat(_REPEATS), examples.groups.repeat(_REPEATS))
