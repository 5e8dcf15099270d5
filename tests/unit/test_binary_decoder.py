"""Binary: numbers by other people's packers, every failure, and nothing that a payload can do to its neighbours."""

from __future__ import annotations

import array
import struct
import sys
import time
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.decoders import decoder as decoder_of
from processor.decoders.binary import BinaryDecoder
from processor.errors import ConfigurationError
from processor.settings import build
from processor.source_sections import Source
from processor.types import Decoded, Failure
from tests.formats import example

NOW = 1_795_341_600_000_000_000
"""2026-11-22T10:00:00Z."""


def decoder(fields: int = 2, **keys: Any) -> BinaryDecoder:  # noqa: ANN401 - the section's keys
    """Return a decoder of some fields of little-endian float32 unless told otherwise."""
    names = [f"f{number}" for number in range(fields)]
    source = {"name": "s", "topics": ["t"], "format": "binary", "fields": names, "binary": keys}
    made = decoder_of(Source.model_validate(source))
    assert isinstance(made, BinaryDecoder)
    return made


def run(subject: BinaryDecoder, *payloads: bytes) -> Decoded:
    """Decode payloads that arrived a second apart from NOW on, and check what holds for any."""
    decoded = subject.decode(payloads, NOW + np.arange(len(payloads), dtype=np.int64) * 10**9, ["t"] * len(payloads))
    count = len(decoded.origin)
    assert decoded.values.shape == (count, subject._width)
    assert decoded.values.dtype == np.float64
    assert decoded.times.shape == (count,)
    assert decoded.times.dtype == decoded.origin.dtype == np.int64
    assert (np.diff(decoded.origin) >= 0).all()
    assert np.isfinite(decoded.values).all()
    assert decoded.keys is None
    assert decoded.absent is None
    failed = [failure.position for failure in decoded.failures]
    assert sorted({*failed, *decoded.origin.tolist()}) == list(range(len(payloads)))  # readings, or a failure
    assert len(failed) + len(set(decoded.origin.tolist())) == len(payloads)  # and just one of them
    return decoded


def failure(subject: BinaryDecoder, payload: bytes) -> Failure:
    """Return what is said of a payload between two good ones, which it must not affect."""
    good = bytes(subject._skip) + struct.pack("<2f", 0.5, 7)
    decoded = run(subject, good, payload, good)
    assert decoded.values.tolist() == [[0.5, 7]] * 2
    alone = run(subject, payload)
    assert alone.failures[0][1:] == decoded.failures[0][1:]
    return alone.failures[0]


def test_one_reading_is_all_fields_at_the_time_of_arrival() -> None:
    """What a microcontroller sends: the bytes of a packed structure."""
    decoded = run(decoder(3), struct.pack("<3f", 1.5, -2, 1e-3), struct.pack("<3f", 0, 1, 2))
    assert decoded.values.tolist() == [[1.5, -2, float(np.float32(1e-3))], [0, 1, 2]]
    assert decoded.times.tolist() == [NOW, NOW + 10**9]


PACKED = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f2": "e", "f4": "f",
          "f8": "d", "b1": "?"}  # fmt: skip
"""Numpy's names, and those of the struct module."""


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", PACKED)
def test_every_number_in_either_byte_order(dtype: str, order: str) -> None:
    """As the struct module packs it, the largest and the smallest, several readings in a message."""
    kind = np.dtype(dtype)
    ends = {"b": (False, True), "f": (-1.5, 0.25)}.get(kind.kind)
    if ends is None:
        limits = np.iinfo(dtype)
        ends = (limits.min, limits.max)
    numbers = [*ends, *reversed(ends), *ends]
    payload = struct.pack(f"{order}6{PACKED[dtype]}", *numbers)
    decoded = run(decoder(2, dtype=order + dtype), payload, payload)
    assert decoded.values.tolist() == np.array(numbers, np.float64).reshape(3, 2).tolist() * 2
    assert decoded.origin.tolist() == [0, 0, 0, 1, 1, 1]


def test_bytes_that_are_no_booleans_are_true() -> None:
    """A sender's true may be any byte but 0."""
    assert run(decoder(4, dtype="?"), bytes([0, 1, 2, 255])).values.tolist() == [[0, 1, 1, 1]]


