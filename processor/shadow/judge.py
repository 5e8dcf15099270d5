"""The shadow, asked about its part of a batch's windows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from processor.answers import ask
from processor.errors import ModelError
from processor.protocols import Model
from processor.shadow.choice import chosen
from processor.shadow.comparison import Comparison
from processor.types import Floats, Ints, Predictions, ShadowAnswers, Windows


class Times(NamedTuple):
    """What a window takes, in calls of the size in which the shadow takes most beside the model."""

    model: float
    """Seconds."""
    shadow: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A second model beside the model. Used by one thread.

    Attributes:
        model: the second one.
        beside: the first one's sha256.
        processor: the processor's id.
        part: of the windows that it judges, above 0.
        comparison: with the model.
        times: what a window takes in each of the two, from which the part follows; None: the part was given.
    """

    model: Model
    beside: str
    processor: str
    part: float
    comparison: Comparison
    times: Times | None = None

    _silent: ShadowAnswers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare what it says of windows of which none is its own."""
        model = self.model
        none = Predictions(
            model.kind,
            model.labels,
            None if model.kind == "value" else np.empty((0, len(model.labels))),
            None if model.kind == "probabilities" else np.empty(0),
        )
        object.__setattr__(self, "_silent", self._said(np.empty(0, np.int64), none, np.empty(0), {}, 0.0))

    def _said(
        self, rows: Ints, predictions: Predictions, apart: Floats, failures: Mapping[int, ModelError], seconds: float
    ) -> ShadowAnswers:
        return ShadowAnswers(
            name=self.model.name,
            sha256=self.model.sha256,
            beside=self.beside,
            part=self.part,
            rows=rows,
            predictions=predictions,
            disagreement=apart,
            failures=len(failures),
            failure=str(next(iter(failures.values()), "")),
            seconds=seconds,
        )

    def share(self) -> str:
        """Return which part of the windows it judges, and why that one, as a sentence."""
        text = f"{self.part * 100:.4g} % of all windows: those of the tenths of a second that a hash chooses"
        if self.times is None:
            return f"{text}, as model.shadow.sample says"
        ours, theirs = map(_duration, self.times)
        return f"{text}; a window takes {ours} in the model and {theirs} in the shadow, where that costs most"

    def judge(self, windows: Windows, predictions: Predictions) -> Predictions:
        """Return the model's answers with the shadow's beside them, for those windows that are the shadow's.

        One call for all of them. A window that the shadow fails on has no answer of its, and that is all: the model's
        stands.

        Args:
            windows: W windows.
            predictions: the model's answers to them.
        """
        started = time.perf_counter()  # to be told, not to decide on
        flags = chosen(self.processor, self.part, windows.ends)
        answers = self._ask(windows, predictions, np.flatnonzero(flags), started) if flags.any() else self._silent
        return Predictions(
            predictions.kind, predictions.labels, predictions.probabilities, predictions.value, shadow=answers
        )

    def _ask(self, windows: Windows, predictions: Predictions, rows: Ints, started: float) -> ShadowAnswers:
        every = len(rows) == len(windows)
        answers, failures = ask(self.model, windows.seen if every else windows.seen[rows])
        if failures:
            rows = np.delete(rows, list(failures))
        mine = predictions if every and not failures else predictions.take(rows)
        apart = self.comparison.disagreement(mine, answers)
        return self._said(rows, answers, apart, failures, time.perf_counter() - started)


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:.3g} µs" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"  # noqa: PLR2004 - a millisecond
