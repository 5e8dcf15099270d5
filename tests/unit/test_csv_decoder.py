"""CSV: lines by other people's writers, every failure, and nothing that a payload can do to its neighbours."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.decoders import decoder as decoder_of
from processor.decoders.csv import CsvDecoder
from processor.errors import ConfigurationError
from processor.settings import build
from processor.source_sections import Source
from processor.types import Decoded, Failure
from tests.formats import example

NOW = 1_795_341_600_000_000_000
"""2026-11-22T10:00:00Z."""
TIMED: Mapping[str, Any] = {"time": "when", "csv": {"columns": ["when", "a", "b"]}}
NAMED: Mapping[str, Any] = {"time": "when", "csv": {"header": True}}


def decoder(**keys: Any) -> CsvDecoder:  # noqa: ANN401 - the source's keys
    """Return a decoder of fields a and b, arrival time, stream from the topic, unless told otherwise."""
    source = {"name": "s", "topics": ["t"], "format": "csv", "fields": ["a", "b"], **keys}
    made = decoder_of(Source.model_validate(source))
    assert isinstance(made, CsvDecoder)
    return made


def run(subject: CsvDecoder, *payloads: bytes) -> Decoded:
    """Decode payloads that arrived a second apart from NOW on, and check what holds for any."""
    decoded = subject.decode(payloads, NOW + np.arange(len(payloads), dtype=np.int64) * 10**9, ["t"] * len(payloads))
    count = len(decoded.origin)
    assert decoded.values.shape == (count, len(subject._fields))
    assert decoded.values.dtype == np.float64
    assert decoded.times.shape == (count,)
    assert decoded.times.dtype == decoded.origin.dtype == np.int64
    assert (np.diff(decoded.origin) >= 0).all()
    assert np.isfinite(decoded.values if decoded.absent is None else decoded.values[~decoded.absent]).all()
    failed = [failure.position for failure in decoded.failures]
    assert sorted({*failed, *decoded.origin.tolist()}) == list(range(len(payloads)))  # readings, or a failure
    assert len(failed) + len(set(decoded.origin.tolist())) == len(payloads)  # and just one of them
    assert (decoded.keys is None) == (subject._key is None)
    assert decoded.keys is None or (len(decoded.keys) == count and all(decoded.keys))
    return decoded


def failure(subject: CsvDecoder, payload: bytes, good: bytes = b"0.5,7\n") -> Failure:
    """Return what is said of a payload between two good ones, which it must not affect."""
    decoded = run(subject, good, payload, good)
    assert decoded.values.tolist() == [[0.5, 7]] * 2
    alone = subject.decode([payload], np.array([NOW + 10**9]), ["t"])
    assert alone.failures[0][1:] == decoded.failures[0][1:]
    return alone.failures[0]


@pytest.mark.parametrize("good", [b"0.5,7\n", b'"0.5",7\n'])
@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"1,2", [[1, 2]]),
        (b"1,2\n", [[1, 2]]),
        (b"1,2\r\n3,-4e2\r\n", [[1, 2], [3, -400]]),
        (b"1,2\r3,4\r", [[1, 2], [3, 4]]),
        (b"\n1,2\n\n\r\n3,4\n\n", [[1, 2], [3, 4]]),
        (b"\xef\xbb\xbf1,2\n", [[1, 2]]),
        (b" 1 ,\t2 \n", [[1, 2]]),
        (b"+1,.5\n007,1.\n", [[1, 0.5], [7, 1]]),
        (b"true,False\n", [[1, 0]]),
        (b'"1","2"\n3,4\n', [[1, 2], [3, 4]]),
        (b'1, "2"\r\n\r\n"3",4', [[1, 2], [3, 4]]),
        (b"-0,-0.0\n", [[0, 0]]),
    ],
)
def test_lines(good: bytes, payload: bytes, expected: list[list[float]]) -> None:
    """Any line ends, empty lines, a byte order mark, blanks around numbers, quotes; all at the time of arrival."""
    decoded = run(decoder(), good, payload, good)
    assert decoded.values.tolist() == [[0.5, 7], *expected, [0.5, 7]]
    assert not np.signbit(decoded.values[decoded.values == 0]).any()
    assert decoded.origin.tolist() == [0, *[1] * len(expected), 2]
    assert decoded.times.tolist() == [NOW + position * 10**9 for position in decoded.origin.tolist()]


def test_what_a_node_script_sends() -> None:
    """`[Date.now(), t, rpm].join(",")`: milliseconds, numbers as JavaScript prints them, null as nothing."""
    subject = decoder(**TIMED, missing="hold")
    decoded = run(subject, b"1795341600123,21.5,1e+21", b"1795341600124,5e-324,-0\n", b"1795341600125,,1500")
    assert decoded.times.tolist() == [NOW + 123_000_000, NOW + 124_000_000, NOW + 125_000_000]
    assert decoded.values[:2].tolist() == [[21.5, 1e21], [5e-324, 0]]
    assert decoded.values[2, 1] == 1500
    assert decoded.absent is not None
    assert decoded.absent.tolist() == [[False, False], [False, False], [True, False]]


def test_what_a_data_frame_writes() -> None:
    """`to_csv()`: an index without a name, other columns beside ours, ISO times, nothing for NaN, True and False."""
    subject = decoder(**NAMED, missing=-1.0)
    payload = b",when,a,label,b\n0,2026-11-22 10:00:00+00:00,1.5,walking,\n1,2026-11-22 10:00:00.250000+00:00,,x,True\n"
    decoded = run(subject, payload)
    assert decoded.values.tolist() == [[1.5, -1], [-1, 1]]
    assert decoded.times.tolist() == [NOW, NOW + 250_000_000]
    assert decoded.absent is None


def test_what_a_spreadsheet_writes() -> None:
    """Semicolons, a byte order mark, CRLF, names in quotes with a line end inside; a decimal comma is told."""
    keys = {"csv": {"header": True, "delimiter": ";"}, "fields": ["a", "b (in\nbar)"]}
    assert run(decoder(**keys), b'\xef\xbb\xbfa;"b (in\nbar)"\r\n0.5;7\r\n').values.tolist() == [[0.5, 7]]
    found = failure(decoder(**keys), b'a;"b (in\nbar)"\r\n0.5;7,5\r\n', b'a;"b (in\nbar)"\r\n0.5;7\r\n')
    assert found.detail == "line 3: field 'b (in\\nbar)' is '7,5'; expected a number with a decimal point"


def test_the_example_of_the_page() -> None:
    """As it stands there."""
    source, payload = example("CSV")
    decoded = decoder_of(source).decode([payload], np.array([NOW]), ["plant/1/pumps"])
    assert decoded.keys == ["north", "south, 2"]
    assert decoded.values.tolist() == [[2.4, 1480], [2.5, 1475]]
    assert decoded.times.tolist() == [NOW + 500_000_000, NOW + 1_500_000_000]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " ", "§"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("header", [False, True])
def test_what_pythons_writer_writes(delimiter: str, quoting: Any, end: str, *, header: bool) -> None:  # noqa: ANN401
    """Every dialect of the csv module: names in any order, text with whatever needs quotes, keys in the payload."""
    rows = [[1795341600.5, 'pump "1"', 0.5, -7e-9], [1795341601.25, f"pump{delimiter}\n2", 1e300, 0.0]]
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)
    names = ["when", "pump", "b", "a"]
    if header:
        writer.writerow(names)
    writer.writerows(rows)
    keys = {"delimiter": delimiter, "header": header} | ({} if header else {"columns": names})
    decoded = run(decoder(csv=keys, time="when", stream="{field:pump}"), file.getvalue().encode())
    assert decoded.times.tolist() == [NOW + 500_000_000, NOW + 1_250_000_000]
    assert decoded.keys == [row[1] for row in rows]
    assert decoded.values.tolist() == [[row[3], row[2]] for row in rows]


def test_payloads_with_other_names_and_orders_side_by_side() -> None:
    """Each payload's own first line counts, also where it is quoted, or looks like the one before."""
    batch = [b"a,b\n1,2\n", b'"b","a"\n2,1\n', b"a,b\n1,2\n", b"b,x,a\r\n2,9,1\r\n", b"a,b\r1,2\n1,2", b"\na,b\n1,2"]
    for payloads in (batch, [*batch[1:], batch[0]], batch * 2):
        decoded = run(decoder(csv={"header": True}), *payloads)
        assert decoded.failures == []
        assert {tuple(row) for row in decoded.values.tolist()} == {(1, 2)}
        assert len(decoded.values) == len(payloads) + sum(payload == batch[4] for payload in payloads)


