"""Intake: which source and stream a message belongs to, and in which order readings leave."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor import intake, topics
from processor.copies import filters, identifier
from processor.decoders import decoder
from processor.intake import Intake, Taken
from processor.metrics import Metrics
from processor.receipts import Receipts
from processor.retained import RetainedCopies
from processor.session import BrokerSession
from processor.source_sections import Source
from processor.types import Message, StreamName
from processor.windows import Shape, WindowBuffer
from tests import sparkplug


class Bench:
    """An intake over its windows, fed by topic and payload."""

    def __init__(self, *sources: dict[str, Any], max_streams: int = 100, copies: RetainedCopies | None = None) -> None:
        """Make sources of one field, `v`, unless told otherwise."""
        self.sources = [Source.model_validate({"fields": ["v"], **source}) for source in sources]
        self.windows = WindowBuffer(Shape(2, 1, len(self.sources[0].fields)), max_streams)
        decoders = [decoder(source) for source in self.sources]
        self.intake = Intake(self.sources, decoders, self.windows, "mlade", copies=copies)

    def take(self, *messages: Message) -> Taken:
        """Take a batch; its slots stay as they are until `done`."""
        return self.intake.take(messages)

    def done(self, taken: Taken) -> None:
        """Append the batch and release its slots."""
        self.windows.append(taken.readings)
        self.windows.release()

    def streams(self, taken: Taken) -> list[StreamName | None]:
        """Return the stream of each reading."""
        return [self.windows.names[slot] for slot in taken.readings.slots.tolist()]

    def names(self, *messages: Message) -> list[StreamName | None]:
        """Take a batch and return the stream of each reading."""
        taken = self.take(*messages)
        streams = self.streams(taken)
        self.done(taken)
        return streams


def variable_integer(value: int) -> bytes:
    """Encode as MQTT does."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value % 128 + 128)
        value //= 128
    return bytes([*encoded, value])


def message(topic: str, payload: bytes | float = 1, filters: Iterable[str] = (), **more: Any) -> Message:  # noqa: ANN401
    """Return a message, a number unless told otherwise, that came for the subscriptions to these filters."""
    data = payload if isinstance(payload, bytes) else str(payload).encode()
    properties = b"".join(b"\x0b" + variable_integer(identifier(text)) for text in filters)
    return Message(topic, data, properties=properties, **more)


def test_a_message_feeds_the_first_source_that_matches() -> None:
    """In the configuration's order; what no source asked for, and what is a processor's own, is ignored."""
    bench = Bench({"name": "narrow", "topics": ["x/1", "y/+"]}, {"name": "wide", "topics": ["#"]})
    batch = ["x/1", "x/2", "y/z", "y", "mlade/line-2/accepted/r", "mlade/line-1/filter", "mladex/1", "mlade", "$SYS/x"]
    taken = bench.take(*map(message, batch))
    assert bench.streams(taken) == [
        StreamName("narrow", "x/1"),
        StreamName("wide", "x/2"),
        StreamName("narrow", "y/z"),
        StreamName("wide", "y"),
        StreamName("wide", "mladex/1"),
        StreamName("wide", "mlade"),
    ]
    assert taken.origin.tolist() == [0, 1, 2, 3, 6, 7]
    assert taken.messages == [2, 4]
    assert taken.ignored == 3
    assert taken.dead_letters == []


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("{topic}", "plant/7/temp"),
        ("{topic[1]}", "7"),
        ("{topic[0]}-{topic[2]}", "plant-temp"),
        ("{source}", "s"),
        ("line {source}/{topic[1]}!", "line s/7!"),
        ("fixed", "fixed"),
        ("{field:d}", "pump"),
        ("{topic[1]}:{field:d}/{source}", "7:pump/s"),
        ("{field:/n/d}.", "nested."),
    ],
)
def test_stream_templates(template: str, key: str) -> None:
    """Levels of the topic, the source and a field of the payload, with text between them."""
    bench = Bench({"name": "s", "topics": ["plant/#"], "stream": template})
    assert bench.names(message("plant/7/temp", b'{"v": 1, "d": "pump", "n": {"d": "nested"}}')) == [
        StreamName("s", key)
    ]


