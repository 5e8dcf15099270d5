"""CBOR: the examples of RFC 8949, tags that mean something here, and nothing that hangs or explodes."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import cbor2
import numpy as np
import pytest
from cbor2 import CBORTag
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.decoding import NOW, complete, made, run

SECONDS = NOW // 10**9


def subject(**keys: Any) -> Any:  # noqa: ANN401 - a source's keys
    """Return a decoder of the field a, unless told otherwise."""
    return made(format="cbor", **{"fields": ["a"], **keys})


def taken(written: str, **keys: Any) -> list[list[float]]:  # noqa: ANN401 - a source's keys
    """Return the values in bytes that are written as digits."""
    decoded = run(subject(**keys), bytes.fromhex(written))
    assert list(decoded.failures) == []
    found: list[list[float]] = decoded.values.tolist()
    return found


NUMBERS = {
    # RFC 8949, appendix A
    "00": 0,
    "01": 1,
    "0a": 10,
    "17": 23,
    "1818": 24,
    "1819": 25,
    "1864": 100,
    "1903e8": 1000,
    "1a000f4240": 1000000,
    "1b000000e8d4a51000": 1000000000000,
    "1bffffffffffffffff": 18446744073709551615,
    "c249010000000000000000": 18446744073709551616,
    "3bffffffffffffffff": -18446744073709551616,
    "c349010000000000000000": -18446744073709551617,
    "20": -1,
    "29": -10,
    "3863": -100,
    "3903e7": -1000,
    "f90000": 0.0,
    "f98000": -0.0,
    "f93c00": 1.0,
    "fb3ff199999999999a": 1.1,
    "f93e00": 1.5,
    "f97bff": 65504.0,
    "fa47c35000": 100000.0,
    "fa7f7fffff": 3.4028234663852886e38,
    "fb7e37e43c8800759c": 1.0e300,
    "f90001": 5.960464477539063e-8,
    "f90400": 0.00006103515625,
    "f9c400": -4.0,
    "fbc010666666666666": -4.1,
}


@pytest.mark.parametrize(("written", "value"), NUMBERS.items())
def test_numbers_of_the_rfc(written: str, value: float) -> None:
    """Alone, in an array, in a map, in a column, and in all of them where their length is not told before."""
    shapes = ("{}", "81{}", "a16161{}", "a1616181{}", "9f{}ff", "bf6161{}ff", "bf61619f{}ffff")
    for shape in shapes:
        found = taken(shape.format(written))
        assert found == [[float(value)]]
        assert math.copysign(1, found[0][0]) == math.copysign(1, value)


@pytest.mark.parametrize(
    ("written", "detail"),
    [
        # RFC 8949, appendix A
        ("f97c00", "field 'a' is inf; expected a finite number"),
        ("f97e00", "field 'a' is nan; expected a finite number"),
        ("fbfff0000000000000", "field 'a' is -inf; expected a finite number"),
        ("f4", None),
        ("f6", "field 'a' is null; expected a number"),
        ("f7", "field 'a' is undefined; expected a number"),
        ("f0", "field 'a' is of an unknown type; expected a number"),
        ("f8ff", "field 'a' is of an unknown type; expected a number"),
        ("c074323031332d30332d32315432303a30343a30305a", "field 'a' is a time; expected a number"),
        ("c11a514b67b0", "field 'a' is a time; expected a number"),
        ("d74401020304", "field 'a' is of an unknown type; expected a number"),
        ("d818456449455446", "field 'a' is of an unknown type; expected a number"),
        ("d82076687474703a2f2f7777772e6578616d706c652e636f6d", "field 'a' is of an unknown type; expected a number"),
        ("40", "field 'a' is bytes; expected a number"),
        ("4401020304", "field 'a' is bytes; expected a number"),
        ("60", "field 'a' is ''; expected a number"),
        ("6449455446", "field 'a' is 'IETF'; expected a number"),
        ("64f0908591", "field 'a' is '\U00010151'; expected a number"),
        ("7f657374726561646d696e67ff", "field 'a' is 'streaming'; expected a number"),
        ("80", "columns of different or no length: {'a': 0}; expected one value a reading in each"),
        ("8301820203820405", "field 'a', item 1 is an array; expected a number"),
        ("a0", "field 'a' is empty; expected a number"),
        ("a201020304", "field 'a' is an object; expected a number"),
    ],
)
def test_other_values_of_the_rfc(written: str, detail: str | None) -> None:
    """Are told in the field where a number is expected, and harm nowhere else."""
    value = bytes.fromhex(written)
    decoded = run(subject(), b"\xa1aa" + value, b"\xa2az" + value + b"aa\x05")
    assert decoded.values[-1].tolist() == [5]
    assert [failure.detail for failure in decoded.failures] == ([] if detail is None else [detail])


def test_undefined_is_missing() -> None:
    """As null is: what JavaScript's encoders write for a member without a value."""
    held = run(subject(missing="hold"), bytes.fromhex("a16161f7"), bytes.fromhex("a1616182f701"))
    assert held.absent is not None
    assert held.absent.tolist() == [[True], [True], [False]]
    assert taken("a16161f7", missing=7) == [[7]]


