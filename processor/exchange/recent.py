"""The newest windows, on which a model is tried before it takes over."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final, NamedTuple

import numpy as np

from processor.answers import ask
from processor.protocols import Model
from processor.types import Array, Predictions

_MOST: Final = 256
_MOST_BYTES: Final = 8 << 20


class _Judged(NamedTuple):
    """Windows of one batch."""

    seen: Array
    answers: Predictions
    sha256: str
    """Of the model that gave the answers."""


class Trial(NamedTuple):
    """What came of running a model on the newest windows."""

    windows: int = 0
    """That it was run on."""
    raised: int = 0
    """Of them."""
    not_finite: int = 0
    """Of them: the answer was no number."""
    first_error: str = ""
    agreement: float | None = None
    """Share of the windows to which it gives the label that the model in force gave; None where none can be told."""

    @property
    def is_hopeless(self) -> bool:
        """Whether the model could judge none of the windows, and there were some."""
        return 0 < self.windows == self.raised + self.not_finite


class RecentWindows:
    """The newest windows of all streams together, 256 or 8 MiB of them. Filled by the pipeline thread, read by any."""

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._batches: deque[_Judged] = deque()
        self._count = 0

    def add(self, seen: Array, answers: Predictions, sha256: str) -> None:
        """Take the windows of a batch, (W, …), with the answers of the model with this SHA-256."""
        count = len(seen)
        if not count:
            return
        most = min(_MOST, max(1, _MOST_BYTES // (seen.nbytes // count or 1)))
        if count > most:
            seen, answers = seen[-most:], answers.last(most)
            if count > 2 * most:  # a view would keep all of them
                seen = seen.copy()
        with self._lock:
            self._batches.append(_Judged(seen, answers, sha256))
            self._count += len(seen)
            while self._count - len(self._batches[0].seen) >= most:
                self._count -= len(self._batches.popleft().seen)

    def clear(self) -> None:
        """Forget them: windows have another size now."""
        with self._lock:
            self._batches.clear()
            self._count = 0

    def attempt(self, model: Model, in_force: str) -> Trial:
        """Run a model on the windows. Any thread; takes a call of the model, or one a window where it raises.

        Args:
            model: to be tried.
            in_force: SHA-256 of the model whose answers are compared.
        """
        with self._lock:
            batches = list(self._batches)
        windows = raised = not_finite = compared = alike = 0
        first_error = ""
        for batch in batches:
            answers, errors = ask(model, batch.seen)
            windows += len(batch.seen)
            raised += len(errors)
            first_error = first_error or str(next(iter(errors.values()), ""))
            labels, before = _labels(answers), _labels(batch.answers)
            rows = [row for row in range(len(batch.seen)) if row not in errors]
            finite = _finite(answers)
            not_finite += finite.count(False)
            if batch.sha256 == in_force and labels is not None and before is not None:
                compared += len(rows)
                alike += sum(labels[position] == before[row] for position, row in enumerate(rows) if finite[position])
        return Trial(windows, raised, not_finite, first_error, round(alike / compared, 4) if compared else None)


def _finite(answers: Predictions) -> list[bool]:
    """Return of each window whether the answer is a number."""
    numbers = answers.probabilities if answers.value is None else answers.value[:, None]
    return [] if numbers is None else [all(row) for row in np.isfinite(numbers).tolist()]


def _labels(answers: Predictions) -> list[str] | None:
    """Return each window's predicted label, empty where the answer is no number; None where a model predicts none."""
    chances = answers.probabilities
    if chances is None:
        return None
    best = chances.argmax(axis=1).tolist()
    return [answers.labels[index] if known else "" for index, known in zip(best, _finite(answers), strict=True)]
