"""The link between a hub's bridge and the pipeline: what waits in it, and who is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from processor.cloud import CloudLink, Desired, Input, Notice
from processor.types import Message
from tests.cloud import Hub
from tests.unit.test_pipeline import FULL, Line, reading


def test_the_pipeline_is_told_of_a_request_and_the_bridge_of_an_answer() -> None:
    """In order, each once."""
    link = CloudLink()
    told: list[str] = []
    link.on_request(lambda: told.append("pipeline"))
    link.on_said(lambda: told.append("bridge"))
    link.ask(Desired({}, complete=True))
    link.ask(Input("input1", b"1", 1))
    assert [type(link.take()), type(link.take()), link.take()] == [Desired, Input, None]
    link.report({"a": 1})
    link.report({"b": 2})
    link.notify(Notice(b"", {}))
    assert told == ["pipeline", "pipeline", "bridge", "bridge", "bridge"]
    assert link.take_reported() == {"a": 1, "b": 2}
    assert link.take_reported() is None


def test_what_waits_is_bounded() -> None:
    """In number, and inputs in bytes; there is room again for what was taken."""
    link = CloudLink()
    large = Input("input1", bytes(1 << 20), 1)
    assert [link.ask(large) for _ in range(33)] == [True] * 32 + [False]
    assert link.take() == large
    assert link.ask(large)
    assert [link.ask(Desired({}, complete=False)) for _ in range(1000)].count(True) == 1000 - 32
    assert [link.notify(Notice(b"", {})) for _ in range(1001)].count(True) == 1000


def test_a_change_takes_effect_between_two_batches(tmp_path: Path) -> None:
    """Data that was read before it is judged by the filter from before."""
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play(
        [reading(1), reading(2)],
        lambda: hub.desire(filter={"enabled": False}),
        [],
        [reading(3), reading(4)],
        lambda: hub.desire(filter={"rules": [{"name": "all"}]}),
        [],
        [reading(5), reading(6)],
    )
    assert line.deliver() == [[1, 2], [5, 6]]
    assert line.source.acknowledged == [1, 2, 3, 4, 5, 6]


def test_a_change_waits_for_room_with_the_data_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be committed, and however many there are."""
    monkeypatch.setattr("processor.pipeline._RETRY", 0.0)
    line = Line(tmp_path, FULL)
    hub = Hub(line.link)
    delivered: list[list[float]] = []

    def desire() -> None:
        for number in range(150):
            hub.desire(filter={"rules": [{"name": f"r{number}"}]})

    def make_room() -> None:
        assert line.control.revision == 1
        delivered.extend(line.deliver())

    wait: list[list[Message]] = [[]] * 4
    line.play([reading(1), reading(2)], [reading(3), reading(4)], desire, *wait, make_room, *wait)
    assert [*delivered, *line.deliver()] == [[1, 2], [3, 4]]
    assert (line.control.revision, line.control.active.rules[0].name) == (151, "r149")
