"""Learning from what was chosen: a model that is frozen within a round, and trained anew on all labels after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from bench.worth.data import SETS, Examples, Split, in_bursts, split
from bench.worth.methods import Method
from processor.types import Floats

_START: Final = 50
_ROUNDS: Final = 5
_TREES: Final = 100


class Outcome(NamedTuple):
    """What came of one run."""

    labels: list[int]
    """Labels at hand before the first round and after each."""
    accuracies: list[float]
    """On what was held out, with so many."""
    spent: float
    """Share of the stream that was kept."""


class Task(NamedTuple):
    """A stream to choose from."""

    split: Split
    stream: Examples
    """Without what the first labels are of."""
    first: Examples
    kinds: int
    """Labels that there are."""


def prepare(name: str, seed: int, *, bursts: bool) -> Task:
    """Return a set's stream, and 50 windows with labels to start with."""
    random = np.random.default_rng(seed)
    examples = SETS[name]()
    parts = split(examples, random)
    rest = parts.stream.part(np.arange(_START, len(parts.stream.labels)))
    stream = in_bursts(rest, random) if bursts else rest
    return Task(parts, stream, parts.stream.part(np.arange(_START)), int(examples.labels.max()) + 1)


def flat(windows: Floats) -> Floats:
    """Return windows as rows."""
    rows: Floats = windows.reshape(len(windows), windows.shape[1] * windows.shape[2])
    return rows


def train(windows: Floats, labels: Any, seed: int) -> Any:  # noqa: ANN401 - scikit-learn comes without types
    """Return a random forest."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 - the benchmark's own dependency

    return RandomForestClassifier(_TREES, random_state=seed).fit(flat(windows), labels)


def predict(model: Any, windows: Floats, count: int) -> Floats:  # noqa: ANN401 - as above
    """Return (N, count) probabilities; labels that the model has not seen yet have none."""
    probabilities = np.zeros((len(windows), count))
    probabilities[:, model.classes_] = model.predict_proba(flat(windows))
    return probabilities


def run(task: Task, seed: int, make: Callable[[int], Method]) -> Outcome:
    """Let a method choose in five rounds.

    Args:
        task: what from.
        seed: of the forests.
        make: makes the method, given how many windows come in a round.
    """
    windows, labels = task.first.windows, task.first.labels
    rounds = np.array_split(np.arange(len(task.stream.labels)), _ROUNDS)
    method = make(len(rounds[0]))
    held_out = task.split.held_out
    counts, accuracies = [], []
    for number in range(_ROUNDS + 1):
        model = train(windows, labels, seed)
        counts.append(len(labels))
        accuracies.append(float(model.score(flat(held_out.windows), held_out.labels)))
        if number < _ROUNDS:
            coming = task.stream.part(rounds[number])
            kept = method.choose(coming.windows, predict(model, coming.windows, task.kinds))
            windows = np.concatenate((windows, coming.windows[kept]))
            labels = np.concatenate((labels, coming.labels[kept]))
    return Outcome(counts, accuracies, (counts[-1] - counts[0]) / len(task.stream.labels))
