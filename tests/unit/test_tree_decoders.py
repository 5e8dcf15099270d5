"""JSON, MessagePack and CBOR, written by other people's encoders: one document means the same in all three."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.decoders.tree import TreeDecoder
from tests.formats import example
from tests.unit.decoding import ENCODERS, NOW, STEP, complete, made, rows, run, shown, told

FORMATS = list(ENCODERS)


def taken(format_: str, *documents: object, **keys: Any) -> list[list[float | None]]:  # noqa: ANN401 - the source's keys
    """Return the rows of documents that nothing is wrong with."""
    encode = ENCODERS[format_]
    decoded = run(made(format=format_, **{"fields": ["a", "b"], **keys}), *map(encode, documents))
    assert list(decoded.failures) == []
    return rows(decoded)


def refused(format_: str, document: object, **keys: Any) -> tuple[str, str]:  # noqa: ANN401 - the source's keys
    """Return the reason and the sentence for a document."""
    decoded = run(made(format=format_, **{"fields": ["a", "b"], **keys}), ENCODERS[format_](document))
    assert len(decoded.origin) == 0
    ((_, reason, detail),) = decoded.failures
    return reason, detail


@pytest.mark.parametrize("format_", FORMATS)
def test_every_shape(format_: str) -> None:
    """An object, an array of them, of numbers, columns; a bare number where there is one field."""
    assert taken(
        format_,
        {"b": 2, "a": 1.5, "c": "x"},
        [{"a": 3, "b": 4}, {"a": 5, "b": 6.25}],
        [7, 8],
        {"a": [9, 10], "b": [11, 12]},
    ) == [[1.5, 2], [3, 4], [5, 6.25], [7, 8], [9, 11], [10, 12]]
    assert taken(format_, 21.5, -3, [4], {"a": 5}, fields=["a"]) == [[21.5], [-3], [4], [5]]
    assert taken(format_, {"m": {"x": [0, 1]}, "n": {"b": 2}}, fields=["/m/x/1", "/n/b"]) == [[1, 2]]


@pytest.mark.parametrize("format_", FORMATS)
def test_text_and_booleans_that_are_numbers(format_: str) -> None:
    """In every shape; what is no number is told with its field."""
    assert taken(format_, {"a": " 21.5 ", "b": "1e-3"}, ["1", True], {"a": ["2"], "b": [False]}) == [
        [21.5, 0.001],
        [1, 1],
        [2, 0],
    ]
    assert taken(format_, *[True, False], fields=["on"]) == [[1], [0]]
    assert refused(format_, {"a": "warm", "b": 1}) == ("field", "field 'a' is 'warm'; expected a number")
    assert refused(format_, {"a": [1, "x"], "b": [1, 2]})[1] == "field 'a', item 1 is 'x'; expected a number"
    assert refused(format_, [{"a": 1, "b": 1}, {"a": 1, "b": {}}])[1].startswith("item 1: field 'b' is empty")
    assert refused(format_, {"a": math.inf, "b": 1}) == ("not_finite", "field 'a' is inf; expected a finite number")
    assert refused(format_, {"a": "nan", "b": 1}, missing="hold")[0] == "not_finite"
    assert refused(format_, {"a": math.nan, "b": 1}, missing="hold")[0] == "not_finite"
    assert refused(format_, {"a": math.nan, "b": 1}, missing=0)[0] == "not_finite"


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    ("written", "unit"),
    [
        (1795341600, "auto"),
        (1795341600.0, "auto"),
        (1795341600000, "auto"),
        (1795341600000000, "auto"),
        (NOW, "auto"),
        (NOW, "ns"),
        (1795341600, "s"),
        ("1795341600", "s"),
        ("1795341600000", "ms"),
        (1795341600000000, "us"),
        ("2026-11-22T10:00:00Z", "auto"),
        ("2026-11-22T10:00:00.000", "iso8601"),
        ("2026-11-22T11:30:00+01:30", "auto"),
        ("2026-11-22T02:00:00.000000000-0800", "auto"),
    ],
)
def test_times(format_: str, written: object, unit: str) -> None:
    """Numbers of each unit and text with any offset, for objects, arrays and columns."""
    encode = ENCODERS[format_]
    subject = made(format=format_, fields=["a"], time="ts", time_unit=unit)
    shapes = ({"ts": written, "a": 1}, [{"ts": written, "a": 2}], {"ts": [written] * 2, "a": [3, 4]})
    decoded = run(subject, *map(encode, shapes))
    assert decoded.times.tolist() == [NOW] * 4
    assert decoded.values.tolist() == [[1], [2], [3], [4]]


@pytest.mark.parametrize("format_", FORMATS)
def test_stream_keys(format_: str) -> None:
    """Text and numbers name streams in every format."""
    encode = ENCODERS[format_]
    subject = made(format=format_, fields=["a"], stream="{field:d}")
    decoded = run(subject, encode({"d": "x", "a": 1}), encode({"d": 7, "a": 2}), encode({"d": ["y", 8], "a": [3, 4]}))
    assert decoded.keys == ["x", "7", "y", "8"]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(("missing", "filled"), [("hold", None), (0, 0.0), (-273.15, -273.15)])
def test_missing_fields(format_: str, missing: object, filled: float | None) -> None:
    """What is absent or null is held, or is a constant: in objects, arrays of objects and of numbers, and columns."""
    documents = [
        {"a": 1, "b": 2},
        {"a": 3},
        {"b": 4, "a": None},
        {},
        [{"a": 5}, {"b": "6"}],
        [None, 7],
        {"a": [8, None, "9"], "b": [None, 10, 11]},
        {"b": [12, 13]},
        {"a": None, "b": [14]},
    ]
    gap = filled
    assert taken(format_, *documents, missing=missing) == [
        [1, 2],
        [3, gap],
        [gap, 4],
        [gap, gap],
        [5, gap],
        [gap, 6],
        [gap, 7],
        [8, gap],
        [gap, 10],
        [9, 11],
        [gap, 12],
        [gap, 13],
        [gap, 14],
    ]
    assert taken(format_, {"m": {"a": 1}}, {"m": None}, fields=["/m/a", "/m/b"], missing=missing) == [
        [1, gap],
        [gap, gap],
    ]


@pytest.mark.parametrize("format_", FORMATS)
def test_missing_fields_are_refused_unless_told_otherwise(format_: str) -> None:
    """With the field's name; and a payload that is no reading stays refused whatever is missing."""
    assert refused(format_, {"a": 1}) == ("field", "field 'b' is missing; expected a number")
    assert refused(format_, {"a": 1, "b": None}) == ("field", "field 'b' is null; expected a number")
    assert refused(format_, {"a": [1, 2]})[1] == "field 'a' is an array; expected a number"
    for missing in ("reject", "hold", 0):
        assert refused(format_, None, missing=missing)[1].startswith("the payload is null")
        assert refused(format_, [1], missing=missing)[1] == "1 numbers; expected 2: a, b"
        assert refused(format_, [], missing=missing)[0] == "decode"
        assert refused(format_, {"a": [1, 2], "b": [3]}, missing=missing)[0] == "decode"
        assert refused(format_, {"a": 1, "b": 2}, time="ts", missing=missing)[0] == "time"
        assert refused(format_, {"ts": None, "a": 1, "b": 2}, time="ts", missing=missing)[0] == "time"