def test_a_topic_that_names_no_stream_is_a_dead_letter() -> None:
    """Too few levels, or an empty one: each with its reason, every time, and the next message is read."""
    bench = Bench({"name": "s", "topics": ["a/#"], "stream": "{topic[1]}"})
    taken = bench.take(message("a", 1, arrival=5), message("a/", 2), message("a", 3), message("a/b", 4))
    assert [(letter.topic, letter.reason, letter.payload) for letter in taken.dead_letters] == [
        ("a", "stream", b"1"),
        ("a/", "stream", b"2"),
        ("a", "stream", b"3"),
    ]
    assert taken.dead_letters[0].detail == "the topic has too few levels for the stream '{topic[1]}' of source 's'"
    assert taken.dead_letters[0].arrival == 5
    assert "empty" in taken.dead_letters[1].detail
    assert bench.streams(taken) == [StreamName("s", "b")]


def test_a_payload_that_was_skipped_is_a_dead_letter() -> None:
    """With its size, the beginning of its payload, and no reading, though the beginning alone would decode."""
    bench = Bench({"name": "s", "topics": ["t"]})
    taken = bench.take(message("t", 1), message("t", b"123", oversize=2_000_000), message("t", 3))
    (letter,) = taken.dead_letters
    assert letter[2:] == ("too_large", "the payload has 2000000 bytes; broker.max_payload is less", b"123")
    assert taken.readings.values.ravel().tolist() == [1, 3]
    assert taken.origin.tolist() == [0, 2]


def test_dead_letters_keep_the_order_of_arrival_and_64_kib() -> None:
    """Whatever their reason and source; of a long payload the beginning."""
    bench = Bench({"name": "a", "topics": ["a/#"], "stream": "{topic[1]}"}, {"name": "b", "topics": ["b"]})
    junk = b"x" * 100_000
    taken = bench.take(
        message("b", junk), message("a"), message("a/1", b"?"), message("b", b"1", oversize=9), message("b", b"")
    )
    assert [letter.reason for letter in taken.dead_letters] == ["decode", "stream", "decode", "too_large", "decode"]
    assert [letter.topic for letter in taken.dead_letters] == ["b", "a", "a/1", "b", "b"]
    assert taken.dead_letters[0].payload == junk[:65_536]


def test_a_batch_without_readings() -> None:
    """Has arrays of the right shape all the same."""
    bench = Bench({"name": "s", "topics": ["t"]})
    for taken in (bench.take(), bench.take(message("t", b"?"), message("other"))):
        assert taken.readings.values.shape == (0, 1)
        assert taken.readings.slots.tolist() == taken.origin.tolist() == []


def test_overlapping_subscriptions_count_one_copy() -> None:
    """A broker sends a copy a subscription, or one with all identifiers; the first source's first filter counts."""
    bench = Bench(
        {"name": "first", "topics": ["a/+", "a/b"]}, {"name": "second", "topics": ["a/#", "c"], "stream": "two/{topic}"}
    )
    assert filters(bench.sources) == [(0, "a/+"), (0, "a/b"), (1, "a/#"), (1, "c")]
    copies = [message("a/b", number, [text]) for number, text in ((3, "a/#"), (1, "a/+"), (2, "a/b"))]
    taken = bench.take(
        *copies,
        message("a/b", 4, ["a/+", "a/b", "a/#"]),
        message("a/b", 5),
        message("a/b/c", 6, ["a/#"]),
        message("c", 7, ["c"]),
    )
    assert taken.readings.values.ravel().tolist() == [1, 4, 5, 6, 7]
    assert taken.ignored == 2
    assert taken.messages == [3, 2]
    assert [name.source for name in bench.streams(taken) if name] == ["first"] * 3 + ["second"] * 2


