"""Events: identifiers by the contract's letter, valid CloudEvents, nothing lost of values and times."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from processor.events import date, event_id, inference, sample_event, timestamp, timestamps, uniform
from processor.types import Floats, Predictions, Times

LATEST = 2**63 - 1
RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{6}|\d{9})Z")
times_of_windows = hnp.arrays(np.int64, st.integers(1, 4), elements=st.integers(-LATEST, LATEST))
finite = st.floats(allow_nan=False, allow_infinity=False)


def nanoseconds(text: str) -> int:
    """Read an RFC 3339 time in UTC."""
    found = RFC_3339.fullmatch(text)
    assert found is not None, text
    moment = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) * 10**9 + int(found[2].ljust(9, "0"))


def event(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - a sample's parts
    """Make an event with some parts changed and parse it with Python's strict reader."""
    parts: dict[str, Any] = {
        "identifier": "0" * 32,
        "processor": "line-1",
        "source": "imu",
        "stream": "wearable/7/imu",
        "fields": ["ax", "ay"],
        "times": np.array([1_795_341_600_000_000_000, 1_795_341_600_123_456_000]),
        "values": np.array([[0.1, 2.0], [3.0, -4.5]]),
        "answer": {"label": "walking", "confidence": 0.52, "probabilities": {"walking": 0.52}, "value": None},
        "selection": {"rule": "ambiguous"},
        "model": {"name": "motions", "sha256": "ab"},
    }

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    made: dict[str, Any] = json.loads(sample_event(**(parts | changes)).decode(), parse_constant=refuse)
    return made


@given(
    st.text(),
    st.text(),
    st.text(),
    hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 3)), elements=finite),
    st.data(),
)
def test_identifiers_are_those_of_the_contract(
    processor: str, source: str, stream: str, values: Floats, data: st.DataObject
) -> None:
    """SHA-256 over lengths and texts, times and values, number by number."""
    times = data.draw(hnp.arrays(np.int64, len(values), elements=st.integers(-LATEST, LATEST)))
    written = b""
    for text in (processor, source, "default", stream):
        encoded = text.encode("utf-8")
        written += len(encoded).to_bytes(4, "little") + encoded
    for time in times.tolist():
        written += time.to_bytes(8, "little", signed=True)
    for row in values.tolist():
        for value in row:
            sign = math.copysign(1, value) < 0
            fraction, exponent = math.frexp(abs(value))
            if value == 0:
                bits = 0
            elif exponent < -1021:
                bits = int(math.ldexp(fraction, exponent + 1074))
            else:
                bits = (exponent + 1022 << 52) + int(math.ldexp(fraction, 53)) - (1 << 52)
            written += (bits | sign << 63).to_bytes(8, "little")
    expected = hashlib.sha256(written).hexdigest()[:32]
    assert event_id(processor, source, stream, times, values) == expected
    for arranged in (np.asfortranarray(values), values[::-1][::-1], values.astype(">f8")):
        assert event_id(processor, source, stream, times.astype(">i8"), arranged) == expected


def test_the_identifier_of_one_window_never_changes() -> None:
    """Receivers drop repeats by it, over years and versions."""
    window = np.array([10**18, 10**18 + 1]), np.array([[1.0, -2.5], [0.0, 1e-9]])
    assert event_id("line-1", "imu", "wearable/ä/imu", *window) == "af98279e25dae8761bf5b13e9997fad0"
    assert uniform("af98279e25dae8761bf5b13e9997fad0", "audit") == 0.5800446211765999


def test_texts_cannot_run_into_each_other() -> None:
    """The lengths keep `ab`, `c` and `a`, `bc` apart."""
    window = np.array([0]), np.array([[0.0]])
    identifiers = {event_id(*names, *window) for names in (("ab", "c", "d"), ("a", "bc", "d"), ("a", "b", "cd"))}
    assert len(identifiers) == 3


def test_the_uniform_number_is_that_of_the_contract() -> None:
    """The first 8 bytes, big endian, of SHA-256 of `<id>/<rule>`, over 2^64; even over windows, unlike over rules."""
    numbers = []
    for number in range(4000):
        identifier = f"{number:032x}"
        numbers.append(uniform(identifier, "audit"))
        digest = hashlib.sha256(identifier.encode() + b"/audit").hexdigest()
        assert numbers[-1] == float(Fraction(int(digest[:16], 16), 2**64))
        assert numbers[-1] != uniform(identifier, "other")
    tenths = Counter(int(number * 10) for number in numbers)
    assert set(tenths) == set(range(10))
    assert min(tenths.values()) > 400 - 5 * 19  # five standard deviations
    assert max(tenths.values()) < 400 + 5 * 19


