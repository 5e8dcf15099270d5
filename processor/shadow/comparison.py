"""How far the answers of two models to the same windows lie apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from processor.errors import Problem
from processor.protocols import Model
from processor.types import Floats, Ints, Predictions

Compare = Literal["probabilities", "labels"]


class Comparison:
    """Compares answers of two models that may know different labels, or the same in another order."""

    def __init__(self, model: Model, shadow: Model, compare: Compare) -> None:
        """Prepare for two models in which `problems` found nothing."""
        self._labels_only = compare == "labels"
        self._same = model.labels == shadow.labels
        union = list(dict.fromkeys([*model.labels, *shadow.labels]))
        self._width = len(union)
        self._columns: Ints = np.array([union.index(label) for label in shadow.labels], np.int64)

    def disagreement(self, model: Predictions, shadow: Predictions) -> Floats:
        """Return (W,) how far the models' answers to W windows lie apart; NaN where one of them has none.

        Of probabilities the total variation, half the sum of |p - q| over all labels of either, 0 to 1, where a label
        that a model does not know has 0; or whether the likeliest labels differ, 0 or 1. Of scores and values the
        distance, |s - s'|, unless labels are compared. (Total variation: Levin, Peres and Wilmer, 2017, "Markov chains
        and mixing times", chapter 4.)
        """
        if model.probabilities is not None and shadow.probabilities is not None:
            if self._labels_only:
                return self._differ(model.probabilities, shadow.probabilities)
            if model.value is None:
                return self._variation(model.probabilities, shadow.probabilities)
        if model.value is None or shadow.value is None:
            raise ValueError(f"found answers that are {model.kind} and {shadow.kind}, expected two of a kind")
        distance: Floats = np.abs(model.value - shadow.value)
        return distance

    def _differ(self, ours: Floats, theirs: Floats) -> Floats:
        differ: Floats = (ours.argmax(axis=1) != self._columns[theirs.argmax(axis=1)]).astype(np.float64)
        differ[np.isnan(ours).any(axis=1) | np.isnan(theirs).any(axis=1)] = np.nan
        return differ

    def _variation(self, ours: Floats, theirs: Floats) -> Floats:
        if self._same:
            apart = ours - theirs
        else:
            apart = np.zeros((len(ours), self._width))
            apart[:, : ours.shape[1]] = ours
            apart[:, self._columns] -= theirs
        # Contiguous, so that a row's sum is taken in one order whatever its neighbours are.
        half: Floats = np.abs(np.ascontiguousarray(apart)).sum(axis=1) / 2
        return half.clip(0.0, 1.0)


def problems(model: Model, shadow: Model, compare: Compare) -> Iterator[Problem]:
    """Yield what keeps two models from being compared, with the keys that mend it."""
    if shadow.kind != model.kind:
        text = f"the shadow's output is read as {shadow.kind}, the model's as {model.kind}, and these are not compared"
        yield Problem("model.shadow.output.kind", f"{text}; a shadow answers the same question as the model")
    elif compare == "labels" and not model.labels:
        text = f"the model's output ({model.kind}) has no labels; leave it out, and the values' distance is taken"
        yield Problem("model.shadow.compare", text)
    elif model.kind == "score" and shadow.labels != model.labels:
        found, expected = (", ".join(one.labels) for one in (shadow, model))
        text = f"found {found}, expected the model's, {expected}: a score is that of the second label"
        yield Problem("model.shadow.output.labels", text)
    elif model.kind == "probabilities" and not set(model.labels) & set(shadow.labels):
        found, expected = (", ".join(one.labels[:5]) for one in (shadow, model))
        text = f"found {found}, and the model has {expected}: with no label in common nothing could agree"
        yield Problem("model.shadow.output.labels", text)
