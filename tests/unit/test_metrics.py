"""What is counted, and how Prometheus and the metrics topic show it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from processor.metrics import BRIDGE_FIGURES, EDGES, METRICS, Metrics


@given(st.lists(st.lists(st.floats(-2, 3) | st.just(float("nan")) | st.sampled_from(EDGES.tolist()), max_size=20)))
def test_every_score_that_is_a_number_falls_in_one_bin(batches: list[list[float]]) -> None:
    """Closed above; those outside [0, 1] in the outer bins."""
    metrics = Metrics()
    expected = [0] * (len(EDGES) - 1)
    for scores in batches:
        metrics.observe("default", "rule", np.array(scores, np.float64))
        for score in scores:
            if score == score:  # noqa: PLR0124 - not NaN
                inner = [bin_ for bin_, edge in enumerate(EDGES[1:].tolist()) if score <= edge]
                expected[inner[0] if inner else -1] += 1
    assert metrics.histograms("default").get("rule", expected) == expected


def test_prometheus_can_read_it_all() -> None:
    """Each metric is declared with its help and type; histograms are cumulative."""
    metrics = Metrics()
    metrics.add("messages", 3, "imu")
    metrics.add("accepted", 2, "default", 'a "quoted" rule')
    metrics.set("outbox_samples", 7)
    metrics.observe("default", "rule", np.array([0.02, 0.5, 0.98]))
    families = {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}
    assert {f"mlade_{metric.name}" for metric in METRICS} < families.keys()
    assert all(family.documentation for family in families.values())
    (sample,) = families["mlade_messages"].samples
    assert (sample.name, sample.labels, sample.value) == ("mlade_messages_total", {"source": "imu"}, 3)
    buckets = [one.value for one in families["mlade_score"].samples if one.name == "mlade_score_bucket"]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 3


def test_a_counter_that_is_expected_begins_at_zero() -> None:
    """So that its first event is an increase; it is no event itself."""
    metrics = Metrics()
    metrics.expect("rejected", "default", "band")
    assert 'mlade_rejected_total{reason="band"} 0.0' in metrics.exposition().decode()
    assert metrics.by("rejected") == {}
    metrics.add("rejected", 2, "default", "band")
    metrics.expect("rejected", "default", "band")
    assert metrics.by("rejected") == {"band": 2}


def test_totals_are_over_all_labels() -> None:
    """And can be had by label, and of one model."""
    metrics = Metrics()
    metrics.add("rejected", 2, "a", "band")
    metrics.add("rejected", 3, "a", "schedule")
    metrics.add("rejected", 4, "b", "band")
    metrics.add("rejected", 0, "a", "where")
    assert metrics.total("rejected") == 9
    assert metrics.by("rejected") == {"band": 6, "schedule": 3}
    assert metrics.total("rejected", "a") == 5
    assert metrics.by("rejected", "b") == {"band": 4}


def test_what_a_bridge_counts_itself_is_declared() -> None:
    """Each figure under its bridge."""
    metrics = Metrics()
    for name in BRIDGE_FIGURES:
        metrics.set(f"bridge_{name}", 7, "iothub")
    families = {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}
    for name in BRIDGE_FIGURES:
        (sample,) = families[f"mlade_bridge_{name}"].samples
        assert (sample.labels, sample.value) == ({"bridge": "iothub"}, 7)
