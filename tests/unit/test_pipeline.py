"""The loop: what is acknowledged when, what happens without room on the disk, at a reconnect, at a stop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from processor import settings
from processor.admission import Bounds
from processor.clock import AgeClock, SystemClock
from processor.cloud import CloudLink
from processor.computation import Computation, Outcome
from processor.control import FilterControl
from processor.decoders import decoder
from processor.division import Division
from processor.errors import ModelMisfit, Problem
from processor.exchange.beginning import model_problems
from processor.exchange.control import ModelControl
from processor.exchange.exchange import Exchange
from processor.exchange.in_force import InForce
from processor.exchange.loader import Loader
from processor.exchange.opening import Opened
from processor.filter import FilterDocument, validate_filter
from processor.intake import Intake
from processor.journal import Journal
from processor.lanes import Lane
from processor.live_commands import Commands
from processor.memories import OF_SOURCES, Remembered
from processor.metrics import Metrics
from processor.pipeline import Pipeline
from processor.protocols import Model
from processor.receipts import Receipts
from processor.registry import references
from processor.registry.fetched import Fetched
from processor.reporting import Reporting
from processor.selection import Selection
from processor.session import BrokerSession
from processor.settings import HubLegacy
from processor.shadow.comparison import Comparison
from processor.shadow.judge import Shadow
from processor.sizing import WindowSize
from processor.slot_state import SlotChanges
from processor.source_sections import Source
from processor.steering import Steering
from processor.store import Store
from processor.twin import Twin
from processor.types import MODEL_SLOT, NS, Floats, Message, OutputKind, Predictions
from processor.windows import Shape, WindowBuffer
from tests import sparkplug

START = 1_790_000_000
IMU = {"name": "imu", "topics": ["imu/+"], "fields": ["x"], "time": "t"}
ROOMY = Bounds(1 << 30, 7 * 86400 * NS, "block")
FULL = Bounds(1, 7 * 86400 * NS, "block")  # after the first sample


class EvenModel:
    """Cannot decide, whatever it sees."""

    name = "even"
    sha256 = "0"
    kind: OutputKind = "probabilities"
    labels: tuple[str, ...] = ("a", "b")
    seconds_per_window = 1e-6

    def infer(self, values: Floats) -> Predictions:
        """Return one half for each of two labels."""
        return Predictions(self.kind, self.labels, np.full((len(values), 2), 0.5), None)


class ScriptedSource:
    """Gives what the test says, read by read, and keeps what it is told."""

    def __init__(self) -> None:
        self.script: list[list[Message] | Callable[[], None]] = []
        self.acknowledged: list[int] = []
        self.published: list[tuple[str, dict[str, Any]]] = []
        self.served = 0
        self.renewed: list[int] = []

    def read(self, limit: int, timeout: float) -> list[Message]:
        """Return the next step's messages."""
        del limit
        while self.script:
            step = self.script.pop(0)
            if isinstance(step, list):
                return step
            step()
        time.sleep(min(timeout, 0.01))  # as a socket on which nothing comes
        return []

    def serve(self, timeout: float) -> None:
        """Count, and wait as a connection would."""
        self.served += 1
        time.sleep(min(timeout, 0.01))

    def buffered(self, limit: int) -> list[Message]:
        """Nothing is."""
        del limit
        return []

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Keep the identifiers."""
        self.acknowledged += [message.mid for message in messages if message.qos]

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Nothing comes of it."""

    def renew(self, connection: int) -> None:
        """Count it."""
        self.renewed.append(connection)

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, correlation: bytes | None = None
    ) -> None:
        """Keep it."""
        del qos, retain, correlation
        if payload.startswith(b"{"):
            self.published.append((topic, json.loads(payload)))


