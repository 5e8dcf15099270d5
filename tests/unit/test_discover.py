"""What `mlade discover` recognises, in payloads that other people's libraries have written."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from datetime import UTC, datetime
from typing import Any

import cbor2
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from processor.types import Message
from tests.sparkplug import metric, payload, recorded
from tests.unit.discovering import NOW, TENTH, Make, conclude, learn, one, plain, read, source, stream


def wave(number: int, channel: int = 0) -> float:
    """Return a smooth signal."""
    return round(math.sin(number / 5 + channel), 4)


def press(number: int, time: float) -> str:
    """Return an object as a press sends it."""
    return json.dumps({"ts": round(time * 1000), "seq": number, "force": wave(number), "stroke": 0.2 + number % 3})


@pytest.mark.parametrize(
    ("time", "unit"),
    [
        (float, "s"),
        (round, "s"),
        (lambda t: round(t * 1e3), "ms"),
        (lambda t: round(t * 1e6), "us"),
        (lambda t: round(t * 1e9), "ns"),
        (lambda t: str(round(t * 1e3)), "ms"),
        (lambda t: datetime.fromtimestamp(t, UTC).isoformat(), "iso8601"),
    ],
)
def test_the_time_and_its_unit_are_told_by_size(time: Any, unit: str) -> None:  # noqa: ANN401 - what a test gives
    """Whatever the field is called, as long as it is near to the arrival."""
    found = source(stream("a/1", lambda n, t: json.dumps({"zeit": time(t), "x": wave(n)})))
    assert (found["time"], found["time_unit"], found["fields"]) == ("zeit", unit, ["x"])


def test_without_a_time_that_of_the_arrival_is_taken() -> None:
    """A number of that size alone, years away and without the name of a time, is none."""
    proposal = one(stream("a/1", lambda n, _: json.dumps({"total": 1_300_000_000 + 7 * (n % 3), "x": wave(n)})))
    assert proposal.source is not None
    assert "time" not in proposal.source
    assert proposal.channels == ("total", "x")


def test_a_time_in_the_future_is_told_and_not_used() -> None:
    """`max_ahead` would make dead letters of all messages."""
    proposal = one(stream("a/1", lambda n, t: json.dumps({"ts": t + 10 * 86_400, "x": wave(n)})))
    assert proposal.source is not None
    assert "time" not in proposal.source
    assert "ts is 10.0 days in the future" in " ".join(proposal.notes)
    assert proposal.guess == ""


def test_a_local_time_is_told() -> None:
    """Plants' clocks without a zone are read as UTC, which somebody has to know."""
    proposal = one(stream("a/1", lambda n, t: json.dumps({"time": t + 3600, "x": wave(n)})))
    assert "time is 60.0 minutes after the arrival; is it UTC?" in proposal.notes


def test_nested_objects_become_pointers() -> None:
    """As JSON pointers, with their escapes; a name with a slash in it is only a name."""
    found = source(
        stream("a/1", lambda n, t: json.dumps({"time": t, "s": {"a/b": wave(n), "xyz": [wave(n), 1, 2]}, "c/d": n % 3}))
    )
    assert found["fields"] == ["/s/a~1b", "/s/xyz/0", "/s/xyz/1", "/s/xyz/2", "c/d"]


def test_what_is_no_measurement_is_left_out_with_its_reason() -> None:
    """Texts, counters, what is about the device, what is null, second times, true and false."""
    proposal = one(
        stream(
            "a/1",
            lambda n, t: json.dumps(
                {
                    "ts": t,
                    "sent": t + 0.01,
                    "no": 7 * n,
                    "unit": "kN",
                    "fw_version": 2.1,
                    "spare": None,
                    "ok": n % 2 > 0,
                }
                | {"mixed": "off" if n % 2 else 1, "force": wave(n), "set": 5}
            ),
        )
    )
    assert proposal.fields.left_out == {
        "sent": "a time, too",
        "no": "counts up",
        "unit": "text: kN",
        "fw_version": "about the device rather than measured",
        "spare": "always null",
        "mixed": "not always a number: 'off' came, too",
    }
    assert (proposal.channels, proposal.fields.flags, proposal.fields.constant) == (("force", "set"), ["ok"], ["set"])
    assert "  # Always the same meanwhile: set.\n" in conclude([proposal])[1]