@pytest.mark.parametrize(
    ("written", "nanoseconds"),
    [
        ("c074323031332d30332d32315432303a30343a30305a", 1_363_896_240_000_000_000),
        ("c11a514b67b0", 1_363_896_240_000_000_000),
        ("c1fb41d452d9ec200000", 1_363_896_240_500_000_000),
        (cbor2.dumps(datetime(2026, 11, 22, 10, tzinfo=UTC)).hex(), NOW),
        (cbor2.dumps(datetime(2026, 11, 22, 12, tzinfo=timezone(timedelta(hours=2)))).hex(), NOW),
        (cbor2.dumps(datetime(2026, 11, 22, 10, tzinfo=UTC), datetime_as_timestamp=True).hex(), NOW),
        (cbor2.dumps(CBORTag(0, "2026-11-22T10:00:00.123456789Z")).hex(), NOW + 123_456_789),
        (cbor2.dumps(CBORTag(1, 5)).hex(), 5 * 10**9),
    ],
)
@pytest.mark.parametrize("unit", ["auto", "ms", "iso8601"])
def test_times(written: str, nanoseconds: int, unit: str) -> None:
    """Tags 0 and 1 are times by themselves, whatever unit others are in, in every shape."""
    moment = bytes.fromhex(written)
    one = b"\xa2bts" + moment + b"aa\x01"
    column = b"\xa2bts\x81" + moment + b"aa\x81\x01"
    decoded = run(subject(time="ts", time_unit=unit), one, b"\x81" + one, column)
    assert decoded.times.tolist() == [nanoseconds] * 3


def test_a_tagged_time_that_is_none_is_what_it_holds() -> None:
    """It harms nothing where it is not the time, and is told where it is."""
    for content in ("soon", math.nan, 1e300, [1], -(2**64)):
        for tag in (0, 1):
            payload = cbor2.dumps({"a": 1, "ts": CBORTag(tag, content)})
            assert run(subject(), payload).values.tolist() == [[1]]
            (failed,) = run(subject(time="ts"), payload).failures
            assert failed.reason == "time"
            assert failed.detail.startswith("field 'ts': ")


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (Decimal("273.15"), 273.15),
        (Decimal("-1E+400"), None),
        (CBORTag(4, [-2, 27315]), 273.15),
        (CBORTag(4, [10**9, 1]), None),
        (CBORTag(4, [-(10**9), 1]), 0),
        (CBORTag(4, [10**18, 0]), 0),
        (10**30, 1e30),
        (-(10**30), -1e30),
        (CBORTag(2, b"\0" * 500 + b"\1"), 1),
        (CBORTag(2, b"\1" * 5000), None),
        (CBORTag(3, b"\1" * 5000), None),
        (CBORTag(55799, 7), 7),
    ],
)
def test_numbers_in_tags(number: object, value: float | None) -> None:
    """Large integers and decimal fractions; infinite as a float is not finite."""
    decoded = run(subject(), cbor2.dumps({"a": number}))
    assert decoded.values.tolist() == ([] if value is None else [[value]])
    assert [failure.reason for failure in decoded.failures] == (["not_finite"] if value is None else [])


@pytest.mark.parametrize("dtype", ["u1", ">u2", "<u4", ">u8", "i1", "<i2", ">i4", "<i8", ">f2", "<f4", ">f4", "<f8"])
def test_typed_arrays(dtype: str) -> None:
    """The arrays of RFC 8746, which JavaScript's encoders write: as columns, as a reading, as a series."""
    numbers = np.array([1, 2, 3], dtype)
    tag = 0b010_00000 | (numbers.dtype.kind == "f") << 4 | (numbers.dtype.kind == "i") << 3
    tag |= dtype.startswith("<") << 2 | int(math.log2(numbers.itemsize)) - (numbers.dtype.kind == "f")
    array = CBORTag(tag, numbers.tobytes())
    assert run(subject(), cbor2.dumps({"a": array})).values.tolist() == [[1], [2], [3]]
    assert run(subject(fields=["a", "b", "c"]), cbor2.dumps(array)).values.tolist() == [[1, 2, 3]]
    series = subject(base={"time": "t", "rate": 1, "values": "v"})
    assert run(series, cbor2.dumps({"t": SECONDS, "v": array})).values.tolist() == [[1], [2], [3]]