def test_payloads_of_real_firmware() -> None:
    """Zigbee2MQTT's and Tasmota's objects, as these are documented to publish them."""
    climate = made(fields=["temperature", "humidity", "pressure"], missing="hold")
    full = b'{"battery":100,"humidity":41.23,"linkquality":141,"pressure":981.4,"temperature":21.07,"voltage":3015}'
    partly = b'{"battery":100,"linkquality":138,"temperature":21.12,"voltage":3015,"humidity":null}'
    assert rows(run(climate, full, partly)) == [[21.07, 41.23, 981.4], [21.12, None, None]]
    power = made(fields=["/ENERGY/Power", "/ENERGY/Voltage"], time="Time")
    sensor = (
        b'{"Time":"2026-11-22T10:00:00","ENERGY":{"TotalStartTime":"2026-01-02T08:00:00","Total":3.185,"Yesterday":0.3,'
        b'"Today":0.105,"Period":2,"Power":42,"ApparentPower":57,"ReactivePower":39,"Factor":0.73,"Voltage":231,'
        b'"Current":0.248}}'
    )
    decoded = run(power, sensor)
    assert decoded.values.tolist() == [[42, 231]]
    assert decoded.times.tolist() == [NOW]


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=4)
    | st.sampled_from(["nan", "1e999", "5", "2026-11-22T10:00:00Z", 1795341600, 1e308])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["ts", "d", "a", "b"]), inner),
    max_leaves=8,
)
likely = st.fixed_dictionaries(
    {},
    optional={
        "ts": st.sampled_from([1795341600, 1795341600.5, "2026-11-22T10:00:00Z"]) | values,
        "d": st.text(st.characters(codec="utf-8"), max_size=3) | st.integers(0, 9) | values,
        "a": st.floats(-9, 9) | st.integers(0, 9) | values,
        "b": st.floats(-9, 9) | st.lists(st.integers(0, 9) | st.none(), max_size=2) | values,
    },
)
deeper = st.fixed_dictionaries({"m": likely | values}, optional={"a": st.floats(-9, 9) | values})
documents = likely | st.lists(likely, max_size=3) | deeper | st.lists(deeper, max_size=2) | values
SOURCES: list[dict[str, Any]] = [
    {"fields": ["a", "b"]},
    {"fields": ["a"], "missing": "hold"},
    {"fields": ["a", "b"], "missing": 0, "time": "ts", "stream": "{field:d}"},
    {"fields": ["a", "b"], "missing": "hold", "time": "ts", "time_unit": "ms"},
    {"fields": ["/a", "/b/0"], "time": "/ts"},
    {"fields": ["/m/a", "a", "/m/b"], "time": "/m/ts"},
    {"fields": ["/m/a", "a", "/m/b"], "missing": "hold"},
    {"fields": ["/m/a/b"], "missing": 0, "stream": "{field:/m/d}"},
    {"fields": ["/m", "/m/a"], "missing": "hold"},
]


