"""Filters and windows to judge: drawn by hypothesis, and judged by the real thing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from processor import events
from processor.filter import validate_filter
from processor.memories import Memories
from processor.selection import Judgement, Selection
from processor.types import NS, OutputKind, Predictions, Reason, ShadowAnswers, Windows
from tests.unit.naive_filter import FIELDS, NAMES, PART, START, Case, Verdict


def judge(
    filter_: Mapping[str, Any], cases: Sequence[Case], kind: OutputKind, labels: Sequence[str], *, paused: bool = False
) -> Judgement:
    """Judge cases through the real thing; their identifiers are their numbers."""
    return judge_with(selection_of(filter_, labels), cases, kind, labels, paused=paused)


def selection_of(filter_: Mapping[str, Any], labels: Sequence[str], memories: Memories | None = None) -> Selection:
    """Make a filter ready."""
    return Selection(validate_filter(filter_), labels, list(FIELDS.items()), memories)


def judge_with(
    selection: Selection,
    cases: Sequence[Case],
    kind: OutputKind,
    labels: Sequence[str],
    *,
    first: int = 0,
    paused: bool = False,
) -> Judgement:
    """Judge cases, of which the first has the number `first`."""
    slots = {name: 3 * position for position, name in enumerate(NAMES)}
    count = len(cases)
    times = np.array([[case.time - 5, case.time] for case in cases], np.int64).reshape(count, 2)
    values = np.array([case.readings() for case in cases], np.float64).reshape(count, 2, 2)
    windows = Windows(np.array([slots[case.name] for case in cases], np.int64), times, values)
    width = 2 if kind == "score" else len(labels)
    predictions = Predictions(
        kind,
        tuple(labels),
        None if kind == "value" else np.array([case.probabilities for case in cases], np.float64).reshape(count, width),
        None if kind == "probabilities" else np.array([case.value for case in cases], np.float64),
    )
    predictions = replace(predictions, shadow=shadow_of(cases, predictions))
    names = {slots[case.name]: case.name for case in cases}
    return selection.judge(
        windows, predictions, names, lambda row, rule: events.uniform(identifier(first + row), rule), paused=paused
    )


def shadow_of(cases: Sequence[Case], predictions: Predictions) -> ShadowAnswers:
    """Return what the shadow says of those cases that it judged; what it predicted does not matter."""
    rows = [row for row, case in enumerate(cases) if case.disagreement is not None]
    apart = [case.disagreement for case in cases if case.disagreement is not None]
    return ShadowAnswers(
        name="candidate",
        sha256="",
        beside="",
        part=PART,
        rows=np.array(rows, np.int64),
        predictions=predictions.take(np.array(rows, np.int64)),
        disagreement=np.array(apart, np.float64),
        failures=0,
        failure="",
        seconds=0.0,
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


def identifier(number: int) -> str:
    """Return a case's event id."""
    return f"{number:032x}"


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
disagreements = st.none() | edges | st.just(math.nan)


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
    possible.append("disagreement")
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
        cases.append(Case(draw(st.sampled_from(NAMES)), time, newest, probabilities, value, draw(disagreements)))
    return filter_, cases, kind, labels


@st.composite
def lines(draw: st.DrawFn) -> tuple[dict[str, Any], list[Case], OutputKind, list[str]]:
    """Draw a filter whose rules remember, and up to 60 windows whose times mostly go on.

    The windows by a seed, because drawn one by one most lists would be too short for anything to be remembered.
    """
    labels = ["x", "y"]
    by = st.sampled_from(["rule", "label", "stream"])
    remembering = st.fixed_dictionaries(
        {},
        optional={
            "keep": st.fixed_dictionaries(
                {"share": st.sampled_from([0.1, 0.3, 0.9])},
                optional={"of": st.sampled_from(["highest", "lowest"]), "over": st.integers(1, 40)},
            ),
            "dedup": st.fixed_dictionaries(
                {"distance": st.sampled_from([1e-7, 4e-7, 1.1e-6]), "memory": st.integers(1, 5)}
            ),
            "cooldown": st.fixed_dictionaries({"for": st.sampled_from(["1s", "3s", "20s"])}, optional={"by": by}),
            "limit": st.fixed_dictionaries(
                {"max": st.integers(1, 4), "per": st.sampled_from(["2s", "5s", "30s"])}, optional={"by": by}
            ),
        },
    )
    drawn = []
    for index in range(draw(st.integers(1, 4))):
        rule = draw(rules("probabilities", labels)) | draw(remembering) | {"name": f"r{index}"}
        if "measure" not in rule:
            rule.pop("keep", None)
        drawn.append(rule)
    random = Random(draw(st.integers(0, 2**32)))  # noqa: S311 - it draws test data
    now = START
    cases = []
    for _ in range(draw(st.integers(0, 60))):
        now += random.choice([0, 1, NS // 2, NS, NS, 2 * NS, -NS, random.randint(-20, 20) * NS])
        first = random.choice([0.0, 0.2, 0.5, 0.5, random.random(), math.nan])
        newest = (random.choice([0.0, 0.4, 1.0]), random.choice([0.0, 0.4, 1.0]))
        apart = random.choice([None, 0.0, 0.3, 0.5, random.random(), math.nan])
        cases.append(Case(random.choice(NAMES), now, newest, (first, 1 - first), None, apart))
    return {"rules": drawn}, cases, "probabilities", labels
