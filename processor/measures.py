"""Measures: the functions that turn predictions into one number a window.

To add one, write a function of `(Predictions, label index or None) -> (N,)` and name it in `MEASURES`. Where a
prediction has no such number (no probabilities in a regression, no raw number in a classification, no label given for
`probability`, a window that no shadow judged for `disagreement`, a model's NaN), the score is NaN, which lies in no
band.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from processor.types import Floats, OutputKind, Predictions

Measure = Callable[[Predictions, int | None], Floats]


def confidence(probabilities: Floats) -> Floats:
    """Return the largest probability of each row of (N, K): 1/K to 1."""
    result: Floats = probabilities.max(axis=1)
    return result


def margin(probabilities: Floats) -> Floats:
    """Return the largest probability less the second largest of each row of (N, K): 0 to 1.

    With one label there is no second: its probability. (Scheffer et al., 2001, "Active hidden Markov models for
    information extraction"; there as here a small margin is an ambiguous window.)
    """
    labels = probabilities.shape[1]
    if labels == 1:
        return probabilities[:, 0].copy()
    ordered = np.partition(probabilities, labels - 2, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def entropy(probabilities: Floats) -> Floats:
    """Return -Σ p ln p / ln K of each row of (N, K): 0 (certain) to 1 (all alike), with 0 ln 0 = 0.

    With one label there is nothing to be uncertain of: 0. (Shannon, 1948, "A mathematical theory of communication",
    divided by its largest value.)
    """
    rows, labels = probabilities.shape
    if labels == 1:
        return probabilities[:, 0] * 0.0
    # Contiguous, so that a row's sum is taken in one order whatever its neighbours are.
    probabilities = np.ascontiguousarray(probabilities)
    logarithms = np.zeros((rows, labels))
    np.log(probabilities, out=logarithms, where=probabilities > 0)
    result: Floats = (0.0 - (probabilities * logarithms).sum(axis=1)) / np.log(labels)
    return result.clip(0, 1)


def probability(probabilities: Floats, label: int) -> Floats:
    """Return the probability of the label with index `label` of each row of (N, K)."""
    return probabilities[:, label].copy()


def compute(name: str, predictions: Predictions, label: int | None = None) -> Floats:
    """Return the (N,) scores of measure `name`; NaN where a prediction has no such number.

    Raises:
        KeyError: there is no measure of that name.
    """
    return MEASURES[name](predictions, label)


def applicable(kind: OutputKind) -> tuple[str, ...]:
    """Return the names of the measures that predictions of `kind` have a number for, by themselves."""
    raw = () if kind == "probabilities" else ("score", "value")
    others = ("score", "value", "disagreement")
    return raw if kind == "value" else tuple(name for name in MEASURES if name not in others) + raw


def _of_probabilities(measure: Callable[[Floats], Floats]) -> Measure:
    def apply(predictions: Predictions, _label: int | None) -> Floats:
        return _nothing(predictions) if predictions.probabilities is None else measure(predictions.probabilities)

    return apply


def _probability(predictions: Predictions, label: int | None) -> Floats:
    if predictions.probabilities is None or label is None:
        return _nothing(predictions)
    return probability(predictions.probabilities, label)


def _raw(predictions: Predictions, _label: int | None) -> Floats:
    return _nothing(predictions) if predictions.value is None else predictions.value


def _disagreement(predictions: Predictions, _label: int | None) -> Floats:
    scores = _nothing(predictions)
    shadow = predictions.shadow
    if shadow is not None:
        scores[shadow.rows] = shadow.disagreement
    return scores


def _nothing(predictions: Predictions) -> Floats:
    return np.full(len(predictions), np.nan)


MEASURES: Final[Mapping[str, Measure]] = {
    "confidence": _of_probabilities(confidence),
    "margin": _of_probabilities(margin),
    "entropy": _of_probabilities(entropy),
    "probability": _probability,
    "score": _raw,
    "value": _raw,
    "disagreement": _disagreement,
}