@pytest.mark.parametrize(
    ("payload", "reason", "sentence"),
    [
        (b"", "decode", "the payload has no line"),
        (b"\r\n\n", "decode", "the payload has no line"),
        (b"1,2\n3\n", "decode", "line 2 has 1 cell; expected 2: a, b"),
        (b"1,2\n\n3,4,5\n", "decode", "line 3 has 3 cells; expected 2: a, b"),
        (b'"1",2\n\n3,4,5\n', "decode", "line 3 has 3 cells; expected 2: a, b"),
        (b"1;2\n", "decode", "line 1 has 1 cell; expected 2: a, b"),
        (b"a,b\n1,2\n", "field", "line 1: field 'a' is 'a'; expected a number"),
        (b"1,\n", "field", "line 1: field 'b' is empty; expected a number"),
        (b'1,2\n\n3," "\n', "field", "line 3: field 'b' is empty; expected a number"),
        (b"1,2\n3,warm\n", "field", "line 2: field 'b' is 'warm'; expected a number"),
        (b"1,1_0\n", "field", "line 1: field 'b' is '1_0'; expected a number"),
        (b"1,0x10\n", "field", "line 1: field 'b' is '0x10'; expected a number"),
        (b"1,null\n", "field", "line 1: field 'b' is 'null'; expected a number"),
        (b"1,[2]\n", "field", "line 1: field 'b' is '[2]'; expected a number"),
        (b"1,2\0\n", "field", "line 1: field 'b' is '2\\x00'; expected a number"),
        (b"1," + b"x" * 9999, "field", "expected a number"),
        (b"1,nan\n", "not_finite", "field 'b' is nan; expected a finite number"),
        (b"-inf,1\n", "not_finite", "field 'a' is -inf; expected a finite number"),
        (b"1,1e999\n", "not_finite", "field 'b' is inf; expected a finite number"),
        (b"1,1" + b"0" * 9999 + b"\n", "not_finite", "field 'b' is inf; expected a finite number"),
        (b"1,\xff\n", "decode", "byte 2 is 0xff, which is not UTF-8"),
        ("1,2".encode("utf-16"), "decode", "byte 0 is 0xff, which is not UTF-8"),
        (b'1,"2\n', "decode", "line 1: unexpected end of data"),
        (b'1,"2"3\n', "decode", "line 1: ',' expected after '\"'"),
        (b'1,"' + b"2" * 200_000 + b'"\n', "decode", "line 1: field larger than field limit"),
        (b'{"a": 1, "b": 2}', "decode", "line 1: ',' expected after '\"'"),
    ],
)
def test_failures(payload: bytes, reason: str, sentence: str) -> None:
    """One failure a payload, with the line, what was found and what was expected; its neighbours are read."""
    found = failure(decoder(), payload)
    assert found.reason == reason
    assert sentence in found.detail
    assert len(found.detail) < 200