class Line:
    """A pipeline over a real store, with windows of two readings."""

    def __init__(
        self,
        directory: Path,
        bounds: Bounds = ROOMY,
        batch: int = 512,
        *,
        source: ScriptedSource | None = None,
        resumes: bool = True,
        sources: Sequence[dict[str, Any]] = (IMU,),
        legacy: HubLegacy | None = None,
        outputs: bool = False,
        others: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        """Put it together; `others` are the sources of further models by name, one each."""
        self._directory = directory
        self.opened: list[int] = []
        self.link = CloudLink()
        self.metrics = Metrics()
        clock = SystemClock()
        age = AgeClock(clock, None, 7 * 86400 * NS)
        by_slot = {MODEL_SLOT: sources, **{name: [one] for name, one in (others or {}).items()}}
        self.store = Store(directory, durability="normal", bounds=bounds, bridges=["files"], slots=list(by_slot))
        metrics = self.metrics
        configured = {name: [Source.model_validate(one) for one in own] for name, own in by_slot.items()}
        self.lanes = [self._lane(name, own) for name, own in configured.items()]
        self.control = self.lanes[0].filters
        self.computation = self.lanes[0].computation
        self.models = self.lanes[0].models
        self.loaders = [Loader(lane.name, lane.computation.recent, lambda: None) for lane in self.lanes]
        self.loader = self.loaders[0]
        self.source = source or ScriptedSource()
        self.receipts = Receipts(self.store.receipts())
        reporting = Reporting(
            root="mlade/line-1",
            source=self.source,
            lanes=self.lanes,
            store=self.store,
            deliveries=[],
            metrics=metrics,
            clock=clock,
            publish_inference=outputs,
            publish_every=3600,
            extra=dict,
            outputs=self.link if outputs else None,
        )
        twin = Twin(link=self.link, lanes=self.lanes, legacy=legacy, kept=self.store.meta("twin"))
        exchanges = [
            Exchange(
                lane=lane,
                source=self.source,
                loader=loader,
                problems=model_problems,
                metrics=metrics,
                clock=clock,
                report=twin.report,
                in_force=lambda: [one.models.in_force.fetched for one in self.lanes],
            )
            for lane, loader in zip(self.lanes, self.loaders, strict=True)
        ]
        self.exchange = exchanges[0]
        commands = Commands(
            lanes=self.lanes,
            store=self.store,
            deliveries=[],
            reporting=reporting,
            clock=clock,
            reloads={one.lane.name: one.reload for one in exchanges},
        )
        own_topics = ["mlade/line-1/command"]
        own_topics += [f"{lane.root}/{kind}" for lane in self.lanes for kind in ("filter", "model")]
        steering = Steering(
            root="mlade/line-1",
            processor="line-1",
            source=self.source,
            link=self.link,
            lanes=self.lanes,
            exchanges=exchanges,
            twin=twin,
            store=self.store,
            commands=commands,
            metrics=metrics,
            reporting=reporting,
            clock=clock,
            age=age,
            session=BrokerSession(None, [], wanted=True, metrics=metrics),
            subscriptions={topic: number for number, topic in enumerate(own_topics, 1)},
        )
        self.pipeline = Pipeline(
            source=self.source,
            requests=[self.link.take, *(one.take for one in self.loaders)],
            division=Division(
                [one for own in configured.values() for one in own],
                [number for number, own in enumerate(configured.values()) for _ in own],
                "mlade",
            ),
            lanes=self.lanes,
            store=self.store,
            receipts=self.receipts,
            steering=steering,
            reporting=reporting,
            metrics=metrics,
            clock=clock,
            age=age,
            notify=lambda: None,
            resumes=resumes,
            max_batch=batch,
            max_delay=0,
        )

    def _lane(self, slot: str, configured: Sequence[Source]) -> Lane:
        """Return the lane of a model that keeps all it gets."""
        state = self.store.slot(slot)
        windows = WindowBuffer(Shape(2, 2, 1, None), 100)
        journal = Journal(windows, "shape", state)
        document = validate_filter({"rules": [{"name": "all"}]})
        control = FilterControl(document, b"file", lambda _: (), state.meta("filter"), SystemClock().wall())
        state.commit(SlotChanges(meta={"filter": control.memory()}))
        model = EvenModel()
        fields = [(one.name, one.fields) for one in configured]

        def make_selection(active: FilterDocument, judge: Model) -> Selection:
            return Selection(active, judge.labels, fields)

        computation = Computation(
            "line-1",
            slot=slot,
            intake=Intake(configured, [decoder(one) for one in configured], windows, "mlade"),
            windows=windows,
            model=model,
            selection=make_selection(control.active, model),
            revision=control.revision,
            fields=dict(fields),
        )
        model_keys = {"path": "even.onnx", "filter": {"rules": []}}
        data = {"id": "line-1", "sources": [IMU], "models": {slot: model_keys}}
        (own,) = settings.build(data, self._directory).slots
        fetched = Fetched(references.parse("even.onnx"), self._directory / "even.onnx", "sha256:0", "1")
        in_force = InForce.of(Opened(own, model, fetched), None, "")
        models = ModelControl(own, in_force, state.meta("model"), SystemClock().wall(), wanted=None)
        return Lane(
            name=slot,
            root="mlade/line-1" if slot == MODEL_SLOT else f"mlade/line-1/models/{slot}",
            computation=computation,
            filters=control,
            models=models,
            make_selection=make_selection,
            journal=journal,
            sizes=WindowSize(
                configured=2,
                computation=computation,
                journal=journal,
                open_models=lambda size: (self.open_model(size), None),
                signature="windows of {}".format,
            ),
            source_names=[one.name for one in configured],
            fields=[],
        )

    def open_model(self, size: int) -> EvenModel:
        """Return the model for windows of a size; it takes none of 13 readings."""
        self.opened.append(size)
        if size == 13:
            raise ModelMisfit([Problem("model.window.size", "set model.window.size to 2")])
        return EvenModel()

    def play(self, *steps: list[Message] | Callable[[], None]) -> None:
        """Run until the script is through, then stop."""
        self.source.script = [*steps, self.pipeline.stop]
        self.pipeline._stopping = False  # another play may have gone before
        self.pipeline.run()

    def deliver(self) -> list[list[float]]:
        """Take everything out of the outbox, and return the samples' values."""
        outbox = self.store.outbox("files")
        outbox.open()
        waiting = outbox.peek(10_000, 1 << 30)
        events = [json.loads(event) for _, event in outbox.events(waiting)]
        outbox.confirm(waiting)
        outbox.close()
        return [[row[0] for row in event["data"]["readings"]["values"]] for event in events]


def reading(number: int, *, connection: int = 1, qos: int = 1) -> Message:
    """Return a message whose identifier, time and value are `number`; as it would come again."""
    payload = json.dumps({"t": START + number, "x": number}).encode()
    return Message("imu/1", payload, qos, number if qos else 0, (START + 100) * NS, dup=True, connection=connection)


def steering(kind: str, content: dict[str, Any], *, qos: int = 0, mid: int = 0) -> Message:
    """Return a filter or a command."""
    return Message(f"mlade/line-1/{kind}", json.dumps(content).encode(), qos, mid, START * NS, dup=True, connection=1)


@pytest.fixture(autouse=True)
def _try_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room each step tries to commit again, so that the scripts need no pauses."""
    monkeypatch.setattr("processor.pipeline._RETRY", 0.0)


def test_messages_are_acknowledged_in_order_after_their_samples_are_on_disk(tmp_path: Path) -> None:
    """Data, and what steers us at its place between."""
    line = Line(tmp_path)
    change = steering("filter", {"rules": [{"name": "other"}]}, qos=1, mid=3)
    line.play([reading(1), reading(2), change, reading(4)], [reading(5)])
    assert line.source.acknowledged == [1, 2, 3, 4, 5]
    assert line.deliver() == [[1, 2], [4, 5]]
    assert line.control.revision == 2


def test_nothing_is_acknowledged_without_room_and_everything_when_there_is(tmp_path: Path) -> None:
    """Also what came meanwhile; QoS 0 is lost."""
    line = Line(tmp_path, FULL)
    delivered: list[list[float]] = []

    def make_room() -> None:
        assert line.source.acknowledged == [1, 2]
        delivered.extend(line.deliver())

    line.play(
        [reading(1), reading(2)], [reading(3), reading(4)], [reading(5), reading(90, qos=0)], make_room, *[[]] * 100
    )
    assert delivered == [[1, 2]]
    assert line.source.acknowledged == [1, 2, 3, 4, 5]
    assert line.deliver() == [[3, 4]]


def test_a_stop_without_room_leaves_no_hole(tmp_path: Path) -> None:
    """What comes after the batch that has no room is not acknowledged either; the next run gets it all again."""
    line = Line(tmp_path, FULL)
    line.play([reading(1), reading(2)], [reading(3), reading(4)], [reading(5)], [reading(6), reading(7)])
    assert line.source.acknowledged == [1, 2]
    assert line.deliver() == [[1, 2]]
    line.store.close()
    line = Line(tmp_path)
    line.receipts.connected(1, session_present=True)
    line.play([reading(number) for number in range(3, 9)])
    assert line.deliver() == [[3, 4], [5, 6], [7, 8]]


def test_a_reconnect_without_room_repeats_nothing(tmp_path: Path) -> None:
    """What was read before it is taken in once, though the broker sends it again."""
    line = Line(tmp_path, FULL)
    delivered: list[list[float]] = []

    def reconnect() -> None:
        line.receipts.connected(2, session_present=True)

    def make_room() -> None:
        delivered.extend(line.deliver())

    again = [reading(number, connection=2) for number in range(3, 9)]
    wait: list[list[Message]] = [[]] * 100
    line.play(
        [reading(1), reading(2)], [reading(3), reading(4)], [reading(5), reading(6)], reconnect, again,
        make_room, *wait, make_room, *wait, make_room, *wait,
    )  # fmt: skip
    delivered.extend(line.deliver())
    assert delivered == [[1, 2], [3, 4], [5, 6], [7, 8]]


def test_a_message_without_effect_does_not_end_the_redelivery(tmp_path: Path) -> None:
    """Its receipt reaches the disk with the next that has one."""
    same = {"rules": [{"name": "other"}]}
    line = Line(tmp_path)
    line.play(
        [steering("filter", same, qos=1, mid=1)],
        [steering("filter", same, qos=1, mid=2)],
        [reading(3), reading(4), reading(5)],
    )
    line.store.close()
    line = Line(tmp_path)
    line.receipts.connected(1, session_present=True)
    line.play([steering("filter", same, qos=1, mid=2), *(reading(number) for number in (3, 4, 5, 6))])
    assert line.deliver() == [[3, 4], [5, 6]]


def test_a_filter_is_answered_only_when_it_is_on_disk(tmp_path: Path) -> None:
    """Commands are carried out meanwhile: for them there is room."""
    line = Line(tmp_path, FULL)
    seen: list[tuple[str, dict[str, Any]]] = []

    def look() -> None:
        seen.extend(line.source.published)
        line.source.published.clear()
        assert line.control.revision == 1
        line.deliver()

    line.play(
        [reading(1), reading(2)],
        [reading(3), reading(4), steering("filter", {"rules": [{"name": "new"}]}, qos=1, mid=5)],
        [steering("filter", {"rules": [{"name": "newest"}]})],
        [steering("command", {"command": "heartbeat", "id": 1}), steering("command", {"command": "pause", "id": 2})],
        look,
        *[[]] * 100,
    )
    answers = {body["id"]: body["status"] for topic, body in seen if topic.endswith("response")}
    assert answers == {1: "ok", 2: "ok"}
    assert not [topic for topic, _ in seen if topic.endswith("/state")]
    states = [body["revision"] for topic, body in line.source.published if topic.endswith("/state")]
    assert states == [2, 3]
    assert line.computation.paused


def test_what_was_held_goes_through_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much came while there was no room."""
    line = Line(tmp_path, FULL, batch=4)
    sizes: list[int] = []
    run = line.computation.run

    def counting(messages: Sequence[Message]) -> Outcome:
        sizes.append(len(messages))
        line.deliver()
        return run(messages)

    monkeypatch.setattr(line.computation, "run", counting)
    line.pipeline._sort_in([reading(number) for number in range(1, 51)])
    line.play(*[[]] * 3)
    assert sum(sizes) == 50
    assert max(sizes) == 4


@pytest.mark.parametrize(("slow", "expected"), [("always", True), ("once", False)])
def test_batches_shrink_while_messages_take_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str, *, expected: bool
) -> None:
    """A quarter of a second a batch, whatever it is that takes the time; one that was held up changes nothing."""
    line = Line(tmp_path)
    run, sizes = line.computation.run, []

    def slowly(messages: Sequence[Message]) -> Outcome:
        sizes.append(len(messages))
        if slow == "always" or len(sizes) == 2:
            time.sleep(0.02 * len(messages))
        return run(messages)

    monkeypatch.setattr(line.computation, "run", slowly)
    line.play(*([reading(number) for number in range(first, first + 20)] for first in range(1, 101, 20)))
    assert sum(sizes) == 100
    assert sizes[:2] == [20, 20]
    assert (max(sizes[2:]) <= 12) == expected
    line.store.close()


