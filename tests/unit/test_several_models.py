"""Several models: each gives what it would give alone, whatever the batches, restarts and changes of the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor import topics
from processor.admission import Bounds
from processor.division import Division
from processor.exchange.beginning import begin
from processor.lanes import Lane, open_lane
from processor.metrics import Metrics
from processor.receipts import Receipts
from processor.retained import RetainedCopies
from processor.session import BrokerSession
from processor.settings import Settings, build, load_filter
from processor.slot_state import SlotChanges
from processor.store import Changes, Store
from processor.types import INPUTS, NS, Message
from tests import models
from tests.unit.test_pipeline import START

MOTIONS = {
    "path": "motions.onnx",
    "window": {"size": 4, "step": 2, "max_gap": "10s"},
    "filter": {
        "rules": [
            {"name": "few", "measure": "confidence", "band": {"max": 0.3}, "cooldown": {"for": "3s"}},
            {"name": "audit", "sample": 0.5, "context": {"before": 1, "after": 1}},
        ]
    },
}
NUMBERS = {
    "path": "numbers.onnx",
    "filter": {"rules": [{"name": "few", "measure": "value", "keep": {"share": 0.3, "over": 100}}]},
}
SOURCES = [
    {"name": "imu", "model": "motions", "topics": ["imu/+"], "fields": ["x", "y"], "time": "t", "missing": "hold"},
    {"name": "weight", "model": "numbers", "topics": ["+/weight", "imu/2"], "format": "number"},
    {"name": "late", "model": "motions", "topics": ["late/#", "a/weight"], "fields": ["x", "y"], "time": "t"},
]
OTHER_FILTERS: Mapping[str, Any] = {
    "motions": {
        "rules": [
            {"name": "audit", "sample": 0.3, "context": {"before": 2}},
            {"name": "all", "limit": {"max": 1, "per": "5s"}},
        ]
    },
    "numbers": {"rules": [{"name": "few", "measure": "value", "band": {"min": 0}, "dedup": {"distance": 0.1}}]},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with both models."""
    path = tmp_path_factory.mktemp("several")
    models.write(models.cnn(channels=2, size=4), path, "motions")
    models.write(models.identity(1), path, "numbers")
    return path


def configured(directory: Path, **changes: Any) -> Settings:  # noqa: ANN401 - YAML
    """Return settings of both models, with some keys changed."""
    data: dict[str, Any] = {"id": "line-1", "models": {"motions": MOTIONS, "numbers": NUMBERS}, "sources": SOURCES}
    return build({**data, **changes}, directory)


def alone(directory: Path, name: str) -> Settings:
    """Return settings with one of the models, as one of `models` still: its name is in its samples' ids."""
    of = {"motions": MOTIONS, "numbers": NUMBERS}
    return configured(directory, models={name: of[name]}, sources=[one for one in SOURCES if one["model"] == name])


class Step(NamedTuple):
    """What happens: a batch, a restart, or a filter for a model."""

    messages: Sequence[Message] = ()
    restart: bool = False
    filter: tuple[str, Mapping[str, Any]] | None = None


