"""JSON: every shape, every failure, and nothing that a payload can do to its neighbours."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.decoders.json import JSON
from processor.decoders.tree import TreeDecoder
from processor.source_sections import Source
from processor.types import Decoded, Failure

NOW = 1_795_341_600_000_000_000
"""2026-11-22T10:00:00Z."""
GOOD = b'{"ts": 1795341600, "d": "x", "a": 0.5, "b": 7}'


def decoder(**keys: Any) -> TreeDecoder:  # noqa: ANN401 - the source's keys
    """Return a decoder of fields a and b, arrival time, stream from the topic, unless told otherwise."""
    return TreeDecoder(JSON, Source.model_validate({"name": "s", "topics": ["t"], "fields": ["a", "b"], **keys}))


def run(subject: TreeDecoder, *payloads: bytes) -> Decoded:
    """Decode payloads that arrived a second apart from NOW on, and check what holds for any."""
    arrivals = NOW + np.arange(len(payloads), dtype=np.int64) * 10**9
    decoded = subject.decode(payloads, arrivals, ["t"] * len(payloads))
    count = len(decoded.origin)
    assert decoded.values.shape == (count, len(subject._names))
    assert decoded.values.dtype == np.float64
    assert decoded.times.shape == (count,)
    assert decoded.times.dtype == decoded.origin.dtype == np.int64
    assert (np.diff(decoded.origin) >= 0).all()
    assert np.isfinite(decoded.values).all()
    failed = [failure.position for failure in decoded.failures]
    assert sorted({*failed, *decoded.origin.tolist()}) == list(range(len(payloads)))  # readings, or a failure
    assert len(failed) + len(set(decoded.origin.tolist())) == len(payloads)  # and just one of them
    assert failed == sorted(failed)
    assert (decoded.keys is None) == (subject._key is None)
    if decoded.keys is not None:
        assert len(decoded.keys) == count
        assert all(key and key.encode() for key in decoded.keys)
    return decoded


def failure(subject: TreeDecoder, payload: bytes) -> Failure:
    """Return what is said of a payload between two good ones, which it must not affect."""
    good = GOOD if not subject._names[0].startswith("/") else payload
    decoded = run(subject, good, payload, good)
    if good is GOOD:
        assert decoded.origin.tolist() == [0, 2]
        assert decoded.values.tolist() == [[0.5, 7]] * 2
    alone = run(subject, payload)
    assert len(alone.failures) == 1
    assert alone.failures[0][1:] == decoded.failures[0][1:]
    return alone.failures[0]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"a": 1, "b": -2.5}', [[1, -2.5]]),
        (b'{"b": 2, "z": {"a": [null]}, "a": 1}', [[1, 2]]),
        (b' \n{"a":1e2,"b":true}\t', [[100, 1]]),
        (b'{"a": "21.5", "b": " -1e-3 "}', [[21.5, -0.001]]),
        (b'{"a": 5, "a": 6, "b": 1}', [[6, 1]]),
        (b'{"a": "bad", "a": 6, "b": 1}', [[6, 1]]),
        (
            b'{"a": 12345678901234567890123, "b": -12345678901234567890123}',
            [[12345678901234567890123.0] * 1 + [-1.2345678901234568e22]],
        ),
        (b'[{"a": 1, "b": 2}, {"a": 3, "b": "4"}]', [[1, 2], [3, 4]]),
        (b"[1, 2.5]", [[1, 2.5]]),
        (b'["1", false]', [[1, 0]]),
        (b'{"a": [1, 2, 3], "b": [4, 5, "6"]}', [[1, 4], [2, 5], [3, 6]]),
        (b'\xef\xbb\xbf{"a": 1, "b": 2}', [[1, 2]]),
        (b'{"a": 1, "b": 2, "unused": 1e999}', [[1, 2]]),
        (b'[{"a": 1, "b": 2, "unused": 1e999}]', [[1, 2]]),
        (b'[{"a": 1, "b": 2, "unused": "\\ud800"}]', [[1, 2]]),
    ],
)
def test_shapes(payload: bytes, expected: list[list[float]]) -> None:
    """An object, objects, numbers, columns; text and booleans that are numbers; all at the time of arrival."""
    decoded = run(decoder(), GOOD, payload, GOOD)
    assert decoded.failures == []
    assert decoded.values.tolist() == [[0.5, 7], *expected, [0.5, 7]]
    assert decoded.origin.tolist() == [0, *[1] * len(expected), 2]
    assert decoded.times.tolist() == [NOW + position * 10**9 for position in decoded.origin.tolist()]


@pytest.mark.parametrize(
    ("payload", "value"), [(b"21.5", 21.5), (b" -3 ", -3), (b"1e3", 1000), (b"[4]", 4), (b'{"t": 5}', 5)]
)
def test_a_bare_number_is_the_one_field(payload: bytes, value: float) -> None:
    """With one field a number, alone or in an array, is a reading."""
    assert run(decoder(fields=["t"]), payload).values.tolist() == [[value]]


def test_json_pointers() -> None:
    """Pointers reach into objects and arrays, with ~0 and ~1 for ~ and /; a name with a slash inside is a name."""
    subject = decoder(fields=["/m/x/1", "/a~1b", "/~0", "c/d", "/e"], time="/m/t", stream="{field:/m/id}")
    message = {"m": {"x": [0, 10, 20], "t": 1795341600, "id": 7}, "a/b": 1, "~": 2, "c/d": 3, "e": 4}
    decoded = run(subject, json.dumps(message).encode(), json.dumps([message, message]).encode())
    assert decoded.values.tolist() == [[10, 1, 2, 3, 4]] * 3
    assert decoded.keys == ["7"] * 3
    assert decoded.times.tolist() == [NOW] * 3
    for pointer in ("/m/x/3", "/m/x/-1", "/m/x/one", "/m/y", "/m/x/0/0", "/"):
        (failed,) = run(decoder(fields=[pointer]), json.dumps(message).encode()).failures
        assert failed == (0, "field", f"field {pointer!r} is missing; expected a number")


def test_columns_with_times_and_keys() -> None:
    """Each reading of a columns message has its own time, and its own key where the keys are a column, too."""
    subject = decoder(time="ts", stream="{field:d}")
    one = run(subject, b'{"ts": [1795341600, "2026-11-22T10:00:01Z"], "d": 5, "a": [1, 2], "b": [3, 4]}')
    assert one.times.tolist() == [NOW, NOW + 10**9]
    assert one.keys == ["5", "5"]
    each = run(subject, b'{"ts": [1795341600, 1795341601], "d": ["x", "y"], "a": [1, 2], "b": [3, 4]}')
    assert each.keys == ["x", "y"]
    assert each.values.tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    ("written", "key"),
    [
        (b'"pump 1"', "pump 1"),
        (b"5", "5"),
        (b"-0", "0"),
        (b"1.5", "1.5"),
        (b"123456789012345678901234567890", "123456789012345678901234567890"),
        ('"\u00fc\U0001f600"'.encode(), "\u00fc\U0001f600"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"' + b"k" * 65_535 + b'"', "k" * 65_535),
    ],
)
def test_stream_keys_in_the_payload(written: bytes, key: str) -> None:
    """Text as it is, numbers as they are written, in every shape."""
    subject = decoder(stream="{field:d}")
    one = b'{"d": %s, "a": 1, "b": 2}' % written
    decoded = run(subject, one, b"[%s]" % one, b'{"d": %s, "a": [1], "b": [2]}' % written)
    assert decoded.keys == [key] * 3


@pytest.mark.parametrize(
    ("payload", "reason", "sentence"),
    [
        (b"", "decode", "the payload is empty; expected JSON"),
        (b" \n", "decode", "the payload is empty; expected JSON"),
        (b"hello", "decode", "the payload is not JSON: Expecting value at character 0"),
        (b'{"a": 1,', "decode", "the payload is not JSON: "),
        (b'{"a": 1, "b": 2} x', "decode", "the payload is not JSON: Extra data at character 17"),
        (b'["\xff"]', "decode", "the payload is not JSON: byte 2 is 0xff, which is not UTF-8"),
        (b'{"a": "\xed\xa0\x80", "b": 1}', "decode", "byte 7 is 0xed, which is not UTF-8"),
        ('{"a": 1, "b": 2}'.encode("utf-16"), "decode", "byte 0 is 0xff, which is not UTF-8"),
        (b"[" * 100_000, "decode", "too many arrays or objects inside one another"),
        (b'{"a":' * 100_000, "decode", "too many arrays or objects inside one another"),
        (b'{"a": 1, "b": 2, "c": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "decode", "too many arrays"),
        (b'"text"', "decode", "the payload is text; expected an object, an array or a number"),
        (b"true", "field", "1 numbers; expected 2: a, b"),
        (b"null", "decode", "the payload is null; expected an object"),
        (b"[]", "decode", "the payload is empty; expected an object"),
        (b"{}", "field", "field 'a' is missing; expected a number"),
        (b'{"a": 1}', "field", "field 'b' is missing; expected a number"),
        (b'{"a": 1, "b": null}', "field", "field 'b' is null; expected a number"),
        (b'{"a": 1, "b": {"x": 1}}', "field", "field 'b' is an object; expected a number"),
        (b'{"a": 1, "b": [1]}', "field", "field 'b' is an array; expected a number"),
        (b'{"a": 1, "b": "warm"}', "field", "field 'b' is 'warm'; expected a number"),
        (b'{"a": 1, "b": "1_0"}', "field", "field 'b' is '1_0'; expected a number"),
        (b'{"a": 1, "b": ""}', "field", "field 'b' is ''; expected a number"),
        (b'{"a": 1, "b": "\\ud800"}', "field", "field 'b' is '\\ud800'; expected a number"),
        (b'{"a": 1, "b": "' + b"x" * 9999 + b'"}', "field", "expected a number"),
        (b'{"a": 1, "b": NaN}', "not_finite", "field 'b' is nan; expected a finite number"),
        (b'{"a": -Infinity, "b": 1}', "not_finite", "field 'a' is -inf; expected a finite number"),
        (b'{"a": 1, "b": "nan"}', "not_finite", "field 'b' is nan; expected a finite number"),
        (b'{"a": 1, "b": "-inf"}', "not_finite", "field 'b' is -inf; expected a finite number"),
        (b'{"a": 1, "b": 1e999}', "not_finite", "field 'b' is inf; expected a finite number"),
        (b'{"a": 1, "b": "1e999"}', "not_finite", "field 'b' is inf; expected a finite number"),
        (b'{"a": 1, "b": -1' + b"0" * 400 + b"}", "not_finite", "field 'b' is -inf; expected a finite number"),
        (b'[{"a": 1, "b": 1' + b"0" * 350 + b"}]", "not_finite", "field 'b' is inf; expected a finite number"),
        (b'{"a": 1, "b": 1' + b"0" * 9999 + b"}", "not_finite", "field 'b' is inf; expected a finite number"),
        (b"[1]", "field", "1 numbers; expected 2: a, b"),
        (b"[1, 2, 3]", "field", "3 numbers; expected 2: a, b"),
        (b"5", "field", "1 numbers; expected 2: a, b"),
        (b"[1, [2]]", "field", "item 1 is an array; expected a number"),
        (b'[1, {"a": 1}]', "field", "item 1 is an object; expected a number"),
        (b'[{"a": 1, "b": 2}, 5]', "decode", "item 1 is a number; expected an object like the first"),
        (b'[{"a": 1, "b": 2}, {"a": 1}]', "field", "item 1: field 'b' is missing; expected a number"),
        (b'[{"a": 1, "b": 2}, {"a": 1, "b": NaN}]', "not_finite", "field 'b' is nan"),
        (b'{"a": [], "b": []}', "decode", "columns of different or no length: {'a': 0, 'b': 0}"),
        (b'{"a": [1, 2], "b": [3]}', "decode", "columns of different or no length: {'a': 2, 'b': 1}"),
        (b'{"a": [1, 2], "b": [3, null]}', "field", "field 'b', item 1 is null; expected a number"),
    ],
)
def test_failures(payload: bytes, reason: str, sentence: str) -> None:
    """One failure a payload, with the field, what was found and what was expected; its neighbours are read."""
    found = failure(decoder(), payload)
    assert found.reason == reason
    assert sentence in found.detail
    assert len(found.detail) < 200


@pytest.mark.parametrize(
    ("payload", "reason", "sentence"),
    [
        (b'{"d": "x", "a": 1, "b": 2}', "time", "no time: field 'ts' is missing"),
        (b'{"ts": null, "d": "x", "a": 1, "b": 2}', "time", "no time: field 'ts' is null"),
        (b'{"ts": true, "d": "x", "a": 1, "b": 2}', "time", "field 'ts': a boolean is not a time"),
        (b'{"ts": [1], "d": "x", "a": 1, "b": 2}', "time", "field 'ts': an array is not a time"),
        (b'{"ts": %s, "d": "x", "a": 1, "b": 2}' % (b"[" * 900 + b"]" * 900), "time", "an array is not a time"),
        (b'{"ts": "soon", "d": "x", "a": 1, "b": 2}', "time", "field 'ts': 'soon' is not an ISO 8601 time"),
        (b'{"ts": NaN, "d": "x", "a": 1, "b": 2}', "time", "field 'ts': nan is outside the years"),
        (b'{"ts": 1e308, "d": "x", "a": 1, "b": 2}', "time", "field 'ts': 1e+308 is outside the years"),
        (b'{"ts": 1' + b"0" * 390 + b', "d": "x", "a": 1, "b": 2}', "time", "is outside the years"),
        (b'{"ts": 1' + b"0" * 9999 + b', "d": "x", "a": 1, "b": 2}', "time", "field 'ts': inf is outside the years"),
        (b'[{"ts": 1, "d": "x", "a": 1, "b": 2}, {"d": 5}]', "field", "item 1: field 'a' is missing"),
        (b'[{"ts": 1, "d": "x", "a": 1, "b": 2}, {"a": 1, "b": 2}]', "time", "item 1: no time: field 'ts'"),
        (b'[{"ts": 1, "d": "x", "a": 1, "b": 2}, {"ts": "x", "d": "x", "a": 1, "b": 2}]', "time", "'x' is not"),
        (b'{"ts": 5, "d": "x", "a": [1], "b": [2]}', "time", "field 'ts' is a number; expected an array like"),
        (b'{"d": "x", "a": [1], "b": [2]}', "time", "field 'ts' is missing; expected an array like"),
        (b'{"ts": [5, 6], "d": "x", "a": [1], "b": [2]}', "decode", "columns of different or no length"),
        (b'{"ts": [5, 6], "d": ["x"], "a": [1, 2], "b": [2, 3]}', "decode", "'ts': 2, 'd': 1}"),
        (b'{"ts": [5, "x"], "d": "x", "a": [1, 2], "b": [2, 3]}', "time", "field 'ts': 'x' is not an ISO 8601 time"),
        (b"[1, 2]", "field", "the payload is bare numbers; expected an object with field 'ts'"),
        (b'{"ts": 5, "a": 1, "b": 2}', "field", "field 'd' names the stream; expected text, found missing"),
        (b'{"ts": 5, "d": null, "a": 1, "b": 2}', "field", "field 'd' names the stream; expected text, found null"),
        (b'{"ts": 5, "d": true, "a": 1, "b": 2}', "field", "expected text, found a boolean"),
        (b'{"ts": 5, "d": 1e999, "a": 1, "b": 2}', "field", "expected text, found inf"),
        (b'{"ts": 5, "d": NaN, "a": 1, "b": 2}', "field", "expected text, found nan"),
        (b'{"ts": 5, "d": "", "a": 1, "b": 2}', "field", "expected 1 to 65535 characters, found 0"),
        (b'{"ts": 5, "d": "%s", "a": 1, "b": 2}' % (b"k" * 65_536), "field", "characters, found 65536"),
        (b'{"ts": 5, "d": "\\ud800", "a": 1, "b": 2}', "field", "'\\ud800' holds half a surrogate pair"),
        (b'{"ts": [5], "d": [["x"]], "a": [1], "b": [2]}', "field", "expected text, found an array"),
    ],
)
def test_failures_of_time_and_stream(payload: bytes, reason: str, sentence: str) -> None:
    """A payload without a usable time or stream key gives no reading at all."""
    found = failure(decoder(time="ts", stream="{field:d}"), payload)
    assert found.reason == reason
    assert sentence in found.detail
    assert len(found.detail) < 200


def test_bare_numbers_have_no_room_for_a_key() -> None:
    """Where only the stream is in the payload, that is what is missing."""
    found = failure(decoder(stream="{field:d}"), b"[1, 2]")
    assert found.detail == "the payload is bare numbers; expected an object with field 'd'"


@pytest.mark.parametrize(("ahead", "kept"), [("10s", [0, 1]), ("500ms", [0]), (0, [0]), ("36500d", [0, 1, 2])])
def test_max_ahead(ahead: object, kept: list[int]) -> None:
    """A reading may lie as far as that after its arrival and no further; the longest durations do not wrap around."""
    subject = decoder(time="ts", max_ahead=ahead)
    payloads = [json.dumps({"ts": ts, "a": 1, "b": 2}).encode() for ts in (NOW, NOW + 11 * 10**9, NOW + 10**18)]
    decoded = run(subject, *payloads)
    assert decoded.origin.tolist() == kept
    for position, reason, detail in decoded.failures:
        assert reason == "time"
        assert f"field 'ts' is {[0, 10, 999999998][position]} s in the future; max_ahead allows" in detail
    assert subject.decode([b'{"ts": 9223372036854775807, "a": 1, "b": 2}'], np.array([2**63 - 1]), ["t"]).failures == []


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a{b}", "ä€\U0001f600", "a b"])
def test_any_name_is_a_field(name: str) -> None:
    """Names that the fast way cannot take go the other, with the same answers."""
    subject = decoder(fields=[name])
    payloads = [
        json.dumps({name: 5}).encode(),
        json.dumps({name: [6, 7]}).encode(),
        json.dumps({name: [1, {}]}).encode(),
    ]
    decoded = run(subject, *payloads)
    assert decoded.values.tolist() == [[5], [6], [7]]
    assert decoded.failures == [(2, "field", f"field {name!r}, item 1 is empty; expected a number")]


def test_a_field_may_be_the_time_or_the_key_too() -> None:
    """One field of the payload in two roles."""
    decoded = run(decoder(fields=["ts", "d"], time="ts", stream="{field:d}"), b'{"ts": 1795341600, "d": 5}')
    assert decoded.values.tolist() == [[1795341600, 5]]
    assert decoded.keys == ["5"]
    assert decoded.times.tolist() == [NOW]


DECODERS: Sequence[Callable[[], TreeDecoder]] = (
    decoder,
    lambda: decoder(fields=["a"]),
    lambda: decoder(time="ts", stream="{field:d}"),
    lambda: decoder(time="ts", time_unit="ms"),
    lambda: decoder(fields=["/a", "/b/0"], time="/ts"),
    lambda: decoder(fields=["a", "b"], time="ts", time_unit="iso8601", stream="x-{field:/d/e}"),
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(
        ["nan", "inf", "1e999", "5", "2026-11-22T10:00:00Z", "\ud800", 1795341600, 1e308, -(2**63), 2**63]
    )
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["ts", "d", "a", "b", "e"]), inner),
    max_leaves=8,
)
likely = st.fixed_dictionaries(
    {},
    optional={
        "ts": st.sampled_from([1795341600, 1795341600.5, "2026-11-22T10:00:00Z"]) | values,
        "d": st.text(max_size=3) | st.integers() | values,
        "a": st.floats(-9, 9) | st.integers() | values,
        "b": st.floats(-9, 9) | st.lists(st.integers(), max_size=2) | values,
    },
)
columns = st.integers(0, 3).flatmap(
    lambda count: st.fixed_dictionaries(
        {name: st.lists(st.integers(0, 10**9) | scalars, min_size=count, max_size=count) for name in ("ts", "a", "b")}
        | {"d": st.text(max_size=2)}
    )
)
documents = st.one_of(likely, columns, st.lists(likely, max_size=3), values)
payloads = st.binary(max_size=30) | documents.map(lambda value: json.dumps(value).encode()) | st.just(GOOD)


@pytest.mark.filterwarnings("error")
@given(st.lists(payloads, max_size=8), st.sampled_from(range(len(DECODERS))))
@settings(max_examples=300, deadline=None)
def test_a_batch_is_its_payloads_one_by_one(batch: list[bytes], which: int) -> None:
    """Whatever arrives, nothing is raised, and no payload changes what comes of another."""
    subject = DECODERS[which]()
    together = run(subject, *batch)
    readings, failures = [], []
    for index, payload in enumerate(batch):
        alone = subject.decode([payload], np.array([NOW + index * 10**9]), ["t"])
        keys = alone.keys or [""] * len(alone.times)
        readings += [(index, *row) for row in zip(alone.times.tolist(), keys, alone.values.tolist(), strict=True)]
        failures += [(index, *failed[1:]) for failed in alone.failures]
    keys = together.keys or [""] * len(together.times)
    found = zip(together.origin.tolist(), together.times.tolist(), keys, together.values.tolist(), strict=True)
    assert list(found) == readings
    assert list(together.failures) == failures


@given(st.lists(documents.map(lambda value: json.dumps(value).encode()), max_size=6), st.sampled_from([0, 1, 2, 3]))
@settings(max_examples=200, deadline=None)
def test_the_fast_way_and_the_slow_way_agree(batch: list[bytes], which: int) -> None:
    """Without its typed decoder every valid JSON payload gives the same readings and the same failures."""
    fast, slow = DECODERS[which](), DECODERS[which]()
    assert fast._fast is not None
    slow._fast = None
    first, second = run(fast, *batch), run(slow, *batch)
    assert first.origin.tolist() == second.origin.tolist()
    assert first.times.tolist() == second.times.tolist()
    assert first.values.tobytes() == second.values.tobytes()
    assert first.keys == second.keys
    assert first.failures == second.failures


@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**80), 2**80)), min_size=1))
def test_every_number_arrives_to_the_last_bit(rows: list[tuple[float, int]]) -> None:
    """What a sender's float was is what the model sees, in each shape."""
    expected = [[first, float(second)] for first, second in rows]
    objects = [{"a": first, "b": second} for first, second in rows]
    shapes = [*objects, objects, *map(list, rows), {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}]
    found = run(decoder(), *(json.dumps(shape).encode() for shape in shapes)).values
    assert found.tobytes() == np.array(expected * 4).tobytes()


def test_negative_zero_and_the_smallest_numbers() -> None:
    """The sign of zero, the smallest number, and numbers too small for a float, which are zero."""
    found = run(decoder(), b'{"a": -0.0, "b": 5e-324}', b'{"a": -1e-400, "b": 1.7976931348623157e308}').values
    assert math.copysign(1, found[0, 0]) == -1
    assert found[0, 1] == 5e-324
    assert found[1].tolist() == [0, 1.7976931348623157e308]
