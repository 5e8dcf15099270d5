"""One reading from several sensors: what goes together, what closes a group, and that batches and restarts do not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.admission import Bounds
from processor.decoders import decoder
from processor.decoders.groups import Groups, Joined
from processor.decoders.join import JoinDecoder
from processor.intake import Intake
from processor.memories import Remembered
from processor.slot_state import SlotChanges
from processor.source_sections import Source
from processor.store import Store
from processor.types import MODEL_SLOT, NS, Message
from processor.windows import Shape, WindowBuffer
from tests.formats import example
from tests.unit.decoding import ENCODERS, NOW, STEP, made, run, told

JOIN = {"by": "{topic[1]}", "topics": {"temp": "plant/+/temp", "vib": "plant/+/vib"}, "within": "500ms"}


class Sent(NamedTuple):
    """A message of a sensor."""

    key: str
    sensor: int
    time: int
    value: float


class Model:
    """What a join means, one message after another, with lists and nothing else."""

    def __init__(self, sensors: int, within: int, *, fill: bool, most: int) -> None:
        """Begin with nothing."""
        self.sensors, self.within, self.fill, self.most = sensors, within, fill, most
        self.groups: dict[str, list[Sent]] = {}
        self.latest: dict[str, list[Sent]] = {}
        self.heard: list[str] = []

    def take(self, sent: Sent) -> tuple[str, int, list[float]] | str | None:
        """Return the reading that a message brings, the key of a group without one, or None."""
        said = None
        if sent.key not in self.heard and len(self.heard) == self.most:
            oldest = self.heard.pop(0)
            said = self.close(oldest)
            del self.latest[oldest]
        self.heard = [key for key in self.heard if key != sent.key] + [sent.key]
        group = self.groups.get(sent.key, [])
        if any(other.sensor == sent.sensor for other in group) or any(
            not -self.within <= sent.time - other.time <= self.within for other in group[:1]
        ):
            said = self.close(sent.key)
        self.groups.setdefault(sent.key, []).append(sent)
        self.latest.setdefault(sent.key, []).append(sent)
        if {other.sensor for other in self.groups[sent.key]} == set(range(self.sensors)):
            said = self.close(sent.key)
        return said

    def close(self, key: str) -> tuple[str, int, list[float]] | str | None:
        """Return what becomes of the open group of a key."""
        group = self.groups.pop(key, [])
        if not group:
            return None
        parts = self.latest[key] if self.fill else group
        values = {part.sensor: part.value for part in parts}
        if len(values) < self.sensors:
            return key
        return key, max(part.time for part in group), [values[sensor] for sensor in range(self.sensors)]


steps = st.sampled_from([0, 1, 2, 3, 5, 8, 20, -1, -3, -20, -(2**62), 2**62])


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[Sent]]:
    """Draw a number of sensors, and their messages under a few keys, mostly going on in time."""
    sensors = draw(st.sampled_from([3, 2, 1]))
    keys = draw(st.sampled_from(["a", "ab", "abcd"]))
    time = 0
    history = []
    for number in range(draw(st.integers(0, 40))):
        time = max(-(2**63) + 1, min(2**63 - 1, time + draw(steps)))
        history.append(Sent(draw(st.sampled_from(keys)), draw(st.integers(0, sensors - 1)), time, float(number)))
    return sensors, history


def cut(history: Sequence[Any], cuts: Sequence[int]) -> Iterator[Sequence[Any]]:
    """Yield a history in batches that end at `cuts`."""
    bounds = sorted({0, len(history), *(at for at in cuts if at < len(history))})
    return (history[a:b] for a, b in itertools.pairwise(bounds))


class Kept:
    """Rows as the store keeps them."""

    def __init__(self) -> None:
        """Begin with none."""
        self.rows: dict[tuple[str, int], Any] = {}

    def write(self, rows: Sequence[Any]) -> None:
        """Take a batch's changes."""
        assert len({(row.key, row.part) for row in rows}) == len(rows)
        for row in rows:
            self.rows.pop((row.key, row.part), None)
            if row.value is not None:
                self.rows[row.key, row.part] = row

    def read(self) -> list[Any]:
        """Return all, ordered by key and part."""
        return [self.rows[place] for place in sorted(self.rows)]


