"""Ways to choose windows from a stream: filters of mlade's, judged by its own selection, and scikit-activeml's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import numpy as np

from processor.events import uniform
from processor.filter import validate_filter
from processor.selection import Selection
from processor.types import NS, Flags, Floats, Predictions, StreamName, Verdicts, Windows

_START: Final = 1_795_341_600 * NS
_BATCH: Final = 256


class Method(Protocol):
    """Chooses from one stream, a part of it at a time."""

    def choose(self, windows: Floats, probabilities: Floats) -> Flags:
        """Return which of the next N windows to keep, given what the model says of them."""


class Filter:
    """A filter of mlade's: `processor.selection`, in batches as they come."""

    def __init__(self, rules: list[dict[str, Any]], labels: int, channels: int, seed: int) -> None:
        """Make it ready; windows are a second apart, and the seed stands in their ids."""
        self._labels = tuple(str(label) for label in range(labels))
        fields = [f"f{channel}" for channel in range(channels)]
        self._selection = Selection(validate_filter({"rules": rules}), self._labels, [("s", fields)])
        self._seed = seed
        self._count = 0

    def choose(self, windows: Floats, probabilities: Floats) -> Flags:
        """Return which of the next N windows to keep."""
        return self.judge(windows, probabilities).rule >= 0

    def judge(self, windows: Floats, probabilities: Floats) -> Verdicts:
        """Return what the filter says of the next N windows."""
        parts = []
        for start in range(0, len(windows), _BATCH):
            part = slice(start, start + _BATCH)
            parts.append(self._judge(windows[part], probabilities[part]))
        columns = ("rule", "reason", "score", "probability")
        return Verdicts(*(np.concatenate([getattr(part, name) for part in parts]) for name in columns))

    def _judge(self, windows: Floats, probabilities: Floats) -> Verdicts:
        first, count = self._count, len(windows)
        self._count += count
        times = np.repeat(_START + (first + np.arange(count)[:, None]) * NS, windows.shape[1], axis=1)
        batch = Windows(np.zeros(count, np.int64), times, windows)
        predictions = Predictions("probabilities", self._labels, probabilities, None)
        judgement = self._selection.judge(
            batch,
            predictions,
            {0: StreamName("s", "s")},
            lambda row, text: uniform(f"{self._seed}-{first + row}", text),
        )
        self._selection.memories.changes()
        return judgement.verdicts


class Active:
    """One of scikit-activeml's strategies for streams."""

    def __init__(self, name: str, budget: float, labels: int, seed: int) -> None:
        """Make it ready; of each window it is told its number, under which the probabilities are looked up."""
        from skactiveml import stream  # noqa: PLC0415 - the benchmark's own dependencies are not everybody's

        from bench.worth.known import Known  # noqa: PLC0415 - as above

        classes = list(range(labels))
        more = {"classes": classes} if name == "FixedUncertainty" else {}
        self._strategy = getattr(stream, name)(budget=budget, random_state=seed, **more)
        self._known = Known(classes=classes)

    def choose(self, windows: Floats, probabilities: Floats) -> Flags:
        """Return which of the next N windows to keep."""
        self._known.table = probabilities
        kept = np.zeros(len(windows), np.bool_)
        for start in range(0, len(windows), _BATCH):
            candidates = np.arange(start, min(start + _BATCH, len(windows)))[:, None].astype(np.float64)
            queried, utilities = self._strategy.query(candidates, clf=self._known, return_utilities=True)
            parameters = {"utilities": utilities}
            self._strategy.update(candidates, queried, budget_manager_param_dict=parameters)
            kept[start + np.asarray(queried, np.int64)] = True
        return kept


def _keep(measure: str, of: str, share: float) -> dict[str, Any]:
    return {"name": "r", "measure": measure, "keep": {"share": share, "of": of}}


Maker = Callable[[float, int], list[dict[str, Any]]]
FILTERS: Final[Mapping[str, Maker]] = {
    # What a budget's rules are, given the budget and how many windows come in a round.
    "random": lambda budget, _: [{"name": "r", "sample": budget}],
    "fixed band": lambda budget, count: [
        {
            "name": "r",
            "measure": "confidence",
            "band": {"min": 0.4, "max": 0.6},
            "limit": {"max": max(1, round(budget * count)), "per": f"{count}s"},
        }
    ],
    "entropy, keep": lambda budget, _: [_keep("entropy", "highest", budget)],
    "margin, keep": lambda budget, _: [_keep("margin", "lowest", budget)],
    "margin, keep, dedup": lambda budget, _: [_keep("margin", "lowest", budget) | {"dedup": {}}],
}
ACTIVE: Final = ("FixedUncertainty", "VariableUncertainty", "RandomVariableUncertainty", "Split")
