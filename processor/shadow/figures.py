"""What a processor says of one model's shadow in its metrics and its log. Used by the pipeline thread."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from processor.allowance import Allowance
from processor.logs import AT_ONCE, LIMITED, PER_SECOND
from processor.metrics import Metrics
from processor.protocols import Clock
from processor.shadow.agreement import Agreement
from processor.shadow.judge import Shadow
from processor.types import Predictions

log = logging.getLogger(__name__)


class ShadowFigures:
    """Counts for one model."""

    def __init__(self, model: str, metrics: Metrics, clock: Clock) -> None:
        """Start at zero.

        Args:
            model: the name of its slot.
            metrics: to count in.
            clock: for how much is logged.
        """
        self._slot = model
        self._metrics = metrics
        self._agreement = Agreement()
        self._to_log = Allowance(clock.monotonic, PER_SECOND, AT_ONCE)

    def count(self, predictions: Predictions) -> None:
        """Count what the shadow said of a batch's windows."""
        shadow, metrics, slot = predictions.shadow, self._metrics, self._slot
        if shadow is None:
            return
        labelled = 0
        for pair in self._agreement.add(predictions):
            metrics.add("shadow_windows", pair.windows, slot, pair.label, pair.shadow)
            labelled += pair.windows
        metrics.add("shadow_windows", len(shadow.rows) - labelled, slot, "", "")
        metrics.add("shadow_disagreement", float(np.nansum(shadow.disagreement)), slot)
        metrics.add("shadow_failures", shadow.failures, slot)
        metrics.add("shadow_seconds", shadow.seconds, slot)
        if shadow.failures and self._to_log.take(1):
            log.warning(
                "The shadow %s failed on %d of a batch's windows, where the model's answers stand: %s.", shadow.name,
                shadow.failures, shadow.failure, extra=LIMITED,
            )  # fmt: skip

    def refresh(self, shadow: Shadow | None) -> None:
        """Bring the gauge up to date, and show counters from 0 on. Any thread."""
        self._metrics.set("shadow_part", 0.0 if shadow is None else shadow.part, self._slot)
        if shadow is not None:
            for name in ("shadow_disagreement", "shadow_failures", "shadow_seconds"):
                self._metrics.expect(name, self._slot)

    def told(self, shadow: Shadow | None) -> dict[str, Any] | None:
        """Return what stands under `shadow` on the metrics topic; None where there is none."""
        return self._agreement.told(shadow)
