"""Text of one number: what sensors and shells publish, and what is none."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.decoding import NOW, STEP, complete, made, run, shown, told

subject = made(format="number")


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"23.5", 23.5),
        (b" 23.5\n", 23.5),
        (b"\t-7\r\n", -7),
        (b"1e3", 1000),
        (b"+1.5E-3", 0.0015),
        (b".5", 0.5),
        (b"5.", 5),
        (b"007", 7),
        (b"9007199254740993", 9007199254740992),
        (b"1e-999", 0),
    ],
)
def test_numbers(payload: bytes, value: float) -> None:
    """A reading of the arrival's time, whose field is `value` unless it has a name."""
    decoded = run(subject, payload, b"1")
    assert decoded.values.tolist() == [[value], [1]]
    assert decoded.times.tolist() == [NOW, NOW + STEP]
    assert decoded.keys is None


def test_the_example_of_the_documentation() -> None:
    """Is read as the page says."""
    assert shown("Number").values.tolist() == [[23.5]]


@pytest.mark.parametrize(
    ("payload", "reason", "sentence"),
    [
        (b"", "decode", "the payload is empty; expected one number such as 23.5"),
        (b" \n", "decode", "the payload is empty; expected one number such as 23.5"),
        (
            b"23,5",
            "decode",
            "the payload is '23,5'; expected one number such as 23.5, with a point instead of a comma",
        ),
        (b"ON", "decode", "the payload is 'ON'; expected one number such as 23.5"),
        (b"true", "decode", "the payload is 'true'; expected one number such as 23.5"),
        (b"23.5 C", "decode", "the payload is '23.5 C'; expected one number such as 23.5"),
        (b"1 2", "decode", "the payload is '1 2'; expected one number such as 23.5"),
        (b"1_000", "decode", "the payload is '1_000'; expected one number such as 23.5"),
        (b"0x1F", "decode", "the payload is '0x1F'; expected one number such as 23.5"),
        (b"23.5\0", "decode", "the payload is '23.5\\x00'; expected one number such as 23.5"),
        (b"\xff", "decode", "the payload is '\ufffd'; expected one number such as 23.5"),
        ("\u0663".encode(), "decode", "the payload is '\u0663'; expected one number such as 23.5"),
        (b'{"value": 1}', "decode", "the payload is '{\"value\": 1}'; expected one number such as 23.5"),
        (b"nan", "not_finite", "field 'value' is nan; expected a finite number"),
        (b"-Infinity", "not_finite", "field 'value' is -inf; expected a finite number"),
        (b"1e999", "not_finite", "field 'value' is inf; expected a finite number"),
    ],
)
def test_what_is_no_number(payload: bytes, reason: str, sentence: str) -> None:
    """Is told with what was found; its neighbours are read."""
    decoded = run(subject, b"1", payload, b"2")
    assert decoded.values.tolist() == [[1], [2]]
    assert list(decoded.failures) == [(1, reason, sentence)]


@pytest.mark.parametrize(
    "payload", [b"1" * 10**6, b"0." + b"1" * 10**6, b" " * 10**6, b"1e" + b"9" * 10**6, b"x" * 10**6]
)
def test_long_texts_take_no_time(payload: bytes) -> None:
    """Whatever they are."""
    began = time.process_time()
    assert complete(run(subject, payload), 1)
    assert time.process_time() - began < 1


@given(st.lists(st.binary(max_size=8) | st.floats().map(lambda number: repr(number).encode()), max_size=8))
@settings(max_examples=200, deadline=None)
def test_a_batch_is_its_payloads_one_by_one(payloads: list[bytes]) -> None:
    """Whatever arrives, nothing is raised, and no payload changes what comes of another."""
    together = run(subject, *payloads)
    assert complete(together, len(payloads))
    alone = []
    for index, payload in enumerate(payloads):
        for origin, *others in told(run(subject, payload, first=NOW + index * STEP)):
            alone.append((origin + index, *others))
    assert sorted(alone, key=str) == sorted(told(together), key=str)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_every_number_arrives_to_the_last_bit(numbers: list[float]) -> None:
    """As it was before it was written."""
    found = run(subject, *(repr(number).encode() for number in numbers)).values[:, 0].tolist()
    assert list(map(repr, found)) == list(map(repr, numbers))
