"""Sparkplug B: whatever arrives, in whatever batches and over restarts, there are readings or a reason, in bounds."""

from __future__ import annotations

import itertools
import random
import time
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processor.conditions.memory import ALL, Row
from processor.decoders.sparkplug import SparkplugDecoder
from processor.decoders.sparkplug.payloads import MOST_METRICS
from processor.protocols import RememberingDecoder
from processor.types import NS, Decoded, Request
from tests import sparkplug
from tests.sparkplug import Sent, compressed, metric, payload, recorded, tagged
from tests.unit.test_sparkplug_decoder import (
    BORN,
    NODE,
    NOW,
    PRESS,
    born,
    decoder,
    device,
    node,
    readings,
    reasons,
    run,
)

LIBRARIES = ("pysparkplug", "mqtt_spb_wrapper", "sparkplug_client")
TOPIC = device("DATA").topic


def refusal(data: bytes, topic: str = TOPIC) -> tuple[str, str]:
    """Return what is said of a payload between a birth and good data, which it must not affect."""
    found = run(born(), Sent(topic, data), device("DATA", metric("a", 5, at=5), seq=2))
    assert readings(found) == [(5, PRESS, [5, 2])]
    (said,) = reasons(found)
    assert found.failures[0].position == 0
    return said


# Topics.


@pytest.mark.parametrize(
    "topic",
    [
        "spBv1.0/STATE/host",
        "spBv1.0/Plant 1/STATE/host",  # as some still write it
        "spBv1.0/Plant 1/NCMD/line-1",
        "spBv1.0/Plant 1/DCMD/line-1/press",
    ],
)
def test_what_hosts_send_is_ignored(topic: str) -> None:
    """Whatever it holds."""
    found = run(born(), Sent(topic, b'{"online": true}'), Sent(topic, b""))
    assert (readings(found), found.failures, found.requests) == ([], [], ())


@pytest.mark.parametrize(
    "topic",
    [
        "spBv1.0",
        "spBv1.0/g",
        "spBv1.0/g/NDATA",
        "spBv1.0/g/NDATA/",
        "spBv1.0//NDATA/n",
        "spBv1.0/g/NDATA/n/d",
        "spBv1.0/g/DDATA/n",
        "spBv1.0/g/DDATA/n/",
        "spBv1.0/g/DDATA/n/d/e",
        "spBv1.0/g/ndata/n",
        "spAv1.0/g/NDATA/n",
        "plant/spBv1.0/g/NDATA/n",
        "",
    ],
)
def test_other_topics_are_refused(topic: str) -> None:
    """With what they should be."""
    reason, detail = refusal(payload([metric("a", 1)]), topic)
    assert reason == "topic"
    assert "expected spBv1.0/<group>/<NBIRTH, NDATA, NDEATH>/<edge node>, or DBIRTH and so on" in detail


