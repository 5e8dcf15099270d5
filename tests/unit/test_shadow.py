"""The shadow: which windows it judges, how far it is from the model, how large its part may be."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processor import events
from processor.answers import join
from processor.document import parse
from processor.errors import ConfigurationError, ModelError, ModelMisfit
from processor.filter import check_against, validate_filter
from processor.measures import compute
from processor.settings import Slot
from processor.settings import build as build_settings
from processor.shadow import timing
from processor.shadow.agreement import MOST_LABELS, OTHERS, Agreement
from processor.shadow.choice import STRETCH, chosen, number
from processor.shadow.comparison import Compare, Comparison
from processor.shadow.judge import Shadow, Times
from processor.shadow.opening import Opened, open_both, open_shadow
from processor.shadow.timing import SMALLEST_PART, Kept, part_of
from processor.types import NS, Array, Floats, OutputKind, Predictions, Windows
from tests import models
from tests.unit.naive_filter import NAMES, START, Case
from tests.unit.situations import judge, verdicts_of


class Told:
    """A model that answers what its windows hold: a column a label, or one number."""

    def __init__(self, kind: OutputKind, labels: Sequence[str], *, sha256: str = "a", upset_by: float = 1e9) -> None:
        self.name, self.sha256, self.kind, self.labels = "told", sha256, kind, tuple(labels)
        self.seconds_per_window = 1e-6
        self.calls: list[int] = []
        self._upset_by = upset_by

    def infer(self, values: Array) -> Predictions:
        """Answer with the first columns of the newest reading."""
        self.calls.append(len(values))
        newest = values[:, -1].astype(np.float64)
        if (newest == self._upset_by).any():
            raise ModelError(f"{self._upset_by:g} upsets it")
        if self.kind == "value":
            return Predictions(self.kind, self.labels, None, newest[:, 0])
        if self.kind == "score":
            return Predictions(self.kind, self.labels, np.stack([1 - newest[:, 0], newest[:, 0]], 1), newest[:, 0])
        return Predictions(self.kind, self.labels, newest[:, : len(self.labels)], None)


def windows_at(times: Sequence[int], values: Floats | None = None) -> Windows:
    """Return windows of one reading each."""
    count = len(times)
    values = np.zeros((count, 3)) if values is None else values
    return Windows(np.zeros(count, np.int64), np.array(times, np.int64).reshape(count, 1), values[:, np.newaxis])


def shadow_of(model: Told, shadow: Told, *, part: float = 1.0, compare: Compare = "probabilities") -> Shadow:
    """Put two models together."""
    return Shadow(shadow, model.sha256, "line-1", part, Comparison(model, shadow, compare))


# --- which windows -------------------------------------------------------------------------------------------------

moments = st.lists(st.integers(-(2**62), 2**62) | st.integers(START, START + NS), max_size=30)
parts = st.integers(1, 1000).map(lambda thousandths: thousandths / 1000)


@given(moments, parts, st.integers(0, 30))
def test_a_windows_time_alone_decides(times: list[int], part: float, at: int) -> None:
    """Chosen are the tenths of a second whose number lies below the part, in whatever company."""
    found = chosen("line-1", part, np.array(times, np.int64))
    assert found.tolist() == [part >= 1 or events.uniform("line-1", f"shadow/{time // 10**8}") < part for time in times]
    cut = [chosen("line-1", part, np.array(piece, np.int64)) for piece in (times[:at], times[at:])]
    assert np.concatenate(cut).tolist() == found.tolist()


@given(moments, parts, parts)
def test_a_larger_part_holds_the_smaller(times: list[int], one: float, other: float) -> None:
    """What was judged at a part is judged at every larger one."""
    small, large = (chosen("line-1", part, np.array(times, np.int64)) for part in sorted((one, other)))
    assert not (small & ~large).any()


@pytest.mark.parametrize("part", [0.02, 0.25, 0.9])
def test_the_part_is_met_over_time_and_differs_from_processor_to_processor(part: float) -> None:
    """Over half an hour as often as it says; two processors choose independently."""
    stretches = 18_000
    ends = START + np.arange(stretches) * STRETCH
    one, other = (chosen(processor, part, ends) for processor in ("line-1", "line-2"))
    deviation = math.sqrt(part * (1 - part) / stretches)
    assert abs(one.mean() - part) < 4 * deviation
    both = part * part
    assert abs((one & other).mean() - both) < 4 * math.sqrt(both * (1 - both) / stretches)
    assert 0 <= number("line-1", -5) < 1


# --- how far apart -------------------------------------------------------------------------------------------------


@st.composite
def two_answers(draw: st.DrawFn) -> tuple[list[str], list[str], Floats, Floats]:
    """Draw two models' labels, some of them shared and in any order, and their answers to a few windows."""
    known = ["a", "b", "c", "d", "e", "f"]
    labels = [draw(st.permutations(known).map(lambda some: some[: len(some) // 2 + 1])) for _ in range(2)]
    if draw(st.booleans()):
        labels[1] = labels[0]
    count = draw(st.integers(1, 5))
    answers = []
    for names in labels:
        weights = draw(
            st.lists(
                st.lists(st.integers(0, 9), min_size=len(names), max_size=len(names)), min_size=count, max_size=count
            )
        )
        table = np.array(weights, np.float64) + 1e-3
        answers.append(table / table.sum(axis=1, keepdims=True))
    return labels[0], labels[1], answers[0], answers[1]


@given(two_answers())
@settings(deadline=None)
def test_disagreement_is_the_total_variation_over_the_labels_names(
    drawn: tuple[list[str], list[str], Floats, Floats],
) -> None:
    """Half the sum of |p - q|, a label that one does not know counting as 0 there; symmetric, and 0 to 1."""
    labels, others, ours, theirs = drawn
    one, two = Told("probabilities", labels), Told("probabilities", others)
    found = Comparison(one, two, "probabilities").disagreement(
        Predictions("probabilities", one.labels, ours, None), Predictions("probabilities", two.labels, theirs, None)
    )
    for row, score in enumerate(found.tolist()):
        p, q = dict(zip(labels, ours[row], strict=True)), dict(zip(others, theirs[row], strict=True))
        expected = math.fsum(abs(p.get(label, 0) - q.get(label, 0)) for label in p.keys() | q.keys()) / 2
        assert score == pytest.approx(expected, abs=1e-12)
        assert 0 <= score <= 1
        alone = Comparison(one, two, "probabilities").disagreement(
            Predictions("probabilities", one.labels, ours[row : row + 1], None),
            Predictions("probabilities", two.labels, theirs[row : row + 1], None),
        )
        assert alone[0] == score
    mirrored = Comparison(two, one, "probabilities").disagreement(
        Predictions("probabilities", two.labels, theirs, None), Predictions("probabilities", one.labels, ours, None)
    )
    assert mirrored == pytest.approx(found, abs=1e-12)
    alike = Comparison(one, one, "probabilities").disagreement(
        *[Predictions("probabilities", one.labels, ours, None)] * 2
    )
    assert (alike == 0).all()


@given(two_answers())
@settings(deadline=None)
def test_labels_agree_or_do_not(drawn: tuple[list[str], list[str], Floats, Floats]) -> None:
    """Compared by name, whatever the order in which the models know them."""
    labels, others, ours, theirs = drawn
    one, two = Told("probabilities", labels), Told("probabilities", others)
    found = Comparison(one, two, "labels").disagreement(
        Predictions("probabilities", one.labels, ours, None), Predictions("probabilities", two.labels, theirs, None)
    )
    expected = [float(labels[p.argmax()] != others[q.argmax()]) for p, q in zip(ours, theirs, strict=True)]
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("kind", "labels", "compare", "expected"),
    [
        ("value", [], "probabilities", [0.0, 1.9, math.nan]),
        ("score", ["no", "yes"], "probabilities", [0.0, 1.9, math.nan]),
        ("score", ["no", "yes"], "labels", [0.0, 1.0, math.nan]),
    ],
)
def test_numbers_are_as_far_apart_as_they_are(
    kind: OutputKind, labels: list[str], compare: Compare, expected: list[float]
) -> None:
    """Scores and values by their distance; a model's NaN is no number, and so is the distance to it."""
    model = Told(kind, labels)
    first, second = (np.array(column).reshape(3, 1, 1) for column in ([0.2, -1.0, 0.4], [0.2, 0.9, math.nan]))
    found = Comparison(model, model, compare).disagreement(model.infer(first), model.infer(second))
    assert found.tolist() == pytest.approx(expected, nan_ok=True)


def test_a_model_s_nan_disagrees_with_nothing() -> None:
    """There is no score then, as for every measure."""
    ours, theirs = np.array([[0.5, 0.5], [math.nan] * 2]), np.array([[math.nan] * 2, [0.5, 0.5]])
    model = Told("probabilities", ["a", "b"])
    answers = [Predictions("probabilities", model.labels, table, None) for table in (ours, theirs)]
    for compare in ("probabilities", "labels"):
        assert np.isnan(Comparison(model, model, compare).disagreement(*answers)).all()


# --- asking --------------------------------------------------------------------------------------------------------


def test_all_its_windows_are_one_call_and_the_models_answers_stand() -> None:
    """The shadow sees the chosen windows only; a window that it did not judge has no score."""
    model, shadow = Told("probabilities", ["a", "b"]), Told("probabilities", ["b", "a"], sha256="b")
    times = [START + tenth * STRETCH for tenth in range(400)]
    values = np.tile([0.9, 0.1, 0.0], (400, 1))
    windows = windows_at(times, values)
    answers = model.infer(windows.seen)
    found = shadow_of(model, shadow, part=0.25).judge(windows, answers)
    assert found.shadow is not None
    expected = np.flatnonzero(chosen("line-1", 0.25, windows.ends))
    assert found.shadow.rows.tolist() == expected.tolist()
    assert 60 < len(expected) < 140
    assert shadow.calls == [len(expected)]
    assert found.probabilities is answers.probabilities
    scores = compute("disagreement", found)
    assert np.isnan(scores).sum() == 400 - len(expected)
    assert scores[expected] == pytest.approx(np.full(len(expected), 0.8))


def test_a_window_that_upsets_the_shadow_has_no_answer_of_it_and_the_others_have() -> None:
    """It is found out, counted, and told; nothing else changes."""
    model, shadow = Told("value", []), Told("value", [], upset_by=7.0)
    values = np.array([[1.0], [7.0], [3.0], [7.0]])
    windows = windows_at([START] * 4, values)
    found = shadow_of(model, shadow).judge(windows, model.infer(windows.seen))
    assert found.shadow is not None
    assert found.shadow.rows.tolist() == [0, 2]
    assert (found.shadow.failures, found.shadow.failure) == (2, "7 upsets it")
    assert compute("disagreement", found).tolist() == pytest.approx([0, math.nan, 0, math.nan], nan_ok=True)
    assert [found.shadow.place(row) for row in range(4)] == [0, None, 1, None]


@given(st.lists(st.integers(0, 6), max_size=5))
def test_joined_parts_of_a_batch_are_the_batch(sizes: list[int]) -> None:
    """Rows count on from part to part, as do failures."""
    model, shadow = Told("value", []), Told("value", [], upset_by=3.0)
    subject = shadow_of(model, shadow, part=0.5)
    count = sum(sizes)
    whole = windows_at([START + n * STRETCH for n in range(count)], np.arange(count, dtype=np.float64)[:, None])
    ends = np.cumsum([0, *sizes]).tolist()
    pieces = [whole.take(np.arange(low, high)) for low, high in pairwise(ends)] or [whole]
    joined = join([subject.judge(piece, model.infer(piece.seen)) for piece in pieces])
    expected = subject.judge(whole, model.infer(whole.seen))
    assert joined.shadow is not None
    assert expected.shadow is not None
    assert joined.shadow.rows.tolist() == expected.shadow.rows.tolist()
    assert joined.shadow.failures == expected.shadow.failures
    assert compute("disagreement", joined).tolist() == pytest.approx(
        compute("disagreement", expected).tolist(), nan_ok=True
    )


def test_an_event_says_what_the_shadow_thought() -> None:
    """Beside the model's own answer, where the shadow judged the window, and nothing where it did not."""
    model, shadow = Told("probabilities", ["a", "b"]), Told("probabilities", ["b", "c"], sha256="b")
    windows = windows_at([START, START + 5 * STRETCH], np.array([[0.75, 0.25, 0], [1.0, 0.0, 0]]))
    subject = next(
        one
        for one in (dataclasses.replace(shadow_of(model, shadow, part=0.5), processor=f"p{n}") for n in range(50))
        if chosen(one.processor, 0.5, windows.ends).tolist() == [True, False]
    )
    found = subject.judge(windows, model.infer(windows.seen))
    assert events.inference(found, 0) == {
        "label": "a",
        "confidence": 0.75,
        "probabilities": {"a": 0.75, "b": 0.25},
        "value": None,
        "shadow": {
            "label": "b",
            "confidence": 0.75,
            "probabilities": {"b": 0.75, "c": 0.25},
            "value": None,
            "disagreement": 0.75,
            "part": 0.5,
            "model": {"name": "told", "sha256": "b"},
        },
    }
    assert "shadow" not in events.inference(found, 1)


# --- selecting -----------------------------------------------------------------------------------------------------


def test_a_window_that_the_shadow_did_not_judge_is_not_for_its_rule() -> None:
    """The reason is the band, though the rule may have none."""
    for rule in (
        {"name": "r", "measure": "disagreement"},
        {"name": "r", "measure": "disagreement", "band": {"min": 0}},
    ):
        cases = [Case(NAMES[0], START, (0, 0), (0.5, 0.5), None, apart) for apart in (None, 0.0, 1.0)]
        found = verdicts_of(judge({"rules": [rule]}, cases, "probabilities", ["x", "y"]))
        assert [verdict.reason.label for verdict in found] == ["band", "accepted", "accepted"]
        assert [verdict.probability for verdict in found] == [0, 0.25, 0.25]


@pytest.mark.parametrize("audit", [0.0, 0.02, 0.3])
def test_the_inverse_of_the_probability_weighs_right(audit: float) -> None:
    """With a slice of everything: all windows are counted; without: all in which the models disagree."""
    random = np.random.default_rng(5)
    count = 40_000
    judged = random.random(count) < 0.25
    apart = random.random(count) < 0.3
    cases = [
        Case(NAMES[0], START, (0, 0), (0.5, 0.5), None, float(differ) if was_judged else None)
        for was_judged, differ in zip(judged.tolist(), apart.tolist(), strict=True)
    ]
    rules = [
        {"name": "differ", "measure": "disagreement", "band": {"min": 0.5}, "sample": 0.8},
        {"name": "differ-again", "measure": "disagreement", "band": {"min": 0.9}, "sample": 0.3},
        {"name": "audit", "sample": audit},
    ]
    found = verdicts_of(judge({"rules": rules}, cases, "probabilities", ["x", "y"]))
    weights = [1 / verdict.probability if verdict.rule >= 0 else 0.0 for verdict in found]
    expected = count if audit else int(apart.sum())
    noise = math.sqrt(sum(weight * (weight - 1) for weight in weights if weight))
    assert abs(sum(weights) - expected) < 4 * noise


# --- how large a part ----------------------------------------------------------------------------------------------

costs = st.floats(1e-8, 10.0)


@given(st.floats(0.001, 0.999), costs, costs)
@example(0.2, 1.0, 1.0)
def test_the_part_keeps_the_shadow_within_its_share(cpu: float, model: float, shadow: float) -> None:
    """A multiple of a thousandth; the largest with which the shadow takes no more than `cpu`, but one at least."""
    part = part_of(cpu, Times(model, shadow))
    assert part == round(part * 1000) / 1000
    assert SMALLEST_PART <= part <= 1
    if part > SMALLEST_PART:
        assert part * shadow / (model + part * shadow) <= cpu + 1e-9
    if part < 1:
        assert (part + 0.001) * shadow / (model + (part + 0.001) * shadow) > cpu - 1e-9


def test_of_two_alike_a_fifth_of_the_time_is_a_quarter_of_the_windows() -> None:
    """The figure of the documentation."""
    assert part_of(0.2, Times(1e-5, 1e-5)) == 0.25


def test_what_was_measured_is_kept_for_each_two_models() -> None:
    """Through JSON, the newest first, and not without end."""
    known: list[Kept] = []
    for pair in range(30):
        known = timing.memory(known, "model", f"shadow{pair}", Times(1.0, pair + 1.0))
    known = timing.read(timing.memory(known, "model", "shadow28", Times(9.0, 9.0)))
    assert len(known) == 16
    assert timing.find(known, "model", "shadow28") == Times(9.0, 9.0)
    assert timing.find(known, "model", "shadow29") == Times(1.0, 30.0)
    assert timing.find(known, "shadow29", "model") is None
    assert timing.find(known, "model", "shadow0") is None
    assert timing.read(None) == []


# --- the configuration ---------------------------------------------------------------------------------------------


def settings_of(folder: Path, model: onnx.ModelProto, shadow: onnx.ModelProto | None, **more: object) -> Slot:
    """Return settings for two models of six channels."""
    section: dict[str, object] = {"path": str(models.write(model, folder, "model"))}
    if shadow is not None:
        section["shadow"] = {"path": str(models.write(shadow, folder, "candidate")), **more}
    fields = [f"c{number}" for number in range(6)]
    (slot,) = build_settings(
        {
            "id": "line-1",
            "sources": [{"name": "imu", "topics": ["t"], "fields": fields}],
            "model": section,
            "filter": {},
        },
        folder,
    ).slots
    return slot


def opened(wanted: Slot) -> Opened:
    """Open what is configured."""
    model, _ = open_both(wanted, [])
    return open_shadow(wanted, model)


def test_a_shadow_is_measured_once_and_then_remembered(tmp_path: Path) -> None:
    """Of two models alike the part is about a quarter; what is known is not measured again."""
    wanted = settings_of(tmp_path, models.dense(), models.dense(metadata={"labels": "0,1,2,3"}))
    first = opened(wanted)
    assert first.shadow is not None
    assert first.shadow.times is not None
    assert 0.1 < first.shadow.part <= 0.3
    model, again = open_both(wanted, first.memory)
    assert again is not None
    assert (again.part, again.times) == (first.shadow.part, first.shadow.times)
    given = [Kept(model.sha256, first.shadow.model.sha256, Times(1.0, 5.0))]
    other = open_shadow(wanted, model, given)
    assert other.shadow is not None
    assert other.shadow.part == 0.05
    assert other.memory == given
    assert dict(other.describe())["shadow judges"].startswith("5 % of all windows")


def test_a_given_sample_is_not_measured(tmp_path: Path) -> None:
    """So that it is the same on every machine."""
    found = opened(settings_of(tmp_path, models.dense(), models.dense(), sample=0.125))
    assert found.shadow is not None
    assert (found.shadow.part, found.shadow.times, found.memory) == (0.125, None, [])
    assert dict(found.describe())["shadow judges"].endswith("as model.shadow.sample says")


def test_without_a_shadow_there_is_none(tmp_path: Path) -> None:
    """And what is remembered of earlier ones stays."""
    known = [Kept("a", "b", Times(1.0, 1.0))]
    wanted = settings_of(tmp_path, models.dense(), None)
    model, shadow = open_both(wanted, known)
    assert shadow is None
    found = open_shadow(wanted, model, known)
    assert found == Opened(None, None, known)
    assert list(found.describe()) == []


@pytest.mark.parametrize(
    ("model", "shadow", "more", "path", "message"),
    [
        (models.dense(), models.sigmoid(), {}, "model.shadow.output.kind", "read as score, the model's as probab"),
        (
            models.dense(metadata={"labels": "a,b,c,d"}),
            models.dense(metadata={"labels": "e,f,g,h"}),
            {},
            "model.shadow.output.labels",
            "found e, f, g, h, and the model has a, b, c, d: with no label in common nothing could agree",
        ),
        (
            models.sigmoid(),
            models.sigmoid(),
            {"output": {"labels": ["odd", "normal"]}},
            "model.shadow.output.labels",
            "found odd, normal, expected the model's, 0, 1",
        ),
        (models.dense(), models.cnn(channels=3, size=7), {}, "sources[0].fields", "candidate.onnx wants input"),
        (
            models.dense(),
            models.dense(),
            {"output": {"labels": ["a"]}},
            "model.shadow.output.labels",
            "the output of candidate.onnx has 4 columns",
        ),
        (models.dense(), models.dense(), {"input": {"name": "z"}}, "model.shadow.input.name", "candidate.onnx"),
    ],
)
def test_a_shadow_that_does_not_fit_is_refused_with_the_key_that_mends_it(
    model: onnx.ModelProto, shadow: onnx.ModelProto, more: dict[str, object], path: str, message: str, tmp_path: Path
) -> None:
    """Its own keys, where it is one of those."""
    with pytest.raises(ModelMisfit) as caught:
        opened(settings_of(tmp_path, model, shadow, **more))
    assert caught.value.problems[0].path == path
    assert message in caught.value.problems[0].message


def test_labels_of_values_are_not_compared(tmp_path: Path) -> None:
    """A regression has none."""
    value = models.graph("value (float[N, 6] x) => (float[N, 1] y) { y = ReduceMean <axes = [1]> (x) }")
    with pytest.raises(ModelMisfit, match=r"model\.shadow\.compare: the model's output \(value\) has no labels"):
        opened(settings_of(tmp_path, value, value, compare="labels"))


def test_a_shadow_that_is_not_there_is_told_with_its_key(tmp_path: Path) -> None:
    """Not as the model."""
    wanted = settings_of(tmp_path, models.dense(), models.dense())
    (tmp_path / "candidate.onnx").unlink()
    with pytest.raises(ModelMisfit, match=r"model\.shadow\.path: there is no model at .*candidate\.onnx"):
        opened(wanted)


def test_two_ways_to_say_how_many_are_refused(tmp_path: Path) -> None:
    """One of them would be ignored."""
    with pytest.raises(ConfigurationError, match=r"model\.shadow\.sample: give cpu, from which"):
        settings_of(tmp_path, models.dense(), models.dense(), cpu=0.1, sample=0.1)


def test_windows_of_another_size_have_the_same_part(tmp_path: Path) -> None:
    """The shadow is opened for them as the model is; one that does not take them is refused."""
    mean = models.graph("mean (float[N, 6, T] x) => (float[N, 6] y) { y = ReduceMean <axes = [2], keepdims = 0> (x) }")
    wanted = settings_of(tmp_path, mean, mean).with_window_size(4)
    model, first = open_both(wanted, [])
    assert first is not None
    known = open_shadow(wanted, model, []).memory
    for size in (1, 9):
        _, other = open_both(wanted.with_window_size(size), known)
        assert other is not None
        assert other.model.infer(np.ones((2, size, 6))).probabilities is not None
        assert other.times == known[0].seconds
    labels = [str(number) for number in range(6)]
    fixed = settings_of(tmp_path, mean, models.cnn(size=4, labels=labels)).with_window_size(4)
    assert open_both(fixed, [])[1] is not None
    with pytest.raises(ModelMisfit, match=r"model\.window\.size: the model candidate\.onnx wants"):
        open_both(fixed.with_window_size(9), [])


def test_the_documentations_examples_are_right(tmp_path: Path) -> None:
    """The sections are, and the rules go with them."""
    text = (Path(__file__).parents[2] / "docs" / "shadow.md").read_text(encoding="utf-8")
    section, rules = (
        cast("dict[str, Any]", parse(example)) for example in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    )
    source = {"name": "press", "topics": ["t"], "fields": ["force"]}
    wanted = build_settings({"id": "line-1", "sources": [source], "filter": {}, "model": section["model"]}, tmp_path)
    assert wanted.slots[0].model.shadow is not None
    document = validate_filter(rules)
    assert check_against(document, kind="probabilities", labels=["a"], fields=["force"], shadow=True) == ()
    (problem,) = check_against(document, kind="probabilities", labels=["a"], fields=["force"])
    assert problem.path == "rules[1].measure"


# --- agreement -----------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=6), max_size=4))
def test_agreement_is_counted_by_label(batches: list[list[tuple[int, int]]]) -> None:
    """Of each label that the model gives: how many windows, and in how many of them the shadow gives the same."""
    labels, others = ("a", "b", "c"), ("c", "b", "d")
    model, shadow = Told("probabilities", labels), Told("probabilities", others, sha256="b")
    subject, counts = shadow_of(model, shadow), Agreement()
    pairs: dict[tuple[str, str], int] = {}
    for batch in batches:
        ours, theirs = (np.eye(3)[[pair[side] for pair in batch]].reshape(-1, 3) for side in (0, 1))
        windows = windows_at([START] * len(batch), theirs)
        answers = Predictions("probabilities", labels, ours, None)
        for pair in counts.add(subject.judge(windows, answers)):
            pairs[pair.label, pair.shadow] = pairs.get((pair.label, pair.shadow), 0) + pair.windows
    said = [(labels[one], others[two]) for batch in batches for one, two in batch]
    assert pairs == {pair: said.count(pair) for pair in said}
    told = counts.told(subject)
    assert told is not None
    assert told["windows"] == len(said)
    assert told["agreement"] == (round(sum(one == two for one, two in said) / len(said), 4) if said else None)
    assert {label: one["windows"] for label, one in told["by_label"].items()} == {
        label: sum(one == label for one, _ in said) for label, _ in said
    }


def test_many_labels_are_counted_together() -> None:
    """From the fifty-first on, so that the metrics stay bounded; whether they agree is counted all the same."""
    labels = [f"l{number}" for number in range(80)]
    model = Told("probabilities", labels)
    subject, counts = shadow_of(model, model), Agreement()
    answers = np.eye(80)
    windows = windows_at([START] * 80, answers)
    pairs = counts.add(subject.judge(windows, model.infer(windows.seen)))
    assert sum(pair.windows for pair in pairs) == 80
    assert {pair.label for pair in pairs} == {*labels[:MOST_LABELS], OTHERS}
    told = counts.told(subject)
    assert told is not None
    assert told["by_label"][OTHERS] == {"windows": 30, "agreement": 1.0}


def test_counts_begin_anew_with_other_models() -> None:
    """What was counted of another pair says nothing of this one."""
    model, shadow = Told("value", []), Told("value", [], sha256="b")
    subject, counts = shadow_of(model, shadow), Agreement()
    windows = windows_at([START] * 3, np.array([[1.0], [2.0], [3.0]]))
    counts.add(subject.judge(windows, model.infer(windows.seen)))
    told = counts.told(subject)
    assert told is not None
    assert (told["windows"], told["agreement"], told["disagreement"], told["by_label"]) == (3, None, 0.0, {})
    other = counts.told(dataclasses.replace(subject, beside="another"))
    assert other is not None
    assert other["windows"] == 0
    assert counts.told(None) is None
