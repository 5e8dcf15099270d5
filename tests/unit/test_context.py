"""Windows beside samples: what a list of windows a stream says, whatever the batches, restarts and filter changes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.admission import Bounds
from processor.computation import Computation
from processor.context import problems
from processor.decoders import decoder
from processor.errors import ModelError
from processor.filter import validate_filter
from processor.intake import Intake
from processor.journal import Journal
from processor.memories import Memories
from processor.selection import Selection
from processor.slot_state import SlotChanges
from processor.source_sections import Source
from processor.store import Changes, Store
from processor.types import MODEL_SLOT, NS, Floats, Message, OutputKind, Predictions, Reason, Sample
from processor.windows import LookBack, Shape, WindowBuffer

SOURCE = Source.model_validate({"name": "s", "topics": ["t/+"], "fields": ["x"], "time": "t"})
GAP = 5
FAILS = 99.0


class Newest:
    """A model whose answer is the newest reading, and that fails where that is `FAILS`."""

    name = "newest"
    sha256 = ""
    kind: OutputKind = "value"
    labels: tuple[str, ...] = ()
    seconds_per_window = 1e-6

    def infer(self, values: Floats) -> Predictions:
        """Judge windows."""
        newest = values[:, -1, 0]
        if (newest == FAILS).any():
            raise ModelError("no")
        return Predictions("value", (), None, newest)


class Reading(NamedTuple):
    """One reading; its number is the second of its time, and tells it from all others."""

    stream: str
    time: int
    value: float

    def message(self) -> Message:
        """Return it as it comes."""
        return Message(f"t/{self.stream}", json.dumps({"t": self.time, "x": self.value}).encode(), arrival=2 * 10**18)


class Sent(NamedTuple):
    """A window that was sent, by its stream and its newest reading's time."""

    stream: str
    time: int
    rule: str
    of: int | None
    """The newest reading's time of the sample that it is beside."""
    offset: int | None


class Processor:
    """The path from messages to the store, without a broker."""

    def __init__(self, directory: Path, shape: Shape, max_streams: int, filter_: Mapping[str, Any]) -> None:
        """Start with a filter."""
        self._directory, self._shape, self._max_streams = directory, shape, max_streams
        self.start(filter_)

    def start(self, filter_: Mapping[str, Any]) -> None:
        """Go on from what is on disk."""
        bounds = Bounds(1 << 30, NS, "drop_oldest")
        self.store = store = Store(self._directory, durability="normal", bounds=bounds, bridges=[])
        self.state = state = store.slot(MODEL_SLOT)
        windows = WindowBuffer(self._shape, self._max_streams)
        windows.keep(LookBack(*(state.meta("look_back") or ())))
        self._journal = Journal(windows, "same", state)
        memories = Memories.kept(state.meta("memories"), state.remembered())
        self.computation = Computation(
            "p",
            intake=Intake([SOURCE], [decoder(SOURCE)], windows, "mlade"),
            windows=windows,
            model=Newest(),
            selection=Selection(validate_filter(filter_), (), [("s", ["x"])], memories),
            revision=1,
            fields={"s": ["x"]},
        )
        state.commit(SlotChanges(meta=self.computation.memory(self.computation.selection)))

    def change(self, filter_: Mapping[str, Any]) -> None:
        """Put another filter in force."""
        memories = self.computation.selection.memories.successor()
        selection = Selection(validate_filter(filter_), (), [("s", ["x"])], memories)
        self.state.commit(SlotChanges(meta=self.computation.memory(selection)))
        self.computation.selection = selection

    def take(self, batch: Sequence[Reading]) -> list[Sample]:
        """Carry a batch through."""
        outcome = self.computation.run([reading.message() for reading in batch])
        changes = Changes(samples=outcome.outgoing)
        own = changes.of(MODEL_SLOT)
        own.remembered = outcome.remembered
        self._journal.record(own, outcome.taken.readings.slots, outcome.past)
        self.store.commit(changes, 0)
        assert [sample for sample in outcome.outgoing if "context" not in selection_of(sample)] == outcome.samples
        return outcome.outgoing


def selection_of(sample: Sample) -> dict[str, Any]:
    """Return why a sample is one."""
    selection: dict[str, Any] = json.loads(sample.event)["data"]["selection"]
    return selection


