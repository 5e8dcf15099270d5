"""A model exchanged in the loop: what is acknowledged when, what waits without room, who hears of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from processor.errors import Problem
from processor.exchange.loader import Arrival, Away, Failed, Loaded, Request, Unchanged
from processor.exchange.opening import Opened
from processor.exchange.recent import Trial
from processor.registry import references
from processor.registry.fetched import Fetched
from processor.types import MODEL_SLOT, NS, Message
from tests.unit.test_pipeline import FULL, START, EvenModel, Line, reading, steering


class OtherModel(EvenModel):
    """Another one."""

    name = "other"
    sha256 = "1"


def document(mid: int, path: str = "other.onnx", *, qos: int = 1) -> Message:
    """Return what an operator wants."""
    return Message("mlade/line-1/model", json.dumps({"path": path}).encode(), qos, mid, START * NS, connection=1)


class Loading:
    """Stands in for the loader's thread: says what a test wants said."""

    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def request(self) -> Request:
        """What is wanted now."""
        request = self._line.models.pending
        assert request is not None
        return request

    def say(self, result: Loaded | Failed | Away | Unchanged, size: int = 2) -> None:
        """Leave a result for the pipeline."""
        self._line.loader._inbox = Arrival(MODEL_SLOT, self.request, size, result)

    def load(self, size: int = 2) -> None:
        """Leave another model for the pipeline."""
        fetched = Fetched(references.parse("other.onnx"), Path("other.onnx"), "sha256:1", "2")
        self.say(Loaded(Opened(self.request.slot, OtherModel(), fetched), Trial()), size)


def judged(line: Line) -> list[tuple[str, list[float]]]:
    """Take everything out of the outbox: which model judged which window."""
    outbox = line.store.outbox("files")
    outbox.open()
    waiting = outbox.peek(10_000, 1 << 30)
    events = [json.loads(event)["data"] for _, event in outbox.events(waiting)]
    outbox.confirm(waiting)
    outbox.close()
    return [(data["model"]["name"], [row[0] for row in data["readings"]["values"]]) for data in events]


def states(line: Line) -> list[tuple[str, int]]:
    """Return what was said of the model, as status and revision."""
    return [
        (said["status"], said["revision"]) for topic, said in line.source.published if topic.endswith("model/state")
    ]


def test_a_model_takes_over_between_two_batches_and_windows_keep_their_readings(tmp_path: Path) -> None:
    """The document is acknowledged when it is on disk, whatever becomes of it."""
    line = Line(tmp_path)
    loading = Loading(line)
    line.play([reading(1), reading(2), reading(3), document(4), reading(5)], loading.load, [], [reading(6), reading(7)])
    assert line.source.acknowledged == [1, 2, 3, 4, 5, 6, 7]
    assert judged(line) == [("even", [1, 2]), ("even", [3, 5]), ("other", [6, 7])]
    assert states(line) == [("loading", 1), ("applied", 2)]
    assert line.store.slot(MODEL_SLOT).meta("model")["in_force"]["model"] == "1"
    assert line.metrics.total("model_swaps") == 1


