"""MessagePack: bytes as its specification has them, times to the nanosecond, and nothing that hangs or explodes."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.decoding import NOW, complete, made, run

SECONDS = NOW // 10**9


def subject(**keys: Any) -> Any:  # noqa: ANN401 - a source's keys
    """Return a decoder of the field a, unless told otherwise."""
    return made(format="msgpack", **{"fields": ["a"], **keys})


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("00", 0),
        ("7f", 127),
        ("ff", -1),
        ("e0", -32),
        ("cc ff", 255),
        ("cd ffff", 65_535),
        ("ce ffffffff", 4_294_967_295),
        ("cf ffffffffffffffff", 18_446_744_073_709_551_615.0),
        ("d0 80", -128),
        ("d1 8000", -32_768),
        ("d2 80000000", -2_147_483_648),
        ("d3 8000000000000000", -9_223_372_036_854_775_808.0),
        ("ca 41b80000", 23),
        ("cb 4037800000000000", 23.5),
        ("c2", 0),
        ("c3", 1),
        ("a4 32332e35", 23.5),
        ("d9 04 32332e35", 23.5),
        ("da 0004 32332e35", 23.5),
        ("db 00000004 32332e35", 23.5),
    ],
)
def test_every_way_to_write_a_number(written: str, value: float) -> None:
    """Each format of the specification, as a member of a map of 1, 16 and 32 bits of length, in arrays, and alone."""
    number = bytes.fromhex(written)
    member = b"\xa1a" + number
    payloads = [b"\x81" + member, b"\xde\0\1" + member, b"\xdf\0\0\0\1" + member]
    payloads += [b"\x91" + number, b"\xdc\0\1" + number, b"\xdd\0\0\0\1" + number]
    payloads += [b"\x92\x81" + member + b"\x81" + member]
    if written[:2] not in ("c2", "c3", "a4", "d9", "da", "db"):
        payloads.append(number)
    assert {row[0] for row in run(subject(), *payloads).values.tolist()} == {value}


@pytest.mark.parametrize(
    ("timestamp", "nanoseconds"),
    [
        (msgpack.Timestamp(SECONDS), NOW),
        (msgpack.Timestamp(SECONDS, 123_456_789), NOW + 123_456_789),
        (msgpack.Timestamp(2**33, 1), 2**33 * 10**9 + 1),
        (msgpack.Timestamp(-1, 999_999_999), -1),
        (msgpack.Timestamp(5), 5 * 10**9),
        (datetime(2026, 11, 22, 10, tzinfo=UTC), NOW),
    ],
)
@pytest.mark.parametrize("unit", ["auto", "ms", "iso8601"])
def test_timestamps(timestamp: object, nanoseconds: int, unit: str) -> None:
    """The extension -1 in its three sizes is a time by itself, whatever unit others are in, in every shape."""
    with_time = subject(time="ts", time_unit=unit)
    shapes = ({"ts": timestamp, "a": 1}, [{"ts": timestamp, "a": 1}], {"ts": [timestamp], "a": [1]})
    payloads = [msgpack.packb(shape, datetime=True) for shape in shapes]
    assert run(with_time, *payloads, first=max(NOW, nanoseconds)).times.tolist() == [nanoseconds] * 3


def test_other_extensions_and_bytes_are_no_values() -> None:
    """They are told in the field where they matter, and nowhere else."""
    odd = {"x": msgpack.ExtType(5, b"12"), "y": b"\xff", "z": msgpack.Timestamp(1, 1)}
    assert run(subject(), msgpack.packb({**odd, "a": 1})).values.tolist() == [[1]]
    for name, found in (("x", "of an unknown type"), ("y", "bytes"), ("z", "a time")):
        (failed,) = run(subject(fields=[name]), msgpack.packb(odd)).failures
        assert failed == (0, "field", f"field {name!r} is {found}; expected a number")
    (failed,) = run(subject(time="x"), msgpack.packb({**odd, "a": 1})).failures
    assert failed == (0, "time", "field 'x': something else is not a time; expected a number or ISO 8601 text")
    far = msgpack.packb({"a": 1, "ts": msgpack.Timestamp(2**62, 0)})
    (failed,) = run(subject(time="ts"), far).failures
    assert failed == (0, "time", "field 'ts': it is outside the years 1678 to 2261")


BOMBS = {
    "empty": (b"", "the payload is empty; expected MessagePack"),
    "JSON": (b'{"a": 1}', "7 bytes follow its end"),
    "cut": (b"\x81\xa1a", "it ends before it is complete"),
    "more": (b"\x81\xa1a\x01\x01", "1 bytes follow its end"),
    "unused": (b"\xc1", "it has the byte 0xc1, which begins nothing"),
    "deep": (b"\x91" * 1_000_000, "too many arrays or objects inside one another"),
    "deep with times": (b"\x81\xa1a" * 300_000 + b"\xd6\xff\0\0\0\0", "too many arrays or objects"),
    "array of 2^32": (b"\xdd\xff\xff\xff\xff", "it ends before it is complete"),
    "map of 2^32": (b"\xdf\xff\xff\xff\xff\xd6\xff", "it ends before it is complete"),
    "text of 2^32": (b"\xdb\xff\xff\xff\xff", "it ends before it is complete"),
    "bytes of 2^32": (b"\xc6\xff\xff\xff\xff", "it ends before it is complete"),
    "extension of 2^32": (b"\xc9\xff\xff\xff\xff\xff", "it ends before it is complete"),
    "not UTF-8": (b"\x81\xa1a\xa1\xff", "text with the byte 0xff, which is not UTF-8"),
    "not UTF-8 with times": (b"\x82\xa1b\xd6\xff\0\0\0\0\xa1a\xa1\xff", "0xff, which is not UTF-8"),
    "a map as a key": (b"\x81\x80\x01", "it has a key that is an array or an object"),
    "a broken timestamp": (b"\x81\xa1a\xc7\x03\xff\0\0\0", "invalid timestamp"),
    "lists of a million in one another": ((b"\xdd\0\x0f\x40\0" * 900).ljust(10**6, b"\1"), "before it is complete"),
    "many keys": (b"\xde\xff\xff" + b"".join(b"\xcd%c%c\0" % divmod(key, 256) for key in range(65535)), "map key"),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("keys", [{}, {"missing": "hold"}, {"time": "ts"}, {"base": {"time": "t", "rate": 1}}])
def test_what_is_not_messagepack(name: str, keys: dict[str, Any]) -> None:
    """Is refused in a sentence, in no time."""
    payload, sentence = BOMBS[name]
    began = time.process_time()
    (failed,) = run(subject(**keys), payload).failures
    assert time.process_time() - began < 1
    assert failed.reason == "decode"
    assert sentence in failed.detail


mutated = st.builds(
    lambda value, at, byte: (packed := msgpack.packb(value))[: at % len(packed)] + byte + packed[at % len(packed) :],
    st.sampled_from(
        [
            {"a": 1.5, "ts": msgpack.Timestamp(SECONDS, 5)},
            [{"a": 1, "ts": SECONDS}, {"a": None, "ts": SECONDS}],
            {"a": [1, 2.5], "ts": [SECONDS, msgpack.Timestamp(SECONDS)]},
            {"t": SECONDS, "r": 2, "values": [[1], [2]]},
        ]
    ),
    st.integers(0, 60),
    st.binary(max_size=2),
)


@given(
    st.lists(st.binary(max_size=30) | mutated, max_size=6),
    st.sampled_from([{}, {"time": "ts", "missing": 0}, {"stream": "{field:ts}"}, {"base": {"time": "t", "rate": "r"}}]),
)
@settings(max_examples=200, deadline=None)
def test_anything_may_arrive(payloads: list[bytes], keys: dict[str, Any]) -> None:
    """Readings or a reason, never an exception."""
    assert complete(run(subject(**keys), *payloads), len(payloads))
