"""A model's answers to many windows, one of which may upset it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from processor.errors import ModelError
from processor.protocols import Model
from processor.types import Array, Predictions, ShadowAnswers


def ask(model: Model, values: Array) -> tuple[Predictions, dict[int, ModelError]]:
    """Return a model's answers, and by row what it said of windows that it gave none for.

    Args:
        model: to be asked.
        values: W windows as it sees them; see `protocols.Model`.
    """
    try:
        return model.infer(values), {}
    except ModelError as error:
        if len(values) == 1:
            return model.infer(values[:0]), {0: error}
    # One window of many upsets the model: find it, so that the others are judged.
    answers = [model.infer(values[:0])]
    failures: dict[int, ModelError] = {}
    for row in range(len(values)):
        try:
            answers.append(model.infer(values[row : row + 1]))
        except ModelError as error:
            failures[row] = error
    return join(answers), failures


def join(answers: Sequence[Predictions]) -> Predictions:
    """Return answers of one model as one; the first may be for no window."""
    first = answers[0]
    return Predictions(
        first.kind,
        first.labels,
        None if first.probabilities is None else np.concatenate([answer.probabilities for answer in answers]),
        None if first.value is None else np.concatenate([answer.value for answer in answers]),
        _join_shadows(answers),
    )


def _join_shadows(answers: Sequence[Predictions]) -> ShadowAnswers | None:
    first = answers[0].shadow
    if first is None or len(answers) == 1:
        return first
    before = np.cumsum([0, *(len(answer) for answer in answers[:-1])]).tolist()
    found = [(rows, answer.shadow) for rows, answer in zip(before, answers, strict=True) if answer.shadow is not None]
    return ShadowAnswers(
        name=first.name,
        sha256=first.sha256,
        beside=first.beside,
        part=first.part,
        rows=np.concatenate([one.rows + rows for rows, one in found]),
        predictions=join([one.predictions for _, one in found]),
        disagreement=np.concatenate([one.disagreement for _, one in found]),
        failures=sum(one.failures for _, one in found),
        failure=next((one.failure for _, one in found if one.failure), ""),
        seconds=sum(one.seconds for _, one in found),
    )