def test_more_topics_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Are read again and again, as are very long ones."""
    monkeypatch.setattr("processor.decoders.sparkplug.addresses._REMEMBERED", 2)
    subject = decoder("a")
    names = [f"g/{number % 5}" for number in range(20)] + [f"g/{'n' * 60_000}"]
    found = run(subject, *(node("BIRTH", metric("a", n, at=n), name=name) for n, name in enumerate(names)))
    assert [key for _, key, _ in readings(found)] == names
    assert len(subject._addresses._known) <= 2


# Payloads.


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        (b"", "decode", "the payload is empty"),
        (b"\x08\x05", "decode", "the payload has no metrics and no number"),
        (b'{"a": 1}', "decode", "the payload is not one of Sparkplug B"),
        (payload([metric("a", 1)])[:-1], "decode", "the payload is not one of Sparkplug B"),
        (b"\x12\xff\xff\xff\xff\x07", "decode", "the payload is not one of Sparkplug B"),  # 2 GiB, it says
        (b"\x13" * 10_000, "decode", "the payload is not one of Sparkplug B"),  # groups inside one another
        (b"\x12\x00" * (MOST_METRICS + 1), "too_large", "the payload has more than 200000 metrics"),
        (payload(uuid="SPBV1.0_COMPRESSED"), "decode", "the payload's compressed body is cut off"),
        (payload(uuid="SPBV1.0_COMPRESSED", body=b"xyz"), "decode", "the payload's body is not compressed"),
        (compressed(b"\xff" * 99), "decode", "the payload is not one of Sparkplug B"),
    ],
)
def test_what_is_no_payload_is_refused(data: bytes, reason: str, said: str) -> None:
    """At once, and alone."""
    started = time.monotonic()
    found = refusal(data)
    assert found[0] == reason
    assert found[1].startswith(said)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("bits", [zlib.MAX_WBITS, zlib.MAX_WBITS | 16])
def test_a_body_that_is_cut_off_is_refused(bits: int) -> None:
    """With either compression."""
    compressor = zlib.compressobj(wbits=bits)
    body = compressor.compress(payload([metric("a", 1)], seq=2)) + compressor.flush()
    for end in range(10, len(body)):
        data = payload(uuid="SPBV1.0_COMPRESSED", body=body[:end])
        assert refusal(data) == ("decode", "the payload's compressed body is cut off")


def test_a_body_that_swells_is_refused() -> None:
    """Before it takes the room: gigabytes are some megabytes compressed."""
    bomb = compressed(bytes(64 << 20))
    assert len(bomb) < 1 << 16
    reason, detail = refusal(bomb)
    assert reason == "too_large"
    assert detail.startswith("the payload's body has ")
    assert refusal(compressed(b"\x12\x00" * (MOST_METRICS + 1)))[0] == "too_large"


def test_a_compressed_payload_keeps_its_number() -> None:
    """Where it stands outside of the body."""
    inner = payload([metric("a", 7, at=1)])
    outer = compressed(inner) + tagged(3, 2)
    found = run(born(), Sent(TOPIC, outer), device("DATA", metric("a", 8, at=2), seq=3))
    assert ([values for *_, values in readings(found)], found.requests) == ([[7, 2], [8, 2]], ())


def test_more_readings_than_a_payload_has_bytes_for_are_refused() -> None:
    """A metric alone, of a time of its own, is a reading of all fields."""
    fields = [f"f{number}" for number in range(500)]
    subject = decoder(*fields)
    run(subject, node("BIRTH", *(metric(name, 0, alias=number) for number, name in enumerate(fields))))
    one_each = [metric(None, 1, alias=3, at=number) for number in range(65)]
    assert len(readings(run(subject, node("DATA", *one_each[:64], seq=1)))) == 64
    found = run(subject, node("DATA", *one_each, seq=2))
    assert reasons(found) == [("too_large", "the payload holds 65 readings of 500 fields")]
    assert [request.why.partition(": ")[2] for request in found.requests] == [
        "it has sent more at once than can be taken in."
    ]


def test_a_payload_full_of_metrics_takes_no_longer_than_its_size() -> None:
    """As many as there may be, each of another time, or empty."""
    for one in (metric("a", 1, at=5), b"", metric(None, 1, alias=5)):
        subject = born()
        data = payload([one] * MOST_METRICS, seq=2)
        started = time.monotonic()
        run(subject, Sent(TOPIC, data))
        assert time.monotonic() - started < 10


# Bounds.


def weight(subject: SparkplugDecoder) -> int:
    """Return what a decoder counts, after checking the count."""
    nodes = subject._nodes
    counted = sum(64 + sum(map(nodes._size, one.parties.values())) for one in nodes._nodes.values())
    assert counted == nodes._known
    return counted


def test_the_least_recently_heard_node_is_forgotten() -> None:
    """Where there are too many: it is asked for its births when it comes again."""
    subject = decoder("a", most_known=1000)
    births = [node("BIRTH", metric("a", n, alias=1, at=n), name=f"g/{n}") for n in range(20)]
    run(subject, *births[:5])
    data = [node("DATA", metric(None, 9, alias=1, at=99), seq=1, name=f"g/{n}") for n in range(20)]
    assert not run(subject, data[0]).failures
    run(subject, *births[5:10])
    assert weight(subject) <= 1000
    known = [number for number in range(10) if subject._nodes.find(f"g/{number}")]
    assert known == [0, *range(10 - len(known) + 1, 10)]
    found = run(subject, data[1])
    assert [reason for reason, _ in reasons(found)] == ["birth"]
    assert [request.topic for request in found.requests] == ["spBv1.0/g/NCMD/1"]


def test_a_node_that_is_too_large_does_not_stay() -> None:
    """What it says is read as far as it needs no memory; it is asked at the pace of any node in trouble."""
    subject = decoder("a", most_known=1000)
    many = [metric(f"m{number}", 0, alias=number) for number in range(2000)]
    for second in range(0, 30, 3):
        found = run(
            subject, node("BIRTH", metric("a", 1, at=second), *many), node("DATA", metric("a", 2), seq=1), at=second
        )
        assert len(readings(found)) == 2
        assert bool(found.requests) == (second == 0)
        assert weight(subject) <= 1000
    run(subject, *(device("BIRTH", metric("a", 1), name=f"g/n/{number}") for number in range(100)))
    assert weight(subject) <= 1000
    assert run(subject, *BORN, device("DATA", metric("a", 5), seq=2)).requests == ()
    assert subject._nodes.find(NODE)


# Batches and restarts.


class Restarting:
    """A decoder whose memory goes through rows as the store keeps them."""

    def __init__(self, **keys: Any) -> None:  # noqa: ANN401 - the source's
        self._keys = keys
        self._rows: dict[tuple[str, int], bytes] = {}
        self.subject = decoder(**keys)

    def decode(self, batch: Sequence[tuple[Sent, int]]) -> Decoded:
        """Decode a batch and keep what changed."""
        arrivals = np.array([arrival for _, arrival in batch], np.int64)
        decoded = self.subject.decode([one.payload for one, _ in batch], arrivals, [one.topic for one, _ in batch])
        assert isinstance(self.subject, RememberingDecoder)
        changes = self.subject.changes()
        assert len({(row.key, row.part) for row in changes}) == len(changes)
        for row in changes:  # those that are gone come first
            if row.value is not None:
                self._rows[row.key, row.part] = row.value
            elif row.part == ALL:
                self._rows = {at: value for at, value in self._rows.items() if at[0] != row.key}
            else:
                self._rows.pop((row.key, row.part), None)
        assert self.subject.changes() == []
        return decoded

    def restart(self) -> None:
        """Go on with a new one."""
        self.subject = decoder(**self._keys)
        self.subject.restore([Row(*at, value) for at, value in sorted(self._rows.items())])
        assert self.subject.changes() == []
        weight(self.subject)


class Line(NamedTuple):
    """Everything that came of some messages, message by message."""

    readings: list[tuple[int, int, str, list[float], list[bool] | None]]
    failures: list[tuple[int, str, str]]
    requests: list[Request]


def play(subject: Restarting, messages: Sequence[tuple[Sent, int]], cuts: set[int], restarts: set[int]) -> Line:
    """Decode messages in batches that end at `cuts`; restart at some of them."""
    line = Line([], [], [])
    bounds = sorted({0, len(messages), *(cut for cut in cuts if cut < len(messages))})
    for start, end in itertools.pairwise(bounds):
        if start in restarts:
            subject.restart()
        found = subject.decode(messages[start:end])
        absent = found.absent
        for row, origin in enumerate(found.origin.tolist()):
            lacks = None if absent is None or not absent[row].any() else absent[row].tolist()
            values = found.values[row].tolist()
            if lacks is not None:
                values = [0.0 if lack else value for lack, value in zip(lacks, values, strict=True)]
            assert found.keys is not None
            line.readings.append((start + origin, int(found.times[row]), found.keys[row], values, lacks))
        line.failures.extend((start + position, reason, detail) for position, reason, detail in found.failures)
        line.requests.extend(found.requests)
    return line


@st.composite
def metrics(draw: st.DrawFn) -> bytes:
    """A metric of any kind: by name, alias or both, with or without value, type and time."""
    name = draw(st.sampled_from([None, "a", "b", "c", "bdSeq"]))
    alias = draw(st.sampled_from([None, 0, 1, 2, 3, 2**64 - 1]))
    kind = draw(
        st.sampled_from([sparkplug.INT8, sparkplug.INT64, sparkplug.DOUBLE, sparkplug.BOOLEAN, sparkplug.STRING])
    )
    value: Any = draw(st.integers(0, 300)) if kind != sparkplug.STRING else draw(st.sampled_from(["1.5", "x"]))
    if kind == sparkplug.DOUBLE and draw(st.integers(0, 9)) == 0:
        value = float("nan")
    return metric(
        name,
        draw(st.sampled_from([value, value, value, None])),
        kind=kind,
        alias=alias,
        at=draw(st.sampled_from([None, 0, 1, 2, 3, 2**62])),
        typed=draw(st.booleans()),
        null=draw(st.integers(0, 9)) == 0,
        history=draw(st.integers(0, 4)) == 0,
        quality=draw(st.sampled_from([None, None, None, 0, 192])),
    )


@st.composite
def messages(draw: st.DrawFn) -> tuple[Sent, int]:
    """A message of one of a few nodes and devices, mostly good, at some time."""
    kind = draw(st.sampled_from(["BIRTH", "BIRTH", "DATA", "DATA", "DATA", "DEATH"]))
    inside = draw(st.lists(metrics(), max_size=4))
    if kind == "BIRTH" and draw(st.booleans()):
        inside += [metric("a", 1, alias=1), metric("b", 2, alias=2)]
    seq = draw(st.sampled_from([None, 0, 1, 2, 3, 2**64 - 1]))
    edge = draw(st.sampled_from(["g/n", "g/m", "h/n"]))
    of_device = draw(st.booleans())
    made = device if of_device else node
    sent = made(kind, *inside, seq=seq, name=f"{edge}/{draw(st.sampled_from('xy'))}" if of_device else edge)
    if draw(st.integers(0, 5)) == 0:
        sent = Sent(sent.topic, compressed(sent.payload))
    return sent, NOW + draw(st.integers(-100, 400)) * NS // 4


KEYS = st.fixed_dictionaries(
    {"missing": st.sampled_from(["reject", "hold", 0.5]), "most_known": st.sampled_from([0, 300, 600, 10**6])}
)


@settings(max_examples=200, deadline=None)
@given(KEYS, st.lists(messages(), max_size=40), st.sets(st.integers(1, 39)), st.sets(st.integers(1, 39)))
def test_any_batches_and_restarts_give_the_same(
    keys: dict[str, Any], sent: list[tuple[Sent, int]], cuts: set[int], restarts: set[int]
) -> None:
    """Readings, failures and requests, as if the messages came in one batch and nothing ever stopped."""
    expected = play(Restarting(**keys), sent, set(), set())
    found = play(Restarting(**keys), sent, cuts | restarts, restarts)
    assert repr(found) == repr(expected)  # a NaN is not equal to itself
    positions = [position for position, *_ in expected.failures]
    assert positions == sorted(set(positions))


# Anything.


RECORDED = [sent for library in LIBRARIES for sent in recorded(library)]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(RECORDED), st.binary(max_size=200)), min_size=1, max_size=5))
def test_any_bytes_give_readings_or_a_reason(pieces: list[tuple[Sent, bytes]]) -> None:
    """Never an exception."""
    run(decoder("Temperature", "Flow"), *(Sent(sent.topic, data) for sent, data in pieces))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
@example(0)
def test_damaged_messages_give_readings_or_a_reason(seed: int) -> None:
    """Those of real libraries, with bytes changed, left out, doubled, and in any order."""
    chance = random.Random(seed)  # noqa: S311 - it draws test data
    sent = []
    for topic, data in chance.choices(RECORDED, k=8):
        damaged = bytearray(data)
        for _ in range(chance.randrange(4)):
            start = chance.randrange(len(damaged) + 1)
            end = start + chance.randrange(5)
            damaged[start:end] = chance.choice([b"", chance.randbytes(end - start), damaged[start:end] * 2])
        sent.append(Sent(topic, bytes(damaged)))
    subject = decoder("Temperature", "Level", "Flow", "Valve", missing=chance.choice(["reject", "hold", 1.0]))
    run(subject, *sent)
    run(subject, *RECORDED)