def read(samples: Sequence[Sample]) -> list[Sent]:
    """Return samples as something to compare."""
    times = {sample.id: sample.time // NS for sample in samples}
    sent = []
    for sample in samples:
        context = selection_of(sample).get("context")
        of, offset = (None, None) if context is None else (times[context["of"]], context["offset"])
        sent.append(Sent(sample.stream, sample.time // NS, sample.rule, of, offset))
    # A window before a sample is sent before it, so that ids are looked up over all of them.
    return sent


@dataclass(slots=True)
class Run:
    """A stream's readings without a gap, by number, and what is known of its windows."""

    numbers: list[int] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    windows: dict[int, float] = field(default_factory=dict)  # by place, the model's answer
    sent: set[int] = field(default_factory=set)
    wanted: list[tuple[int, str, int, int]] = field(default_factory=list)  # place of the sample, rule, before, after


class Naive:
    """Lists of readings and windows, one reading at a time."""

    def __init__(self, shape: Shape, max_streams: int, filter_: Mapping[str, Any]) -> None:
        """Begin without streams."""
        self._shape, self._most = shape, max_streams
        self._runs: dict[str, Run] = {}  # the least recently heard first
        self._readings = self._since = self._history = 0
        self._follows = False
        self.sent: list[Sent] = []
        self.use(filter_)
        self._since = 0

    def use(self, filter_: Mapping[str, Any]) -> None:
        """Put a filter in force."""
        self._rules: list[dict[str, Any]] = filter_["rules"]
        self._contexts = {
            rule["name"]: (rule["context"]["before"], rule["context"]["after"])
            for rule in self._rules
            if any(rule["context"].values())
        }
        history = max((before for before, _ in self._contexts.values()), default=0)
        follows = bool(self._contexts)
        if history > self._history or (follows and not self._follows):
            self._since = self._readings
        self._history, self._follows = history, follows
        if not follows:
            for run in self._runs.values():
                run.sent.clear()
                run.wanted.clear()

    def take(self, reading: Reading) -> None:
        """Take the next reading."""
        if reading.stream not in self._runs and len(self._runs) == self._most:
            del self._runs[next(iter(self._runs))]
        run = self._runs.pop(reading.stream, Run())
        if run.readings and abs(reading.time - run.readings[-1].time) * NS > (self._shape.max_gap or 0):
            run = Run()
        self._runs[reading.stream] = run
        run.numbers.append(self._readings)
        run.readings.append(reading)
        self._readings += 1
        place = len(run.readings)
        size, step = self._shape.size, self._shape.step
        if place >= size and (place - size) % step == 0 and reading.value != FAILS:
            self._judge(reading, run, place)

    def _judge(self, reading: Reading, run: Run, place: int) -> None:
        step = self._shape.step
        run.windows[place] = reading.value
        for rule in self._rules:
            if rule["band"]["min"] <= reading.value <= rule["band"]["max"]:
                break
        else:
            for at, name, before, after in reversed(run.wanted):
                if self._contexts.get(name) == (before, after) and at < place <= at + after * step:
                    run.sent.add(place)
                    self._send(reading, name, run.readings[at - 1].time, (place - at) // step)
                    return
            return
        before, after = self._contexts.get(rule["name"], (0, 0))
        for steps in range(before, 0, -1):
            at = place - steps * step
            if at in run.windows and at not in run.sent and run.numbers[at - self._shape.size] >= self._since:
                run.sent.add(at)
                self._send(run.readings[at - 1], rule["name"], reading.time, -steps)
        if self._contexts:
            run.sent.add(place)
            run.wanted.append((place, rule["name"], before, after))
        self._send(reading, rule["name"], None, None)

    def _send(self, reading: Reading, rule: str, of: int | None, offset: int | None) -> None:
        self.sent.append(Sent(f"t/{reading.stream}", reading.time, rule, of, offset))


def rule(name: str, low: float, high: float, before: int, after: int) -> dict[str, Any]:
    """Return a rule that keeps values in a band, with a context."""
    band = {"min": low, "max": high}
    return {"name": name, "measure": "value", "band": band, "context": {"before": before, "after": after}}


class Scenario(NamedTuple):
    """What happens to a processor."""

    shape: Shape
    max_streams: int
    filter: Mapping[str, Any]
    steps: list[list[Reading] | Mapping[str, Any] | None]
    """A batch, another filter, or a restart."""


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Draw by a seed: drawn one by one, most would be over before anything happens."""
    random = Random(draw(st.integers(0, 2**32)))  # noqa: S311 - it draws test data
    size, step = random.choice([(1, 1), (1, 1), (1, 3), (2, 1), (3, 2), (4, 3)])
    streams = "abcd"[: random.randint(1, 4)]
    now = 1_790_000_000

    def filter_() -> Mapping[str, Any]:
        counts = [random.choice([0, 1, 2, 5]) if random.random() < 0.6 else 0 for _ in range(4)]
        if random.random() < 0.2:
            counts = [0, 0, 0, 0]
        rules = [rule("high", 8, 50, *counts[:2]), rule("low", -50, random.choice([-9, 0]), *counts[2:])]
        return {"rules": random.sample(rules, 2)}

    def batch() -> list[Reading]:
        nonlocal now
        readings = []
        for _ in range(random.choice([1, 1, 2, 5, 20])):
            now += random.choice([GAP, 20 * GAP]) if random.random() < 0.02 else 1
            value = FAILS if random.random() < 0.05 else float(random.randint(0, 9))
            # The first is a slow one.
            stream = random.choice(streams) if random.random() < 0.5 else streams[-1]
            readings.append(Reading(stream, now, value))
        return readings

    steps: list[list[Reading] | Mapping[str, Any] | None] = []
    for _ in range(draw(st.integers(1, 40))):
        event = random.random()
        steps.append(None if event < 0.15 else filter_() if event < 0.3 else batch())
    shape = Shape(size, step, 1, 4 * GAP * NS * len(streams))
    # Of single readings nothing is journaled while no filter has contexts, so which streams were heard is forgotten.
    max_streams = random.choice([2, 9]) if shape.remembers else 9
    return Scenario(shape, max_streams, filter_(), steps)


@settings(max_examples=200, deadline=None)
@given(scenarios())
def test_neighbours_are_sent_once_whatever_happens(scenario: Scenario) -> None:
    """Gaps, streams that are forgotten, windows that the model fails on, restarts, other filters: the same windows."""
    active = scenario.filter
    naive = Naive(scenario.shape, scenario.max_streams, active)
    found: list[Sample] = []
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        for bound in ("_LEAST_BYTES", "_SLACK"):  # so that it is pruned, and slow streams get snapshots
            patch.setattr(f"processor.journal.{bound}", 0)
        processor = Processor(Path(directory), scenario.shape, scenario.max_streams, active)
        for step in scenario.steps:
            if step is None:
                processor.store.close()
                processor.start(active)
            elif isinstance(step, list):
                for reading in step:
                    naive.take(reading)
                found += processor.take(step)
            else:
                active = step
                processor.change(active)
                naive.use(active)
        processor.store.close()
    assert read(found) == naive.sent


def line(*values: float, start: int = 1_790_000_000) -> list[Reading]:
    """Return readings of one stream, one a second."""
    return [Reading("a", start + at, float(value)) for at, value in enumerate(values)]


@pytest.fixture
def processor(tmp_path: Path) -> Processor:
    """Return a processor of single readings that keeps what is 9, with two before and one after."""
    return Processor(tmp_path, Shape(1, 1, 1, GAP * NS), 9, {"rules": [rule("nine", 9, 9, 2, 1)]})


def test_context_says_of_which_sample_it_is(processor: Processor) -> None:
    """With its own score, no chance, and its place beside the sample."""
    before, sample, after = processor.take(line(1, 9, 3, 4))
    assert selection_of(sample)["probability"] == 1.0
    assert "context" not in selection_of(sample)
    assert [selection_of(each)["context"] for each in (before, after)] == [
        {"of": sample.id, "offset": -1},
        {"of": sample.id, "offset": 1},
    ]
    for each, score in ((before, 1.0), (after, 3.0)):
        assert selection_of(each) | {"context": None} == {
            "rule": "nine",
            "measure": "value",
            "score": score,
            "band": [9.0, 9.0],
            "probability": None,
            "filter_revision": 1,
            "tags": {},
            "context": None,
        }
    assert (before.rule, before.priority) == (sample.rule, sample.priority)
    processor.store.close()


def test_overlapping_contexts_are_sent_once(processor: Processor) -> None:
    """A window beside two samples goes with the one that came first to it; a sample is beside none."""
    sent = read(processor.take(line(0, 0, 9, 0, 0, 9, 9, 0, 0)))
    start = 1_790_000_000
    assert [(one.time - start, one.of and one.of - start, one.offset) for one in sent] == [
        (0, 2, -2), (1, 2, -1), (2, None, None), (3, 2, 1), (4, 5, -1), (5, None, None), (6, None, None), (7, 6, 1),
    ]  # fmt: skip
    processor.store.close()


def test_a_context_that_is_changed_and_changed_back_goes_on(processor: Processor) -> None:
    """A sample of the meantime takes nothing from it."""
    processor.change({"rules": [rule("nine", 9, 9, 0, 3)]})
    processor.take(line(9))
    processor.change({"rules": [rule("nine", 9, 9, 0, 2)]})
    processor.take(line(9, start=1_790_000_001))
    processor.change({"rules": [rule("nine", 9, 9, 0, 3)]})
    (after,) = processor.take(line(0, start=1_790_000_002))
    assert selection_of(after)["context"]["offset"] == 2
    processor.store.close()


def test_context_does_not_reach_over_a_gap(processor: Processor) -> None:
    """On the other side, a window is no neighbour."""
    readings = [*line(1, 2), *line(9, start=1_790_000_000 + 1 + GAP + 1), *line(3, start=1_790_000_000 + 60)]
    assert [one.of for one in read(processor.take(readings))] == [None]
    processor.store.close()


def test_while_paused_nothing_is_sent(processor: Processor) -> None:
    """Not even what a sample before the pause wanted; what was read meanwhile is known after it."""
    processor.take(line(1, 9))
    processor.computation.paused = True
    paused = processor.computation.run([reading.message() for reading in line(0, 9, 5, start=1_790_000_002)])
    assert (paused.outgoing, set(paused.judgement.verdicts.reason.tolist())) == ([], {Reason.DISABLED})
    processor.computation.paused = False
    assert [one.offset for one in read(processor.take(line(9, start=1_790_000_005)))] == [-2, -1, None]
    processor.store.close()


def test_context_windows_keep_their_own_reasons(processor: Processor) -> None:
    """They are not accepted, and are counted as what they are."""
    outcome = processor.computation.run([reading.message() for reading in line(1, 9, 3)])
    assert [len(outcome.samples), len(outcome.outgoing)] == [1, 3]
    assert outcome.judgement.verdicts.reason.tolist() == [Reason.BAND, Reason.ACCEPTED, Reason.BAND]
    processor.store.close()


def test_a_large_part_of_a_batch_at_a_time_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where windows are made a few at once, so are their neighbours."""
    found = []
    for number, part in enumerate((16 << 20, 64)):
        monkeypatch.setattr("processor.computation._LARGEST_PART", part)
        processor = Processor(
            tmp_path / str(number), Shape(2, 1, 1, GAP * NS), 9, {"rules": [rule("nine", 9, 9, 5, 2)]}
        )
        found.append(read(processor.take(line(0, 1, 2, 3, 4, 9, 5, 6, 7, 8, 0, 9))))
        processor.store.close()
    assert found[0] == found[1]
    assert len(found[0]) == 11


def test_streams_that_are_forgotten_leave_nothing_behind(processor: Processor) -> None:
    """Neither in memory nor on disk, however many come and go."""
    for number in range(40):
        processor.take([Reading(str(number), 1_790_000_000 + number, 9.0)])
    assert len({key for _, key, _, _ in processor.state.remembered()}) == 9
    processor.store.close()


def test_a_model_s_answer_to_a_neighbour_may_be_missing(processor: Processor) -> None:
    """What the model failed on is no context."""
    assert [one.offset for one in read(processor.take(line(1, FAILS, 9)))] == [-2, None]
    processor.store.close()


def test_memory_for_what_was_before_is_bounded() -> None:
    """A filter that could take more than that is told so, where it says it."""
    filter_ = validate_filter({"rules": [rule("few", 0, 1, 3, 9), rule("many", 0, 1, 200, 0)]})
    (problem,) = problems(filter_, step=20, channels=6, max_streams=10_000)
    assert str(problem) == (
        "rules[1].context.before: 200 windows before each sample are 2441MiB of readings for model.window.max_streams "
        "10000 streams, at most 1GiB is allowed; have fewer of either"
    )
    assert not list(problems(filter_, step=20, channels=6, max_streams=1000))
