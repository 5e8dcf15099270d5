"""What the demo plays and the model it plays it to.

The recordings are BasicMotions, from the UEA multivariate time series classification archive (A. Bagnall et al., 2018,
arXiv:1811.00075, https://www.timeseriesclassification.com), as distributed in the Python package aeon 1.6.0: four
students stood, walked, ran and played badminton with a smart watch on the wrist, five times 10 s each. Half of the
recordings trained the model, so the other half, which the demo plays, is new to it, though its wearers are not.
`scripts/convert_basic_motions.py` made the file and `scripts/train_demo_model.py` the model.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from processor.types import Floats

FIELDS = ("ax", "ay", "az", "gx", "gy", "gz")
"""The channels: acceleration and rate of turn about three axes. The source does not say in which units."""

RATE_HZ = 10
"""Readings a second."""

WINDOW_SIZE = 20
"""Readings in a window of the model: 2 s."""

WINDOW_STEP = 10
"""Readings from one window to the next: 1 s."""

MODEL_PATH = Path(str(resources.files("processor.demo") / "motions.onnx"))
"""The model. Input `input`, float32 (N, 6, WINDOW_SIZE), raw readings; output `probabilities`, float32 (N, 4)."""

_RECORDINGS = resources.files("processor.demo") / "basic_motions.npz"

_SPACING = 2473
"""Readings between the places where two neighbouring watches start.

Near the golden section of the 4,000 readings in a loop, so that any number of watches is spread well over activities,
and without a common divisor, so that only the 4,001st starts where the first did.
"""


@dataclass(frozen=True, slots=True)
class Recordings:
    """One half of the recordings.

    Attributes:
        values: (N, 6, T) channel values, channels as in FIELDS, T readings at RATE_HZ.
        activities: N names, what the wearer did.
    """

    values: Floats
    activities: tuple[str, ...]


def load(split: Literal["train", "test"]) -> Recordings:
    """Return the half the model was trained on, or the other one."""
    with _RECORDINGS.open("rb") as file, np.load(file) as archive:
        return Recordings(archive[f"{split}_x"], tuple(archive["labels"][archive[f"{split}_y"]].tolist()))


def readings(watch: int) -> Iterator[tuple[float, ...]]:
    """Yield what one watch measures, a row of six values each 1 / RATE_HZ seconds, without end.

    The wearer goes from one activity straight to the next, so that there are windows which hold two. All watches play
    the same loop of all test recordings and start in different places.

    Args:
        watch: number of the watch, from 0; the same number plays the same readings.
    """
    loop = _loop()
    for position in itertools.count(watch * _SPACING):
        yield loop[position % len(loop)]


@functools.cache
def _loop() -> list[tuple[float, ...]]:
    """Return the test recordings one after another, a different activity each time, as rows of readings."""
    recordings = load("test")
    by_activity = [
        [series for series, activity in zip(recordings.values, recordings.activities, strict=True) if activity == label]
        for label in sorted(set(recordings.activities))
    ]
    order = itertools.chain.from_iterable(zip(*by_activity, strict=True))
    return [tuple(row) for series in order for row in series.T.tolist()]