@pytest.mark.skipif(sys.byteorder == "big", reason="the array module writes the machine's own order")
def test_what_pythons_arrays_hold() -> None:
    """`array.array("h", …).tobytes()`: 16-bit samples, one after another."""
    assert run(decoder(1, dtype="<i2"), array.array("h", [-3, 300, 7]).tobytes()).values.ravel().tolist() == [
        -3,
        300,
        7,
    ]


@pytest.mark.parametrize("order", ["TC", "CT"])
@pytest.mark.parametrize("dtype", ["<f4", ">i2", "u1", "<f8"])
def test_what_numpy_writes(order: str, dtype: str) -> None:
    """Readings side by side or channels side by side, behind a header, of several lengths in one batch."""
    batch = [np.arange(3 * count).reshape(count, 3).astype(dtype) for count in (4, 1, 4, 7, 1)]
    payloads = [b"head" + (each if order == "TC" else each.T).tobytes() for each in batch]
    decoded = run(decoder(3, dtype=dtype, order=order, skip=4), *payloads)
    assert decoded.values.tolist() == np.concatenate(batch).tolist()
    assert decoded.origin.tolist() == np.repeat(range(5), [4, 1, 4, 7, 1]).tolist()


@pytest.mark.parametrize("rate", [1, 3, 100, 44_100, 0.1, 12.5, 1 / 3, 1e12, 5e-9])
def test_a_rate_spreads_times_back_from_the_arrival(rate: float) -> None:
    """The last reading came when the message did; each one before it at the whole nanosecond that is nearest."""
    counts = [5, 1, 12]
    decoded = run(decoder(1, dtype="u1", rate=rate), *map(bytes, counts))
    expected = []
    for position, count in enumerate(counts):
        arrival = NOW + position * 10**9
        exact = [Fraction(10**9 * back) / Fraction(repr(rate)) for back in reversed(range(count))]
        expected += [arrival - int(each + Fraction(1, 2)) for each in exact]
    assert decoded.times.tolist() == expected


def test_the_example_of_the_page() -> None:
    """As it stands there: 800 readings behind a header."""
    source, _ = example("Binary")
    payload = b"head" + np.arange(2400).astype("<i2").tobytes()
    decoded = decoder_of(source).decode([payload, payload[:-1]], np.array([NOW, NOW]), ["press/1/vibration"] * 2)
    assert decoded.values.tolist() == np.arange(2400).reshape(800, 3).tolist()
    assert decoded.times.tolist() == [NOW - 125_000 * back for back in reversed(range(800))]
    detail = "the payload has 4803 bytes; expected a multiple of 6 after a header of 4: a reading is 3 of <i2"
    assert decoded.failures == [(1, "decode", detail)]


def test_a_rate_that_would_reach_back_for_centuries() -> None:
    """Such a time does not exist here; a message of fewer readings is not affected."""
    decoded = run(decoder(1, dtype="u1", rate=1e-9), b"\1\2", b"\1" * 6, b"\3", b"")
    assert decoded.values.ravel().tolist() == [1, 2, 3]
    assert decoded.times.tolist() == [NOW - 10**18, NOW, NOW + 2 * 10**9]
    assert decoded.failures == [
        (1, "time", "6 readings at binary.rate would begin over 146 years ago"),
        (3, "decode", "the payload has 0 bytes; expected a multiple of 1: a reading is u1"),
    ]


