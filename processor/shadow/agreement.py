"""How often the shadow agrees with the model, by label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from processor.shadow.judge import Shadow
from processor.types import Floats, Ints, Predictions

MOST_LABELS: Final = 50
"""Labels that are counted each; of more, the later ones together."""
OTHERS: Final = "other labels"


class Pair(NamedTuple):
    """Windows of which the models said the same two things.

    Attributes:
        label: the model's; empty where it has none.
        shadow: the shadow's.
        windows: how many.
    """

    label: str
    shadow: str
    windows: int


class Agreement:
    """Counts. Begins anew when one of the models is another. Used by one thread."""

    def __init__(self) -> None:
        """Start at zero."""
        self._models = ("", "")
        self._begin()

    def _use(self, model: str, shadow: str) -> None:
        if self._models != (model, shadow):
            self._models = (model, shadow)
            self._begin()

    def _begin(self) -> None:
        self.windows = 0
        self.failures = 0
        self.seconds = 0.0
        self._disagreement = 0.0
        self._known = 0
        self._agreed = 0
        self._by_label: dict[str, Ints] = {}

    def add(self, predictions: Predictions) -> list[Pair]:
        """Take what came of some windows; return what is new of their labels."""
        shadow = predictions.shadow
        if shadow is None:
            return []
        theirs = shadow.predictions
        self._use(shadow.beside, shadow.sha256)
        self.windows += len(shadow.rows)
        self.failures += shadow.failures
        self.seconds += shadow.seconds
        known = np.isfinite(shadow.disagreement)
        self._known += int(known.sum())
        self._disagreement += float(shadow.disagreement[known].sum())
        if not len(shadow.rows) or predictions.probabilities is None or theirs.probabilities is None:
            return []
        return list(self._count(predictions, predictions.probabilities[shadow.rows], theirs, theirs.probabilities))

    def _count(self, model: Predictions, ours: Floats, shadow: Predictions, theirs: Floats) -> Iterator[Pair]:
        numbers = ~(np.isnan(ours).any(axis=1) | np.isnan(theirs).any(axis=1))
        width = len(shadow.labels)
        both = ours[numbers].argmax(axis=1) * width + theirs[numbers].argmax(axis=1)
        pairs, counts = np.unique(both, return_counts=True)
        for pair, windows in zip(pairs.tolist(), counts.tolist(), strict=True):
            label, other = model.labels[pair // width], shadow.labels[pair % width]
            agreed = windows * (label == other)
            self._agreed += agreed
            shown = label if pair // width < MOST_LABELS else OTHERS
            self._by_label.setdefault(shown, np.zeros(2, np.int64))[:] += (windows, agreed)
            yield Pair(shown, other if pair % width < MOST_LABELS else OTHERS, windows)

    def told(self, shadow: Shadow | None) -> dict[str, Any] | None:
        """Return, as on the metrics topic, what is known of a shadow; None where there is none."""
        if shadow is None:
            return None
        self._use(shadow.beside, shadow.model.sha256)
        labelled = sum(int(windows) for windows, _ in self._by_label.values())
        return {
            "name": shadow.model.name,
            "sha256": shadow.model.sha256,
            "part": shadow.part,
            "seconds_per_window": None if shadow.times is None else shadow.times._asdict(),
            "windows": self.windows,
            "failures": self.failures,
            "seconds": round(self.seconds, 3),
            "agreement": _ratio(self._agreed, labelled),
            "disagreement": _ratio(self._disagreement, self._known),
            "by_label": {
                label: {"windows": int(windows), "agreement": _ratio(int(agreed), int(windows))}
                for label, (windows, agreed) in sorted(self._by_label.items(), key=lambda one: -int(one[1][0]))
            },
        }


def _ratio(part: float, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