def test_batches_are_small_beside_a_slow_shadow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All windows of a batch may be its own."""
    line = Line(tmp_path)
    slow = EvenModel()
    slow.seconds_per_window = 0.05
    line.computation.shadow = Shadow(slow, "0", "line-1", 0.001, Comparison(slow, slow, "probabilities"))
    run, sizes = line.computation.run, []

    def counting(messages: Sequence[Message]) -> Outcome:
        sizes.append(len(messages))
        return run(messages)

    monkeypatch.setattr(line.computation, "run", counting)
    line.play([reading(number) for number in range(1, 21)])
    assert sizes == [4, 4, 4, 4, 4]
    line.store.close()


def test_what_the_inbox_has_no_room_for_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is let pass until then comes over the next connection; commands are answered all the time."""
    monkeypatch.setattr("processor.pipeline._INBOX_BYTES", 200)
    line = Line(tmp_path, FULL)
    delivered: list[list[float]] = []

    def make_room() -> None:
        delivered.extend(line.deliver())

    def reconnect() -> None:
        assert set(line.source.renewed) == {1}
        line.receipts.connected(2, session_present=True)

    ping = steering("command", {"command": "heartbeat", "id": 1})
    room: list[list[Message] | Callable[[], None]] = [make_room, [], []] * 20
    line.play(
        [reading(1), reading(2)], *[[reading(number)] for number in range(3, 51)], [ping], *room, [reading(51)],
        reconnect, [reading(number, connection=2) for number in range(1, 61)], *room,
    )  # fmt: skip
    assert [body["id"] for topic, body in line.source.published if topic.endswith("/response")] == [1]
    assert [*delivered, *line.deliver()] == [[number, number + 1] for number in range(1, 60, 2)]


