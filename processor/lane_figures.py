"""What is counted of one model's windows, and told of it. Called by the pipeline thread; `refresh` by any."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from processor.computation import Outcome
from processor.events import timestamp
from processor.lanes import Lane
from processor.last_hour import LastHour
from processor.metrics import EDGES, Metrics
from processor.protocols import Clock
from processor.shadow.figures import ShadowFigures
from processor.types import Reason

_DAYS_AHEAD: Final = 31
"""How far the schedule's next change is looked for: milliseconds on the pipeline thread, whatever the filter says."""
_NAMES_TOLD: Final = 64
"""Labels and fields named in the metrics."""
_REJECTIONS: Final = tuple(reason.label for reason in Reason if reason is not Reason.ACCEPTED)
"""The reasons' names, by their numbers; only the last reason is no rejection."""
_COUNTERS: Final = ("windows", "accepted", "context", "forgotten_streams")


class LaneFigures:
    """Counts a lane's windows, and what became of them."""

    def __init__(self, lane: Lane, metrics: Metrics, clock: Clock) -> None:
        """Begin at zero."""
        self._lane = lane
        self._metrics = metrics
        self._hour = LastHour(clock)
        self._shadow = ShadowFigures(lane.name, metrics, clock)
        for name in ("windows", "context"):
            metrics.expect(name, lane.name)
        for label in _REJECTIONS:
            metrics.expect("rejected", lane.name, label)

    def count(self, outcome: Outcome) -> None:
        """Count what came of a batch that was acknowledged."""
        metrics, lane, judgement = self._metrics, self._lane, outcome.judgement
        metrics.add("windows", len(judgement.verdicts), lane.name)
        counts = np.bincount(judgement.verdicts.reason, minlength=len(_REJECTIONS)).tolist()
        for count, label in zip(counts, _REJECTIONS, strict=False):
            metrics.add("rejected", count, lane.name, label)
        for sample in outcome.samples:
            metrics.add("accepted", 1, lane.name, sample.rule)
            metrics.add("accepted_labels", 1, lane.name, sample.label)
        metrics.add("context", len(outcome.outgoing) - len(outcome.samples), lane.name)
        document = lane.computation.selection.document
        for rule, scores in zip(document.rules, judgement.scores, strict=True):
            if scores is not None and len(scores):
                metrics.observe(lane.name, rule.name, scores)
        self._shadow.count(outcome.predictions)
        self._hour.count(document, outcome.predictions, judgement.scores, judgement.reached)

    def measure_minute(self) -> None:
        """Count into the present minute how many windows there were, and how many were kept."""
        names = ("windows", "accepted")
        self._hour.take_totals({name: self._metrics.total(name, self._lane.name) for name in names})

    def refresh(self) -> None:
        """Bring the gauges up to date."""
        metrics, lane = self._metrics, self._lane
        metrics.set("streams", len(lane.computation.windows), lane.name)
        metrics.set("forgotten_streams", lane.computation.windows.forgotten, lane.name)
        self._shadow.refresh(lane.computation.shadow)
        metrics.set("filter_revision", lane.filters.revision, lane.name)
        for rule in lane.computation.selection.document.rules:
            metrics.expect("accepted", lane.name, rule.name)

    def told(self, wall: int) -> dict[str, Any]:
        """Return it all as on the metrics topic.

        Args:
            wall: time, ns since the Unix epoch.
        """
        metrics, lane = self._metrics, self._lane
        selection, model = lane.computation.selection, lane.computation.model
        change = selection.schedule.next_change(wall, _DAYS_AHEAD)
        active = selection.is_active(wall)
        metrics.set("schedule_active", active, lane.name)
        return {
            "filter_revision": lane.filters.revision,
            "counters": {name: metrics.total(name, lane.name) for name in _COUNTERS},
            "streams": len(lane.computation.windows),
            "by_rule": metrics.by("accepted", lane.name),
            "by_label": metrics.by("accepted_labels", lane.name),
            "by_reason": metrics.by("rejected", lane.name),
            "scores": {"edges": EDGES.round(4).tolist(), "counts": metrics.histograms(lane.name)},
            "schedule": {"active": active, "next_change": None if change is None else timestamp(change)},
            "model": {
                "name": model.name,
                "sha256": model.sha256,
                "kind": model.kind,
                "labels": model.labels[:_NAMES_TOLD],
                "fields": lane.fields[:_NAMES_TOLD],
                "complete": max(len(model.labels), len(lane.fields)) <= _NAMES_TOLD,
            },
            "shadow": self._shadow.told(lane.computation.shadow),
            "last_hour": self._hour.told(),
        }
