"""What Node-RED's MQTT node sends (tests/nodered/): each kind of payload is what the flow had in its message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from processor.recording import Reader
from processor.types import Message
from tests.unit.decoding import made, rows, run

HERE = Path(__file__).parents[1] / "nodered"
MESSAGES = [message for batch in Reader(HERE / "nodered.jsonl") for message in batch]
CLIMATE = ["temperature", "humidity"]
LINE = {"columns": ["when", "temperature", "note"]}


def sent(kind: str) -> list[Message]:
    """Return the messages on a topic of the flow."""
    found = [message for message in MESSAGES if message.topic == f"nodered/{kind}"]
    assert found
    return found


@pytest.mark.parametrize(
    ("kind", "keys", "expected"),
    [
        ("object", {"fields": [*CLIMATE, "ok"]}, [[21.5, 41, 1]]),
        ("objects", {"fields": CLIMATE}, [[21.5, 41], [21.75, 40]]),
        ("array", {"fields": ["x", "y", "z"]}, [[0.25, -3, 1e-7]]),
        ("boolean", {"fields": ["on"]}, [[1]]),
        ("floats", {"format": "binary", "fields": list("abcd"), "binary": {"dtype": ">f4"}},
         [[1.5, -2.25, float(np.float32(0.1)), 1e6]]),
        ("floats", {"format": "binary", "fields": ["v"], "binary": {"dtype": ">f4", "skip": 8}},
         [[float(np.float32(0.1))], [1e6]]),
        ("bytes", {"format": "binary", "fields": ["v"], "binary": {"dtype": "u1"}}, [[0], [1], [127], [255]]),
        ("bytes", {"format": "binary", "fields": ["v"], "binary": {"dtype": ">i2"}}, [[1], [0x7FFF]]),
    ],
)  # fmt: skip
def test_values_without_a_time(kind: str, keys: dict[str, Any], expected: list[list[float]]) -> None:
    """Objects, arrays of them and of numbers, a boolean, Buffers: readings of the time of arrival."""
    (message,) = sent(kind)
    decoded = run(made(**keys), message.payload, first=message.arrival)
    assert decoded.failures == []
    assert rows(decoded) == expected
    assert set(decoded.times.tolist()) == {message.arrival}


@pytest.mark.parametrize("keys", [{"format": "number"}, {"format": "json", "fields": ["value"]}])
def test_numbers(keys: dict[str, Any]) -> None:
    """A number, a large one, text of one: all as text. What is not a number is refused, and its neighbours are read."""
    payloads = [message.payload for message in sent("number")]
    assert payloads == [b"23.5", b"1e+21", b"-7.25", b"NaN"]
    decoded = run(made(**keys), *payloads, b"1")
    assert rows(decoded) == [[23.5], [1e21], [-7.25], [1]]
    assert decoded.failures == [(3, "not_finite", "field 'value' is nan; expected a finite number")]


@pytest.mark.parametrize(("kind", "humidity"), [("stamped", 41), ("dated", None)])
def test_objects_with_a_time(kind: str, humidity: float | None) -> None:
    """Milliseconds, and a Date, which is ISO 8601 text: of the moment just before it arrived. A null is held."""
    (message,) = sent(kind)
    decoded = run(made(fields=CLIMATE, time="ts", missing="hold"), message.payload, first=message.arrival)
    assert decoded.failures == []
    assert rows(decoded) == [[21.5, humidity]]
    (time,) = decoded.times.tolist()
    assert time % 1_000_000 == 0
    assert 0 <= message.arrival - time < 1_000_000_000


def test_a_timestamp_alone() -> None:
    """What an untouched inject node sends: a number of milliseconds, which is a value and no time."""
    (message,) = sent("timestamp")
    decoded = run(made(format="number"), message.payload, first=message.arrival)
    assert decoded.times.tolist() == [message.arrival]
    assert 0 <= message.arrival / 1e6 - decoded.values[0, 0] < 1000


@pytest.mark.parametrize(
    ("kind", "csv", "expected"),
    [
        ("line", LINE, {1_790_000_000_123: 21.5}),
        ("lines", {"header": True}, {1_790_000_000_123: 21.5, 1_790_000_001_123: -3}),
    ],
)
def test_lines_of_its_csv_node(kind: str, csv: dict[str, Any], expected: dict[int, float]) -> None:
    """With quotes in a cell, CRLF or LF at the end, with and without a line of names; times in milliseconds."""
    (message,) = sent(kind)
    decoded = run(made(format="csv", fields=["temperature"], time="when", csv=csv), message.payload)
    assert decoded.failures == []
    assert rows(decoded) == [[value] for value in expected.values()]
    assert decoded.times.tolist() == [time * 1_000_000 for time in expected]


def test_the_recording_is_of_the_flow() -> None:
    """Each of the flow's nodes has published once, at QoS 1."""
    flow = json.loads((HERE / "flow.json").read_text())
    published = sorted(node["topic"] for node in flow if node["type"] == "mqtt out")
    assert sorted(message.topic for message in MESSAGES) == published
    assert {message.qos for message in MESSAGES} == {1}
