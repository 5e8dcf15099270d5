"""Two promises about what is kept: that the budget is met, evenly, and that weights undo the choice."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from bench.worth.learning import Task, predict, prepare, train
from bench.worth.methods import Filter
from processor.types import Flags

_LEAST: Final = 20_000
_STRETCH: Final = 200
_AUDIT: Final = 0.02


class Budget(NamedTuple):
    """How a share was met."""

    off: float
    """|spent - asked| / asked."""
    densest: float
    """The most that any 200 windows in a row hold, in multiples of the share."""


def _filter(task: Task, rules: list[dict[str, Any]], seed: int) -> Filter:
    return Filter(rules, task.kinds, task.stream.windows.shape[2], seed)


def budget(name: str, share: float, seed: int) -> Budget:
    """Keep a share of a stream in bursts, played until 20,000 windows have come, from a cold start."""
    task = prepare(name, seed, bursts=True)
    probabilities = predict(train(*task.first[:2], seed), task.stream.windows, task.kinds)
    times = -(-_LEAST // len(probabilities))
    rule: dict[str, Any] = {"name": "r", "measure": "margin", "keep": {"share": share, "of": "lowest"}}
    subject = _filter(task, [rule], seed)
    kept: Flags = np.concatenate([subject.choose(task.stream.windows, probabilities) for _ in range(times)])
    so_far = np.concatenate(([0], kept.cumsum()))
    densest = int((so_far[_STRETCH:] - so_far[:-_STRETCH]).max())
    return Budget(abs(kept.mean() - share) / share, densest / (share * _STRETCH))


def bias(name: str, seed: int, draws: int) -> tuple[float, float]:
    """Estimate a frozen model's accuracy from what an audit slice and an adaptive share keep, by weights.

    Returns:
        The mean error over draws of the audit's hashes, and its standard error.
    """
    task = prepare(name, seed, bursts=True)
    probabilities = predict(train(*task.first[:2], seed), task.stream.windows, task.kinds)
    right = probabilities.argmax(axis=1) == task.stream.labels
    rules: list[dict[str, Any]] = [
        {"name": "audit", "sample": _AUDIT},
        {"name": "unsure", "measure": "margin", "keep": {"share": 0.05, "of": "lowest"}},
    ]
    errors = []
    for draw in range(draws):
        verdicts = _filter(task, rules, 1000 * seed + draw).judge(task.stream.windows, probabilities)
        kept = verdicts.rule >= 0
        weights = 1.0 / verdicts.probability[kept]
        errors.append(float((weights * right[kept]).sum() / weights.sum() - right.mean()))
    return float(np.mean(errors)), float(np.std(errors, ddof=1) / np.sqrt(draws))