@pytest.mark.parametrize(
    ("payload", "reason", "sentence"),
    [
        (b"", "decode", "the payload has no line after the names"),
        (b"when,d,a,b\n", "decode", "the payload has no line after the names"),
        (b'"when",d,a,b\n', "decode", "the payload has no line after the names"),
        (b"when,d,a\n1795341600,x,1\n", "field", "the first line names no column 'b'; found 'when', 'd', 'a'"),
        (b"d,a,b\nx,1,2\n", "time", "the first line names no column 'when'; found 'd', 'a', 'b'"),
        (b"when,a,b\n1795341600,1,2\n", "field", "the first line names no column 'd'; found 'when', 'a', 'b'"),
        (b"1795341600,x,1,2\n", "time", "the first line names no column 'when'; found '1795341600', 'x', '1', '2'"),
        (b"when,d,a,b,a\n1795341600,x,1,2,3\n", "decode", "the first line names the column 'a' more than once"),
        (b"when,d,a,b\n1795341600,x,1\n", "decode", "line 2 has 3 cells; expected 4: when, d, a, b"),
        (b"when,d,a,b\nsoon,x,1,2\n", "time", "field 'when': 'soon' is not an ISO 8601 time"),
        (b"when,d,a,b\n,x,1,2\n", "time", "field 'when': '' is not an ISO 8601 time"),
        (b"when,d,a,b\n1e308,x,1,2\n", "time", "field 'when': 1e+308 is outside the years"),
        (b"when,d,a,b\nnan,x,1,2\n", "time", "field 'when': 'nan' is not an ISO 8601 time"),
        (b"when,d,a,b\n1_0,x,1,2\n", "time", "field 'when': '1_0' is not an ISO 8601 time"),
        (b"when,d,a,b\n1795341600,x,1,2\n1895341600,x,1,2\n", "time", "field 'when' is 99999999 s in the future"),
        (b"when,d,a,b\n1795341600,,1,2\n", "field", "line 2: field 'd' names the stream; expected 1 to 65535 char"),
        (b"when,d,a,b\n1795341600," + b"k" * 65_536 + b",1,2\n", "field", "characters, found 65536"),
        (b",".join(b"column-%d" % number for number in range(99)) + b"\n1", "time", "the first line names no column"),
    ],
)
def test_failures_of_names_times_and_streams(payload: bytes, reason: str, sentence: str) -> None:
    """A payload whose first line lacks a name, or with a line without time or stream, gives no reading at all."""
    found = failure(decoder(**NAMED, stream="{field:d}"), payload, b"when,d,a,b\n1795341600,x,0.5,7\n")
    assert found.reason == reason
    assert sentence in found.detail
    assert len(found.detail) < 200


