"""Selection: the same decisions as the contract's section 4, read aloud window by window."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor import events
from processor.filter import validate_filter
from processor.selection import Judgement, Selection
from processor.types import NS, OutputKind, Predictions, Reason, StreamName, Windows

START = 1_795_341_600 * NS
"""2026-11-22T10:00:00Z, a Sunday."""
FIELDS: Mapping[str, Sequence[str]] = {"imu": ["ax", "ay"], "pump": ["ay", "az"]}
NAMES = [
    StreamName(source, key)
    for source, key in (("imu", "a/b"), ("imu", "a"), ("pump", "a/b"), ("pump", "$x/b"), ("imu", ""))
]


class Case(NamedTuple):
    """One window and what the model says of it."""

    name: StreamName
    time: int
    newest: tuple[float, float]
    probabilities: tuple[float, ...] | None
    value: float | None


class Verdict(NamedTuple):
    """What became of a window."""

    reason: Reason
    rule: int
    score: float | None
    probability: float


# The contract, naively ------------------------------------------------------------------------------------------------


def is_active(schedule: Mapping[str, Any] | None, time: int) -> bool:
    """Tell whether `between`, `weekly` or the duty cycle make a time active; everything in UTC."""
    if schedule is None:
        return True
    moment = datetime.fromtimestamp(time // NS, UTC)
    spans = [
        datetime.fromisoformat(span["start"]) <= moment < datetime.fromisoformat(span["end"])
        for span in schedule.get("between", [])
    ]
    for week in schedule.get("weekly", []):
        is_day = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][moment.weekday()] in week["days"]
        spans.append(is_day and week["from"] <= f"{moment:%H:%M}" < week["to"])
    duty = schedule.get("duty_cycle")
    on = True
    if duty is not None:
        period = int(duty["period"][:-1]) * NS
        on = time % period < Fraction(str(duty["fraction"])) * period
    return (not spans or any(spans)) and on


def matches(pattern: Sequence[str], levels: Sequence[str], *, first: bool = True) -> bool:
    """Match MQTT topic levels, one after another."""
    if first and levels[0].startswith("$") and pattern[0] in ("+", "#"):
        return False
    if not pattern:
        return not levels
    if pattern[0] == "#":
        return True
    if not levels:
        return False
    return pattern[0] in ("+", levels[0]) and matches(pattern[1:], levels[1:], first=False)


def within(number: float, limits: Mapping[str, float]) -> bool:
    """Tell whether a number lies in a closed interval; what is no number lies in none."""
    return limits.get("min", -math.inf) <= number <= limits.get("max", math.inf)


def score_of(rule: Mapping[str, Any], case: Case, labels: Sequence[str]) -> float | None:
    """Return a rule's score; None where it has no measure."""
    measure = rule.get("measure")
    if measure is None:
        return None
    if measure in ("score", "value"):
        return case.value
    p = case.probabilities
    if p is None or any(map(math.isnan, p)):
        return math.nan
    ordered = sorted(p, reverse=True)
    return {
        "confidence": ordered[0],
        "margin": ordered[0] - ordered[1],
        "entropy": -sum(x * math.log(x) for x in p if x) / math.log(len(p)),
        "probability": p[labels.index(rule["label"])] if "label" in rule else math.nan,
    }[measure]


def stage(rule: Mapping[str, Any], case: Case, labels: Sequence[str]) -> Reason:
    """Return where a rule stops before its sampling, or ACCEPTED."""
    if not is_active(rule.get("schedule"), case.time):
        return Reason.SCHEDULE
    where = rule.get("where", {})
    if where.get("labels"):
        p = case.probabilities
        if p is None or any(map(math.isnan, p)) or labels[p.index(max(p))] not in where["labels"]:
            return Reason.WHERE
    if where.get("streams"):
        levels = case.name.key.split("/")
        if not any(
            matches(pattern.split("/"), levels) or pattern == "a/#" == f"{case.name.key}/#"
            for pattern in where["streams"]
        ):
            return Reason.WHERE
    for field, limits in where.get("fields", {}).items():
        names = FIELDS[case.name.source]
        if field not in names or not within(case.newest[names.index(field)], limits):
            return Reason.WHERE
    score = score_of(rule, case, labels)
    if "band" in rule and score is not None:
        inside = within(score, rule["band"])
        if math.isnan(score) or inside == rule.get("outside", False):
            return Reason.BAND
    return Reason.ACCEPTED