@given(st.lists(documents, max_size=6), st.sampled_from(SOURCES))
@settings(max_examples=100, deadline=None)
def test_a_document_means_the_same_in_every_format(batch: list[object], source: dict[str, Any]) -> None:
    """The same readings and the same sentences, together and one by one, with and without typed structures."""
    answers = []
    for format_, encode in ENCODERS.items():
        subject, slow = made(format=format_, **source), made(format=format_, **source)
        payloads = list(map(encode, batch))
        together = run(subject, *payloads)
        assert complete(together, len(batch))
        assert isinstance(slow, TreeDecoder)
        slow._fast = None
        assert told(run(slow, *payloads)) == told(together)
        alone = []
        for index, payload in enumerate(payloads):
            for origin, *others in told(run(subject, payload, first=NOW + index * STEP)):
                alone.append((origin + index, *others))
        assert sorted(alone, key=str) == sorted(told(together), key=str)
        answers.append(told(together))
    assert answers[0] == answers[1] == answers[2]


def test_fields_at_any_depth() -> None:
    """One inside another's object, names that msgspec does not take, and more steps than it is given."""
    document: dict[str, Any] = {"m": {"a": 1, 'q"': {"b": 2}, "": {"c": 3}}, "deep": 4}
    for _ in range(20):
        document["deep"] = {"x": document["deep"]}
    for fields, values_of in (
        (["/m/a", '/m/q"/b', "/m//c"], [1, 2, 3]),
        (["/m//c", "/m/a"], [3, 1]),
        (["/m//c"], [3]),
        (["/deep" + "/x" * 20, "/m/a"], [4, 1]),
    ):
        for format_ in FORMATS:
            assert taken(format_, document, fields=fields) == [values_of]
            assert taken(format_, {**document, "m": None}, fields=["/m/a", "/m/n/b"], missing=0) == [[0, 0]]
    assert refused("json", {"m": {"a": 1}}, fields=["/m", "/m/a"])[1] == "field '/m' is an object; expected a number"