@given(
    histories(),
    st.integers(0, 4),
    st.booleans(),
    st.sampled_from([1, 2, 3, 10]),
    st.lists(st.integers(0, 40), max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_groups_are_what_the_documentation_says(
    drawn: tuple[int, list[Sent]], within: int, fill: bool, most: int, restarts: list[int]
) -> None:
    """Each message brings the reading that it completes or closes, whatever keys are forgotten, over any restarts."""
    sensors, history = drawn
    model = Model(sensors, within, fill=fill, most=most)
    names = [f"s{sensor}" for sensor in range(sensors)]
    groups, kept = Groups(names, within, fill=fill, most=most), Kept()
    for batch in cut(history, restarts):
        for sent in batch:
            expected = model.take(sent)
            found = groups.take(sent.key, sent.sensor, (sent.time, (sent.value,)))
            if isinstance(expected, tuple):
                assert isinstance(found, Joined)
                assert (found.key, found.time, list(found.values)) == expected
            elif expected is None:
                assert found is None
            else:
                assert found is not None
                assert not isinstance(found, Joined)
                assert repr(expected) in found.why
        kept.write(groups.changes())
        assert groups.changes() == []
        assert len(kept.rows) <= most
        groups = Groups(names, within, fill=fill, most=most)
        groups.restore(kept.read())


def subject(format_: str = "json", **keys: Any) -> JoinDecoder:  # noqa: ANN401 - a source's keys
    """Return a decoder of temperature and vibration, unless told otherwise."""
    made_ = made(format=format_, **{"join": JOIN, **keys})
    assert isinstance(made_, JoinDecoder)
    return made_


messages = st.lists(
    st.tuples(
        st.sampled_from(["plant/1/temp", "plant/1/vib", "plant/2/temp", "plant/2/vib"]),
        st.sampled_from(
            [
                b"21.5",
                b"22",
                b'"23"',
                b"null",
                b"{",
                b'{"x": 1}',
                b'{"x": 2, "ts": 1795341600}',
                b'{"x": 3, "ts": "2026-11-22T10:00:00.3Z"}',
                b'{"x": "4", "ts": null}',
                b'{"x": NaN}',
                b'{"x": 5, "ts": "soon"}',
                b'{"x": 5, "ts": 99999999999}',
                b"[6]",
            ]
        ),
    ),
    max_size=20,
)


@given(
    messages,
    st.sampled_from(["none", "last"]),
    st.booleans(),
    st.lists(st.integers(0, 20), max_size=6),
    st.sets(st.integers(0, 6)),
)
@settings(max_examples=200, deadline=None)
def test_any_batches_and_restarts_give_the_same(
    sent: list[tuple[str, bytes]], fill: str, timed: bool, cuts: list[int], restarts: set[int]
) -> None:
    """Readings, times, keys and failures, and nothing is ever raised."""
    keys: dict[str, Any] = {"fields": ["temp", "/vib/x"], "join": {**JOIN, "fill": fill}}
    if timed:
        keys["time"] = "ts"
    whole = run(subject(**keys), *(payload for _, payload in sent), topics=[topic for topic, _ in sent])
    current, kept = subject(**keys), Kept()
    parts: list[tuple[Any, ...]] = []
    done = 0
    for number, batch in enumerate(cut(sent, cuts)):
        if number in restarts:
            current = subject(**keys)
            current.restore(kept.read())
        decoded = run(
            current, *(payload for _, payload in batch), topics=[topic for topic, _ in batch], first=NOW + done * STEP
        )
        parts += [(origin + done, *others) for origin, *others in told(decoded)]
        kept.write(current.changes())
        done += len(batch)
    assert sorted(parts, key=str) == sorted(told(whole), key=str)


@given(
    st.sampled_from([*ENCODERS, "number"]),
    st.lists(st.tuples(st.sampled_from(["plant/1/temp", "plant/1/vib"]), st.binary(max_size=12)), max_size=12),
    st.lists(st.integers(0, 12), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_anything_may_arrive(format_: str, sent: list[tuple[str, bytes]], cuts: list[int]) -> None:
    """In every format: readings, reasons or patience, never an exception, and the same in any batches."""
    whole = run(subject(format_), *(payload for _, payload in sent), topics=[topic for topic, _ in sent])
    current = subject(format_)
    parts: list[tuple[Any, ...]] = []
    done = 0
    for batch in cut(sent, cuts):
        topics = [topic for topic, _ in batch]
        decoded = run(current, *(payload for _, payload in batch), topics=topics, first=NOW + done * STEP)
        parts += [(origin + done, *others) for origin, *others in told(decoded)]
        done += len(batch)
    assert sorted(parts, key=str) == sorted(told(whole), key=str)


@pytest.mark.parametrize("format_", [*ENCODERS, "number"])
def test_bare_numbers_of_two_sensors(format_: str) -> None:
    """A reading when the second came, at the newer one's time, with the fields in their order, under the common key."""
    encode = ENCODERS.get(format_, lambda value: str(value).encode())
    topics = ["plant/1/vib", "plant/2/temp", "plant/1/temp", "plant/2/vib"]
    decoded = run(subject(format_), *map(encode, (0.5, 20, 21.5, 0.7)), topics=topics)
    assert decoded.values.tolist() == [[21.5, 0.5], [20, 0.7]]
    assert decoded.keys == ["1", "2"]
    assert decoded.origin.tolist() == [2, 3]
    assert decoded.times.tolist() == [NOW + 2 * STEP, NOW + 3 * STEP]
    assert list(decoded.failures) == []


@pytest.mark.parametrize("format_", ENCODERS)
def test_members_of_payloads_and_their_times(format_: str) -> None:
    """Pointers go on inside each payload; the time is what stands there, else the arrival."""
    encode = ENCODERS[format_]
    join = {**JOIN, "topics": {**JOIN["topics"], "odd": "plant/+/odd"}}  # type: ignore[dict-item]
    one = subject(format_, join=join, fields=["/vib/acc/1", "temp", "/vib/acc/0", "/odd/a~1b"], time="ts")
    payloads = [
        {"acc": [1, 2], "ts": NOW // 10**6 + 300},
        21,
        {"a/b": "7", "ts": None},
        {"acc": [3, "4"], "ts": "2026-11-22T10:00:00.9Z"},
        {"a/b": 8},
        "22",
    ]
    topics = [f"plant/1/{name}" for name in ("vib", "temp", "odd", "vib", "odd", "temp")]
    decoded = run(one, *map(encode, payloads), topics=topics)
    assert decoded.values.tolist() == [[2, 21, 1, 7], [4, 22, 3, 8]]
    assert decoded.times.tolist() == [NOW + 3 * STEP, NOW + 9 * STEP]


def test_what_did_not_come_is_told_or_filled() -> None:
    """On the message that closed the group, which itself begins the next one."""
    topics = ["plant/1/temp", "plant/1/temp", "plant/1/vib", "plant/1/temp", "plant/1/temp"]
    payloads = [b"1", b"2", b"0.5", b"3", b"4"]
    none = run(subject(), *payloads, topics=topics)
    assert none.values.tolist() == [[2, 0.5]]
    assert [failure[:2] for failure in none.failures] == [(1, "incomplete"), (4, "incomplete")]
    sentence = "no reading of '1' before this message: 'vib' did not come within 0.5 s of the others"
    assert none.failures[0].detail == sentence
    last = run(subject(join={**JOIN, "fill": "last"}), *payloads, topics=topics)
    assert last.values.tolist() == [[2, 0.5], [3, 0.5]]
    assert last.origin.tolist() == [2, 4]
    assert last.times.tolist() == [NOW + 2 * STEP, NOW + 3 * STEP]
    assert list(last.failures) == [(1, "incomplete", "no reading of '1' before this message: 'vib' has never come")]


def test_times_are_compared_with_the_first_of_the_group() -> None:
    """Not with the one before: a group lasts no longer than `within`, to the nanosecond."""
    for last, expected in ((5 * STEP, 1), (5 * STEP + 1, 0), (-5 * STEP, 1), (-5 * STEP - 1, 0)):
        groups = Groups(["a", "b", "c"], 5 * STEP, fill=False, most=9)
        found = [groups.take("k", number, (time, (0.0,))) for number, time in enumerate((0, last // 2, last))]
        assert sum(isinstance(one, Joined) for one in found) == expected


def test_a_payload_that_cannot_be_used_closes_nothing() -> None:
    """It is told, and the group goes on waiting."""
    topics = ["plant/1/temp", "plant/1/temp", "plant/1/vib", "plant/1/vib", "plant/1/vib"]
    decoded = run(subject(), b"1", b'{"x": 2}', b"nan", b"NaN", b"0.5", topics=topics)
    assert decoded.values.tolist() == [[1, 0.5]]
    assert [failure.detail for failure in decoded.failures] == [
        "field 'temp' is an object; expected a number",
        "the payload is not JSON: Expecting value at character 0",
        "field 'vib' is nan; expected a finite number",
    ]


def test_a_payload_counts_whatever_came_with_it() -> None:
    """What is passed over is not UTF-8: that is not looked at alone, nor beside a payload that has to be."""
    odd, bad = b'{"x": 1, "not\xff": 2}', b'{"x": null}'
    alone = told(run(subject(fields=["/temp/x", "/vib/x"]), odd, odd, topics=["plant/7/temp", "plant/7/vib"]))
    topics = ["plant/7/temp", "plant/7/vib", "plant/8/temp", "plant/8/vib"]
    together = told(run(subject(fields=["/temp/x", "/vib/x"]), odd, odd, bad, bad, topics=topics))
    assert [reading[2:] for reading in alone] == [("7", [1, 1])]
    assert together[: len(alone)] == alone


def test_the_example_of_the_documentation() -> None:
    """Is read as the page says."""
    payloads = [b"21.5", b'{"x": 0.03, "ts": 1795341600}']
    decoded = run(decoder(example("Joining topics").source), *payloads, topics=["plant/7/temp", "plant/7/vib"])
    assert decoded.values.tolist() == [[21.5, 0.03]]
    assert decoded.keys == ["7"]


def test_time_that_jumps_back_does_not_wedge() -> None:
    """Readings go on from wherever the clocks are."""
    times = [NOW, NOW + 100 * NS, NOW - 10**6 * NS, NOW - 10**6 * NS]
    sent = [(name, b'{"v": 1, "ts": %d}' % time) for time in times for name in ("temp", "vib")]
    both = subject(fields=["/temp/v", "/vib/v"], time="ts")
    decoded = run(both, *(payload for _, payload in sent), topics=[f"plant/1/{name}" for name, _ in sent])
    assert decoded.times.tolist() == times
    assert list(decoded.failures) == []


def test_more_keys_than_are_remembered() -> None:
    """The least recently heard is forgotten, and what it waited for is told."""
    topics = [f"plant/{number}/temp" for number in range(10_002)]
    one = subject()
    decoded = run(one, *[b"1"] * len(topics), topics=topics)
    assert [failure[:2] for failure in decoded.failures] == [(10_000, "incomplete"), (10_001, "incomplete")]
    assert "'0'" in decoded.failures[0].detail
    assert len(one.changes()) == 10_002
    assert run(one, b"2", topics=["plant/2/vib"]).values.tolist() == [[1, 2]]


def flaws(**keys: Any) -> Mapping[str, str]:  # noqa: ANN401 - the source's keys
    """Return what is wrong with a source that joins, by path."""
    try:
        Source.model_validate({"name": "s", "join": JOIN, **keys})
    except ValueError as error:
        return {".".join(map(str, one["loc"])): one["msg"] for one in error.errors()}  # type: ignore[attr-defined]
    return {}


@pytest.mark.parametrize(
    ("keys", "path", "sentence"),
    [
        ({"fields": ["temp", "vib", "x"]}, "fields.2", 'found "x", expected a name in join.topics ("temp", "vib")'),
        ({"fields": ["/temp/a", "/x/vib"]}, "fields.1", 'found "/x/vib", expected a name in join.topics'),
        ({"fields": ["temp"]}, "join.topics.vib", "no field comes from it"),
        ({"format": "number", "fields": ["temp", "/vib/x"]}, "fields.1", "a number has no parts"),
        ({"missing": "hold"}, "missing", "join.fill says what becomes of sensors that did not come"),
        ({"missing": 0}, "missing", "join.fill says"),
        ({"base": {"time": "t", "rate": 1}}, "base", "not possible in a join"),
        ({"stream": "{topic}"}, "stream", "join.by says it"),
        ({"topics": ["t"]}, "topics", "join.topics says it"),
        ({"join": {**JOIN, "by": "{topic}"}}, "join.by", "expected what the sensors' topics have in common"),
        ({"join": {**JOIN, "by": "{field:x}"}}, "join.by", "expected what the sensors' topics have in common"),
        ({"join": {**JOIN, "by": "{x}"}}, "join.by", "expected what the sensors' topics have in common"),
        ({"join": {**JOIN, "by": ""}}, "join.by", "expected what the sensors' topics have in common"),
        ({"join": {**JOIN, "by": "{topic[3]}"}}, "join.by", "have the levels {topic[0]} to {topic[2]}"),
        ({"join": {**JOIN, "topics": {"a": "t", "b": "t"}}}, "join.topics", "each filter once"),
        ({"join": {**JOIN, "topics": {"a": "t", "b": "$share/g/t"}}}, "join.topics", "does not all come here"),
        ({"join": {**JOIN, "topics": {"a": "t/#/x"}}}, "join.topics", "#"),
        ({"join": {**JOIN, "topics": {"a": "#", "b": "x/+/b"}}}, "join.topics", '"#" takes all messages of "x/+/b"'),
        ({"join": {**JOIN, "topics": {}}}, "join.topics", "at least 1 item"),
        ({"join": {**JOIN, "within": 0}}, "join.within", "duration"),
        ({"format": "csv"}, "join", "it belongs to json, msgpack, cbor, number"),
    ],
)
def test_mistakes_are_told_when_the_file_is_read(keys: dict[str, Any], path: str, sentence: str) -> None:
    """Each at its place, with what was expected."""
    assert sentence in flaws(**keys)[path]


def test_a_processor_that_is_killed_goes_on_with_half_a_reading(tmp_path: Path) -> None:
    """What came before is on disk with its batch: the other half completes it."""
    source = Source.model_validate({"name": "line", "join": {**JOIN, "fill": "last"}})

    def intake(store: Store) -> Intake:
        one = Intake([source], [decoder(source)], WindowBuffer(Shape(1, 1, 2), 10), "mlade")
        one.memory.restore([Remembered(*row) for row in store.slot(MODEL_SLOT).remembered()])
        return one

    def take(store: Store, one: Intake, *sent: tuple[str, object]) -> list[Any]:
        taken = one.take([Message(topic, json.dumps(value).encode(), arrival=NOW) for topic, value in sent])
        store.slot(MODEL_SLOT).commit(SlotChanges(remembered=one.memory.changes()))
        return [taken.readings.values.tolist(), [letter.reason for letter in taken.dead_letters]]

    def opened() -> Store:
        return Store(tmp_path, durability="normal", bounds=Bounds(1 << 20, NS, "drop_oldest"), bridges=[])

    store = opened()
    assert take(store, intake(store), ("plant/1/temp", 21)) == [[], []]
    store.close()
    store = opened()
    again = intake(store)
    assert take(store, again, ("plant/1/vib", 0.5), ("plant/1/temp", 22)) == [[[21, 0.5]], []]
    store.close()
    store = opened()
    assert take(store, intake(store), ("plant/1/temp", 23)) == [[[22, 0.5]], []]
    store.close()
