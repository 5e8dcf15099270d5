"""Every metric, declared once: what it counts, in what unit, by which labels. Prometheus and our topic read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from processor import __version__
from processor.types import Floats, Ints


class Declaration(NamedTuple):
    """One metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()


_MODEL: Final = ("model",)
"""Its slot. Exposed where there are several; of the model of `model:` the series have no such label."""

METRICS: Final = (
    Declaration("build_info", "gauge", "Always 1; the label says which version runs", ("version",)),
    # What came in.
    Declaration("messages", "counter", "MQTT messages taken in", ("source",)),
    Declaration(
        "ignored_messages", "counter", "Messages that are no readings: own topics, copies of overlapping filters"
    ),
    Declaration("repeated_messages", "counter", "Messages the broker sent again that had been taken in before"),
    Declaration("dropped_messages", "counter", "QoS 0 messages dropped while nothing could be committed"),
    Declaration("received_bytes", "counter", "Bytes read from the broker"),
    Declaration("readings", "counter", "Readings decoded"),
    Declaration("requests", "counter", "Rebirths asked of Sparkplug edge nodes"),
    Declaration("dead_letters", "counter", "Messages that could not be processed", ("reason",)),
    # What was judged.
    Declaration("streams", "gauge", "Streams known", _MODEL),
    Declaration(
        "forgotten_streams", "counter", "Streams forgotten because there were more than window.max_streams", _MODEL
    ),
    Declaration("windows", "counter", "Windows judged", _MODEL),
    Declaration("accepted", "counter", "Windows accepted", ("model", "rule")),
    Declaration("context", "counter", "Windows sent beside a sample, as its context", _MODEL),
    Declaration("accepted_labels", "counter", "Windows accepted, by predicted label", ("model", "label")),
    Declaration(
        "rejected", "counter", "Windows rejected, by the furthest condition any rule came to", ("model", "reason")
    ),
    Declaration("batches", "counter", "Batches processed"),
    Declaration("batch_seconds", "counter", "Time from a batch's reading to its acknowledgement, seconds"),
    Declaration("filter_revision", "gauge", "Revision of the filter in force", _MODEL),
    Declaration("model_info", "gauge", "Always 1; the labels name the model in force", ("model", "name", "sha256")),
    Declaration("model_revision", "gauge", "Revision of the model in force; grows by one with each change", _MODEL),
    Declaration("model_swaps", "counter", "Models that took over while the processor ran", _MODEL),
    Declaration("model_rejected", "counter", "Models that were wanted while it ran, and rejected", _MODEL),
    Declaration(
        "model_look_failures",
        "counter",
        "Times that the model's path could not be looked at, for model.refresh",
        _MODEL,
    ),
    Declaration("schedule_active", "gauge", "Whether the filter's schedule is active now: 1 or 0", _MODEL),
    Declaration("paused", "gauge", "Whether the processor is paused: 1 or 0"),
    # What a shadow says of a part of a model's windows.
    Declaration(
        "shadow_windows",
        "counter",
        "Windows that the shadow judged too, by the model's label and its own; at most 50 labels of each, and the rest "
        "together",
        ("model", "label", "shadow"),
    ),
    Declaration("shadow_disagreement", "counter", "Sum of how far its answers lay from the model's", ("model",)),
    Declaration("shadow_failures", "counter", "Windows that the shadow should have judged, and failed on", ("model",)),
    Declaration("shadow_seconds", "counter", "Time that it took, seconds; part of the batches' time", ("model",)),
    Declaration("shadow_part", "gauge", "Part of the windows that the shadow judges; 0: there is none", ("model",)),
    # What goes out.
    Declaration("outbox_samples", "gauge", "Samples in the outbox"),
    Declaration("outbox_bytes", "gauge", "Bytes in the outbox"),
    Declaration("outbox_max_bytes", "gauge", "Bytes that the outbox may hold, as outbox.max_bytes says"),
    Declaration("outbox_lost", "counter", "Samples lost from the outbox: expired, displaced, refused", ("reason",)),
    Declaration("bridge_delivered", "counter", "Samples a bridge confirmed", ("bridge",)),
    Declaration("bridge_failures", "counter", "Deliveries that failed and are tried again", ("bridge",)),
    Declaration("bridge_waiting", "gauge", "Samples a bridge has still to confirm", ("bridge",)),
    Declaration("lost_notices", "counter", "Predictions for an IoT Edge module's output that found no room"),
    # What some bridges count themselves; see BRIDGE_FIGURES.
    Declaration("bridge_connected", "gauge", "Whether a bridge has a connection: 1 or 0", ("bridge",)),
    Declaration("bridge_messages", "counter", "Messages that a hub has acknowledged", ("bridge",)),
    Declaration("bridge_blocks", "counter", "Blocks of 4 KiB in them, each of which a hub bills", ("bridge",)),
    Declaration("bridge_samples", "counter", "Samples in them, repeats included", ("bridge",)),
    Declaration("bridge_uploads", "counter", "Samples uploaded because they are too large for a message", ("bridge",)),
    Declaration(
        "bridge_window", "gauge", "Messages that may be under way; fewer where the hub pushes back", ("bridge",)
    ),
    Declaration("bridge_quota_left", "gauge", "Blocks that may still be sent today, until midnight UTC", ("bridge",)),
    # The connection and the disk.
    Declaration("broker_connected", "gauge", "Whether the broker is connected: 1 or 0; NaN where there is none"),
    Declaration("broker_connects", "counter", "Connections made to the broker"),
    Declaration("lost_sessions", "counter", "Connections to a broker that should have kept our session and had not"),
    Declaration(
        "broker_dropped_messages",
        "counter",
        "Messages that the broker says it dropped because a client's queue was full; of all its clients",
    ),
    Declaration("blocked", "gauge", "Whether nothing can be committed, so nothing is acknowledged: 1 or 0"),
)

