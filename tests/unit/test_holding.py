"""Held fields: what a reading lacks is what its stream had last, whatever the batches were."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.conditions.memory import ALL
from processor.decoders import decoder
from processor.intake import Intake
from processor.memories import OF_SOURCES, Remembered
from processor.source_sections import Source
from processor.types import Decoded, Message, Times
from processor.windows import Shape, WindowBuffer

FIELDS = ("a", "b", "c")
STREAMS = ("x", "y", "z")
MOST_STREAMS = 2
LACKING = "no value for 'b', here or earlier in this stream; missing: hold needs one to begin with"

Part = dict[str, float]
Change = tuple[str, Part]
"""A stream, and the fields that a message on it has."""

changes_of = st.tuples(
    st.sampled_from(STREAMS), st.dictionaries(st.sampled_from(FIELDS), st.integers(-9, 9).map(float), min_size=1)
)


class SparseDecoder:
    """Takes objects in which any field may be absent."""

    def decode(self, payloads: Sequence[bytes], arrivals: Times, topics: Sequence[str]) -> Decoded:
        """Decode; see `protocols.Decoder`."""
        del topics
        found = [json.loads(payload) for payload in payloads]
        values = np.array([[part.get(name, 7e77) for name in FIELDS] for part in found])
        absent = np.array([[name not in part for name in FIELDS] for part in found])
        return Decoded(np.arange(len(payloads)), arrivals, values, None, [], absent if absent.any() else None)


class Run:
    """An intake over windows of one reading, which may be stopped and go on from what it wrote."""

    def __init__(self) -> None:
        """Begin with an empty store."""
        self.stored: dict[tuple[str, int], bytes] = {}
        self.readings: list[tuple[str, list[float]]] = []
        self.lacking: list[str] = []
        self.start()

    def start(self) -> None:
        """Begin as after a restart."""
        source = Source.model_validate({"name": "s", "topics": ["+"], "fields": list(FIELDS), "missing": "hold"})
        self.windows = WindowBuffer(Shape(1, 1, len(FIELDS)), MOST_STREAMS)
        self.intake = Intake([source], [SparseDecoder()], self.windows, "mlade")
        rows = [Remembered(OF_SOURCES, key, part, value) for (key, part), value in sorted(self.stored.items())]
        self.intake.memory.restore(rows)

    def batch(self, changes: Sequence[Change]) -> None:
        """Carry a batch through and write what changed."""
        messages = [Message(stream, json.dumps(part).encode(), arrival=1) for stream, part in changes]
        taken = self.intake.take(messages)
        for slot, values in zip(taken.readings.slots.tolist(), taken.readings.values.tolist(), strict=True):
            name = self.windows.names[slot]
            assert name is not None
            self.readings.append((name.key, values))
        self.lacking += [letter.topic for letter in taken.dead_letters]
        self.windows.append(taken.readings)
        self.windows.release()
        for row in self.intake.memory.changes():
            if row.value is not None:
                self.stored[row.key, row.part] = row.value
            elif row.part == ALL:
                self.stored = {place: value for place, value in self.stored.items() if place[0] != row.key}
            else:
                self.stored.pop((row.key, row.part), None)


def expected(changes: Sequence[Change]) -> tuple[list[tuple[str, list[float]]], list[str]]:
    """Return what a reader of one message at a time makes of them."""
    known: dict[str, Part] = {}
    readings, lacking = [], []
    for stream, part in changes:
        known[stream] = known.pop(stream, {}) | part
        if len(known) > MOST_STREAMS:
            del known[next(iter(known))]
        if len(known[stream]) == len(FIELDS):
            readings.append((stream, [known[stream][name] for name in FIELDS]))
        else:
            lacking.append(stream)
    return readings, lacking


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.lists(changes_of, min_size=1, max_size=12), st.booleans()), max_size=6))
def test_batches_and_restarts_change_nothing(batches: list[tuple[list[Change], bool]]) -> None:
    """The readings are those of one message at a time; streams that were forgotten begin with nothing."""
    run = Run()
    for changes, restart in batches:
        run.batch(changes)
        if restart:
            run.start()
    readings, lacking = expected([change for changes, _ in batches for change in changes])
    assert run.readings == readings
    assert run.lacking == lacking
    assert len(run.stored) <= MOST_STREAMS


def test_a_reading_that_never_had_a_field_says_which() -> None:
    """It is a dead letter, and what it has counts for the next."""
    run = Run()
    taken = run.intake.take([Message("x", b'{"a": 1, "c": 3}')])
    (letter,) = taken.dead_letters
    assert (letter.reason, len(taken.readings.slots)) == ("field", 0)
    assert letter.detail == LACKING
    again = run.intake.take([Message("x", b'{"b": 2}')])
    assert again.readings.values.tolist() == [[1, 2, 3]]


def test_a_message_of_many_readings_that_lack_a_field_is_one_dead_letter() -> None:
    """It says how many there are; each letter keeps the payload, which would otherwise be there once for each."""
    keys = {"name": "s", "topics": ["+"], "fields": ["a", "b"], "missing": "hold"}
    source = Source.model_validate(keys)
    taking = Intake([source], [decoder(source)], WindowBuffer(Shape(1, 1, 2), MOST_STREAMS), "mlade")
    columns = json.dumps({"a": [1] * 500, "b": [None] * 499 + [2]}).encode()
    taken = taking.take([Message("x", columns), Message("y", b'{"a": 1}'), Message("x", b'{"a": 3}')])
    assert [(letter.topic, letter.detail) for letter in taken.dead_letters] == [
        ("x", f"{LACKING}; 499 of the payload's 500 readings lack a value"),
        ("y", LACKING),
    ]
    assert taken.readings.values.tolist() == [[1, 2], [3, 2]]


def test_a_message_that_is_a_dead_letter_already_is_not_one_again() -> None:
    """The first thing that is wrong with it is told."""
    keys = {"name": "s", "topics": ["+"], "format": "opcua", "fields": ["a", "b"], "missing": "hold"}
    source = Source.model_validate({**keys, "opcua": {"join": True}})
    taking = Intake([source], [decoder(source)], WindowBuffer(Shape(1, 1, 2), MOST_STREAMS), "mlade")
    (letter,) = taking.take([Message("x", b'[{"a": 1}, {"a": "warm"}]')]).dead_letters
    assert letter.detail == "node 'a': its value is 'warm'; expected a number"


def test_another_way_of_writing_the_source_begins_anew() -> None:
    """Last values of other fields would be wrong ones; their rows go."""
    run = Run()
    run.batch([("x", {"a": 1, "b": 2, "c": 3})])
    (key,) = run.stored
    other = (key[0].replace("s:", "s:0", 1), key[1])
    run.stored = {other: run.stored[key]}
    run.start()
    run.batch([("x", {"a": 5})])
    assert run.lacking == ["x"]
    assert list(run.stored) == [key]