def test_a_lone_subscription_counts_whatever_its_identifier() -> None:
    """An identifier from an earlier configuration, kept by the broker's session, loses nothing."""
    bench = Bench({"name": "s", "topics": ["a/+"]})
    assert len(bench.names(message("a/b", 1, ["a/#"]), message("a/b", 2, ["a/+"]))) == 2


def test_shared_subscriptions_match_by_their_filter() -> None:
    """The group is no part of what matches."""
    bench = Bench({"name": "s", "topics": ["$share/group/a/+"]})
    assert bench.names(message("a/b"), message("$share/group/a/b")) == [StreamName("s", "a/b")]


def test_sources_that_interleave_keep_the_order_of_arrival() -> None:
    """Readings of several sources and of messages with many readings leave in the order in which they came."""
    bench = Bench(
        {"name": "a", "topics": ["a"]},
        {"name": "b", "topics": ["b"], "stream": "{field:d}", "time": "t"},
        {"name": "c", "topics": ["c"]},
    )
    batch = [
        message("c", 0, arrival=100),
        message("b", b'[{"v": 1, "d": "x", "t": 1}, {"v": 2, "d": "y", "t": 2}]', arrival=101),
        message("a", b"?", arrival=102),
        message("a", b'{"v": [3, 4]}', arrival=103),
        message("b", b'{"v": 5, "d": "x", "t": 3}', arrival=104),
        message("c", 6, arrival=105),
    ]
    taken = bench.take(*batch)
    assert taken.readings.values.ravel().tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert taken.origin.tolist() == [0, 1, 1, 3, 3, 4, 5]
    assert taken.readings.times.tolist() == [100, 10**9, 2 * 10**9, 103, 103, 3 * 10**9, 105]
    assert [name.key for name in bench.streams(taken) if name] == ["c", "x", "y", "a", "a", "x", "c"]
    assert taken.messages == [2, 2, 2]
    assert [letter.topic for letter in taken.dead_letters] == ["a"]


def test_one_key_in_two_sources_is_two_streams() -> None:
    """A stream's identity is its source and its key."""
    bench = Bench({"name": "a", "topics": ["a"], "stream": "k"}, {"name": "b", "topics": ["b"], "stream": "k"})
    assert bench.names(message("a"), message("b")) == [StreamName("a", "k"), StreamName("b", "k")]
    assert len(bench.windows) == 2


def test_more_topics_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgotten topics are found again, and topics of any length are read."""
    monkeypatch.setattr(intake, "_ROUTES", 3)
    bench = Bench({"name": "s", "topics": ["#"]})
    batch = ["a", "b", "c", "d", "a", "d", "e", "x" * 65_535, "x" * 65_535]
    assert [name.key for name in bench.names(*map(message, batch)) if name] == batch
    assert len(bench.intake._routes) <= 3
    assert all(len(topic) == 1 for topic in bench.intake._routes)


steps = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", "e"]), st.sampled_from("xyz")), max_size=12)


@given(st.lists(steps, max_size=6), st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_remembered_routes_survive_the_forgetting_of_streams(batches: list[list[tuple[str, str]]], most: int) -> None:
    """Whichever streams come and go, also within a batch, every reading is its own stream's."""
    bench = Bench(
        {"name": "topic", "topics": ["a", "b", "c"]},
        {"name": "field", "topics": ["d", "e"], "stream": "{field:k}"},
        max_streams=most,
    )
    for batch in batches:
        taken = bench.take(*(message(topic, b'{"v": 1, "k": "%s"}' % key.encode()) for topic, key in batch))
        expected = [StreamName("topic", topic) if topic < "d" else StreamName("field", key) for topic, key in batch]
        assert bench.streams(taken) == expected
        bench.done(taken)
        alive = {name for _, name in bench.windows.streams()}
        assert len(alive) <= most
        recent = list(dict.fromkeys(reversed(expected)))[:most]
        assert set(recent) <= alive


levels = st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=3).map("/".join).filter(bool)
patterns = st.sampled_from(["#", "+", "a", "a/#", "+/b", "a/b", "+/+", "a/+/b", "b/#"])