BRIDGE_FIGURES: Final = ("connected", "messages", "blocks", "samples", "uploads", "window", "quota_left")
"""What a bridge may count itself: `bridge_<name>` above, and `bridges.<bridge>.<name>` on the metrics topic."""

SCORE: Final = Declaration("score", "histogram", "Scores of all windows, by the rule that measured", ("model", "rule"))
"""Counted otherwise than the others: a histogram for each rule of each model, over EDGES."""

EDGES: Final = np.linspace(0.0, 1.0, 21)
"""Upper edges of the score histograms' bins, in the measure's unit; scores outside [0, 1] fall in the outer bins."""

_DECLARED: Final = {metric.name: metric for metric in METRICS}


class Metrics:
    """The values. Counters are written by the pipeline thread, gauges by whoever looks; reading sees recent values."""

    def __init__(self, *, several_models: bool = False) -> None:
        """Start at zero; `several_models`: whether the label `model` is exposed."""
        self._several_models = several_models
        self._values: dict[tuple[str, tuple[str, ...]], float] = {
            (metric.name, ()): 0.0 for metric in METRICS if not metric.labels
        }
        # By model and rule: its bins and the sum; replaced whole.
        self._scores: dict[tuple[str, str], tuple[Ints, float]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(namespace="mlade", registry=self._registry)  # CPU time, memory, open files, start time
        self.set("build_info", 1, __version__)

    def expect(self, name: str, *labels: str) -> None:
        """Show a counter from 0 on, so that Prometheus sees its first event as an increase."""
        self._values.setdefault((name, labels), 0.0)

    def add(self, name: str, amount: float = 1, *labels: str) -> None:
        """Count `amount` more."""
        if amount:
            key = (name, labels)
            self._values[key] = self._values.get(key, 0.0) + amount

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge, or a counter that is kept elsewhere."""
        self._values[name, labels] = value

    def set_only(self, name: str, value: float, model: str, *labels: str) -> None:
        """Set a gauge, and forget its values for the same model and other labels."""
        others = [key for key in list(self._values) if key[0] == name and key[1][:1] == (model,)]
        for key in others:
            del self._values[key]
        self._values[name, (model, *labels)] = value

    def total(self, name: str, model: str | None = None) -> int:
        """Return a counter over all its labels; of one with the label `model`, over one model's where that is given."""
        return round(sum(value for _, value in self._of(name, model)))

    def by(self, name: str, model: str | None = None) -> dict[str, int]:
        """Return a counter by its last label, as `total`; what was never counted is left out."""
        found: dict[str, float] = {}
        for labels, value in self._of(name, model):
            if value:
                found[labels[-1]] = found.get(labels[-1], 0.0) + value
        return {label: round(value) for label, value in found.items()}

    def _of(self, name: str, model: str | None) -> Iterator[tuple[tuple[str, ...], float]]:
        for (known, labels), value in list(self._values.items()):
            if known == name and model in (None, *labels[:1]):
                yield labels, value

    def observe(self, model: str, rule: str, scores: Floats) -> None:
        """Count the scores of a model's rule into its histogram; those that are not numbers are left out."""
        finite = scores[np.isfinite(scores)]
        # One bin below the first edge and one above the last, which are counted into their neighbours.
        counts = np.bincount(EDGES.searchsorted(finite), minlength=len(EDGES) + 1)
        counts[1] += counts[0]
        counts[-2] += counts[-1]
        known, total = self._scores.get((model, rule), (0, 0.0))
        self._scores[model, rule] = (known + counts[1:-1], total + float(finite.sum()))

    def forget_scores(self, model: str) -> None:
        """Start a model's histograms again: the rules changed."""
        self._scores = {key: known for key, known in self._scores.items() if key[0] != model}

    def histograms(self, model: str) -> dict[str, list[int]]:
        """Return the counts in the bins of each of a model's rules."""
        return {rule: counts.tolist() for (of, rule), (counts, _) in list(self._scores.items()) if of == model}

    def collect(self) -> Iterator[Metric]:
        """Yield everything, for prometheus_client."""
        values = list(self._values.items())
        for metric in METRICS:
            hidden = self._hidden(metric)
            family = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
                f"mlade_{metric.name}", metric.text, labels=metric.labels[hidden:]
            )
            for (name, labels), value in values:
                if name == metric.name:
                    family.add_metric(labels[hidden:], value)
            yield family
        hidden = self._hidden(SCORE)
        scores = HistogramMetricFamily(f"mlade_{SCORE.name}", SCORE.text, labels=SCORE.labels[hidden:])
        for labels, (counts, total) in list(self._scores.items()):
            sums = np.cumsum(counts).tolist()
            edges = [f"{edge:g}" for edge in EDGES[1:-1].tolist()]
            buckets: list[Any] = [*zip(edges, sums, strict=False), ("+Inf", sums[-1])]
            scores.add_metric(labels[hidden:], buckets, total)
        yield scores

    def _hidden(self, metric: Declaration) -> int:
        """Return how many of a metric's first labels are not exposed."""
        return 0 if self._several_models else len(_MODEL) * (metric.labels[:1] == _MODEL)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry need not collect at registration."""
        return []

    def exposition(self) -> bytes:
        """Return the Prometheus text format."""
        return generate_latest(self._registry)