def test_names_that_only_resemble_are_measurements() -> None:
    """An index that falls, an acid that is no identifier, an air's quality, a battery's voltage, a state's name."""
    names = ("heat_index", "acid", "grid", "air_quality", "battery_voltage", "flat", "runtime")
    proposal = one(
        stream(
            "a/1",
            lambda n, t: json.dumps({"t": t, "state_name": "on" if n % 3 else "off"} | dict.fromkeys(names, wave(n))),
        )
    )
    assert proposal.channels == names
    assert proposal.fields.key == ""


def test_counters_of_devices_that_share_a_topic_count_by_device() -> None:
    """Each has its own."""
    counted = {"a": 10, "b": 5000}

    def make(number: int, time: float) -> str:
        device = "ab"[number % 2]
        counted[device] += 1
        return json.dumps({"t": time, "device": device, "no": counted[device], "x": wave(number)})

    proposal = one(stream("gw", make))
    assert proposal.fields.left_out == {"no": "counts up"}


def test_devices_that_share_a_topic_are_told_apart_by_a_field() -> None:
    """One that varies within a topic and comes again; a number of the message does not come again."""

    def make(number: int, time: float) -> str:
        return json.dumps({"msg": f"m-{number}", "device": f"d{number % 3}", "t": time, "x": wave(number)})

    assert source(stream("gw", make))["stream"] == "{field:device}"
    both = source(stream("gw/1", make), stream("gw/2", make))
    assert both["stream"] == "{topic}/{field:device}"
    apart = source(stream("gw/1", make), stream("gw/2", lambda n, t: make(n, t).replace(': "d', ': "e')))
    assert apart["stream"] == "{field:device}"
    alone = source(stream("gw/1", lambda n, t: make(3 * n, t)), stream("gw/2", lambda n, t: make(3 * n + 1, t)))
    assert "stream" not in alone


def test_fields_that_sometimes_lack_are_held() -> None:
    """Changed-only payloads: what did not come is what came last."""
    proposal = one(
        stream("a/1", lambda n, t: json.dumps({"t": t, "x": wave(n)} | ({"y": wave(n, 1)} if n % 4 < 2 else {})))
    )
    assert proposal.source is not None
    assert proposal.source["missing"] == "hold"
    assert "y (50%)" in " ".join(proposal.notes)


def test_a_field_that_one_of_the_topics_never_has_is_left_out() -> None:
    """Nothing could be held there."""
    proposal = one(
        stream("a/1", lambda n, t: json.dumps({"t": t, "x": wave(n), "z": 1.5, "angle": wave(n)})),
        stream("a/2", lambda n, t: json.dumps({"t": t, "x": wave(n), "z": 1.5})),
    )
    assert proposal.channels == ("x", "z")
    assert proposal.fields.left_out == {"angle": "never on 1 of 2 topics, such as a/2"}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda n, t: json.dumps([{"t": t, "x": wave(n)}, {"t": t + 0.05, "x": wave(n)}]),
            {"fields": ["x"], "time": "t"},
        ),
        (lambda n, _: json.dumps([wave(n), 1.5, n % 7]), {"fields": ["c0", "c1", "c2"]}),
        (lambda n, _: json.dumps(wave(n)), {}),
        (
            lambda n, t: json.dumps({"ts": [t - 0.05, t], "ax": [wave(n), 2], "ay": [1, wave(n)]}),
            {"fields": ["ax", "ay"], "time": "ts"},
        ),
        (
            lambda n, t: json.dumps({"t0": t, "rate": 50, "values": [[wave(n), 1]] * 5}),
            {"fields": ["c0", "c1"], "base": {"time": "t0", "rate": "rate", "values": "values"}},
        ),
        (
            lambda n, t: json.dumps({"t0": t, "fs": 50, "names": ["u", "i"], "data": [[wave(n), 1]] * 5}),
            {"fields": ["u", "i"], "base": {"time": "t0", "rate": "fs", "values": "data"}},
        ),
        (
            lambda n, t: json.dumps({"t0": t, "wave": [wave(n)] * 20}),
            {"fields": ["wave"], "base": {"time": "t0", "rate": 200.0, "values": "wave"}},
        ),
    ],
)
def test_the_shapes_of_json(make: Make, expected: dict[str, Any]) -> None:
    """Arrays of objects, numbers, columns, many readings with one time."""
    found = source(stream("a/1", make))
    found.pop("time_unit", None)
    assert found == expected


