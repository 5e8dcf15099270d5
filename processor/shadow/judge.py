"""The shadow, asked about its part of a batch's windows."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from processor.answers import ask
from processor.protocols import Model
from processor.shadow.choice import chosen
from processor.shadow.comparison import Comparison
from processor.shadow.timing import Times
from processor.types import Predictions, ShadowAnswers, Windows


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

    def share(self) -> str:
        """Return which part of the windows it judges, and why that one, as a sentence."""
        text = f"{self.part * 100:.4g} % of all windows: those of the tenths of a second that a hash chooses"
        if self.times is None:
            return f"{text}, as model.shadow.sample says"
        ours, theirs = (f"{seconds * 1e6:.3g} µs" for seconds in self.times)
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
        rows = np.flatnonzero(chosen(self.processor, self.part, windows.ends))
        every = len(rows) == len(windows)
        answers, failures = ask(self.model, windows.seen if every else windows.seen[rows])
        if failures:
            rows = np.delete(rows, list(failures))
        mine = predictions if every and not failures else predictions.take(rows)
        return replace(
            predictions,
            shadow=ShadowAnswers(
                name=self.model.name,
                sha256=self.model.sha256,
                beside=self.beside,
                part=self.part,
                rows=rows,
                predictions=answers,
                disagreement=self.comparison.disagreement(mine, answers),
                failures=len(failures),
                failure=str(next(iter(failures.values()), "")),
                seconds=time.perf_counter() - started,
            ),
        )