def test_a_column_that_is_not_there_is_missing() -> None:
    """Where missing fields are held or have a number, the first line need not name them."""
    held = run(decoder(csv={"header": True}, missing="hold"), b"b\n5\n", b"a,b\n1,2\n")
    assert held.absent is not None
    assert held.absent.tolist() == [[True, False], [False, False]]
    assert run(decoder(csv={"header": True}, missing=0), b"b\n5\n").values.tolist() == [[0, 5]]
    assert run(decoder(csv={"header": True}, missing=0), b"x\n5\n").values.tolist() == [[0, 0]]


def test_one_column() -> None:
    """A number a line; what Python's writer makes of an empty cell that is alone is an empty cell."""
    assert run(decoder(fields=["a"]), b"1\n\n2\n", b"3").values.ravel().tolist() == [1, 2, 3]
    assert run(decoder(fields=["a"], missing=9), b'1\n""\n2\n').values.ravel().tolist() == [1, 9, 2]
    assert run(decoder(fields=["a"], missing=9), b"1\n \n2\n").values.ravel().tolist() == [1, 9, 2]


DECODERS: Sequence[Mapping[str, Any]] = (
    {},
    {"fields": ["a"]},
    TIMED,
    {**TIMED, "time_unit": "ms", "missing": "hold"},
    {**TIMED, "time_unit": "iso8601"},
    NAMED,
    {**NAMED, "missing": 0.5, "stream": "x-{field:d}"},
    {"csv": {"header": True, "delimiter": ";"}, "missing": "hold"},
)
cells = st.one_of(
    st.floats(-9, 9).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["1795341600", "1795341600.5", "2026-11-22T10:00:00Z", "-0", "1e5", "1" * 70, "0." + "1" * 70]),
    st.sampled_from(
        ["", " ", "nan", "1e999", "true", "+1", "1_0", '"', '"1"', '"a,b"', "a", "b", "\ufeff", "é", "[1]"]
    ),
)
lines = st.lists(cells, min_size=1, max_size=4)
headers = st.sampled_from(["a,b", "when,a,b", "when,d,b,a", "a;b", "d,when,a,b,c", '"a",b', "a,a,b", "b"])
texts = st.builds(
    lambda header, rows, delimiter, end: header + end + "".join(delimiter.join(row) + end for row in rows),
    st.just("") | headers,
    st.lists(lines, max_size=3),
    st.sampled_from([",", ";"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
payloads = st.binary(max_size=30) | texts.map(str.encode) | st.just(b"1,2\n") | st.just(b"when,a,b\n1795341600,1,2\n")


@pytest.mark.filterwarnings("error")
@given(st.lists(payloads, max_size=8), st.sampled_from(DECODERS))
@settings(max_examples=150, deadline=None)
def test_a_batch_is_its_payloads_one_by_one(batch: list[bytes], keys: Mapping[str, Any]) -> None:
    """Whatever arrives, nothing is raised, and no payload changes what comes of another, nor does the fast way."""
    together, slow = decoder(**keys), decoder(**keys)
    slow._is_numeric = False
    found = run(together, *batch)
    for again in (run(together, *batch), run(slow, *batch)):
        assert again.failures == found.failures
        assert again.values.tobytes() == found.values.tobytes()
        assert again.times.tolist() == found.times.tolist()
    readings, failures = [], []
    for index, payload in enumerate(batch):
        alone = decoder(**keys).decode([payload], np.array([NOW + index * 10**9]), ["t"])
        names = alone.keys or [""] * len(alone.times)
        readings += [(index, *row) for row in zip(alone.times.tolist(), names, _values(alone), strict=True)]
        failures += [(index, *failed[1:]) for failed in alone.failures]
    names = found.keys or [""] * len(found.times)
    assert list(zip(found.origin.tolist(), found.times.tolist(), names, _values(found), strict=True)) == readings
    assert list(found.failures) == failures


def _values(decoded: Decoded) -> list[list[float | None]]:
    absent = np.zeros(decoded.values.shape, np.bool_) if decoded.absent is None else decoded.absent
    return [
        [None if gone else value for value, gone in zip(row, lacks, strict=True)]
        for row, lacks in zip(decoded.values.tolist(), absent.tolist(), strict=True)
    ]


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.lists(st.tuples(finite, st.integers(-(2**80), 2**80)), min_size=1), min_size=1))
@settings(max_examples=50, deadline=None)
def test_every_number_arrives_to_the_last_bit(batch: list[list[tuple[float, int]]]) -> None:
    """What a sender's float was is what the model sees, but for the sign of zero, with quotes and without."""
    expected = [[first + 0.0, float(second)] for rows in batch for first, second in rows]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        written = []
        for rows in batch:
            file = io.StringIO(newline="")
            csv.writer(file, quoting=quoting).writerows(rows)
            written.append(file.getvalue().encode())
        assert run(decoder(), *written).values.tobytes() == np.array(expected).tobytes()


@pytest.mark.parametrize(
    "payload",
    [b"1\n", b",", b"\n", b'"', b"1,2\n", b"\r", b"1795341600,,1\n", b'"1,', b"a,"],
)
@pytest.mark.parametrize("keys", [DECODERS[1], DECODERS[3], DECODERS[6]])
def test_much_of_anything_takes_no_long_time(payload: bytes, keys: Mapping[str, Any]) -> None:
    """What a line or a cell costs does not grow with their number."""
    started = time.process_time()
    subject = decoder(**keys)
    subject.decode([payload * (200_000 // len(payload))], np.array([NOW]), ["t"])
    assert time.process_time() - started < 5  # a tenth of a second


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"csv": {"delimiter": '"'}}, "csv.delimiter", 'found "\\"", expected one character that is in no number'),
        ({"csv": {"delimiter": ", "}}, "csv.delimiter", 'found ", ", expected one character'),
        ({"csv": {"delimiter": "1"}}, "csv.delimiter", 'found "1", expected one character'),
        ({"csv": {"delimiter": "\n"}}, "csv.delimiter", 'found "\\n", expected one character'),
        ({"csv": {"columns": ["a", "b", "a"]}}, "csv.columns", 'each column once; "a" stands there more than once'),
        ({"csv": {"header": True, "columns": ["a", "b"]}}, "csv.columns", "with a header each payload names its"),
        ({"csv": {"columns": ["a", "c"]}}, "fields[1]", '"b" is none of csv.columns'),
        ({"time": "when"}, "time", '"when" is none of the fields, which are all columns without csv.columns'),
        ({"time": "t", "csv": {"columns": ["a", "b"]}}, "time", '"t" is none of csv.columns'),
        ({"stream": "{field:d}"}, "stream", '"d" is none of the fields'),
        ({"base": {"time": "t", "rate": 1}}, "base", "format csv has no such key"),
    ],
)
def test_what_does_not_fit_is_told_at_load(keys: Mapping[str, Any], path: str, message: str) -> None:
    """With its path, and what was expected."""
    source = {"name": "s", "topics": ["t"], "format": "csv", "fields": ["a", "b"], **keys}
    data = {"id": "x", "sources": [source], "model": {"path": "m.onnx"}, "filter": {}}
    with pytest.raises(ConfigurationError) as refusal:
        build(data, Path("/"))
    (problem,) = refusal.value.problems
    assert problem.path == f"sources[0].{path}"
    assert message in problem.message


def test_more_readings_than_a_payload_has_bytes_for_are_refused() -> None:
    """A line of one cell is a reading of all fields, where the first line may lack them."""
    fields = [f"f{number}" for number in range(100)]
    subject = decoder(fields=fields, missing=0, csv={"header": True})
    decoded = run(subject, b"f0\n" + b"1\n" * 64, b"f0\n" + b"1\n" * 65)
    assert len(decoded.origin) == 64
    assert list(decoded.failures) == [(1, "too_large", "the payload holds 65 readings of 100 fields")]
