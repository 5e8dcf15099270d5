"""Selection: the same decisions as the contract's section 4, read aloud window by window."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.filter import validate_filter
from processor.selection import Selection
from processor.types import OutputKind, Reason
from tests.unit.naive_filter import FIELDS, NAMES, START, Case, Naive, Verdict
from tests.unit.situations import identifier, judge, situations, verdicts_of


@given(situations(), st.integers(0, 9).map(lambda number: number == 0))
@settings(max_examples=200, deadline=None)
def test_decisions_are_those_of_the_contract(
    situation: tuple[dict[str, Any], list[Case], OutputKind, list[str]],
    paused: bool,
) -> None:
    """The accepted set, the first rule that matches, one reason each, the score and the probability."""
    filter_, cases, kind, labels = situation
    found = verdicts_of(judge(filter_, cases, kind, labels, paused=paused))
    assert len(found) == len(cases)
    naive = Naive(filter_, labels)
    for row, (verdict, case) in enumerate(zip(found, cases, strict=True)):
        expected = naive.judge(case, identifier(row), paused=paused)
        assert verdict[:2] == expected[:2]
        score = (
            None if expected.score is None or math.isnan(expected.score) else pytest.approx(expected.score, abs=1e-12)
        )
        assert verdict.score == score
        assert verdict.probability == pytest.approx(expected.probability, abs=1e-12)


@given(situations(), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_a_window_is_judged_without_regard_to_its_company(
    situation: tuple[dict[str, Any], list[Case], OutputKind, list[str]], at: int
) -> None:
    """Two batches give what one gives."""
    filter_, cases, kind, labels = situation
    without_sampling = {**filter_, "rules": [{**rule, "sample": 1} for rule in filter_["rules"]]}
    whole = verdicts_of(judge(without_sampling, cases, kind, labels))
    parts = [verdicts_of(judge(without_sampling, part, kind, labels)) for part in (cases[:at], cases[at:])]
    assert parts[0] + parts[1] == whole


def plain(count: int, confidence: float = 0.5) -> list[Case]:
    """Return windows that differ in their identifiers only."""
    return [Case(NAMES[0], START, (0, 0), (confidence, 1 - confidence), None)] * count


def test_a_filter_without_rules_keeps_nothing() -> None:
    """And says so."""
    found = verdicts_of(judge({"rules": []}, plain(3), "probabilities", ["x", "y"]))
    assert found == [Verdict(Reason.NO_RULE, -1, None, 0)] * 3


@pytest.mark.parametrize(
    ("filter_", "paused"),
    [({"enabled": False, "rules": [{"name": "all"}]}, False), ({"rules": [{"name": "all"}]}, True)],
)
def test_disabled_and_paused_refuse_everything(filter_: dict[str, Any], paused: bool) -> None:
    """Both as `disabled`; the scores are still there to be shown."""
    scored = {**filter_, "rules": [{"name": "all", "measure": "confidence"}]}
    judgement = judge(scored, plain(2), "probabilities", ["x", "y"], paused=paused)
    assert verdicts_of(judgement) == [Verdict(Reason.DISABLED, -1, None, 0)] * 2
    assert judgement.scores[0] is not None
    assert judgement.scores[0].tolist() == [0.5, 0.5]


def test_sampling_keeps_its_fraction_and_says_with_which_chance() -> None:
    """Over many windows, as often as `selection.probability` says, for rules that overlap; weights are unbiased."""
    filter_ = {
        "rules": [
            {"name": "audit", "sample": 0.02},
            {"name": "low", "measure": "confidence", "band": {"max": 0.6}, "sample": 0.3},
            {"name": "also-low", "where": {"labels": ["x"]}, "sample": 0.5},
        ]
    }
    count = 20_000
    found = verdicts_of(judge(filter_, plain(count), "probabilities", ["x", "y"]))
    kept = [verdict for verdict in found if verdict.rule >= 0]
    chance = 1 - 0.98 * 0.7 * 0.5
    assert [verdict.probability for verdict in kept] == pytest.approx([chance] * len(kept))
    deviation = math.sqrt(count * chance * (1 - chance))
    assert abs(len(kept) - count * chance) < 4 * deviation
    by_rule = [sum(verdict.rule == rule for verdict in kept) for rule in range(3)]
    for observed, share in zip(by_rule, (0.02, 0.98 * 0.3, 0.98 * 0.7 * 0.5), strict=True):
        assert abs(observed - count * share) < 4 * math.sqrt(count * share * (1 - share))
    assert sum(1 / verdict.probability for verdict in kept) == pytest.approx(count, rel=0.02)
    assert {verdict.reason for verdict in found if verdict.rule < 0} == {Reason.SAMPLED_OUT}


@pytest.mark.parametrize(
    ("score", "inside", "outside"),
    [
        (0.4, True, False),
        (0.6, True, False),
        (math.nextafter(0.4, 0), False, True),
        (math.nextafter(0.6, 1), False, True),
        (math.nan, False, False),
    ],
)
def test_bands_are_closed(score: float, inside: bool, outside: bool) -> None:
    """An edge is inside to the last bit; a score that is no number is neither inside nor outside."""
    case = [Case(NAMES[0], START, (0, 0), None, score)]
    for key, expected in ((False, inside), (True, outside)):
        rule = {"name": "r", "measure": "value", "band": {"min": 0.4, "max": 0.6}, "outside": key}
        (found,) = verdicts_of(judge({"rules": [rule]}, case, "value", []))
        assert (found.rule == 0) == expected
        assert found.reason == (Reason.ACCEPTED if expected else Reason.BAND)


def test_a_model_s_nan_has_no_label() -> None:
    """A window that the model had no numbers for is of no label, though the audit slice may keep it."""
    case = [Case(NAMES[0], START, (0, 0), (math.nan, math.nan), None)]
    rules = [{"name": "x", "where": {"labels": ["x", "y"]}}, {"name": "audit", "measure": "entropy"}]
    (found,) = verdicts_of(judge({"rules": rules}, case, "probabilities", ["x", "y"]))
    assert found == Verdict(Reason.ACCEPTED, 1, None, 1)
    (found,) = verdicts_of(judge({"rules": rules[:1]}, case, "probabilities", ["x", "y"]))
    assert found.reason == Reason.WHERE


def test_explanations_say_why() -> None:
    """The rule, its measure, score and band, the chance, the filter's revision, and the tags."""
    filter_ = {
        "rules": [
            {
                "name": "far",
                "measure": "confidence",
                "band": {"min": 0.2, "max": 0.4},
                "outside": True,
                "tags": {"campaign": "q4"},
            },
        ]
    }
    judgement = judge(filter_, plain(1), "probabilities", ["x", "y"])
    selection = Selection(validate_filter(filter_), ["x", "y"], list(FIELDS.items()))
    assert selection.explanation(judgement.verdicts, 0, 4) == {
        "rule": "far",
        "measure": "confidence",
        "score": 0.5,
        "band": [0.2, 0.4],
        "outside": True,
        "probability": 1.0,
        "filter_revision": 4,
        "tags": {"campaign": "q4"},
    }


