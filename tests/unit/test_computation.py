"""Computation: from messages to samples, the same however the messages are cut into batches."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.computation import Computation, Outcome
from processor.decoders import decoder
from processor.errors import ModelError
from processor.events import event_id
from processor.filter import validate_filter
from processor.intake import Intake
from processor.journal import encode
from processor.model.onnx_model import OnnxModel, load_model
from processor.protocols import Model
from processor.selection import Selection
from processor.shadow.comparison import Comparison
from processor.shadow.judge import Shadow
from processor.source_sections import Source
from processor.types import DeadLetter, Floats, Message, OutputKind, Predictions, Reason, Sample
from processor.windows import Shape, WindowBuffer
from tests import models

START = 1_795_341_600
SOURCES = (
    {"name": "imu", "topics": ["imu/+"], "fields": ["x", "y"], "time": "t"},
    {"name": "pump", "topics": ["pump"], "fields": ["p", "q"], "stream": "{field:d}"},
)
FILTER = {
    "rules": [
        {"name": "unsure", "measure": "confidence", "band": {"max": 0.28}, "priority": 3, "tags": {"to": "label"}},
        {"name": "audit", "sample": 0.3},
    ]
}


class Seen(NamedTuple):
    """All that is visible of some batches."""

    samples: list[Sample]
    dead_letters: list[DeadLetter]
    reasons: list[int]


@pytest.fixture(scope="module")
def motions(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """Return a small convolutional model of windows of 4 readings of 2 channels."""
    path = models.write(models.cnn(channels=2, size=4), tmp_path_factory.mktemp("model"), "motions")
    return load_model(path, window_size=4, channels=2)


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """Return another model of the same windows, which knows one label that `motions` does not."""
    labels = ("walking", "sitting", "standing")
    path = models.write(models.cnn(channels=2, size=4, labels=labels), tmp_path_factory.mktemp("model"), "candidate")
    return load_model(path, window_size=4, channels=2)


@pytest.fixture(scope="module")
def fussy(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """Return a model of single values that raises on those that are not -4 to 3."""
    return load_model(
        models.write(models.raising(), tmp_path_factory.mktemp("model"), "fussy"), window_size=1, channels=1
    )


def computation(
    model: Model,
    filter_: Mapping[str, Any] = FILTER,
    sources: Sequence[Mapping[str, Any]] = SOURCES,
    *,
    shape: Shape = Shape(4, 2, 2, 10 * 10**9),  # noqa: B008 - it is frozen
    max_streams: int = 100,
    shadow: Shadow | None = None,
) -> Computation:
    """Put a computation together the way the processor does."""
    made = [Source.model_validate(source) for source in sources]
    fields = {source.name: source.fields for source in made}
    windows = WindowBuffer(shape, max_streams)
    return Computation(
        "line-1",
        intake=Intake(made, [decoder(source) for source in made], windows, "mlade"),
        windows=windows,
        model=model,
        selection=Selection(validate_filter(filter_), model.labels, list(fields.items())),
        revision=4,
        shadow=shadow,
        fields=fields,
    )


def run(subject: Computation, batches: Sequence[Sequence[Message]]) -> Seen:
    """Carry batches through and gather what comes of them."""
    seen = Seen([], [], [])
    for batch in batches:
        outcome = subject.run(batch)
        seen.samples.extend(outcome.outgoing)
        seen.dead_letters.extend(outcome.dead_letters)
        seen.reasons.extend(outcome.judgement.verdicts.reason.tolist())
        assert len(outcome.windows) == len(outcome.predictions) == len(outcome.judgement.verdicts)
        assert {int(slot) for slot in outcome.windows.slots} == set(outcome.names)
    return seen


def reading(topic: str, second: float, *values: float) -> Message:
    """Return a message of the source `imu`."""
    body = {"t": START + second, "x": values[0], "y": values[1]}
    return Message(topic, json.dumps(body).encode(), arrival=(START + 100) * 10**9)


numbers = st.sampled_from([-9.0, -1.5, -0.25, 0.0, 0.5, 1.0, 4.0, 30.0])


@st.composite
def traffic(draw: st.DrawFn) -> list[Message]:
    """Draw messages of several streams and sources, with gaps, several readings at once, and some that are no use."""
    messages: list[Message] = []
    for second in range(draw(st.integers(0, 60))):
        kind = draw(st.integers(0, 19))
        arrival = (START + second) * 10**9
        if kind == 0:
            messages.append(Message("imu/1", b"?", arrival=arrival))
        elif kind == 1:
            messages.append(Message("mlade/line-1/status", b"online", arrival=arrival))
        elif kind <= 5:
            count = draw(st.integers(1, 6))
            values = st.lists(numbers, min_size=count, max_size=count)
            body = {"d": draw(st.sampled_from("ab")), "p": draw(values), "q": draw(values)}
            messages.append(Message("pump", json.dumps(body).encode(), arrival=arrival))
        else:
            jump = 60 if draw(st.integers(0, 15)) == 0 else 0
            messages.append(reading(f"imu/{draw(st.integers(1, 4))}", second + jump, draw(numbers), draw(numbers)))
    return messages


@given(traffic(), st.lists(st.integers(0, 60), max_size=8), st.sampled_from([2, 4, 100]))
@settings(max_examples=100, deadline=None)
def test_any_batches_give_the_same_samples(
    motions: OnnxModel, messages: list[Message], cuts: list[int], max_streams: int
) -> None:
    """To the byte, in the same order, with the same dead letters and reasons; also where streams are forgotten."""
    bounds = sorted({0, len(messages), *(at for at in cuts if at < len(messages))})
    batches = [messages[a:b] for a, b in itertools.pairwise(bounds)]
    together = run(computation(motions, max_streams=max_streams), [messages])
    assert run(computation(motions, max_streams=max_streams), batches) == together
    assert run(computation(motions, max_streams=max_streams), [[message] for message in messages]) == together


@given(traffic(), st.lists(st.integers(0, 60), max_size=8), st.integers(1, 900), st.sampled_from([0.3, 0.7, 1.0]))
@settings(max_examples=60, deadline=None)
def test_any_batches_and_parts_give_the_same_with_a_shadow(
    motions: OnnxModel, candidate: OnnxModel, messages: list[Message], cuts: list[int], largest_part: int, part: float
) -> None:
    """Which windows it judges, and what it says of them, does not depend on their company; also of windows beside."""
    rules = [
        {"name": "differ", "measure": "disagreement", "band": {"min": 0.2}, "context": {"before": 1, "after": 1}},
        {
            "name": "far",
            "measure": "disagreement",
            "keep": {"share": 0.5},
            "sample": 0.5,
            "limit": {"max": 3, "per": "9s"},
        },
        {"name": "audit", "sample": 0.3},
    ]

    def made() -> Computation:
        shadow = Shadow(candidate, motions.sha256, "line-1", part, Comparison(motions, candidate, "probabilities"))
        return computation(motions, {"rules": rules}, shadow=shadow)

    bounds = sorted({0, len(messages), *(at for at in cuts if at < len(messages))})
    together = run(made(), [messages])
    assert run(made(), [messages[a:b] for a, b in itertools.pairwise(bounds)]) == together
    assert run(made(), [[message] for message in messages]) == together
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("processor.computation._LARGEST_PART", largest_part)
        assert run(made(), [messages]) == together


@given(traffic(), st.integers(1, 900))
@settings(max_examples=60, deadline=None)
def test_a_batch_too_large_for_one_go_gives_the_same(
    motions: OnnxModel, messages: list[Message], largest_part: int
) -> None:
    """Carried through in parts, a batch comes to the same, down to the journal's view of it."""
    whole, parted = computation(motions, max_streams=3), computation(motions, max_streams=3)
    expected = whole.run(messages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("processor.computation._LARGEST_PART", largest_part)
        found = parted.run(messages)
    assert found.samples == expected.samples
    assert found.dead_letters == expected.dead_letters
    assert found.names == expected.names
    assert found.windows.slots.tolist() == expected.windows.slots.tolist()
    assert found.windows.ends.tolist() == expected.windows.ends.tolist()
    assert found.judgement.verdicts.reason.tolist() == expected.judgement.verdicts.reason.tolist()
    for one, other in zip(found.judgement.scores, expected.judgement.scores, strict=True):
        assert (one is None) == (other is None)
        assert one is None or other is None or one.tobytes() == other.tobytes()
    assert (found.past is None) == (expected.past is None)
    if found.past is not None and expected.past is not None:
        assert encode(found.past) == encode(expected.past)


def test_a_small_message_cannot_take_all_the_memory() -> None:
    """Of 50,000 readings in one message each is in 200 windows, which are not all made at once."""
    source = {"name": "s", "topics": ["t"], "fields": ["v"]}
    rules = [{"name": "few", "measure": "confidence", "band": {"max": 0.1}}]
    subject = computation(Sulky(), {"rules": rules}, [source], shape=Shape(200, 1, 1))
    message = Message("t", json.dumps({"v": [1] * 50_000}).encode(), arrival=1)
    tracemalloc.start()
    outcome = subject.run([message])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(outcome.judgement.verdicts) == 50_000 - 199
    assert peak < 120 << 20  # 310 MB when they were


def test_a_sample_is_its_window_with_what_was_said_of_it(motions: OnnxModel) -> None:
    """Every part of a sample, by hand, for the third reading after the first window of a stream with a strange name."""
    rows = [(0.5, 1.0), (0.25, -1.5), (4.0, 0.0), (1.0, 30.0), (0.5, 0.5), (-9.0, 1.0)]
    messages = [reading("imu/ä b", second, *row) for second, row in enumerate(rows)]
    subject = computation(
        motions, {"rules": [{"name": "all", "measure": "margin", "priority": 7, "tags": {"to": "x"}}]}
    )
    outcome = subject.run(messages)
    assert len(outcome.samples) == 2
    sample = outcome.samples[1]
    values = np.array(rows[2:])
    times = (START + np.arange(2, 6, dtype=np.int64)) * 10**9
    answer = motions.infer(values[None])
    assert answer.probabilities is not None
    probabilities = dict(zip(models.ACTIVITIES, answer.probabilities[0].tolist(), strict=True))
    ordered = sorted(probabilities, key=lambda label: -probabilities[label])
    identifier = event_id("line-1", "imu", "imu/ä b", times, values)
    assert sample[:-1] == (identifier, "all", ordered[0], "imu/%C3%A4%20b", "motions", int(times[-1]), 7)
    event = json.loads(sample.event)
    assert (event["id"], event["subject"], event["time"]) == (identifier, "imu/ä b", "2026-11-22T10:00:05.000000Z")
    assert event["data"]["readings"]["source"] == "imu"
    assert event["data"]["readings"]["fields"] == ["x", "y"]
    assert event["data"]["readings"]["values"] == values.tolist()
    confidence = probabilities[ordered[0]]
    expected = {"label": ordered[0], "confidence": confidence, "probabilities": probabilities, "value": None}
    assert event["data"]["inference"] == expected
    assert event["data"]["selection"] == {
        "rule": "all",
        "measure": "margin",
        "score": confidence - probabilities[ordered[1]],
        "band": None,
        "probability": 1.0,
        "filter_revision": 4,
        "tags": {"to": "x"},
    }
    assert event["data"]["model"] == {"name": "motions", "sha256": motions.sha256}


def test_each_source_has_its_own_fields(motions: OnnxModel) -> None:
    """An event names the fields of the source it came from."""
    body = {"d": "left", "p": [1, 2, 3, 4], "q": [5, 6, 7, 8]}
    outcome = computation(motions, {"rules": [{"name": "all"}]}).run(
        [Message("pump", json.dumps(body).encode(), arrival=7)]
    )
    (sample,) = outcome.samples
    event = json.loads(sample.event)
    assert event["data"]["readings"]["fields"] == ["p", "q"]
    assert (sample.stream, sample.rule, event["subject"]) == ("left", "all", "left")


def test_paused_windows_are_refused_and_go_on(motions: OnnxModel) -> None:
    """Readings still enter their windows, so that after the pause nothing is missing."""
    subject = computation(motions, {"rules": [{"name": "all"}]})
    messages = [reading("imu/1", second, second, 1) for second in range(8)]
    subject.paused = True
    paused = subject.run(messages[:5])
    subject.paused = False
    assert paused.samples == []
    assert paused.judgement.verdicts.reason.tolist() == [Reason.DISABLED]
    times = [json.loads(sample.event)["time"][-10:] for sample in subject.run(messages[5:]).samples]
    assert times == ["05.000000Z", "07.000000Z"]


def test_streams_that_come_and_go_take_no_more_room(motions: OnnxModel) -> None:
    """A batch gives the room of the streams that were forgotten in it to the next."""
    subject = computation(motions, max_streams=5)
    for number in range(100):
        subject.run([reading(f"imu/{number}", 0, 1, 1)])
    assert len(subject.windows) == 5
    assert len(subject.windows.names) == 6


def test_an_empty_batch_comes_to_nothing(motions: OnnxModel) -> None:
    """As does one whose messages complete no window, or are all unusable."""
    subject = computation(motions)
    for batch in ([], [reading("imu/1", 0, 0, 0)], [Message("imu/1", b"", arrival=1)]):
        outcome = subject.run(batch)
        assert (outcome.samples, len(outcome.windows), len(outcome.predictions)) == ([], 0, 0)


def values(*numbers: float) -> list[Message]:
    """Return a message for each number, all of one stream."""
    return [Message("t", str(number).encode(), arrival=number_at) for number_at, number in enumerate(numbers)]


def judged_by(model: Model, filter_: Mapping[str, Any] | None = None) -> Computation:
    """Return a computation of single values that keeps everything, unless told otherwise."""
    source = {"name": "s", "topics": ["t"], "fields": ["v"]}
    return computation(model, filter_ or {"rules": [{"name": "all"}]}, [source], shape=Shape(1, 1, 1))


def numbers_kept(outcome: Outcome) -> list[float]:
    """Return the values that the model gave for the samples."""
    return [json.loads(sample.event)["data"]["inference"]["value"] for sample in outcome.samples]


def test_a_window_that_the_model_fails_on_is_lost_alone(fussy: OnnxModel) -> None:
    """It becomes a dead letter of the message that completed it; its neighbours are judged."""
    messages = values(0, 99, 1, 2, -77, 3)
    outcome = judged_by(fussy).run(messages)
    assert numbers_kept(outcome) == [0.5, 1.5, 2.5, 3.5]
    assert [(letter.topic, letter.arrival, letter.reason, letter.payload) for letter in outcome.dead_letters] == [
        ("t", 1, "model", b"99"),
        ("t", 4, "model", b"-77"),
    ]
    assert outcome.dead_letters[0].detail.startswith("fussy: the model failed on 1 window: ")
    assert len(outcome.judgement.verdicts) == len(outcome.windows) == len(outcome.predictions) == 4
    assert len(outcome.taken.readings.slots) == 6


@given(st.lists(st.integers(-6, 5), max_size=12), st.lists(st.integers(0, 12), max_size=4))
@settings(max_examples=40, deadline=None)
def test_failures_of_the_model_do_not_depend_on_batches(fussy: OnnxModel, numbers: list[int], cuts: list[int]) -> None:
    """The same windows fail, whatever their company."""
    messages = values(*numbers)
    bounds = sorted({0, len(messages), *(at for at in cuts if at < len(messages))})
    batches = [messages[a:b] for a, b in itertools.pairwise(bounds)]
    assert run(judged_by(fussy), batches) == run(judged_by(fussy), [messages])


@pytest.mark.parametrize("numbers", [[99], [99, 98]])
def test_a_batch_that_the_model_fails_on_altogether(fussy: OnnxModel, numbers: list[float]) -> None:
    """Every window is a dead letter, and the next batch is judged."""
    subject = judged_by(fussy)
    outcome = subject.run(values(*numbers))
    assert [letter.reason for letter in outcome.dead_letters] == ["model"] * len(numbers)
    assert (outcome.samples, len(outcome.judgement.verdicts)) == ([], 0)
    assert numbers_kept(subject.run(values(2))) == [2.5]


class Sulky:
    """A model of probabilities that fails on the first reading of a window being negative."""

    name = "sulky"
    sha256 = ""
    kind: OutputKind = "probabilities"
    labels: tuple[str, ...] = ("a", "b")
    seconds_per_window = 1e-6

    def infer(self, values: Floats) -> Predictions:
        """Judge windows by their newest reading."""
        if (values[:, 0] < 0).any():
            raise ModelError("it does not want to")
        newest = values[:, -1, 0]
        return Predictions("probabilities", self.labels, np.stack((newest, 1 - newest), axis=1), None)


def test_a_model_s_failure_leaves_the_streams_of_the_others_alone() -> None:
    """Rows, streams and answers stay together when rows between them are taken out."""
    source = {"name": "s", "topics": ["t/+"], "fields": ["v"]}
    subject = computation(Sulky(), {"rules": [{"name": "all"}]}, [source], shape=Shape(2, 2, 1))
    messages = []
    for stream, first, second in (("a", 0, 0.9), ("b", -1, 0.2), ("c", 0, 0.3)):
        messages += [Message(f"t/{stream}", str(value).encode(), arrival=9) for value in (first, second)]
    outcome = subject.run([Message("t/d", b"?"), *messages])
    assert [(sample.stream, sample.label) for sample in outcome.samples] == [("t/a", "a"), ("t/c", "b")]
    assert [(letter.topic, letter.reason) for letter in outcome.dead_letters] == [("t/d", "decode"), ("t/b", "model")]
    assert outcome.dead_letters[1][3:] == ("sulky: it does not want to", b"0.2")


def test_an_answer_that_is_no_number_is_kept_by_the_audit_only(tmp_path: Path) -> None:
    """No band holds it and it has no label, but it is counted and can be looked at."""
    model = load_model(
        models.write(models.identity(1, output="value"), tmp_path), window_size=1, channels=1, output_kind="value"
    )
    bands = [{"name": "in", "measure": "value", "band": {"max": 1e300}}, {"name": "audit"}]
    outcome = judged_by(model, {"rules": bands}).run(values(1.0, 1e300))
    assert [sample.rule for sample in outcome.samples] == ["in", "audit"]
    event = json.loads(outcome.samples[1].event)
    assert event["data"]["inference"] == {"label": None, "confidence": None, "probabilities": None, "value": None}
    assert event["data"]["readings"]["values"] == [[1e300]]
    assert outcome.samples[1].label == ""