@pytest.mark.parametrize(
    ("encode", "format_"),
    [(json.dumps, "json"), (msgpack.packb, "msgpack"), (cbor2.dumps, "cbor")],
)
def test_trees_are_read_however_they_are_written(encode: Any, format_: str) -> None:  # noqa: ANN401 - a library's
    """One document in JSON, MessagePack and CBOR; arrays of numbers and of objects, too."""
    for make in (
        lambda n, t: encode({"ts": t, "temp": wave(n), "hum": 40.5}),
        lambda n, t: encode([{"ts": t, "temp": wave(n), "hum": 40.5}] * 2),
    ):
        proposal = one(stream("env/1", make))
        assert proposal.source is not None
        assert proposal.source["format"] == format_
        assert (proposal.channels, proposal.source["time"], proposal.guess) == (("temp", "hum"), "ts", "")
    numbers = one(stream("env/1", lambda n, _: encode([wave(n), 2.5, 3])))
    assert (numbers.family.signature.format, numbers.channels) == (format_, ("c0", "c1", "c2"))


def test_timestamps_of_messagepack_and_cbor() -> None:
    """They have a unit of their own."""
    packed = source(stream("a/1", lambda n, t: msgpack.packb({"when": msgpack.Timestamp.from_unix(t), "x": wave(n)})))
    assert (packed["time"], packed["time_unit"]) == ("when", "auto")
    tagged = source(stream("a/1", lambda n, t: cbor2.dumps({"when": cbor2.CBORTag(1, t), "x": wave(n)})))
    assert (tagged["time"], tagged["time_unit"]) == ("when", "auto")


def lines(rows: list[list[object]], **how: Any) -> str:  # noqa: ANN401 - the csv module's
    """Return rows as the csv module writes them."""
    text = io.StringIO()
    csv.writer(text, **how).writerows(rows)
    return text.getvalue()


def test_lines_with_and_without_a_header() -> None:
    """The delimiter, the columns, the time among them."""
    with_header = source(stream("c/1", lambda n, t: lines([["when", "m", "n"], [t, wave(n), 2], [t, 3, 4]])))
    assert with_header == {"csv": {"header": True}, "fields": ["m", "n"], "time": "when", "time_unit": "s"}
    bare = source(stream("c/1", lambda n, t: lines([[round(t * 1000), wave(n), "ok", 2.5]], delimiter=";")))
    assert bare == {
        "csv": {"delimiter": ";", "columns": ["c0", "c1", "c2", "c3"]},
        "fields": ["c1", "c3"],
        "time": "c0",
        "time_unit": "ms",
    }
    keyed = source(stream("c/1", lambda n, _: lines([[f"dev{n % 2}", wave(n), 2]], delimiter="\t")))
    assert keyed["stream"] == "{field:c0}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hello, operator; all is well", "text that is neither JSON nor numbers"),
        ("hello", "text that is neither JSON nor numbers"),
        ("1,5;2,3", "its numbers have a decimal comma, and mlade reads a point"),
        ('"21.5"', "text that is neither JSON nor numbers"),
        ('["a", "b"]', "an array of neither objects nor numbers"),
        ("[]", "json that is an empty array"),
    ],
)
def test_what_nothing_reads_has_a_reason(text: str, problem: str) -> None:
    """It is told, and no filter matches it."""
    proposal = one(stream("n/1", lambda *_: text))
    assert (proposal.source, proposal.problem) == (None, problem)
    assert f"n/1: {problem}. n/1: {text}" in conclude([proposal])[1]