def _not_parsed(payload: bytes) -> object:
    raise AssertionError(payload)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("missing", ["hold", 0])
def test_more_readings_than_a_payload_has_bytes_for_are_refused(format_: str, missing: str | float) -> None:
    """What lacks fields is a reading of all of them: an empty object is a byte, and a hundred values."""
    keys: dict[str, Any] = {"fields": [f"f{number}" for number in range(100)], "missing": missing}
    assert len(taken(format_, [{"f0": 1}] * 64, **keys)) == 64
    too_large = ("too_large", "the payload holds 65 readings of 100 fields")
    assert refused(format_, [{"f0": 1}] * 65, **keys) == too_large
    assert refused(format_, {"f0": [1] * 65}, **keys) == too_large
    full = dict.fromkeys(keys["fields"], 1.5)
    assert len(taken(format_, [full] * 200, **keys)) == 200


@pytest.mark.parametrize("format_", FORMATS)
def test_a_message_that_lacks_nothing_is_read_into_a_structure(format_: str) -> None:
    """Also where fields may be missing, and when some are."""
    for missing in ("reject", "hold", 0):
        subject = made(format=format_, fields=["a", "b"], time="ts", missing=missing)
        assert isinstance(subject, TreeDecoder)
        assert subject._fast is not None
        subject._codec = subject._codec._replace(parse=_not_parsed)
        documents: list[object] = [{"ts": 1795341600, "a": 1, "b": 2}]
        if missing != "reject":
            documents += [{"ts": 1795341600, "a": None}]
        assert len(run(subject, *map(ENCODERS[format_], documents)).origin) == len(documents)
    nested = made(format=format_, fields=["/m/n/a", "b", "/m/b"], time="/m/ts", stream="{field:/m/d}")
    assert isinstance(nested, TreeDecoder)
    nested._codec = nested._codec._replace(parse=_not_parsed)
    one = {"b": 1, "m": {"b": 2, "n": {"a": 3, "x": 0}, "d": "k", "ts": 1795341600}}
    decoded = run(nested, ENCODERS[format_](one))
    assert decoded.values.tolist() == [[3, 1, 2]]
    assert decoded.times.tolist() == [NOW]
    assert decoded.keys == ["k"]


@pytest.mark.parametrize("format_", ["msgpack", "cbor"])
def test_keys_that_are_whole_numbers(format_: str) -> None:
    """Small devices number their fields: a name that is such a number finds it, also in a pointer."""
    document = {1: 21.5, -2: {7: 3}, "8": 4, 8: 5}
    assert taken(format_, document, fields=["1", "/-2/7", "8"]) == [[21.5, 3, 4]]
    assert refused(format_, document, fields=["9"])[1] == "field '9' is missing; expected a number"
    assert refused(format_, document, fields=["/8/" + "1" * 100, "1" * 100])[0] == "field"


def test_the_examples_of_the_documentation() -> None:
    """Are read as the page says."""
    decoded = shown("JSON")
    assert decoded.values.tolist() == [[21.07, 41.2, 7]]
    assert decoded.times.tolist() == [NOW]
    source = example("MessagePack and CBOR").source
    assert taken(source.format, {7: 0.5, "amps": 2, "ts": 1795341600}, **source.model_dump(include={"fields"})) == [
        [2, 0.5]
    ]


@pytest.mark.parametrize("format_", FORMATS)
def test_floats_of_any_width_arrive_as_they_were(format_: str) -> None:
    """What a sender's float was is what the model sees."""
    numbers = [0.1, -0.0, 5e-324, 1.7976931348623157e308, 2**53 + 1]
    found = taken(format_, {"a": numbers}, fields=["a"])
    assert np.array(found).tobytes() == np.array([[float(number)] for number in numbers]).tobytes()