def naive(filter_: Mapping[str, Any], case: Case, labels: Sequence[str], identifier: str, *, paused: bool) -> Verdict:
    """Decide on one window as section 4 says."""
    if paused or not filter_.get("enabled", True):
        return Verdict(Reason.DISABLED, -1, None, 0)
    if not is_active(filter_.get("schedule"), case.time):
        return Verdict(Reason.SCHEDULE, -1, None, 0)
    furthest, first, missed = Reason.NO_RULE, -1, 1.0
    for index, rule in enumerate(filter_["rules"]):
        came = stage(rule, case, labels)
        sample = rule.get("sample", 1.0)
        if came is Reason.ACCEPTED:
            missed *= 1 - sample
            if sample < 1 and not events.uniform(identifier, rule["name"]) < sample:
                came = Reason.SAMPLED_OUT
        furthest = max(furthest, came)
        if came is Reason.ACCEPTED and first < 0:
            first = index
    if first < 0:
        return Verdict(furthest, -1, None, 0)
    return Verdict(Reason.ACCEPTED, first, score_of(filter_["rules"][first], case, labels), 1 - missed)


# What is judged -------------------------------------------------------------------------------------------------------


def judge(
    filter_: Mapping[str, Any], cases: Sequence[Case], kind: OutputKind, labels: Sequence[str], *, paused: bool = False
) -> Judgement:
    """Judge cases through the real thing; their identifiers are their numbers."""
    selection = Selection(validate_filter(filter_), labels, list(FIELDS.items()))
    slots = {name: 3 * position for position, name in enumerate(NAMES)}
    count = len(cases)
    times = np.array([[case.time - 5, case.time] for case in cases], np.int64).reshape(count, 2)
    values = np.array([[(1e6, -1e6), case.newest] for case in cases], np.float64).reshape(count, 2, 2)
    windows = Windows(np.array([slots[case.name] for case in cases], np.int64), times, values)
    width = 2 if kind == "score" else len(labels)
    predictions = Predictions(
        kind,
        tuple(labels),
        None if kind == "value" else np.array([case.probabilities for case in cases], np.float64).reshape(count, width),
        None if kind == "probabilities" else np.array([case.value for case in cases], np.float64),
    )
    names = {slots[case.name]: case.name for case in cases}
    return selection.judge(
        windows, predictions, names, lambda row, rule: events.uniform(f"{row:032x}", rule), paused=paused
    )


def verdicts_of(judgement: Judgement) -> list[Verdict]:
    """Return verdicts as something to compare."""
    verdicts = judgement.verdicts
    return [
        Verdict(Reason(int(reason)), int(rule), None if math.isnan(score) else float(score), float(probability))
        for reason, rule, score, probability in zip(
            verdicts.reason, verdicts.rule, verdicts.score, verdicts.probability, strict=True
        )
    ]


schedules = st.fixed_dictionaries(
    {},
    optional={
        "between": st.just([{"start": "2026-11-22T10:00:00+00:00", "end": "2026-11-22T10:00:05+00:00"}]),
        "weekly": st.lists(
            st.fixed_dictionaries(
                {
                    "days": st.lists(st.sampled_from(["sun", "mon"]), min_size=1, unique=True),
                    "from": st.sampled_from(["00:00", "10:00"]),
                    "to": st.sampled_from(["10:01", "24:00"]),
                }
            ),
            max_size=2,
        ),
        "duty_cycle": st.fixed_dictionaries(
            {"period": st.sampled_from(["10s", "7s"]), "fraction": st.sampled_from([0, 0.3, 1])}
        ),
    },
)
edges = st.sampled_from([0.0, 0.25, 0.4, 0.5, 0.75, 1.0])