class Plant:
    """The lanes of a configuration over a real store, without a broker."""

    def __init__(self, directory: Path, whole: Settings) -> None:
        self._directory, self._settings = directory, whole
        self.events: dict[str, list[dict[str, Any]]] = {slot.name: [] for slot in whole.slots}
        self.letters: list[tuple[str, str]] = []
        self._configured = [(slot, *load_filter(slot)) for slot in whole.slots]
        self._start()

    def _start(self) -> None:
        names = [slot.name for slot in self._settings.slots]
        bounds = Bounds(1 << 30, NS, "drop_oldest")
        self.store = Store(self._directory, durability="normal", bounds=bounds, bridges=["files"], slots=names)
        session = BrokerSession(None, [], wanted=False, metrics=Metrics())
        copies = RetainedCopies(session, Receipts(b""), mqtt_5=True)
        self.lanes: dict[str, Lane] = {
            one[0].name: open_lane(
                begin(*one, self.store.slot(one[0].name).meta, START * NS),
                self.store.slot(one[0].name),
                window_size=None,
                paused=False,
                copies=copies,
                held=lambda: session.held,
            )
            for one in self._configured
        }
        self._division = Division.of(self._settings)
        slots = {name: SlotChanges(meta=lane.memory()) for name, lane in self.lanes.items()}
        self.store.commit(Changes(slots=slots), 0)

    def take(self, step: Step) -> None:
        """Do a step."""
        if step.restart:
            self.store.close()
            self._start()
        if step.filter is not None and step.filter[0] in self.lanes:
            self._change(*step.filter)
        changes = Changes()
        for lane, own in zip(self.lanes.values(), self._division.divide(step.messages), strict=True):
            outcome = lane.carry(own, changes)
            self.events[lane.name] += [json.loads(sample.event) for sample in outcome.outgoing]
            self.letters += [(letter.topic, letter.reason) for letter in outcome.dead_letters]
        self.store.commit(changes, 0)

    def _change(self, name: str, document: Mapping[str, Any]) -> None:
        lane = self.lanes[name]
        offer = lane.filters.offer(json.dumps(document).encode(), "topic", START * NS)
        if not offer.changed:
            return
        selection = lane.make_selection(offer.active, lane.computation.model)
        lane_memory = {"filter": offer.memory, **lane.computation.memory(selection)}
        self.store.slot(name).commit(SlotChanges(meta=lane_memory))
        offer.install()
        lane.computation.selection, lane.computation.revision = selection, lane.filters.revision


def read(plant: Plant, steps: Sequence[Step]) -> Plant:
    """Carry steps through, and close."""
    for step in steps:
        plant.take(step)
    plant.store.close()
    return plant


TOPICS = ("imu/1", "imu/2", "imu/weight", "a/weight", "b/weight", "late/1", "other", "mlade/line-1/status")


def first_source(topic: str) -> Mapping[str, Any] | None:
    """Return the source whose messages those of a topic are."""
    if topic.startswith("mlade/"):
        return None
    for source in SOURCES:
        if any(topics.matches(text, topic) for text in source["topics"]):
            return source
    return None


def read_by(model: str, steps: Sequence[Step]) -> list[Step]:
    """Return steps with the messages of one model only."""
    return [
        step._replace(
            messages=[one for one in step.messages if (first_source(one.topic) or {"model": None})["model"] == model]
        )
        for step in steps
    ]


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    """Draw a few minutes of both sensors, in batches, with restarts and filters between them."""
    dice = Random(draw(st.integers(0, 1 << 32)))  # noqa: S311 - drawn one by one, most batches would be small and alike
    values = (-2.0, -0.5, 0.0, 0.25, 1.0, 3.0)
    second = 0
    found = []
    for _ in range(draw(st.integers(1, 12))):
        messages = []
        for _ in range(dice.randint(0, 16)):
            second += dice.choice((1, 1, 1, 1, 1, 1, 1, 20))
            topic = dice.choice((*TOPICS, "imu/1", "imu/1", "imu/1"))
            source = first_source(topic)
            if source is not None and source["name"] == "weight":
                payload = str(dice.choice(values)) if dice.random() < 0.9 else "heavy"
            else:
                body = {"t": START + second, "x": dice.choice(values), "y": dice.choice(values)}
                payload = json.dumps({key: body[key] for key in body if key != "y" or dice.random() < 0.8})
            messages.append(Message(topic, payload.encode(), arrival=(START + second) * NS))
        change = dice.choice((None, None, None, "motions", "numbers"))
        filter_ = None if change is None else (change, OTHER_FILTERS[change])
        found.append(Step(messages, restart=dice.random() < 0.3, filter=filter_))
    return found


