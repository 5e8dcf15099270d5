"""Measures: what they give, and what must hold for any probabilities."""

from __future__ import annotations

from random import Random
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from processor.measures import MEASURES, applicable, compute, confidence, entropy, margin, probability
from processor.types import Floats, OutputKind, Predictions

OF_PROBABILITIES = ("confidence", "margin", "entropy")


@st.composite
def distributions(draw: st.DrawFn, *, labels: tuple[int, int] = (1, 12)) -> Floats:
    """Draw (N, K) rows that sum to 1, with zeros, ones, ties and tiny numbers among them."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(*labels))
    parts = st.sampled_from([0.0, 1e-300, 1e-9, 0.25, 1.0]) | st.floats(0, 1)
    weights = draw(hnp.arrays(np.float64, (rows, columns), elements=parts))
    weights[weights.sum(axis=1) == 0, 0] = 1
    probabilities: Floats = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def classified(probabilities: Floats) -> Predictions:
    """Return predictions with these probabilities."""
    labels = tuple(str(column) for column in range(probabilities.shape[1]))
    return Predictions("probabilities", labels, probabilities, None)


def scored(score: Floats) -> Predictions:
    """Return the predictions of a score in 0 to 1."""
    return Predictions("score", ("0", "1"), np.stack((1 - score, score), axis=1), score)


def test_measures_are_those_of_the_definitions() -> None:
    """Three labels by hand: p1, p1 - p2, and Shannon's entropy over ln 3."""
    probabilities = np.array([[0.2, 0.5, 0.3]])
    assert confidence(probabilities)[0] == 0.5
    assert margin(probabilities)[0] == 0.5 - 0.3
    by_hand = -(0.2 * np.log(0.2) + 0.5 * np.log(0.5) + 0.3 * np.log(0.3)) / np.log(3)
    assert entropy(probabilities)[0] == pytest.approx(by_hand, rel=1e-12)
    assert probability(probabilities, 2)[0] == 0.3


def test_certainty_and_ignorance_are_exact() -> None:
    """A certain row and an even one give the ends of the ranges to the last bit, so closed bands hold them."""
    rows = np.array([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    assert confidence(rows).tolist() == [1.0, 0.25]
    assert margin(rows).tolist() == [1.0, 0.0]
    assert entropy(rows).tolist() == [0.0, 1.0]
    assert not np.signbit(entropy(rows)).any()


def test_one_label_is_certain() -> None:
    """With one label there is no rival: confidence and margin are its probability, entropy is 0."""
    assert [compute(name, classified(np.array([[1.0]])))[0] for name in OF_PROBABILITIES] == [1.0, 1.0, 0.0]


@given(distributions())
def test_measures_stay_in_their_ranges(probabilities: Floats) -> None:
    """No NaN and nothing outside [0, 1], zeros and ones included; confidence is at least 1 / K."""
    for name in OF_PROBABILITIES:
        scores = compute(name, classified(probabilities))
        assert scores.shape == (len(probabilities),)
        assert ((scores >= 0) & (scores <= 1)).all()
    assert (confidence(probabilities) >= 1 / probabilities.shape[1] - 1e-12).all()


@given(distributions(), st.randoms())
def test_order_of_labels_does_not_matter(probabilities: Floats, random: Random) -> None:
    """A permutation of the labels leaves confidence and margin as they are, entropy to the rounding of its sum."""
    order = list(range(probabilities.shape[1]))
    random.shuffle(order)
    permuted = probabilities[:, order]
    assert (confidence(permuted) == confidence(probabilities)).all()
    assert (margin(permuted) == margin(probabilities)).all()
    assert entropy(permuted) == pytest.approx(entropy(probabilities), abs=1e-12)


@given(distributions(labels=(2, 2)))
def test_measures_agree_on_two_labels(probabilities: Floats) -> None:
    """Of two labels, the window one measure calls more certain no other calls less certain."""
    by_confidence = np.argsort(confidence(probabilities), kind="stable")
    assert (np.diff(margin(probabilities)[by_confidence]) >= -1e-12).all()
    assert (np.diff(entropy(probabilities)[by_confidence]) <= 1e-12).all()


@given(distributions(), st.integers(0, 5))
def test_nan_stays_in_its_row(probabilities: Floats, place: int) -> None:
    """A row the model gave no finite answer for scores NaN, and its neighbours score what they would without it."""
    row = place % len(probabilities)
    spoilt = probabilities.copy()
    spoilt[row] = np.nan
    others = np.arange(len(probabilities)) != row
    for name in (*OF_PROBABILITIES, "probability"):
        scores = compute(name, classified(spoilt), 0)
        assert np.isnan(scores[row])
        assert (scores[others] == compute(name, classified(probabilities), 0)[others]).all()


@given(distributions())
def test_company_does_not_change_a_score(probabilities: Floats) -> None:
    """A row alone, and a row out of a larger memory layout, scores the same to the last bit."""
    crowd = np.asfortranarray(np.concatenate([probabilities] * 40))
    for name in OF_PROBABILITIES:
        together = compute(name, classified(crowd))
        for row in range(len(probabilities)):
            assert compute(name, classified(probabilities[row : row + 1]))[0] == together[row]


def test_a_score_is_two_labels_and_a_number() -> None:
    """A score s counts as [1 - s, s] and is also the raw number."""
    predictions = scored(np.array([0.25, 0.5]))
    assert compute("confidence", predictions).tolist() == [0.75, 0.5]
    assert compute("margin", predictions).tolist() == [0.5, 0.0]
    assert compute("probability", predictions, 1).tolist() == [0.25, 0.5]
    assert compute("score", predictions).tolist() == compute("value", predictions).tolist() == [0.25, 0.5]


@pytest.mark.parametrize("kind", get_args(OutputKind))
def test_measures_without_a_number_are_nan(kind: OutputKind) -> None:
    """What `applicable` names gives numbers; every other measure gives NaN, which is in no band, and does not raise."""
    predictions = {
        "probabilities": classified(np.array([[0.6, 0.4]])),
        "score": scored(np.array([0.4])),
        "value": Predictions("value", (), None, np.array([21.5])),
    }[kind]
    for name in MEASURES:
        scores = compute(name, predictions, 0)
        assert scores.shape == (1,)
        assert np.isfinite(scores[0]) == (name in applicable(kind))


def test_probability_of_no_label_is_nan() -> None:
    """Without a label there is no probability to take."""
    assert np.isnan(compute("probability", classified(np.array([[0.6, 0.4]])))).all()