@pytest.mark.parametrize(
    ("keys", "payload", "reason", "sentence"),
    [
        ({}, b"", "decode", "the payload has 0 bytes; expected a multiple of 8: a reading is 2 of <f4"),
        ({}, bytes(9), "decode", "the payload has 9 bytes; expected a multiple of 8: a reading is 2 of <f4"),
        ({"skip": 3}, bytes(3), "decode", "the payload has 3 bytes; expected a multiple of 8 after a header of 3: a"),
        ({"skip": 3}, b"x", "decode", "the payload has 1 bytes; expected a multiple of 8 after a header of 3"),
        ({"order": "CT"}, bytes(4), "decode", "the payload has 4 bytes; expected a multiple of 8"),
        ({}, struct.pack("<2f", 1, np.nan), "not_finite", "field 'f1' is nan; expected a finite number"),
        ({}, struct.pack("<4f", 1, 1, -np.inf, 1), "not_finite", "field 'f0' is -inf; expected a finite number"),
        ({"order": "CT"}, struct.pack("<4f", 1, 1, 1, np.inf), "not_finite", "field 'f1' is inf; expected a finite"),
        ({}, b"\1\0\xa0\x7f" * 2, "not_finite", "field 'f0' is nan; expected a finite number"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_failures(keys: Mapping[str, Any], payload: bytes, reason: str, sentence: str) -> None:
    """One failure a payload, with what was found and what was expected; its neighbours are read."""
    found = failure(decoder(2, **keys), payload)
    assert found.reason == reason
    assert sentence in found.detail


SECTIONS: tuple[Mapping[str, Any], ...] = (
    {},
    {"dtype": ">i2", "order": "CT", "skip": 1, "rate": 7.5},
    {"dtype": "?", "order": "CT"},
    {"dtype": "<f2", "rate": 1e-9},
    {"dtype": "u8", "skip": 2},
)


@pytest.mark.filterwarnings("error")
@given(
    st.lists(st.binary(max_size=50) | st.builds(bytes.__mul__, st.binary(max_size=8), st.integers(0, 40)), max_size=8),
    st.sampled_from(SECTIONS),
    st.integers(1, 3),
)
@settings(max_examples=150, deadline=None)
def test_a_batch_is_its_payloads_one_by_one(batch: list[bytes], keys: Mapping[str, Any], fields: int) -> None:
    """Whatever arrives, nothing is raised, and no payload changes what comes of another."""
    together = run(decoder(fields, **keys), *batch)
    readings, failures = [], []
    for index, payload in enumerate(batch):
        alone = decoder(fields, **keys).decode([payload], np.array([NOW + index * 10**9]), ["t"])
        readings += [(index, *row) for row in zip(alone.times.tolist(), alone.values.tolist(), strict=True)]
        failures += [(index, *failed[1:]) for failed in alone.failures]
    assert (
        list(zip(together.origin.tolist(), together.times.tolist(), together.values.tolist(), strict=True)) == readings
    )
    assert list(together.failures) == failures


def test_a_megabyte_in_one_message_takes_no_long_time() -> None:
    """Also where every byte is a reading with a time of its own, and the next message is a little longer."""
    started = time.process_time()
    subject = decoder(1, dtype="u1", rate=1000)
    for more in range(5):
        run(subject, bytes((1 << 20) + more))
    assert time.process_time() - started < 10  # half a second


@pytest.mark.parametrize(
    "dtype",
    [
        "O",
        "object",
        "S4",
        "U",
        "V8",
        "M8[s]",
        "<m8",
        "c8",
        "f16",
        "g",
        "f4,f4",
        "3f4",
        "(2,2)f4",
        "f3",
        "x",
        "",
        "é",
        " f4",
    ],
)
def test_what_is_no_number_is_refused_at_load(dtype: str) -> None:
    """Only whole numbers, reals and booleans of up to eight bytes, one at a time."""
    with pytest.raises(ConfigurationError) as refusal:
        _build({"binary": {"dtype": dtype}})
    (problem,) = refusal.value.problems
    assert problem.path == "sources[0].binary.dtype"
    assert (
        "expected numpy's name of a number: byte order < or >, kind i, u or f, and bytes, such as <f4"
        in problem.message
    )


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"binary": {"order": "CTC"}}, "binary.order", "expected TC or CT"),
        ({"binary": {"skip": -1}}, "binary.skip", "expected"),
        ({"binary": {"skip": 10**19}}, "binary.skip", "expected"),
        ({"binary": {"rate": 0}}, "binary.rate", "expected"),
        ({"time": "t"}, "time", "format binary has no such key"),
        ({"missing": "hold"}, "missing", "format binary has no such key"),
        ({"stream": "{field:d}"}, "stream", "a payload of format binary has no field with a name"),
    ],
)
def test_what_does_not_fit_is_told_at_load(keys: Mapping[str, Any], path: str, message: str) -> None:
    """With its path, and what was expected."""
    with pytest.raises(ConfigurationError) as refusal:
        _build(keys)
    (problem,) = refusal.value.problems
    assert problem.path == f"sources[0].{path}"
    assert message in problem.message


def _build(keys: Mapping[str, Any]) -> None:
    source = {"name": "s", "topics": ["t"], "format": "binary", "fields": ["a"], **keys}
    build({"id": "x", "sources": [source], "model": {"path": "m.onnx"}, "filter": {}}, Path("/"))
