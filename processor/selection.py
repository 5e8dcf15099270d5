"""The filter over a batch of windows: which to keep, by which rule, and why not the others.

Every rule is tried on every window, because the chance of being kept counts all rules that would have taken it. A
rule's conditions run in one order, the order of `Reason`; each narrows the windows that are still in. A window is the
sample of the first rule that accepts it, and spends only that rule's dedup, cooldown and limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from processor.context import Beside, Context
from processor.filter import FilterDocument
from processor.memories import Memories
from processor.rules import ACCEPTED, SAMPLED_OUT, SCHEDULE, Batch, ReadyRule, Stages
from processor.schedule import Schedule
from processor.types import Flags, Floats, Predictions, Reason, StreamName, Verdicts, Windows

_NO_RULE = int(Reason.NO_RULE)
_BAND = int(Reason.BAND)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Verdicts and what the metrics show of how they came about.

    Attributes:
        verdicts: one row a window.
        scores: by rule, (W,) its measure for every window; None for a rule without a measure.
        reached: by rule, (W,) whether its band was tested on the window; None for a rule without a measure.
    """

    verdicts: Verdicts
    scores: list[Floats | None]
    reached: list[Flags | None]


class Selection:
    """One filter, made ready for arrays. Used by one thread.

    Attributes:
        document: the filter.
        schedule: the filter's, made ready.
        memories: what its conditions remember.
        context: the windows beside samples; None where no rule wants any.
    """

    def __init__(
        self,
        document: FilterDocument,
        labels: Sequence[str],
        fields: Sequence[tuple[str, Sequence[str]]],
        memories: Memories | None = None,
    ) -> None:
        """Prepare a filter that was checked against the model and the sources.

        Args:
            document: the filter.
            labels: of the model, in the order of its probabilities.
            fields: each source's name and its fields.
            memories: those that may be taken over; None: it begins with none.
        """
        self.document = document
        self.schedule = Schedule(document.schedule)
        self.memories = Memories() if memories is None else memories
        self._rules = [ReadyRule(rule, labels, fields, self.memories) for rule in document.rules]
        has_context = any(rule.context.before or rule.context.after for rule in document.rules)
        self.context = self.memories.take("", "context", "", Context) if has_context else None
        self.memories.settle()

    def judge(
        self,
        windows: Windows,
        predictions: Predictions,
        names: Mapping[int, StreamName],
        uniform: Callable[[int, str], float],
        *,
        paused: bool = False,
    ) -> Judgement:
        """Judge W windows.

        Args:
            windows: the windows.
            predictions: the model's answers for them.
            names: the windows' streams, by slot.
            uniform: the number in [0, 1) of a row and a rule's name, on which sampling is decided.
            paused: refuse them all as `disabled`.
        """
        count = len(windows)
        reason = np.full(count, _NO_RULE, np.uint8)
        rule = np.full(count, -1, np.int64)
        score = np.full(count, np.nan)
        probability = np.zeros(count)
        verdicts = Verdicts(rule, reason, score, probability)
        scores = self.scores(predictions)
        if paused or not self.document.enabled:
            reason[:] = Reason.DISABLED
            none = np.zeros(count, np.bool_)
            return Judgement(verdicts, scores, [None if own is None else none for own in scores])
        batch = Batch(windows, predictions, names, uniform, self.schedule.active(windows.ends))
        stages, taken, reached = [], [], []
        for one, own in zip(self._rules, scores, strict=True):
            stage, inside = one.sift(batch, own)
            reached.append(None if own is None else stage >= _BAND)
            if one.is_plain:
                stage[inside & ~one.sampled(batch, inside)] = SAMPLED_OUT
            stages.append(stage)
            taken.append(inside)
        self._decide(batch, stages, taken)
        chance, by_shadow = np.zeros(count), np.zeros(count)  # that a rule which would take the window samples it
        for index, (one, own) in enumerate(zip(self._rules, scores, strict=True)):
            np.maximum(reason, stages[index], out=reason)
            mine = (rule < 0) & (stages[index] == ACCEPTED)
            rule[mine] = index
            if own is not None:
                score[mine] = own[mine]
            into = by_shadow if one.asks_shadow else chance
            into[taken[index]] += one.rule.sample * (1.0 - into[taken[index]])
        if predictions.shadow is not None:
            chance = _with_shadow(chance, by_shadow, predictions.shadow.part)
        reason[~batch.active] = SCHEDULE
        np.copyto(probability, chance, where=rule >= 0)
        return Judgement(verdicts, scores, reached)

    def scores(self, predictions: Predictions) -> list[Floats | None]:
        """Return, by rule, (W,) its measure; None for a rule without a measure."""
        return [one.score(predictions) for one in self._rules]

    def _decide(self, batch: Batch, stages: Sequence[Stages], taken: Sequence[Flags]) -> None:
        """Apply the conditions that depend on what was kept, window by window, to those that got so far.

        Args:
            batch: what is judged.
            stages: by rule, (W,) how far each window came; completed here.
            taken: by rule, (W,) whether all conditions but the sampling accept the window; completed here.
        """
        remembering = [index for index, one in enumerate(self._rules) if not one.is_plain]
        if not remembering:
            return
        for index in remembering:
            self._rules[index].start(batch, taken[index])
        none = len(self._rules)
        first = np.full(len(batch.windows), none)  # the first plain rule that accepts
        for index, one in reversed(list(enumerate(self._rules))):
            if one.is_plain:
                first[stages[index] == ACCEPTED] = index
        for row in np.flatnonzero(np.logical_or.reduce([taken[index] for index in remembering])).tolist():
            accepting = int(first[row])
            for index in remembering:
                if taken[index][row]:
                    stage, taken[index][row] = self._rules[index].decide(batch, row)
                    stages[index][row] = stage
                    if stage == ACCEPTED:
                        accepting = min(accepting, index)
            if accepting in remembering:
                self._rules[accepting].spend(batch, row)

    def is_active(self, time: int) -> bool:
        """Whether the filter's schedule is active at `time`, ns since the Unix epoch."""
        return bool(self.schedule.active(np.array([time], np.int64))[0])

    def explanation(self, verdicts: Verdicts, row: int, revision: int) -> dict[str, Any]:
        """Return an accepted window's `selection`, as it stands in its event."""
        rule, score, probability = verdicts.rule[row], verdicts.score[row], verdicts.probability[row]
        return self._explain(int(rule), float(score), revision) | {"probability": float(probability)}

    def context_explanation(self, rule: int, score: float | None, revision: int, beside: Beside) -> dict[str, Any]:
        """Return the `selection` of a window that is sent beside a sample of a rule; `score` is the window's own."""
        context = {"of": beside.of, "offset": beside.offset}
        return self._explain(rule, np.nan if score is None else float(score), revision) | {"context": context}

    def _explain(self, index: int, score: float, revision: int) -> dict[str, Any]:
        rule = self.document.rules[index]
        explanation: dict[str, Any] = {
            "rule": rule.name,
            "measure": rule.measure,
            "score": None if np.isnan(score) else score,
            "band": None if rule.band is None else [rule.band.min, rule.band.max],
            "probability": None,
            "filter_revision": revision,
            "tags": dict(rule.tags),
        }
        if rule.outside:
            explanation["outside"] = True
        return explanation


def _with_shadow(chance: Floats, by_shadow: Floats, part: float) -> Floats:
    """Return (W,) the chance that a window is kept.

    Where a rule may keep a window that does not ask the shadow, being judged by the shadow is a condition like others:
    whether it was or not, the inverse of the chance that is left makes the window count once. Where none may, the
    windows that were judged count for those that were not, so the part is in their chance.

    Args:
        chance: (W,) that a rule keeps it that does not ask the shadow.
        by_shadow: (W,) that one does which asks; 0 where the shadow did not judge the window.
        part: of the windows that the shadow judges.
    """
    return np.where(chance > 0, chance + by_shadow * (1.0 - chance), part * by_shadow)