@given(steps())
@settings(max_examples=40, deadline=None)
def test_each_gives_what_it_would_give_alone(directory: Path, steps: list[Step]) -> None:
    """To the byte: ids, contexts, shares and revisions; and in the same order."""
    with TemporaryDirectory() as states:
        both = read(Plant(Path(states, "both"), configured(directory)), steps)
        letters = []
        for name in ("motions", "numbers"):
            single = read(Plant(Path(states, name), alone(directory, name)), read_by(name, steps))
            assert both.events[name] == single.events[name]
            letters += single.letters
        assert sorted(both.letters) == sorted(letters)


@given(steps())
@settings(max_examples=20, deadline=None)
def test_one_called_default_is_the_one_of_model_and_filter(directory: Path, steps: list[Step]) -> None:
    """Also in its ids; so that a second model can be added, and taken away, while the first goes on from its state."""
    plain = {key: value for key, value in MOTIONS.items() if key != "filter"}
    sources = [{**one, "model": None} for one in SOURCES if one["model"] == "motions"]
    one_model = build({"id": "line-1", "model": plain, "filter": MOTIONS["filter"], "sources": sources}, directory)
    two_models = configured(
        directory,
        models={"default": MOTIONS, "numbers": NUMBERS},
        sources=[{**one, "model": "default" if one["model"] == "motions" else "numbers"} for one in SOURCES],
    )
    mine = [
        step._replace(filter=("default", step.filter[1]) if step.filter and step.filter[0] == "motions" else None)
        for step in read_by("motions", steps)
    ]
    half = len(mine) // 2
    with TemporaryDirectory() as states:
        single = read(Plant(Path(states, "single"), one_model), mine)
        changing = read(Plant(Path(states, "changing"), one_model), mine[:half])
        both = read(Plant(Path(states, "changing"), two_models), mine[half:])
        assert changing.events["default"] + both.events["default"] == single.events["default"]
        assert all("slot" not in event["data"]["model"] for event in both.events["default"])


def test_what_a_sample_says_of_its_model(directory: Path, tmp_path: Path) -> None:
    """Its name in `models` beside the file's; and the same window of another model is another sample."""
    of_all = {"path": "numbers.onnx", "filter": {"rules": [{"name": "all"}]}}
    ids = []
    for name, other in ("ab", "ba"):
        source = {"name": "weight", "model": name, "topics": ["b/weight"], "format": "number"}
        idle = {"name": "idle", "model": other, "topics": ["idle"], "format": "number"}
        whole = configured(directory, models={"a": of_all, "b": of_all}, sources=[source, idle])
        plant = Plant(tmp_path / name, whole)
        (event,) = read(plant, [Step([Message("b/weight", b"3", arrival=START * NS)])]).events[name]
        assert event["data"]["model"]["slot"] == name
        assert event["data"]["model"]["name"] == "numbers"
        ids.append(event["id"])
    assert ids[0] != ids[1]


def test_inputs_of_an_edge_module_are_divided_too(directory: Path) -> None:
    """They have no broker's topic."""
    bridge = {"type": "iothub", "edge": True}
    sources = [
        {"input": "a", "model": "motions", "fields": ["x", "y"]},
        {"input": "b", "model": "numbers", "format": "number"},
    ]
    division = Division.of(configured(directory, broker=None, bridges=[bridge], sources=sources))
    messages = [Message(INPUTS + name, b"") for name in "abcab"]
    assert [[one.topic[-1] for one in part] for part in division.divide(messages)] == [list("aca"), list("bb")]


def test_memory_of_topics_is_bounded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and however long."""
    monkeypatch.setattr("processor.division._TOPICS", 10)
    division = Division.of(configured(directory))
    for number in range(100):
        first, second = division.divide([Message(f"late/{number}", b""), Message(f"{number}/weight", b"")])
        assert (len(first), len(second)) == (1, 1)
        assert len(division._known) <= 10
    known = list(division._known)
    division.divide([Message("late/" + "x" * 2000, b"")])
    assert list(division._known) in (known, [])