@given(times_of_windows)
def test_timestamps_keep_every_nanosecond(times: Times) -> None:
    """RFC 3339 in UTC, which reads back as the same number."""
    texts = timestamps(times)
    assert [nanoseconds(text) for text in texts] == times.tolist()
    assert [nanoseconds(timestamp(time)) for time in times.tolist()] == times.tolist()
    assert [date(time) for time in times.tolist()] == [text[:10] for text in texts]


def test_microseconds_are_enough_where_there_are_no_nanoseconds() -> None:
    """As in the contract's example."""
    assert timestamp(1_795_341_600_123_456_000) == "2026-11-22T10:00:00.123456Z"
    assert timestamp(1_795_341_600_123_456_789) == "2026-11-22T10:00:00.123456789Z"
    assert timestamps(np.array([1000, 1], np.int64))[0] == "1970-01-01T00:00:00.000001000Z"
    assert timestamps(np.empty(0, np.int64)) == []


def test_an_event_is_the_contract_s() -> None:
    """Every key in its place."""
    assert event() == {
        "specversion": "1.0",
        "id": "0" * 32,
        "source": "/mlade/line-1",
        "type": "mlade.sample.v1",
        "subject": "wearable/7/imu",
        "time": "2026-11-22T10:00:00.123456Z",
        "datacontenttype": "application/json",
        "data": {
            "readings": {
                "source": "imu",
                "start": "2026-11-22T10:00:00.000000Z",
                "end": "2026-11-22T10:00:00.123456Z",
                "fields": ["ax", "ay"],
                "times": ["2026-11-22T10:00:00.000000Z", "2026-11-22T10:00:00.123456Z"],
                "values": [[0.1, 2.0], [3.0, -4.5]],
            },
            "inference": {"label": "walking", "confidence": 0.52, "probabilities": {"walking": 0.52}, "value": None},
            "selection": {"rule": "ambiguous"},
            "model": {"name": "motions", "sha256": "ab"},
        },
    }


@given(times_of_windows, st.text(min_size=1), st.data())
def test_an_event_is_a_valid_cloudevent_and_loses_nothing(times: Times, stream: str, data: st.DataObject) -> None:
    """CloudEvents 1.0: required attributes, not empty; values to the last bit, times to the last nanosecond."""
    values = data.draw(hnp.arrays(np.float64, (len(times), 2), elements=finite))
    made = event(times=times, values=values, stream=stream, fields=["a", stream])
    for attribute in ("id", "source", "specversion", "type", "subject", "time", "datacontenttype"):
        assert isinstance(made[attribute], str)
        assert made[attribute]
    assert made["specversion"] == "1.0"
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in made)
    assert re.fullmatch(r"/[A-Za-z0-9/_-]+", made["source"])  # a URI reference
    assert made["subject"] == stream
    readings = made["data"]["readings"]
    assert [nanoseconds(text) for text in readings["times"]] == times.tolist()
    assert made["time"] == readings["end"] == readings["times"][-1]
    assert readings["start"] == readings["times"][0]
    assert np.array(readings["values"], np.float64).tobytes() == values.tobytes()


def test_inference_of_probabilities() -> None:
    """The likeliest label, the first of equals, with its probability and all the others."""
    predictions = Predictions("probabilities", ("a", "b", "c"), np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]), None)
    probabilities = {"a": 0.2, "b": 0.5, "c": 0.3}
    assert inference(predictions, 0) == {"label": "b", "confidence": 0.5, "probabilities": probabilities, "value": None}
    assert inference(predictions, 1)["label"] == "a"


def test_inference_of_a_score() -> None:
    """Two labels, and the raw number, which may lie outside of 0 to 1."""
    predictions = Predictions("score", ("0", "1"), np.array([[0.0, 1.0]]), np.array([1.5]))
    expected = {"label": "1", "confidence": 1.0, "probabilities": {"0": 0.0, "1": 1.0}, "value": 1.5}
    assert inference(predictions, 0) == expected


def test_inference_of_a_value() -> None:
    """A number and no label."""
    expected = {"label": None, "confidence": None, "probabilities": None, "value": -2.25}
    assert inference(Predictions("value", (), None, np.array([-2.25])), 0) == expected


@pytest.mark.parametrize("nothing", [math.nan, math.inf])
def test_what_is_no_number_is_null(nothing: float) -> None:
    """JSON has no NaN; a model that gave no number gave no label."""
    row = np.full((1, 2), math.nan)
    expected = {"label": None, "confidence": None, "probabilities": {"0": None, "1": None}, "value": None}
    answer = inference(Predictions("score", ("0", "1"), row, np.array([nothing])), 0)
    assert answer == expected
    assert event(answer=answer)["data"]["inference"] == expected


def test_numpy_numbers_of_any_width_can_be_written() -> None:
    """Whatever type a model's numbers have, an event holds plain ones."""
    narrow: Any = np.array([[0.25, 0.75]], np.float32)
    answer = inference(Predictions("score", ("0", "1"), narrow, narrow[:, 1]), 0)
    assert event(answer=answer)["data"]["inference"]["value"] == 0.75