def test_numbers_as_text_by_what_their_topics_say() -> None:
    """A family each for the temperatures and the vibrations, and the two of them joined as a suggestion."""
    proposals = learn(
        *(stream(f"line/{m}/{what}", lambda n, _: f" {wave(n)}\n") for m in (1, 2) for what in ("temp", "vib"))
    )
    assert [(each.family.filters, each.channels) for each in proposals] == [
        (("line/+/temp",), ("value",)),
        (("line/+/vib",), ("value",)),
    ]
    choice, text = conclude(proposals)
    assert [each.source and each.source["name"] for each in choice.active] == ["temp"]
    assert '#   join: {by: "{topic[1]}", topics: {temp: line/+/temp, vib: line/+/vib}, within: 50ms}' in text


def test_values_in_objects_are_joined_with_their_times() -> None:
    """With a pointer into each sensor's payload."""
    proposals = learn(
        *(
            stream(f"line/{m}/{what}", lambda n, t: json.dumps({"t": t, "value": wave(n)}))
            for m in (1, 2)
            for what in ("temp", "vib")
        )
    )
    choice, _ = conclude(proposals)
    (joined,) = [each for each, _ in choice.others if each.parts]
    assert joined.source is not None
    assert (joined.source["fields"], joined.source["time"]) == (["/temp/value", "/vib/value"], "t")
    assert joined.tried is not None
    assert (joined.tried.readings, joined.tried.streams) == (40, 2)


def test_sensors_of_different_pace_hold_what_came_last() -> None:
    """Else hardly a reading would be complete."""
    proposals = learn(
        stream("m/1/fast", lambda n, _: str(wave(n)), 40, TENTH),
        stream("m/1/slow", lambda n, _: str(wave(n)), 10, 4 * TENTH),
    )
    (joined,) = [each for each, _ in conclude(proposals)[0].others if each.parts]
    assert joined.source is not None
    assert joined.source["join"]["fill"] == "last"


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<i2", ">i2", "<i4", ">i4"])
def test_binary_numbers_look_like_a_signal_in_one_way(dtype: str) -> None:
    """The type, the byte order and the number of channels, of several readings side by side."""

    def make(number: int, _: float) -> bytes:
        rows = [
            [(100 + 50 * c) * math.sin((number * 10 + row) / 8 + c) + 300 * c for c in range(3)] for row in range(10)
        ]
        return np.array(rows).astype(dtype).tobytes()

    proposal = one(stream("b/1", make))
    assert proposal.source is not None
    assert proposal.source["binary"] == {"dtype": dtype, "rate": 100.0}
    assert proposal.channels == ("c0", "c1", "c2")
    assert "bytes do not say what they mean" in proposal.guess
    assert proposal.pace.interval == pytest.approx(0.01)


def test_binary_channels_one_after_another_and_a_header() -> None:
    """A channel's values side by side, after a counter."""

    def make(number: int, _: float) -> bytes:
        moments = (number * 25 + np.arange(25)) / 8
        channels = [np.sin(moments + c) * (c + 1) + 10 * c for c in range(3)]
        return number.to_bytes(2) + np.array(channels, "<f4").tobytes()

    found = source(stream("b/1", make))
    assert found["binary"] == {"dtype": "<f4", "order": "CT", "skip": 2, "rate": 250.0}