def test_explanations_of_a_rule_without_a_measure() -> None:
    """No measure, no score, no band; a band that is open at one end has null there."""
    rules = [{"name": "half", "measure": "confidence", "band": {"min": 0.9}}, {"name": "audit", "sample": 0.5}]
    filter_ = {"rules": rules}
    judgement = judge(filter_, [*plain(40), *plain(1, 0.95)], "probabilities", ["x", "y"])
    selection = Selection(validate_filter(filter_), ["x", "y"], list(FIELDS.items()))
    kept = np.flatnonzero(judgement.verdicts.rule == 1)
    assert 5 < len(kept) < 35
    audit = selection.explanation(judgement.verdicts, int(kept[0]), 1)
    assert (audit["measure"], audit["score"], audit["band"], audit["probability"]) == (None, None, None, 0.5)
    half = selection.explanation(judgement.verdicts, 40, 1)
    assert (half["rule"], half["score"], half["band"], half["tags"]) == ("half", 0.95, [0.9, None], {})


def test_the_filter_s_schedule_can_be_asked() -> None:
    """For the metrics: is it collecting now."""
    schedule = {"between": [{"start": "2026-11-22T10:00:00Z"}]}
    selection = Selection(validate_filter({"schedule": schedule, "rules": []}), [], list(FIELDS.items()))
    assert [selection.is_active(START - 1), selection.is_active(START)] == [False, True]