def test_without_room_the_swap_waits_like_other_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits before it is judged by the model before."""
    monkeypatch.setattr("processor.pipeline._RETRY", 0.0)  # each step tries to commit again
    line = Line(tmp_path, FULL)
    loading = Loading(line)
    found: list[tuple[str, list[float]]] = []

    def make_room() -> None:
        assert line.computation.model.name == "even"
        found.extend(judged(line))

    line.play(
        [document(9)], [reading(1), reading(2)], [reading(3), reading(4)], loading.load, [], [reading(5), reading(6)],
        make_room, *[[]] * 100, lambda: found.extend(judged(line)), *[[]] * 100,
    )  # fmt: skip
    found += judged(line)
    assert [values for _, values in found] == [[1, 2], [3, 4], [5, 6]]
    assert (found[0][0], found[-1][0]) == ("even", "other")
    assert line.source.acknowledged == [9, 1, 2, 3, 4, 5, 6]


def test_a_model_for_windows_of_another_size_is_loaded_again(tmp_path: Path) -> None:
    """A twin may have changed the size meanwhile."""
    line = Line(tmp_path)
    loading = Loading(line)
    line.play([document(1)], lambda: loading.load(size=7), [], [])
    assert line.computation.model.name == "even"
    assert line.loader._window_size == 2
    line.play([], loading.load, [], [])
    assert line.computation.model.name == "other"


def test_a_repeated_document_is_answered_and_changes_nothing(tmp_path: Path) -> None:
    """Also one that is sent again, because its acknowledgement was lost."""
    line = Line(tmp_path)
    loading = Loading(line)
    line.play([document(1)], loading.load, [], [document(2)], [document(0, qos=0)])
    assert states(line) == [("loading", 1), ("applied", 2), ("applied", 2), ("applied", 2)]
    assert line.source.acknowledged == [1, 2]


Answers = list[tuple[int, Mapping[str, Any]]]


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Line, Loading, Answers]:
    """A processor of which somebody wanted that it looks again at its model."""
    line = Line(tmp_path)
    answers: Answers = []
    line.exchange.reload(lambda status, body: answers.append((status, body)))
    return line, Loading(line), answers


def test_who_looks_again_hears_of_a_swap(asked: tuple[Line, Loading, Answers]) -> None:
    """With the new revision."""
    line, loading, answers = asked
    line.play([], loading.load, [], [])
    ((status, body),) = answers
    assert (status, body["changed"], body["revision"], body["model"]["name"]) == (200, True, 2, "other")
    assert states(line) == [("loading", 1), ("applied", 2)]


@pytest.mark.parametrize(
    ("result", "status", "said"),
    [
        (Unchanged(), 200, ""),
        (Failed((Problem("path", "no model"),)), 409, "path: no model"),
        (Away("the registry is away"), 503, "the registry is away"),
    ],
)
def test_who_looks_again_hears_why_there_is_no_other(
    asked: tuple[Line, Loading, Answers], result: Failed | Away | Unchanged, status: int, said: str
) -> None:
    """What is in force stays."""
    line, loading, answers = asked
    line.play([], lambda: loading.say(result), [], [])
    ((found, body),) = answers
    assert (found, body.get("error", ""), line.computation.model.name) == (status, said, "even")
    assert line.models.pending is None


def test_who_looks_again_hears_that_a_newer_document_came(asked: tuple[Line, Loading, Answers]) -> None:
    """What they asked for is not loaded any more; who asks then, hears of the document."""
    line, loading, answers = asked
    line.play([document(1)])
    assert [status for status, _ in answers] == [409]
    line.exchange.reload(lambda status, body: answers.append((status, body)))
    line.play([], loading.load, [], [])
    assert answers[1][0] == 200
    assert answers[1][1]["revision"] == 2


def test_nobody_waits_for_ever_nor_do_too_many(
    asked: tuple[Line, Loading, Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while it is said where the answer will be."""
    line, _, answers = asked
    for _ in range(105):
        line.exchange.reload(lambda status, body: answers.append((status, body)))
    assert [status for status, _ in answers] == [409] * 6
    now = line.exchange._clock.monotonic()
    monkeypatch.setattr(line.exchange._clock, "monotonic", lambda: now + 31)
    line.exchange.tick()
    assert answers[-1][0] == 503
    assert answers[-1][1]["error"] == (
        "the model is still loading; what becomes of it is said on mlade/line-1/model/state"
    )


def test_a_command_that_is_retained_or_for_a_filter_is_no_document(tmp_path: Path) -> None:
    """The model stays."""
    line = Line(tmp_path)
    line.play([steering("filter", {"path": "other.onnx"})])
    assert line.models.pending is None