def test_a_full_inbox_stops_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the broker keeps no session: the connection is served, and nothing more is read from it."""
    monkeypatch.setattr("processor.pipeline._INBOX_BYTES", 200)
    line = Line(tmp_path, FULL, resumes=False)
    line.source.script = [[reading(1), reading(2)], [reading(3), reading(4)], *[[reading(n)] for n in range(5, 60)]]
    for _ in range(40):
        line.pipeline.step(0.0)
    assert line.source.served > 20
    assert len(line.source.script) > 40


class WatchedSource(ScriptedSource):
    """Notes what is on disk when something is asked of Sparkplug's nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.store: Store | None = None
        self.asked: list[tuple[str, bool]] = []

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, correlation: bytes | None = None
    ) -> None:
        """Note whether the node is known to the store."""
        super().publish(topic, payload, qos=qos, retain=retain, correlation=correlation)
        if topic.startswith("spBv1.0/"):
            rows = [] if self.store is None else self.store.slot(MODEL_SLOT).remembered()
            self.asked.append((topic, any(key.endswith("/decoder/g/n") for _, key, _, _ in rows)))


def test_what_is_asked_goes_out_when_its_cause_is_on_disk(tmp_path: Path) -> None:
    """Once: the node is then known to have been asked, also after a restart."""
    for expected in ([("spBv1.0/g/NCMD/n", True)], []):
        source = WatchedSource()
        line = Line(tmp_path, source=source, sources=({"name": "nodes", "format": "sparkplug", "fields": ["x"]},))
        source.store = line.store
        rows = [Remembered(*row) for row in line.store.slot(MODEL_SLOT).remembered() if row[0] == OF_SOURCES]
        line.computation._intake.memory.restore(rows)
        data = sparkplug.payload([sparkplug.metric("x", 5)], seq=1)
        line.play([Message("spBv1.0/g/NDATA/n", data, arrival=START * NS, connection=1)])
        assert source.asked == expected
        assert line.metrics.total("requests") == len(expected)
        line.store.close()