@st.composite
def bands(draw: st.DrawFn) -> dict[str, float]:
    """Draw a closed interval, open at one end at most."""
    low, high = sorted((draw(edges), draw(edges)))
    return draw(st.sampled_from([{"min": low, "max": high}, {"min": low}, {"max": high}]))


@st.composite
def rules(draw: st.DrawFn, kind: OutputKind, labels: Sequence[str]) -> dict[str, Any]:
    """Draw one rule that goes with the model."""
    where: dict[str, st.SearchStrategy[Any]] = {}
    where["streams"] = st.lists(st.sampled_from(["a/b", "a/#", "+", "#", "+/b", "$x/#", "a/+/c"]), max_size=2)
    where["fields"] = st.dictionaries(st.sampled_from(["ax", "ay", "az"]), bands(), max_size=2)
    if labels:
        where["labels"] = st.lists(st.sampled_from(labels), max_size=2)
    rule: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "schedule": schedules,
                "where": st.fixed_dictionaries({}, optional=where),
                "sample": st.sampled_from([0, 0.02, 0.5, 1]),
            },
        )
    )
    possible = [] if kind == "value" else ["confidence", "margin", "entropy", "probability"]
    possible += [] if kind == "probabilities" else ["score", "value"]
    measure = draw(st.none() | st.sampled_from(possible))
    if measure is not None:
        rule["measure"] = measure
        if measure == "probability":
            rule["label"] = draw(st.sampled_from(labels))
        if draw(st.booleans()):
            rule["band"] = draw(bands())
            rule["outside"] = draw(st.booleans())
    return rule


@st.composite
def situations(draw: st.DrawFn) -> tuple[dict[str, Any], list[Case], OutputKind, list[str]]:
    """Draw a filter, a model's kind and labels, and windows with its predictions, ties and NaN among them."""
    kind: OutputKind = draw(st.sampled_from(["probabilities", "score", "value"]))
    labels = {"probabilities": draw(st.sampled_from([["x", "y"], ["x", "y", "z"]])), "score": ["0", "1"], "value": []}[
        kind
    ]
    drawn = draw(st.lists(rules(kind, labels), max_size=4))
    filter_: dict[str, Any] = {"rules": [{"name": f"r{index}", **rule} for index, rule in enumerate(drawn)]}
    if draw(st.integers(0, 9)) == 0:
        filter_["enabled"] = False
    if draw(st.integers(0, 2)) == 0:
        filter_["schedule"] = draw(schedules)
    quarters: list[tuple[int, ...]] = [(a, 4 - a) for a in range(5)]
    if len(labels) == 3:
        quarters = [(a, b, 4 - a - b) for a in range(5) for b in range(5 - a)]
    cases = []
    for _ in range(draw(st.integers(0, 8))):
        probabilities, value = None, None
        missing = draw(st.integers(0, 5)) == 0
        if kind == "probabilities":
            whole = draw(st.sampled_from(quarters))
            probabilities = tuple(math.nan if missing else part / 4 for part in whole)
        else:
            value = math.nan if missing else draw(st.sampled_from([-0.5, 0.0, 0.25, 0.4, 0.5, 0.75, 1.0, 1.5]))
        if kind == "score" and value is not None:
            clipped = value if math.isnan(value) else min(max(value, 0.0), 1.0)
            probabilities = (1 - clipped, clipped)
        time = START + draw(st.integers(-12, 12)) * NS + draw(st.sampled_from([-1, 0, 1]))
        newest = (draw(edges), draw(edges))
        cases.append(Case(draw(st.sampled_from(NAMES)), time, newest, probabilities, value))
    return filter_, cases, kind, labels


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
    for row, (verdict, case) in enumerate(zip(found, cases, strict=True)):
        expected = naive(filter_, case, labels, f"{row:032x}", paused=paused)
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