def test_a_model_tells_how_many_channels_binary_has() -> None:
    """Where the bytes allow it; noise is what they look like here."""
    random = np.random.default_rng(1)
    messages = stream("b/1", lambda *_: random.normal(size=12).astype("<f4").tobytes())
    assert len(one(messages).channels) == 12
    assert len(one(messages, channels=[6]).channels) == 6
    assert len(one(messages, channels=[7]).channels) == 12


def edge(library: str) -> list[Message]:
    """Return a recorded session of edge nodes."""
    return [Message(sent.topic, sent.payload, arrival=NOW + n * TENTH) for n, sent in enumerate(recorded(library))]


@pytest.mark.parametrize(
    ("library", "metrics"),
    [
        ("pysparkplug", ("Temperature", "Level", "Total", "Small", "Count", "Setpoint")),
        ("sparkplug_client", ("Flow", "Valve", "Pulses")),
    ],
)
def test_sparkplug_as_edge_nodes_send_it(library: str, metrics: tuple[str, ...]) -> None:
    """Metrics by the names of the births; all of a node's messages go to one source."""
    first, *_ = learn(edge(library), stream("plant/7/press", press, 2))
    assert first.source is not None
    assert (first.source["topics"], first.channels, first.guess) == (["spBv1.0/#"], metrics, "")
    assert first.tried is not None
    assert first.tried.decoded == first.tried.messages


def test_sparkplug_without_births_has_no_names() -> None:
    """Numbers stand for names; a listener does not ask for births."""
    proposal = one(stream("spBv1.0/G/DDATA/E/D", lambda n, _: payload([metric(value=wave(n), alias=7)], seq=n)))
    assert proposal.source is None
    assert proposal.problem.startswith("its birth, which names its metrics, did not come")


@pytest.mark.parametrize(("kind", "color"), [("JPEG", "rgb"), ("PNG", "rgb"), ("PNG", "grey")])
def test_pictures_are_scaled_for_the_model(kind: str, color: str) -> None:
    """As Pillow writes them; how large they come is told."""

    def make(number: int, _: float) -> bytes:
        file = io.BytesIO()
        Image.new("RGB" if color == "rgb" else "L", (64, 48), number).save(file, kind)
        return file.getvalue()

    proposal = one(stream("cam/1", make, 4))
    assert proposal.source is not None
    assert proposal.source["image"] == {"height": 224, "width": 224, "color": color}
    assert "They come as 64x48 pixels, and are scaled." in proposal.notes
    assert proposal.guess == ""
    assert read(conclude([proposal])[1]).sources[0].image.color == color


def test_bytes_without_a_meaning_have_no_source() -> None:
    """What is encrypted or compressed looks like no numbers."""
    random = np.random.default_rng(1)
    encrypted = one(stream("e/1", lambda *_: random.bytes(64)))
    assert (encrypted.source, encrypted.problem) == (None, "bytes of no format that is known")


def test_a_guess_that_does_not_decode_everything_is_told() -> None:
    """Never written as if it were sure."""
    proposal = one(stream("a/1", lambda n, t: "{broken" if n % 5 == 0 else press(n, t)))
    assert proposal.guess.startswith("4 of 20 messages do not decode: the payload is not JSON")
    _, text = conclude([proposal])
    assert "CHECK, this is a guess: 4 of 20 messages do not decode" in text


def test_rates_make_the_window() -> None:
    """About two seconds of a fast sensor; the gap is longer than any that came."""
    _, text = conclude(learn(stream("plant/7/press", press, 200, TENTH), stream("plant/8/press", press, 200, TENTH)))
    assert read(text).slots[0].model.window.size == 20
    assert plain(text)["model"]["window"] == {"size": 20, "step": 10, "max_gap": "1s"}
    assert "a stream has a reading every 100 ms, so 20 take 2 s" in text