@pytest.mark.parametrize(
    "tagged",
    [
        CBORTag(5, [10**9, 1]),
        CBORTag(28, [CBORTag(29, 0)]),
        CBORTag(256, ["aaaa", CBORTag(25, 0)]),
        Fraction(1, 3),
        CBORTag(35, "(" * 50_000 + ")" * 50_000),
        CBORTag(36, "x"),
        CBORTag(37, b"1234567890123456"),
        CBORTag(258, [1]),
        CBORTag(260, b"\x7f\0\0\1"),
        CBORTag(1004, "2026-11-22"),
        CBORTag(85, b"123"),
        CBORTag(4, [1]),
        CBORTag(2, 5),
        CBORTag(9999, {"a": 1}),
    ],
)
def test_tags_that_mean_nothing_here(tagged: object) -> None:
    """Are no numbers, cost nothing, and harm nothing where no number is expected."""
    decoded = run(subject(), cbor2.dumps({"a": 1, "z": tagged}), cbor2.dumps({"a": tagged}))
    assert decoded.values.tolist() == [[1]]
    assert [failure.detail for failure in decoded.failures] == ["field 'a' is of an unknown type; expected a number"]


BOMBS = {
    "empty": (b"", "the payload is empty; expected CBOR"),
    "JSON": (b'{"a": 1}', "the payload is not CBOR: "),
    "cut": (b"\xa1aa", "premature end"),
    "more": (b"\xa1aa\x01\x01", "1 bytes follow its end"),
    "reserved": (b"\x1c", "the payload is not CBOR: "),
    "break": (b"\xff", "break"),
    "endless": (b"\x9f\x01", "premature end"),
    "deep": (b"\x81" * 1_000_000, "nesting depth"),
    "deep without lengths": (b"\x9f" * 1_000_000, "nesting depth"),
    "deep maps": (b"\xa1aa" * 300_000, "nesting depth"),
    "deep tags": (b"\xc1" * 1_000_000, "nesting depth"),
    "array of 2^64": (b"\x9b" + b"\xff" * 8, "the payload is not CBOR: "),
    "array of 2^40": (b"\x9b\0\0\1\0\0\0\0\0", "premature end"),
    "map of 2^64": (b"\xbb" + b"\xff" * 8, "the payload is not CBOR: "),
    "text of 2^64": (b"\x7b" + b"\xff" * 8, "the payload is not CBOR: "),
    "text of 2^40": (b"\x7b\0\0\1\0\0\0\0\0", "premature end"),
    "bytes of 2^64": (b"\x5b" + b"\xff" * 8, "the payload is not CBOR: "),
    "bytes of 2^40": (b"\x5b\0\0\1\0\0\0\0\0", "premature end"),
    "lists of a million in one another": ((b"\x9a\0\x0f\x40\0" * 90).ljust(10**6, b"\1"), "premature end"),
    "keys that collide": (
        b"\xb9\x4e\x20" + b"".join(b"\xc2\x4a" + (key * (2**61 - 1)).to_bytes(10) + b"\0" for key in range(20_000)),
        "map key",
    ),
    "not UTF-8": (b"\xa1aaa\xff", "error decoding text string"),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("keys", [{}, {"missing": "hold"}, {"time": "ts"}, {"base": {"time": "t", "rate": 1}}])
def test_what_is_not_cbor(name: str, keys: dict[str, Any]) -> None:
    """Is refused in a sentence, in no time."""
    payload, sentence = BOMBS[name]
    began = time.process_time()
    (failed,) = run(subject(**keys), payload).failures
    assert time.process_time() - began < 1
    assert failed.reason == "decode"
    assert sentence in failed.detail


mutated = st.builds(
    lambda value, at, byte: (packed := cbor2.dumps(value))[: at % len(packed)] + byte + packed[at % len(packed) :],
    st.sampled_from(
        [
            {"a": 1.5, "ts": CBORTag(1, SECONDS)},
            [{"a": 1, "ts": SECONDS}, {"a": None, "ts": SECONDS}],
            {"a": [1, Decimal("2.5")], "ts": [SECONDS, CBORTag(0, "2026-11-22T10:00:00Z")]},
            {"t": SECONDS, "r": 2, "values": CBORTag(85, b"12345678")},
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
