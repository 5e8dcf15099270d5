"""What is told of the last hour: each score in one bin, each minute once, nothing older, nothing without bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.clock import ManualClock
from processor.filter import FilterDocument, validate_filter
from processor.last_hour import BINS, Bins, LastHour
from processor.types import Floats, Predictions

LABELS = ("idle", "run")
RULE = {"name": "unsure", "measure": "confidence", "band": {"min": 0.4, "max": 0.6}}


def filter_of(*rules: dict[str, Any], **keys: Any) -> FilterDocument:  # noqa: ANN401 - JSON
    """Return a filter."""
    return validate_filter({"rules": list(rules), **keys})


def predicted(*first: float) -> Predictions:
    """Return a prediction for each chance of the first label."""
    chances = np.array(first, np.float64)
    return Predictions("probabilities", LABELS, np.stack([chances, 1 - chances], axis=1), None)


def count(hour: LastHour, document: FilterDocument, *first: float, reached: bool = True) -> None:
    """Count windows whose confidence is the larger of both chances."""
    predictions = predicted(*first)
    assert predictions.probabilities is not None
    measures = [rule.measure is not None for rule in document.rules]
    scores = predictions.probabilities.max(axis=1)
    tested = np.full(len(first), reached)
    hour.count(
        document,
        predictions,
        [scores if one else None for one in measures],
        [tested if one else None for one in measures],
    )


def scores_of(hour: LastHour, rule: int = 0) -> dict[str, Any]:
    """Return what is told of one rule."""
    told: dict[str, Any] = hour.told()["scores"][rule]
    return told


def test_scores_are_told_by_label_and_by_what_the_band_was_tested_on() -> None:
    """A hundredth each, exact at edges as people write them; rules without a measure have none."""
    clock = ManualClock()
    hour, document = LastHour(clock), filter_of({"name": "audit", "sample": 0.1}, RULE)
    count(hour, document, 0.58, 0.29, 0.7)
    count(hour, document, 0.58, reached=False)
    told = scores_of(hour)
    assert told["rule"] == "unsure"
    assert told["windows"] == 4
    assert [(label, np.flatnonzero(counts).tolist()) for label, counts in told["by_label"].items()] == [
        ("idle", [58, 70]),
        ("run", [71]),
    ]
    assert sum(told["reached"]) == 3
    assert told["reached"][58] == 1
    assert len(hour.told()["scores"]) == 1


def test_an_hour_later_nothing_is_left() -> None:
    """Scores go in parts of five minutes, minutes one by one."""
    clock = ManualClock()
    hour, document = LastHour(clock), filter_of(RULE)
    hour.take_totals({"messages": 5})
    count(hour, document, 0.9)
    clock.advance(30 * 60)
    hour.take_totals({"messages": 12})
    count(hour, document, 0.8)
    assert sum(hour.told()["minutes"]["messages"]) == 12
    assert len(hour.told()["minutes"]["messages"]) == 31
    clock.advance(31 * 60)
    assert hour.told()["minutes"]["messages"][0] == 0
    assert sum(hour.told()["minutes"]["messages"]) == 7
    assert scores_of(hour)["windows"] == 1
    assert scores_of(hour)["seconds"] <= 3600
    clock.advance(60 * 60)
    assert scores_of(hour)["windows"] == 0
    assert scores_of(hour)["by_label"] == {}
    assert len(hour.told()["minutes"]["messages"]) == 60


def test_a_rule_keeps_its_hour_while_it_measures_the_same_windows() -> None:
    """Another band does; another measure, condition before the band, or schedule does not."""
    hour = LastHour(ManualClock())
    count(hour, filter_of(RULE), 0.9, 0.8)
    count(hour, filter_of({**RULE, "band": {"min": 0.1}, "limit": {"max": 1, "per": "1h"}}), 0.7)
    assert scores_of(hour)["windows"] == 3
    for other in (
        filter_of({**RULE, "measure": "margin"}),
        filter_of({**RULE, "where": {"labels": ["run"]}}),
        filter_of(RULE, schedule={"duty_cycle": {"period": "1m", "fraction": 0.5}}),
    ):
        count(hour, other, 0.6)
        assert scores_of(hour)["windows"] == 1


def test_what_is_told_is_bounded() -> None:
    """Of many rules the first, of many labels the most frequent."""
    hour = LastHour(ManualClock())
    names = tuple(f"label {number}" for number in range(1000))
    chances = np.full((1000, 1000), 1e-6)
    np.fill_diagonal(chances, 0.9)
    chances[0, :2] = 0.0, 0.8
    predictions = Predictions("probabilities", names, chances, None)
    document = filter_of(*({**RULE, "name": f"rule{number}"} for number in range(20)))
    scores: list[Floats | None] = [chances.max(axis=1)] * 20
    hour.count(document, predictions, scores, [np.ones(1000, np.bool_)] * 20)
    told = hour.told()["scores"]
    assert len(told) == 8
    assert len(told[0]["by_label"]) == 9
    assert next(iter(told[0]["by_label"])) == "label 1"
    assert sum(map(sum, told[0]["by_label"].values())) == 1000


@given(st.lists(st.lists(st.floats(allow_nan=True), min_size=1, max_size=30), min_size=1, max_size=20))
def test_no_value_is_too_large_for_its_bins(batches: list[list[float]]) -> None:
    """Each that is a number falls in one bin, whatever came before."""
    document = filter_of({"name": "high", "measure": "value", "band": {"min": 1}})
    hour = LastHour(ManualClock())
    expected = 0
    for batch in batches:
        values = np.array(batch)
        hour.count(document, Predictions("value", (), None, values), [values], [np.ones(len(values), np.bool_)])
        expected += int(np.isfinite(values).sum())
    told = scores_of(hour)
    assert sum(map(sum, told["by_label"].values())) == sum(told["reached"]) == expected
    assert 0 < told["width"] < float("inf")


@pytest.mark.parametrize("offset", [0.0, -7000.0, 1e6])
def test_bins_find_the_range_of_a_measure_without_bounds(offset: float) -> None:
    """A narrow start grows to what comes; a rare outlier does not take the detail away."""
    values = offset + np.random.default_rng(1).normal(0, 20, 5000)
    values[700] = 1e9
    document = filter_of({"name": "high", "measure": "value", "band": {"min": 1}})
    hour = LastHour(ManualClock())
    for start in range(0, 5000, 5):
        part = values[start : start + 5]
        hour.count(document, Predictions("value", (), None, part), [part], [np.ones(5, np.bool_)])
    told = scores_of(hour)
    edges = told["low"] + told["width"] * np.arange(BINS + 1)
    expected, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    assert told["width"] <= 8
    assert edges[0] < offset - 30
    assert edges[-1] > offset + 30
    assert np.abs(expected - np.array(told["reached"])).max() < 60


def test_bins_of_one_value_have_a_width() -> None:
    """Also of zero alone."""
    for value in (0.0, 5.0, -1e300):
        bins = Bins(np.array([value]), bounded=False)
        assert 0 <= bins.find(np.array([value]))[0] < BINS
        assert bins.width > 0