def test_retained_messages_count_and_make_no_rate() -> None:
    """They came before anyone listened."""
    kept = [Message("plant/7/press", press(0, NOW / 1e9).encode(), arrival=NOW, retain=True)]
    proposal = one(kept)
    assert (proposal.messages, proposal.retained, proposal.pace.messages) == (0, 1, 0)
    live = one(kept, stream("plant/7/press", press))
    assert (live.messages, live.retained) == (20, 1)
    assert live.pace.messages == pytest.approx(10)


def test_topics_of_processors_are_no_readings() -> None:
    """Whatever their prefix is."""
    own = [
        *stream("mlade/line-1/metrics", press),
        *stream("factory/p2/status", lambda *_: "online"),
        *stream("factory/p2/metrics", press),
        *stream("other/p3/filter/state", press),
        *stream("other/p3/inference/x", press),
    ]
    assert [each.family.topics for each in learn(own, stream("plant/7/press", press))] == [("plant/7/press",)]


def test_one_family_is_active_and_the_others_are_comments() -> None:
    """All sources feed one model; what is written is read again as it was meant."""
    proposals = learn(
        *(stream(f"plant/{m}/press", press) for m in (7, 8)),
        stream("env/1", lambda n, t: json.dumps({"time": t, "t1": wave(n), "t2": 1, "t3": 2})),
        stream("notes", lambda *_: "hello"),
    )
    choice, text = conclude(proposals)
    assert [each.family.filters for each in choice.active] == [("plant/+/press",)]
    assert [reason for _, reason in choice.others] == [
        "it has 3 fields and press has 2; all sources feed one model",
        "text that is neither JSON nor numbers",
    ]
    (found,) = read(text).sources
    assert (found.topics, found.fields, found.time, found.time_unit) == (
        ["plant/+/press"],
        ["force", "stroke"],
        "ts",
        "ms",
    )
    uncommented = text.replace("  # - name: env", "  - name: env")
    uncommented = "\n".join(
        line.replace("  #   ", "    ") if line.startswith("  #   ") else line for line in uncommented.splitlines()
    )
    assert [each["name"] for each in plain(uncommented)["sources"]] == ["press", "env"]


levels = st.sampled_from(["a", "b", "7", "spBv1.0", "é", "", "ü b", "x\x85y"])
parties = st.sampled_from(["NDATA/E", "NBIRTH/E", "DDATA/E/D", "DBIRTH/E/D"]).map("spBv1.0/G/{}".format)
topics = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool) | parties
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
trees = st.dictionaries(st.text(max_size=4), scalars | st.lists(scalars, max_size=4), max_size=4)
payloads = (
    st.binary(max_size=40)
    | st.text(max_size=20).map(lambda text: text.encode(errors="replace"))
    | (trees | scalars | st.lists(trees, max_size=3)).map(lambda tree: json.dumps(tree).encode())
    | trees.map(cbor2.dumps)
    | st.sampled_from(
        [b'{"a": 1%s}' % (b"0" * 5000), b"[" * 5000, b"1e999", b'{"t": -1e999}', cbor2.dumps([10**300] * 2)]
    )
    | st.binary(max_size=20).map(lambda rest: b"\xff\xd8\xff" + rest)
    | st.sampled_from(recorded("pysparkplug")).map(lambda sent: sent.payload)
    | st.integers(0, 100).map(lambda number: press(number, NOW / 1e9).encode())
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(topics, payloads), max_size=20))
def test_whatever_comes_the_file_is_right(sent: list[tuple[str, bytes]]) -> None:
    """No payload and no topic breaks it, the YAML, or the terminal; each source is one that `mlade check` takes."""
    messages = [Message(topic, payload, arrival=NOW + n * TENTH) for n, (topic, payload) in enumerate(sent)]
    choice, text = conclude(learn(messages))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", text)
    if choice.active:
        read(text)
