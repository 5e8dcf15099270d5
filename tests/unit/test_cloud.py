"""The link between a hub's bridge and the pipeline: what waits in it, and who is told."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from processor.brokerless import Brokerless
from processor.cloud import CloudLink, Desired, Input, Notice
from processor.decoders import decoder
from processor.intake import Intake
from processor.source_sections import Source
from processor.types import INPUTS, MODEL_SLOT, NS, Message, StreamName
from processor.windows import Shape, WindowBuffer
from tests.cloud import Hub
from tests.unit.test_pipeline import FULL, IMU, START, Line, reading

EDGE = {"input": "input1", "fields": ["x"], "time": "t"}


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


def test_without_a_broker_a_request_wakes_the_pipeline() -> None:
    """From another thread, also before it waits; nothing else ever comes."""
    source = Brokerless()
    link = CloudLink()
    link.on_request(source.wake)
    link.ask(Desired({}, complete=True))
    assert source.read(10, timeout=60) == []
    later = threading.Timer(0.05, lambda: link.ask(Desired({}, complete=True)))
    later.start()
    assert source.read(10, timeout=60) == []
    later.join()
    assert not source.missing


def edge_reading(number: int) -> Input:
    """Return a reading as it comes on an input."""
    return Input("input1", json.dumps({"t": START + number, "x": number}).encode(), (START + 100) * NS)


def test_what_comes_on_an_input_is_a_reading_as_any_other(tmp_path: Path) -> None:
    """Beside topics, and of a stream named as the input; what another input brings is nobody's."""
    line = Line(tmp_path, sources=[IMU, EDGE])
    for number in (1, 2):
        line.link.ask(edge_reading(number))
        line.link.ask(edge_reading(number)._replace(name="input2"))
    line.play([reading(5), reading(6)], [reading(7)], [])
    line.store.close()
    line = Line(tmp_path, sources=[IMU, EDGE])
    for number in (3, 4, 5):
        line.link.ask(edge_reading(number))
    line.play([reading(8)], [])
    streams, _, _ = line.store.slot(MODEL_SLOT).windows()
    assert {name for _, name in streams} == {
        StreamName("input1", "input1"),
        StreamName("imu", "imu/1"),
    }
    assert sorted(line.deliver()) == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert line.metrics.total("ignored_messages") == 0
    assert line.source.acknowledged == [8]


def test_an_inputs_broken_message_is_a_dead_letter(tmp_path: Path) -> None:
    """And those after it are read."""
    line = Line(tmp_path, sources=[EDGE])
    for payload in (b"\xff", edge_reading(1).payload, b"{}", edge_reading(2).payload):
        line.link.ask(Input("input1", payload, START * NS))
    line.play([])
    assert line.deliver() == [[1, 2]]
    assert line.metrics.by("dead_letters") == {"decode": 1, "field": 1}


def test_what_comes_on_an_input_while_nothing_can_be_committed_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was acknowledged when it was read: nobody sends it again."""
    monkeypatch.setattr("processor.pipeline._RETRY", 0.0)
    line = Line(tmp_path, FULL, sources=[IMU, EDGE])

    def ask() -> None:
        line.link.ask(edge_reading(1))

    def make_room() -> None:
        line.deliver()

    line.play([reading(1), reading(2)], [reading(3), reading(4)], ask, [], make_room, [], [])
    assert line.metrics.total("dropped_messages") == 1


def test_a_topic_is_no_input_and_an_input_no_topic() -> None:
    """Whatever a source's filters say."""
    everything = Source.model_validate({"name": "all", "topics": ["#", "input1"], "fields": ["x"]})
    edge = Source.model_validate(EDGE)
    intake = Intake([everything, edge], [decoder(everything), decoder(edge)], WindowBuffer(Shape(1, 1, 1), 10), "mlade")
    for topic, by_source in (("input1", [1, 0]), (f"{INPUTS}input1", [0, 1]), (f"{INPUTS}input2", [0, 0])):
        assert intake.take([Message(topic, b'{"x": 1, "t": 1}')]).messages == by_source


def test_predictions_go_to_the_output_inference(tmp_path: Path) -> None:
    """Of an IoT Edge module; what finds no room is counted."""
    line = Line(tmp_path, outputs=True)
    hub = Hub(line.link)
    line.play([reading(1), reading(2)])
    (notice,) = hub.notices()
    assert (notice.output, notice.properties) == ("inference", {"stream": "imu/1", "model": "even"})
    assert json.loads(notice.body)["inference"]["confidence"] == 0.5
    line.play([reading(number) for number in range(3, 2007)])
    assert len(hub.notices()) == 1000
    assert line.metrics.total("lost_notices") == 2


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
