"""What the processor says of itself: status, metrics, predictions, dead letters, the filter's state.

Called by the pipeline thread; `refresh` and `waiting_for` by any.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from processor import __version__, own_topics
from processor.admission import LOSSES
from processor.allowance import Allowance
from processor.cloud import CloudLink, Notice
from processor.computation import Outcome
from processor.delivery import Delivery
from processor.events import inference, timestamp, timestamps
from processor.lane_figures import LaneFigures
from processor.lanes import Lane
from processor.last_hour import LastHour
from processor.logs import AT_ONCE, LIMITED, PER_SECOND
from processor.metrics import Metrics
from processor.protocols import Clock, Source
from processor.samples import told_model
from processor.store import Store
from processor.topics import encode_stream
from processor.types import MODEL_SLOT, DeadLetter

log = logging.getLogger(__name__)

_DEAD_LETTERS_PER_SECOND: Final = 100
_MOST_DEAD_LETTERS: Final = 1000
"""Dead letters published at once, after a quiet time."""
_COUNTERS: Final = (
    "messages",
    "readings",
    "windows",
    "accepted",
    "context",
    "dead_letters",
    "ignored_messages",
    "repeated_messages",
    "dropped_messages",
    "forgotten_streams",
    "batches",
    "lost_sessions",
    "broker_dropped_messages",
)
_OF_THE_ONE_MODEL: Final = ("filter_revision", "scores", "schedule", "model", "shadow")
"""What stands at the top of the metrics of the model `default`."""
_UNREADABLE: Final = ("decode", "field", "model", "not_finite", "quality", "stream", "time", "too_large")
"""Why messages become dead letters, mostly; a new reason is counted from its first letter on."""


class Reporting:
    """Counts, and publishes on our own topics."""

    def __init__(
        self,
        *,
        root: str,
        source: Source,
        lanes: Sequence[Lane],
        store: Store,
        deliveries: Sequence[Delivery],
        metrics: Metrics,
        clock: Clock,
        publish_inference: bool,
        publish_every: float,
        extra: Callable[[], Mapping[tuple[str, ...], float]],
        outputs: CloudLink | None = None,
    ) -> None:
        """Take what `app.build` made.

        Args:
            root: our topics' beginning.
            source: our connection.
            lanes: for their streams, models and filters.
            store: for the outbox's totals.
            deliveries: one a bridge.
            metrics: to count in and to publish.
            clock: for intervals.
            publish_inference: whether every prediction is published.
            publish_every: seconds between two publications of the metrics.
            extra: metrics that others count themselves, by name and labels.
            outputs: takes the predictions that are published, for an IoT Edge module's output; None: there is none.
        """
        self._root = root
        self._source = source
        self._lanes = lanes
        self._store = store
        self._deliveries = deliveries
        self._metrics = metrics
        self._clock = clock
        self._publish_inference = publish_inference
        self._publish_every = publish_every
        self._extra = extra
        self._outputs = outputs
        self._last_hour = LastHour(clock)
        self._told_revisions: dict[str, int] = {}  # of the filters' histories, by lane, over this connection
        self._blocked_by: str | None = None
        self._started = clock.monotonic()
        self._next_metrics = self._started
        self._to_publish = Allowance(clock.monotonic, _DEAD_LETTERS_PER_SECOND, _MOST_DEAD_LETTERS)
        self._to_log = Allowance(clock.monotonic, PER_SECOND, AT_ONCE)
        self._unlogged = 0  # dead letters
        self._last_rates = (self._started, 0, 0)
        self._rates = {"messages": 0.0, "accepted": 0.0}
        source_names = [name for lane in lanes for name in lane.source_names]
        self._figures = {lane.name: LaneFigures(lane, metrics, clock) for lane in lanes}
        for name, labels in (("messages", source_names), ("dead_letters", _UNREADABLE)):
            for label in labels:
                metrics.expect(name, label)

    @property
    def blocked_by(self) -> str | None:
        """Why nothing can be committed; None when it can."""
        return self._blocked_by

    def connected(self) -> None:
        """Say again what is retained, at each connection: the broker may have lost it."""
        self._told_revisions.clear()
        own_topics.STATUS.publish(self._source, self._root, b"online")
        for lane in self._lanes:
            self.publish_filter_state(lane)
        self._publish_metrics()

    def count_batch(self, repeats: int, seconds: float) -> None:
        """Count a batch that was acknowledged, with `repeats` messages that were known, after `seconds` of work."""
        self._metrics.add("batches")
        self._metrics.add("batch_seconds", seconds)
        self._metrics.add("repeated_messages", repeats)

    def report(self, lane: Lane, outcome: Outcome) -> None:
        """Count what came of a lane's part of a batch, and publish its requests, predictions and dead letters."""
        self._count(lane, outcome)
        for request in outcome.taken.requests:
            log.info(request.why)
            self._source.publish(request.topic, request.payload)
        if outcome.dead_letters:
            self._publish_dead_letters(outcome.dead_letters)
        if self._publish_inference:
            self._publish_predictions(lane, outcome)

    def _count(self, lane: Lane, outcome: Outcome) -> None:
        metrics, taken = self._metrics, outcome.taken
        metrics.add("ignored_messages", taken.ignored)
        for name, count in zip(lane.source_names, taken.messages, strict=False):
            metrics.add("messages", count, name)
        metrics.add("readings", len(taken.readings.slots))
        metrics.add("requests", len(taken.requests))
        for letter in outcome.dead_letters:
            metrics.add("dead_letters", 1, letter.reason)
        self._figures[lane.name].count(outcome)

    def _publish_predictions(self, lane: Lane, outcome: Outcome) -> None:
        model = lane.computation.model
        ends = timestamps(outcome.windows.ends)
        for row, slot in enumerate(outcome.windows.slots.tolist()):
            name = outcome.names[slot]
            body = {
                "time": ends[row],
                "source": name.source,
                "stream": name.key,
                "inference": inference(outcome.predictions, row),
                "model": told_model(model, lane.name),
            }
            stream, payload = encode_stream(name.key), msgspec.json.encode(body)
            own_topics.INFERENCE.publish(self._source, self._root, payload, part=stream)
            if self._outputs is not None:
                notice = Notice(payload, {"stream": stream, "model": model.name}, output="inference")
                self._metrics.add("lost_notices", not self._outputs.notify(notice))

    def _publish_dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Publish and log at a bounded rate; all of them are in the store anyway."""
        logged = self._to_log.take(len(letters))
        for letter in letters[:logged]:
            log.warning("Dead letter from %s: %s (%s).", letter.topic, letter.detail, letter.reason, extra=LIMITED)
        self._unlogged += len(letters) - logged
        if logged:
            self._log_others()
        for letter in letters[: self._to_publish.take(len(letters))]:
            body = {
                "time": timestamp(letter.arrival),
                "topic": letter.topic,
                "reason": letter.reason,
                "detail": letter.detail,
                "payload": base64.b64encode(letter.payload).decode(),
            }
            own_topics.DEAD_LETTER.publish(self._source, self._root, msgspec.json.encode(body))

    def _log_others(self) -> None:
        if self._unlogged:
            log.warning("%d more dead letters; mlade deadletters list shows them.", self._unlogged, extra=LIMITED)
            self._unlogged = 0

    def publish_filter_state(self, lane: Lane) -> None:
        """Publish a lane's last answer to a filter, retained; and the revisions, where there is a new one."""
        filters = lane.filters
        own_topics.FILTER_STATE.publish(self._source, lane.root, msgspec.json.encode(filters.answer))
        if self._told_revisions.get(lane.name) != filters.revision:
            self._told_revisions[lane.name] = filters.revision
            told = msgspec.json.encode({"revisions": filters.revisions})
            own_topics.FILTER_HISTORY.publish(self._source, lane.root, told)

    def _publish_metrics(self) -> None:
        own_topics.METRICS.publish(self._source, self._root, msgspec.json.encode(self.snapshot()))

    def seconds_until_due(self) -> float:
        """Return the seconds until `tick` has something to do."""
        return max(0.0, self._next_metrics - self._clock.monotonic())

    def tick(self) -> None:
        """Publish the metrics when it is time."""
        now = self._clock.monotonic()
        if now >= self._next_metrics:
            self._next_metrics = now + self._publish_every
            if self._unlogged and self._to_log.take(1):
                self._log_others()
            self.refresh()
            self._measure_rates(now)
            self._measure_minutes()
            self._publish_metrics()

    def set_blocked(self, reason: str | None) -> None:
        """Take note that nothing can be committed, and why; or that it can again."""
        if reason is not None and self._blocked_by is None:
            log.error("Nothing is acknowledged any more: %s. Going on when there is room.", reason)
        elif reason is None and self._blocked_by is not None:
            log.warning("There is room again; going on.")
        self._blocked_by = reason
        self._metrics.set("blocked", reason is not None)

    def waiting_for(self) -> list[str]:
        """Return what keeps the processor from doing its job, as sentences. Any thread."""
        reasons = [self._blocked_by] if self._blocked_by else []
        for one in self._deliveries:
            trouble = one.state.error
            if trouble is None and one.figures().get("connected") == 0.0:
                trouble = "the connection is being made"  # until it is, or is known to fail
            if trouble is not None:
                reasons.append(f"bridge {one.name}: {trouble}")
        return reasons

    def refresh(self) -> None:
        """Bring the gauges, and what others count, up to date. Any thread."""
        metrics, totals = self._metrics, self._store.totals
        metrics.set("paused", self._paused)
        for figures in self._figures.values():
            figures.refresh()
        metrics.set("outbox_samples", totals.rows)
        metrics.set("outbox_bytes", totals.bytes)
        for reason in LOSSES:
            metrics.set("outbox_lost", getattr(totals, reason), reason)
        for one in self._deliveries:
            metrics.set("bridge_delivered", one.state.delivered, one.name)
            metrics.set("bridge_failures", one.state.failures, one.name)
            metrics.set("bridge_waiting", one.state.waiting, one.name)
            for name, value in one.figures().items():
                metrics.set(f"bridge_{name}", value, one.name)
        for (name, *labels), value in self._extra().items():
            metrics.set(name, value, *labels)

    @property
    def _paused(self) -> bool:
        return self._lanes[0].computation.paused  # all are, or none

    def _measure_rates(self, now: float) -> None:
        before, messages, accepted = self._last_rates
        current = (now, self._metrics.total("messages"), self._metrics.total("accepted"))
        if now > before:
            elapsed = now - before
            self._rates = {
                "messages": round((current[1] - messages) / elapsed, 1),
                "accepted": round((current[2] - accepted) / elapsed, 2),
            }
        self._last_rates = current

    def _measure_minutes(self) -> None:
        names = ("messages", "windows", "accepted", "dead_letters")
        totals = {name: self._metrics.total(name) for name in names}
        delivered = min((one.state.delivered for one in self._deliveries), default=0)  # by every bridge
        self._last_hour.take_totals({**totals, "delivered": delivered})
        for figures in self._figures.values():
            figures.measure_minute()

    def snapshot(self) -> dict[str, Any]:
        """Return counters, rates, score histograms, outbox, bridges and schedule, as on the metrics topic."""
        metrics, wall, totals = self._metrics, self._clock.wall(), self._store.totals
        models = {name: figures.told(wall) for name, figures in self._figures.items()}
        one = models.get(MODEL_SLOT, {})
        return {
            "time": timestamp(wall),
            "version": __version__,
            "uptime_seconds": round(self._clock.monotonic() - self._started, 1),
            "paused": self._paused,
            "blocked": self._blocked_by,
            **{key: one[key] for key in _OF_THE_ONE_MODEL if key in one},
            "counters": {name: metrics.total(name) for name in _COUNTERS},
            "rates": self._rates,
            "streams": sum(model["streams"] for model in models.values()),
            "by_source": metrics.by("messages"),
            "by_rule": metrics.by("accepted"),
            "by_label": metrics.by("accepted_labels"),
            "by_reason": metrics.by("rejected"),
            "dead_letters": metrics.by("dead_letters"),
            "outbox": {
                "samples": totals.rows,
                "bytes": totals.bytes,
                "lost": {reason: getattr(totals, reason) for reason in LOSSES},
            },
            "bridges": {
                one.name: {
                    "delivered": one.state.delivered,
                    "waiting": one.state.waiting,
                    "failures": one.state.failures,
                    "error": one.state.error,
                    **{name: round(value) for name, value in one.figures().items()},
                }
                for one in self._deliveries
            },
            "last_hour": self._last_hour.told() | {"scores": one["last_hour"]["scores"] if one else []},
            **({} if models.keys() == {MODEL_SLOT} else {"models": models}),
        }
