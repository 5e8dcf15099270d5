"""Objects with many readings: their times are exact, their values are what was sent, and what is wrong is told."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.decoders.times import evenly
from tests.unit.decoding import ENCODERS, NOW, STEP, complete, made, rows, run, shown, told

SECONDS = NOW // 10**9
FORMATS = list(ENCODERS)
BASE = {"time": "t0", "rate": 10}


def subject(format_: str = "json", **keys: Any) -> Any:  # noqa: ANN401 - a source's keys
    """Return a decoder of fields a and b, ten a second, unless told otherwise."""
    return made(format=format_, **{"fields": ["a", "b"], "base": BASE, **keys})


@pytest.mark.parametrize("format_", FORMATS)
def test_readings_follow_the_base_time(format_: str) -> None:
    """At the rate that the source, or a member of the object, says; also in an array of such objects."""
    encode = ENCODERS[format_]
    one = {"t0": SECONDS, "values": [[1, 2.5], [3, 4], ["5", True]], "r": 4, "m": {"r": "0.5"}}
    decoded = run(subject(format_), encode(one), encode([one, {**one, "t0": "2026-11-22T10:00:01Z"}]))
    assert decoded.values.tolist() == [[1, 2.5], [3, 4], [5, 1]] * 3
    assert decoded.times.tolist() == [NOW + after for second in (0, 0, 10**9) for after in (0, STEP, 2 * STEP)][:6] + [
        NOW + 10**9 + after for after in (0, STEP, 2 * STEP)
    ]
    assert decoded.origin.tolist() == [0] * 3 + [1] * 6
    for rate, step in (("r", 10**9 // 4), ("/m/r", 2 * 10**9), (0.3, Fraction(10**10, 3))):
        decoded = run(subject(format_, base={"time": "t0", "rate": rate, "values": "values"}), encode(one))
        assert decoded.times.tolist() == [NOW, NOW + round(step), NOW + round(2 * step)]


def test_the_example_of_the_documentation() -> None:
    """Is read as the page says."""
    decoded = shown("Many readings with one time")
    assert decoded.values.tolist() == [[0.01, -0.02, 0.98], [0.02, -0.02, 0.97]]
    assert decoded.times.tolist() == [NOW, NOW + 625_000]


@pytest.mark.parametrize("format_", FORMATS)
def test_pointers_keys_and_missing_values(format_: str) -> None:
    """Everything may lie deeper; a value that is null is held, or a constant; the stream may be named beside it."""
    encode = ENCODERS[format_]
    one = {"m": {"t": SECONDS, "v": [[1, None], [None, 4]]}, "d": 7, "t": SECONDS, "v": [[1, None], [None, 4]]}
    for base in ({"time": "t", "rate": 10, "values": "v"}, {"time": "/m/t", "rate": 10, "values": "/m/v"}):
        keys = {"base": base, "stream": "{field:d}"}
        assert rows(run(subject(format_, missing="hold", **keys), encode(one))) == [[1, None], [None, 4]]
        decoded = run(subject(format_, missing=-1, **keys), encode(one))
        assert rows(decoded) == [[1, -1], [-1, 4]]
        assert decoded.keys == ["7", "7"]
        (failed,) = run(subject(format_, **keys), encode(one)).failures
        name = base["values"]
        assert failed == (0, "field", f"field {name!r}, item 0, field 'b' is null; expected a number")


@pytest.mark.parametrize("format_", FORMATS)
def test_one_field_may_be_a_plain_array(format_: str) -> None:
    """Of numbers, or of arrays of one number each, or both."""
    encode = ENCODERS[format_]
    for values in ([1, 2, 3], [[1], [2], [3]], [1, [2], "3"]):
        for missing in ("reject", "hold", 0):
            decoded = run(subject(format_, fields=["a"], missing=missing), encode({"t0": SECONDS, "values": values}))
            assert rows(decoded) == [[1], [2], [3]]
    held = run(subject(format_, fields=["a"], missing="hold"), encode({"t0": SECONDS, "values": [1, None]}))
    assert rows(held) == [[1], [None]]


@pytest.mark.parametrize(
    ("payload", "reason", "sentence"),
    [
        (b"", "decode", "the payload is empty; expected JSON"),
        (b"5", "decode", "the payload is a number; expected an object"),
        (b"[]", "decode", "the payload is empty; expected an object"),
        (b'[{"t0": 1, "values": [[1, 2]]}, 5]', "decode", "item 1 is a number; expected an object"),
        (b"{}", "time", "no time: field 't0' is missing"),
        (b'{"t0": null, "values": [[1, 2]]}', "time", "no time: field 't0' is null"),
        (b'{"t0": "soon", "values": [[1, 2]]}', "time", "field 't0': 'soon' is not an ISO 8601 time"),
        (b'{"t0": [1], "values": [[1, 2]]}', "time", "field 't0': an array is not a time"),
        (b'{"t0": 9e9, "values": [[1, 2]]}', "time", "field 't0' is 7"),
        (b'{"t0": 9.2233720368e9, "values": [%s[1, 2]]}' % (b"[1, 2]," * 9), "time", "is after the year 2261"),
        (b'{"t0": 1}', "field", "field 'values' is missing; expected an array of readings"),
        (b'{"t0": 1, "values": []}', "field", "field 'values' is empty; expected an array of readings"),
        (b'{"t0": 1, "values": {"a": 1}}', "field", "field 'values' is an object; expected an array of readings"),
        (b'{"t0": 1, "values": [1, 2]}', "field", "field 'values', item 0 is a number; expected an array of 2 numbers"),
        (b'{"t0": 1, "values": [[1, 2], [3]]}', "field", "field 'values', item 1 has 1 numbers; expected 2: a, b"),
        (b'{"t0": 1, "values": [[1, 2, 3]]}', "field", "field 'values', item 0 has 3 numbers; expected 2: a, b"),
        (b'{"t0": 1, "values": [[1, 2], []]}', "field", "field 'values', item 1 has 0 numbers; expected 2: a, b"),
        (b'{"t0": 1, "values": [[1, "x"]]}', "field", "field 'values', item 0, field 'b' is 'x'; expected a number"),
        (b'{"t0": 1, "values": [[1, [2]]]}', "field", "field 'values', item 0, field 'b' is an array; expected"),
        (b'{"t0": 1, "values": [[1, 2], [NaN, 2]]}', "not_finite", "field 'a' is nan; expected a finite number"),
        (b'{"t0": 1, "values": [[1, 1e999]]}', "not_finite", "field 'b' is inf; expected a finite number"),
    ],
)
def test_failures(payload: bytes, reason: str, sentence: str) -> None:
    """The payload gives nothing; its neighbours are read."""
    good = b'{"t0": 1795341600, "values": [[1, 2]]}'
    decoded = run(subject(), good, payload, good)
    assert decoded.origin.tolist() == [0, 2]
    ((position, found, detail),) = decoded.failures
    assert (position, found) == (1, reason)
    assert sentence in detail


@pytest.mark.parametrize(
    ("rate", "sentence"),
    [
        ("0", "field 't0': a rate of 0.0; expected readings in a second, more than 0"),
        ("-1", "field 't0': a rate of -1.0; expected readings in a second, more than 0"),
        ("1e999", "field 't0': a rate of inf; expected readings in a second, more than 0"),
        ("NaN", "field 't0': a rate of nan; expected readings in a second, more than 0"),
        ("5e-324", "field 't0': the last of 2 readings at a rate of 5e-324 is after the year 2261"),
        ("null", "field 'r' is null; expected a number"),
        ('"fast"', "field 'r' is 'fast'; expected a number"),
        ("[1]", "field 'r' is an array; expected a number"),
    ],
)
def test_rates_that_are_none(rate: str, sentence: str) -> None:
    """Are told with what was found."""
    payload = b'{"t0": 1, "r": %s, "values": [[1, 2], [3, 4]]}' % rate.encode()
    (failed,) = run(subject(base={"time": "t0", "rate": "r"}), payload).failures
    assert failed.detail == sentence


@given(
    st.integers(-(2**62), 2**62),
    st.integers(1, 10**6),
    st.one_of(st.floats(1e-3, 1e9), st.integers(1, 10**6).map(float), st.decimals("0.001", 1000, places=3).map(float)),
)
@settings(max_examples=100, deadline=None)
def test_times_do_not_drift(first: int, count: int, rate: float) -> None:
    """Each is the nearest nanosecond to where it is on paper, also the millionth."""
    exact = 10**9 / Fraction(repr(rate))
    if first + (count - 1) * exact > 2**63 - 2:
        return
    places = sorted({0, count // 3, count - 1})
    times = (
        evenly(first, count, rate) if count * rate < 1e12 and count < 2000 else evenly(first, min(count, 2000), rate)
    )
    for place in places:
        if place < len(times):
            assert abs(int(times[place]) - first - place * exact) <= Fraction(1, 2)


def test_a_million_times_at_an_odd_rate() -> None:
    """Ten minutes of them end where they should, on the nanosecond."""
    times = evenly(NOW, 10**6, 1666.7)
    assert int(times[-1]) == NOW + round(Fraction(10 * (10**6 - 1) * 10**9, 16667))
    assert set(np.diff(times).tolist()) == {599988, 599989}


def test_hostile_rates_take_no_time() -> None:
    """Neither many digits nor great powers."""
    payload = b'{"t0": 1, "r": %s, "values": [' + b"[1,2]," * 50_000 + b"[1,2]]}"
    for rate in (b"33.333333333333336", b"1.7976931348623157e308", b"1e-300", b"4.9e-324"):
        began = time.process_time()
        assert complete(run(subject(base={"time": "t0", "rate": "r"}), payload.replace(b"%s", rate)), 1)
        assert time.process_time() - began < 2


cells = st.floats(-9, 9) | st.integers(-9, 9) | st.none() | st.sampled_from(["5", "x", True, [1], 1e300])
anything = st.recursive(
    st.none() | st.integers(0, 2**40) | st.floats() | st.text(st.characters(codec="utf-8"), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["t0", "values", "r", "d"]), inner),
    max_leaves=6,
)
series = st.fixed_dictionaries(
    {"t0": st.sampled_from([SECONDS, str(SECONDS), SECONDS * 1000]) | anything},
    optional={
        "values": st.lists(st.lists(cells, min_size=2, max_size=2) | cells, max_size=3) | anything,
        "r": st.sampled_from([1, 0.1, "50", 0]) | anything,
        "d": st.text(st.characters(codec="utf-8"), max_size=2) | anything,
    },
)


@given(
    st.lists(series | st.lists(series, max_size=2) | anything, max_size=5),
    st.sampled_from(["reject", "hold", 0]),
    st.sampled_from([["a"], ["a", "b"]]),
)
@settings(max_examples=100, deadline=None)
def test_a_document_means_the_same_in_every_format(batch: list[object], missing: object, fields: list[str]) -> None:
    """The same readings and the same sentences, together and one by one, with and without typed structures."""
    keys = {"missing": missing, "fields": fields, "base": {"time": "t0", "rate": "r"}, "stream": "{field:d}"}
    answers = []
    for format_, encode in ENCODERS.items():
        quick, slow = subject(format_, **keys), subject(format_, **keys)
        payloads = list(map(encode, batch))
        together = run(quick, *payloads)
        assert complete(together, len(batch))
        slow._fast = None
        assert told(run(slow, *payloads)) == told(together)
        alone = []
        for index, payload in enumerate(payloads):
            for origin, *others in told(run(quick, payload, first=NOW + index * STEP)):
                alone.append((origin + index, *others))
        assert sorted(alone, key=str) == sorted(told(together), key=str)
        answers.append(told(together))
    assert answers[0] == answers[1] == answers[2]