@given(st.lists(patterns, min_size=1, max_size=5, unique=True), st.integers(1, 3), st.lists(levels, max_size=8))
@settings(max_examples=150, deadline=None)
def test_every_message_is_read_once_whatever_overlaps(subscribed: list[str], count: int, arrived: list[str]) -> None:
    """With a copy for each matching subscription, in any of a broker's ways, each message gives one reading."""
    groups = [group for group in (subscribed[start::count] for start in range(count)) if group]
    bench = Bench(*({"name": f"s{at}", "topics": group} for at, group in enumerate(groups)))
    wanted = filters(bench.sources)
    batch = []
    expected = []
    for number, topic in enumerate(arrived):
        matching = [at for at, (_, text) in enumerate(wanted, start=1) if topics.matches(text, topic)]
        batch += [message(topic, number, [wanted[at - 1][1]]) for at in reversed(matching)]
        if matching:
            expected.append((number, f"s{wanted[matching[0] - 1][0]}"))
    taken = bench.take(*batch)
    sources = [name.source for name in bench.streams(taken) if name]
    assert list(zip(taken.readings.values.ravel().astype(int).tolist(), sources, strict=True)) == expected
    assert taken.ignored + len(expected) == len(batch)


def test_readings_of_many_channels() -> None:
    """Values stay rows, and belong to their slots."""
    bench = Bench({"name": "s", "topics": ["t"], "fields": ["x", "y"]})
    taken = bench.take(message("t", b'{"x": [1, 2], "y": [3, 4]}'), message("t", b"[5, 6]"))
    assert taken.readings.values.tolist() == [[1, 3], [2, 4], [5, 6]]
    assert np.unique(taken.readings.slots).size == 1


def test_a_retained_message_comes_once_whatever_the_subscribes() -> None:
    """MQTT 3.1.1 sends it with each SUBSCRIBE that matches; live copies do not carry the flag."""
    session = BrokerSession(None, ["r/#", "r/+", "single"], wanted=True, metrics=Metrics())
    copies = RetainedCopies(session, Receipts(), mqtt_5=False)
    bench = Bench({"name": "s", "topics": ["r/#", "r/+"]}, {"name": "single", "topics": ["single"]}, copies=copies)
    copy: dict[str, Any] = {"retain": True, "connection": 1}
    assert bench.names(message("r/1", **copy), message("r/1", **copy), message("single", **copy)) == [
        StreamName("s", "r/1"),
        StreamName("single", "single"),
    ]
    later: dict[str, Any] = {"retain": True, "connection": 2}
    assert bench.names(message("r/1", connection=2), message("r/1", **later), message("r/2", **later)) == [
        StreamName("s", "r/1"),
        StreamName("s", "r/2"),
    ]


def test_what_is_to_be_asked_leaves_with_the_batch() -> None:
    """Of whatever source; a stream is named by the format, not by the topic."""
    data = sparkplug.payload([sparkplug.metric("v", 5)], seq=1)
    bench = Bench({"name": "a", "format": "sparkplug"}, {"name": "b", "topics": ["b"], "format": "json"})
    taken = bench.take(message("b", 7), message("spBv1.0/g/NDATA/n", data, arrival=5), message("spBv1.0/g/NCMD/n", b""))
    assert [name and name.key for name in bench.streams(taken)] == ["b", "g/n"]
    assert [request.topic for request in taken.requests] == ["spBv1.0/g/NCMD/n"]
    bench.done(taken)
    assert bench.take(message("b", 8)).requests == []


def test_a_long_key_is_in_memory_once() -> None:
    """However many readings its payload has: memory is bounded by what arrived, not by its square."""
    bench = Bench({"name": "s", "topics": ["t"], "stream": "x-{field:d}", "fields": ["v"]})
    payload = json.dumps({"d": "k" * 60_000, "v": [0] * 20_000}).encode()
    tracemalloc.start()
    taken = bench.take(Message("t", payload, arrival=0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(taken.readings.slots) == 20_000
    assert peak < 64 << 20
