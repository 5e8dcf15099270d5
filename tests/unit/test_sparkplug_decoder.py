"""Sparkplug B: what edge nodes send becomes readings, whoever made it; what is missing is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from processor.decoders.sparkplug import SparkplugDecoder
from processor.source_sections import Source
from processor.types import NS, Decoded
from tests import sparkplug
from tests.formats import example
from tests.sparkplug import START, Sent, metric, payload, recorded

NOW = 1_795_341_600_000_000_000
"""2026-11-22T10:00:00Z."""
NODE, PRESS = "Plant 1/line-1", "Plant 1/line-1/press"

Found = tuple[int, str, list[float]]


def decoder(*fields: str, most_known: int = 1_000_000, **keys: Any) -> SparkplugDecoder:  # noqa: ANN401 - the source's
    """Return a decoder of fields a and b unless told otherwise."""
    keys = {"name": "s", "format": "sparkplug", "fields": list(fields or ("a", "b")), **keys}
    return SparkplugDecoder(Source.model_validate(keys), most_known)


def run(subject: SparkplugDecoder, *messages: Sent, at: float = 0) -> Decoded:
    """Decode messages that arrive together, `at` seconds after NOW, and check what holds for any."""
    arrivals = np.full(len(messages), NOW + int(at * NS), np.int64)
    decoded = subject.decode([one.payload for one in messages], arrivals, [one.topic for one in messages])
    count = len(decoded.origin)
    assert decoded.values.shape == (count, len(subject._columns))
    assert decoded.values.dtype == np.float64
    assert decoded.times.dtype == decoded.origin.dtype == np.int64
    assert (np.diff(decoded.origin) >= 0).all()
    known = np.isfinite(decoded.values) | (False if decoded.absent is None else decoded.absent)
    assert known.all()
    failed = [failure.position for failure in decoded.failures]
    assert failed == sorted(set(failed))
    assert all(0 <= failure.position < len(messages) and failure.detail for failure in decoded.failures)
    assert decoded.keys is not None
    assert len(decoded.keys) == len(decoded.times) == count
    return decoded


def readings(decoded: Decoded) -> list[Found]:
    """Return times in ms after START, streams and values."""
    assert decoded.keys is not None
    times = (decoded.times // 10**6 - START).tolist()
    return list(zip(times, decoded.keys, decoded.values.tolist(), strict=True))


def reasons(decoded: Decoded) -> list[tuple[str, str]]:
    """Return reasons and details of what failed."""
    return [(reason, detail) for _, reason, detail in decoded.failures]


def node(kind: str, *metrics: bytes, seq: int | None = 0, name: str = "Plant 1/line-1", at: int | None = None) -> Sent:
    """Return a message of an edge node, such as BIRTH."""
    group, edge = name.split("/")
    return Sent(f"spBv1.0/{group}/N{kind}/{edge}", payload(metrics, seq=seq, at=at))


def device(kind: str, *metrics: bytes, seq: int | None = 1, name: str = PRESS, at: int | None = None) -> Sent:
    """Return a message of a device."""
    group, edge, own = name.split("/")
    return Sent(f"spBv1.0/{group}/D{kind}/{edge}/{own}", payload(metrics, seq=seq, at=at))


BORN = (
    node("BIRTH", metric("bdSeq", 4, kind=sparkplug.INT64)),
    device("BIRTH", metric("a", 1, alias=1, at=0), metric("b", 2, alias=2, at=0), metric("c", 3, alias=3)),
)
"""A node and its device, with fields a and b, and a metric c that is none."""


def born(**keys: Any) -> SparkplugDecoder:  # noqa: ANN401 - the source's keys
    """Return a decoder that has seen BORN."""
    subject = decoder(**keys)
    assert readings(run(subject, *BORN)) == [(0, PRESS, [1, 2])]
    return subject


def test_the_example_in_the_documentation() -> None:
    """Its source is what it says it is: a birth, and then what changes."""
    subject = SparkplugDecoder(example("Sparkplug B").source)
    found = run(
        subject,
        device(
            "BIRTH",
            metric("Temperature", 20.5, alias=1, at=0),
            metric("Pressure", 3.1, alias=2, at=0),
            metric("Running", 1, kind=sparkplug.BOOLEAN, alias=3, at=0),
            metric("Serial", "P-1", kind=sparkplug.STRING, alias=4, at=0),
        ),
        device("DATA", metric(None, 21, alias=1, at=1000, typed=False), seq=2),
        device(
            "DATA",
            metric(None, 22, alias=1, at=2000),
            metric(None, 0, alias=3, at=3000, kind=sparkplug.BOOLEAN, typed=False),
            seq=3,
        ),
    )
    values = [[20.5, 3.1, 1], [21, 3.1, 1], [22, 3.1, 1], [22, 3.1, 0]]
    assert readings(found) == [(1000 * second, PRESS, row) for second, row in enumerate(values)]


# What real libraries send.


def test_a_session_of_pysparkplug() -> None:
    """Types, two times in a message, null, history, aliases without names and types, deaths and a second birth."""
    subject = decoder("Temperature", "Level", "Running", "Total", "Small", "Count", "Setpoint")
    rest = [1, -5e9, -5, 4e9, 12.5]
    found = [run(subject, sent) for sent in recorded("pysparkplug")]
    assert [readings(one) for one in found] == [
        [],
        [(0, PRESS, [20.5, -300, *rest])],
        [(1000, PRESS, [21, -300, *rest])],
        [(2000, PRESS, [22, 7, *rest]), (3000, PRESS, [23, 7, *rest])],
        [],
        [(5000, PRESS, [23, -1, *rest])],
        [(-60_000, f"{PRESS}/historical", [10, -300, *rest])],
        [],
        [(7000, PRESS, [23, -2, 0, -5e9, -128, 4e9, 12.5])],
        *[[]] * 4,
    ]
    assert [reasons(one) for one in found if one.failures] == [[("field", "field 'Level' is null")]]
    assert not any(one.requests for one in found)


def test_the_node_s_own_metrics_of_pysparkplug() -> None:
    """Are a stream of their own, beside those of devices."""
    found = run(decoder("Uptime"), *recorded("pysparkplug"))
    assert readings(found) == [(0, NODE, [0]), (6000, NODE, [6])]  # its second birth says the latter again
    assert not found.failures


def test_a_session_of_sparkplug_client() -> None:
    """Compressed births and data, whole numbers of 32 bits under Int8, a bad quality, others' data sets."""
    subject = decoder("Flow", "Valve", "Pulses")
    found = [run(subject, sent) for sent in recorded("sparkplug_client")]
    pump, pulses = "Plant 1/line-2/pump", 9007199254740991.0
    assert [readings(one) for one in found] == [
        [],
        [(-10_000, pump, [1.25, -7, pulses])],
        [(1000, pump, [1.5, -7, pulses])],
        [(2000, pump, [1.5, -8, pulses])],
        [],
        [(4000, pump, [1.75, -8, pulses])],
        *[[]] * 3,
    ]
    assert [reasons(one) for one in found if one.failures] == [[("field", "field 'Flow' is of bad quality (0)")]]
    assert not any(one.requests for one in found)


def test_a_session_of_mqtt_spb_wrapper() -> None:
    """A device whose birth names its metrics otherwise and whose node has no birth: what is told by name is read."""
    subject = decoder("temperature", "power")
    found = run(subject, *recorded("mqtt_spb_wrapper"))
    oven = "Plant 1/line-3/oven"
    assert readings(found) == [(0, oven, [180.5, 3]), (1000, oven, [181.5, 3]), (2000, oven, [181.5, -4])]
    assert [request.topic for request in found.requests] == ["spBv1.0/Plant 1/NCMD/line-3"]


# Births.


def test_data_before_a_birth_asks_for_it() -> None:
    """By its alias nothing can be told; by name it is read as soon as every field has come."""
    subject = decoder()
    found = run(subject, device("DATA", metric(None, 5, alias=1, typed=False), seq=7))
    assert readings(found) == []
    assert reasons(found) == [("birth", f"the alias 1 has no name: the birth of {PRESS}, which names it, was not seen")]
    (request,) = found.requests
    assert request.topic == "spBv1.0/Plant 1/NCMD/line-1"
    assert request.why == f"The edge node {NODE} is asked for its births: its birth was not seen."
    found = run(subject, device("DATA", metric("a", 5, at=5), seq=8))
    assert reasons(found) == [("birth", f"field 'b' is not known, because the birth of {PRESS} was not seen")]
    found = run(subject, device("DATA", metric("b", 6, at=6), seq=9))
    assert (readings(found), found.requests) == ([(6, PRESS, [5, 6])], ())


def test_the_request_is_what_another_s_encoder_writes() -> None:
    """To the byte, as pysparkplug 0.6.1 writes a NCmd of this time."""
    (request,) = run(decoder(), node("DATA", metric("x", 1))).requests
    written = "08808acb95a03412210a144e6f646520436f6e74726f6c2f5265626972746818808acb95a034200b7001"
    assert request.payload == bytes.fromhex(written)


def test_nobody_is_asked_where_that_is_not_wanted() -> None:
    """Everything else is as it would be."""
    subject = decoder(sparkplug={"rebirth": False})
    found = run(subject, device("DATA", metric(None, 5, alias=1)), *BORN)
    assert (len(found.failures), readings(found), found.requests) == (1, [(0, PRESS, [1, 2])], ())


def test_a_birth_answers() -> None:
    """Aliases are known from then on; those of metrics that are no fields are no trouble."""
    subject = decoder()
    run(subject, device("DATA", metric(None, 5, alias=1)))
    found = run(
        subject, *BORN, device("DATA", metric(None, 9, alias=2, typed=False, at=5), metric(None, 9, alias=3), seq=2)
    )
    assert (readings(found)[1:], found.failures, found.requests) == ([(5, PRESS, [1, 9])], [], ())


def test_a_birth_that_says_nothing_new_is_no_reading() -> None:
    """As when it was asked for; one with a newer value or time is."""
    subject = born()
    assert readings(run(subject, *BORN)) == []
    assert readings(run(subject, node("DEATH", seq=None), *BORN)) == []
    changed = device("BIRTH", metric("a", 7, alias=1, at=0), metric("b", 2, alias=2, at=0))
    later = device("BIRTH", metric("a", 7, alias=1, at=3), metric("b", 2, alias=2, at=0), seq=2)
    assert readings(run(subject, BORN[0], changed, later)) == [(0, PRESS, [7, 2]), (3, PRESS, [7, 2])]


def test_an_alias_that_no_birth_has_asks_for_it() -> None:
    """What else is in the message is read."""
    found = run(born(), device("DATA", metric(None, 5, alias=9), metric(None, 6, alias=1, at=4), seq=2))
    assert readings(found) == [(4, PRESS, [6, 2])]
    assert reasons(found) == [("birth", f"the alias 9 has no name: it is not in the birth of {PRESS}")]
    assert [request.why for request in found.requests] == [
        f"The edge node {NODE} is asked for its births: the alias 9 is not in the birth of {PRESS}."
    ]


def test_a_name_that_no_birth_has_asks_for_it() -> None:
    """And is read, because it says what it is."""
    subject = decoder("a")
    found = run(subject, node("BIRTH", metric("x", 1)), node("DATA", metric("a", 5, at=1), seq=1))
    assert readings(found) == [(1, NODE, [5])]
    assert [request.why.partition(": ")[2] for request in found.requests] == [f"'a' is not in the birth of {NODE}."]


@pytest.mark.parametrize(
    ("numbers", "asked"),
    [
        ((2, 3, 4), False),
        ((2, 4), True),
        ((2, 2), True),
        ((3, 2), True),
        ((*range(2, 256), 0, 1), False),
        ((*range(2, 256), 256, 257), False),  # some do not count round
        ((2, None, 9, 10), False),  # without a number nobody can tell
    ],
)
def test_a_message_that_is_missing_asks_for_births(numbers: Sequence[int | None], asked: bool) -> None:
    """And all that came is read, in the order it came."""
    messages = [device("DATA", metric(None, n, alias=1, at=n), seq=seq) for n, seq in enumerate(numbers, 1)]
    found = run(born(), *messages)
    assert [values[0] for _, _, values in readings(found)] == list(range(1, len(numbers) + 1))
    assert (len(found.requests), found.failures) == (asked, [])


def test_messages_are_counted_over_a_node_and_its_devices() -> None:
    """Deaths of devices included."""
    subject = born()
    oven = "Plant 1/line-1/oven"
    found = run(
        subject,
        device("BIRTH", metric("x", 0), seq=2, name=oven),
        node("DATA", metric("x", 0), seq=3),
        device("DATA", metric("x", 0), seq=4, name=oven),
        device("DEATH", seq=5, name=oven),
        device("DATA", metric(None, 0, alias=1), seq=6),
    )
    assert (found.requests, found.failures) == ((), [])


def test_a_node_that_is_never_right_is_asked_less_and_less() -> None:
    """Twice as long between two requests each time, up to an hour; after a quiet time as at first."""
    subject, seconds = decoder(), range(0, 4 * 3600, 10)
    asked = [second for second in seconds if run(subject, node("DATA", metric("x", 1)), at=second).requests]
    assert asked == [0, 30, 90, 210, 450, 930, 1890, 3810, 7410, 11010]
    days = 5 * 3600 * 24
    assert run(subject, node("DATA", metric("x", 1)), at=days).requests
    assert not run(subject, node("DATA", metric("x", 1)), at=days + 29).requests
    assert run(subject, node("DATA", metric("x", 1)), at=days + 30).requests


def test_many_nodes_are_asked_one_after_another() -> None:
    """Ten a second: their births would come all at once."""
    subject = decoder()
    nodes = [f"g/{number}" for number in range(30)]
    asked = []
    for tenth in range(31):
        found = run(subject, *(node("DATA", metric("x", 1), name=name) for name in nodes), at=tenth / 10)
        asked.append([request.topic.rpartition("/")[2] for request in found.requests])
    assert asked == [[str(number)] for number in range(30)] + [[]]


def test_a_clock_that_is_set_back_does_not_silence_requests() -> None:
    """However far."""
    subject = decoder()
    assert run(subject, node("DATA", metric("x", 1))).requests
    assert run(subject, node("DATA", metric("x", 1)), at=-3600).requests


# Deaths.


def test_a_node_s_death_is_its_devices() -> None:
    """What they held is not known any more."""
    subject = born()
    found = run(subject, node("DEATH", metric("bdSeq", 4, kind=sparkplug.INT64), seq=None))
    assert (readings(found), found.failures, found.requests) == ([], [], ())
    found = run(subject, device("DATA", metric("a", 5), seq=2))
    assert reasons(found) == [("birth", f"field 'b' is not known, because the birth of {PRESS} was not seen")]
    assert len(found.requests) == 1


def test_a_death_of_an_earlier_session_is_no_news() -> None:
    """The broker sends it when it misses the node, which may have come back before."""
    found = run(
        born(),
        node("DEATH", metric("bdSeq", 3, kind=sparkplug.INT64), seq=None),
        device("DATA", metric("a", 5, at=5), seq=2),
    )
    assert (readings(found), found.requests) == ([(5, PRESS, [5, 2])], ())


def test_a_device_s_death_is_its_own() -> None:
    """Other devices of the node live on."""
    subject, oven = born(), "Plant 1/line-1/oven"
    run(subject, device("BIRTH", metric("a", 7, at=0), metric("b", 8, at=0), seq=2, name=oven))
    found = run(
        subject,
        device("DEATH", seq=3),
        device("DATA", metric("b", 9, at=1), seq=4, name=oven),
        device("DATA", metric("b", 9, at=1), seq=5),
    )
    assert readings(found) == [(1, oven, [7, 9])]
    assert [failure.position for failure in found.failures] == [2]


def test_devices_are_born_after_their_node() -> None:
    """A node's birth ends what was known of its devices."""
    found = run(born(), node("BIRTH"), device("DATA", metric("a", 5), seq=1))
    assert [reason for reason, _ in reasons(found)] == ["birth"]
    assert [request.why.partition(": ")[2] for request in found.requests] == [f"the birth of {PRESS} was not seen."]


# Values.


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (sparkplug.INT8, 0x85, -123),
        (sparkplug.INT8, 0xFFFF_FF85, -123),  # as some write it
        (sparkplug.INT8, 127, 127),
        (sparkplug.INT16, 0x8000, -32768),
        (sparkplug.INT16, 0xFFFF_FFFF, -1),
        (sparkplug.INT32, 0xFFFF_FFFE, -2),
        (sparkplug.INT32, 2**31 - 1, 2**31 - 1),
        (sparkplug.INT64, 2**64 - 1, -1),
        (sparkplug.INT64, 2**63, -(2.0**63)),
        (sparkplug.UINT8, 0x85, 0x85),
        (sparkplug.UINT16, 0xFFFF, 0xFFFF),
        (sparkplug.UINT32, 0xFFFF_FFFF, 0xFFFF_FFFF),
        (sparkplug.UINT64, 2**64 - 1, 2.0**64),
        (sparkplug.FLOAT, 0.5, 0.5),
        (sparkplug.DOUBLE, -1e300, -1e300),
        (sparkplug.BOOLEAN, 1, 1),
        (sparkplug.BOOLEAN, 0, 0),
        (sparkplug.DATETIME, START, START),
        (sparkplug.STRING, " -1e3 ", -1000),
        (sparkplug.TEXT, "21.5", 21.5),
    ],
)
def test_values_of_each_type(kind: int, value: Any, expected: float) -> None:  # noqa: ANN401 - of any
    """The type is the birth's where the data has none."""
    subject = decoder("a")
    found = run(
        subject,
        node("BIRTH", metric("a", value, kind=kind, alias=1, at=0)),
        node("DATA", metric(None, value, kind=kind, alias=1, typed=False, at=1), seq=1),
        node("DATA", metric("a", value, kind=kind, at=2), seq=2),
    )
    assert [values for _, _, values in readings(found)] == [[expected]] * 3


@pytest.mark.parametrize(
    ("strange", "said"),
    [
        (metric("a", "closed", kind=sparkplug.STRING), "'closed'"),
        (metric("a", "1_0", kind=sparkplug.STRING), "'1_0'"),
        (metric("a", b"\xff" * 100, kind=sparkplug.STRING), "'���"),
        (metric("a", b"\0\1", field=sparkplug.BYTES_VALUE), "bytes or an array"),
        (metric("a", b"", field=sparkplug.DATASET_VALUE), "a data set"),
        (metric("a", b"", field=sparkplug.TEMPLATE_VALUE), "a template"),
        (metric("a", b"", field=sparkplug.EXTENSION_VALUE), "an extension"),
        (metric("a", 5, kind=sparkplug.INT8, typed=False), "a whole number without a data type"),
    ],
)
@pytest.mark.parametrize("missing", ["reject", "hold", 0.0])
def test_what_is_no_number_is_refused(strange: bytes, said: str, missing: object) -> None:
    """Whatever is to be done with what is missing: until there is a number again."""
    subject = decoder("a", "b", missing=missing)
    found = run(
        subject,
        node("BIRTH", strange, metric("b", 1)),
        node("DATA", metric("b", 2), seq=1),
        node("DATA", metric("a", 3, at=9), seq=2),
    )
    assert readings(found) == [(9, NODE, [3, 2])]
    assert [failure.position for failure in found.failures] == [0, 1]
    for reason, detail in reasons(found):
        assert reason == "field"
        assert detail.startswith(f"field 'a' is {said}")
        assert detail.endswith("; expected a number")


NOTHING = [
    metric("a", None, null=True),
    metric("a", 5, null=True),
    metric("a", None),
    metric("a", 5, quality=0),
    metric("a", 5, quality=500),
]


@pytest.mark.parametrize("nothing", NOTHING)
def test_missing_values_follow_the_source(nothing: bytes) -> None:
    """Null, no value, a bad or stale quality, and fields that the birth does not have: rejected, held, or a number."""
    messages = [
        node("BIRTH", nothing, metric("b", 2, at=0)),
        node("DATA", metric("a", 3, at=1), seq=1),
        node("DATA", nothing, seq=2, at=2),
        node("BIRTH", metric("b", 4, at=3)),
        node("DATA", metric("b", 5, at=4), seq=1),
    ]
    rejecting = run(decoder(), *messages)
    assert readings(rejecting) == [(1, NODE, [3, 2])]
    assert [failure.position for failure in rejecting.failures] == [0, 2, 3, 4]
    assert reasons(rejecting)[2] == ("field", f"field 'a' is not in the birth of {NODE}")

    filling = run(decoder(missing=-1), *messages)
    assert [values for *_, values in readings(filling)] == [[-1, 2], [3, 2], [-1, 2], [-1, 4], [-1, 5]]
    assert not filling.failures

    holding = run(decoder(missing="hold"), *messages)
    assert holding.absent is not None
    assert holding.absent.tolist() == [[True, False], [False, False], [True, False], [True, False], [True, False]]
    assert holding.values[:, 1].tolist() == [2, 2, 2, 4, 5]
    assert not holding.failures


def test_a_good_quality_is_no_matter() -> None:
    """192, as the standard says, or a code of another's."""
    found = run(
        decoder("a"), node("BIRTH", metric("a", 1, quality=192, at=0)), node("DATA", metric("a", 2, quality=8), seq=1)
    )
    assert [values for *_, values in readings(found)] == [[1], [2]]


def test_without_a_birth_hold_takes_what_there_is() -> None:
    """The last values of the stream fill in what is not known; a constant does not, because nothing is missing."""
    message = device("DATA", metric("a", 5))
    holding = run(decoder(missing="hold"), message)
    assert holding.absent is not None
    assert holding.absent.tolist() == [[False, True]]
    assert [reason for reason, _ in reasons(run(decoder(missing=0.0), message))] == ["birth"]


def test_parties_without_any_field_are_no_matter() -> None:
    """A node's own metrics, and other devices."""
    found = run(decoder(), node("BIRTH", metric("x", 1)), node("DATA", metric("x", None, null=True), seq=1))
    assert (readings(found), found.failures, found.requests) == ([], [], ())


def test_not_a_number_is_not_finite() -> None:
    """As in any other format, the next message is not affected."""
    found = run(born(), device("DATA", metric("a", math.nan), seq=2), device("DATA", metric("a", 1, at=1), seq=3))
    assert reasons(found) == [("not_finite", f"stream '{PRESS}': field 'a' is nan; expected a finite number")]
    assert readings(found) == [(1, PRESS, [1, 2])]


# Times.


def test_the_time_is_the_metric_s_else_the_message_s_else_that_of_arrival() -> None:
    """Whole milliseconds."""
    found = run(
        born(),
        device("DATA", metric("a", 1, at=5), seq=2, at=9),
        device("DATA", metric("a", 2), seq=3, at=9),
        device("DATA", metric("a", 3), seq=4),
    )
    assert [time for time, *_ in readings(found)] == [5, 9, NOW // 10**6 - START]


def test_each_time_is_a_reading_in_their_order() -> None:
    """However the metrics are sorted: by time, as the standard wants it, or by name."""
    by_name = [metric("a", 1, at=1), metric("a", 2, at=2), metric("b", 3, at=1), metric("b", 4, at=2)]
    found = run(born(), device("DATA", *by_name, seq=2))
    assert readings(found) == [(1, PRESS, [1, 3]), (2, PRESS, [2, 4])]


def test_times_that_cannot_be() -> None:
    """Too far in the future, or outside of 64 bits of nanoseconds; other readings of the message are good."""
    ahead = (NOW // 10**6 - START) + 2 * 86_400_000
    found = run(
        born(),
        device("DATA", metric("a", 1, at=ahead), metric("a", 0, at=1), seq=2),
        device("DATA", metric("a", 2, at=2**62), seq=3),
        device("DATA", metric("a", 3, at=4), seq=4),
    )
    assert readings(found) == [(1, PRESS, [0, 2]), (4, PRESS, [3, 2])]
    (reason, ahead_said), beyond = reasons(found)
    assert (reason, beyond) == (
        "time",
        ("time", "a timestamp is after the year 2261; expected milliseconds since 1970"),
    )
    assert ahead_said.startswith(f"stream '{PRESS}': the time is 172800 s in the future; max_ahead allows 86400 s")


def test_history_is_a_stream_of_its_own() -> None:
    """It goes on from where the last session ended, and leaves what is known of now alone."""
    subject = born()
    run(subject, device("DATA", metric("a", 10, at=10), seq=2), node("DEATH", seq=None))
    back = device("BIRTH", metric("a", 50, alias=1, at=50), metric("b", 60, alias=2, at=50))
    run(subject, BORN[0], back)
    past = [metric("b", 11, history=True, at=20), metric("a", 12, history=True, at=30)]
    found = run(
        subject, device("DATA", *past, metric("a", 51, at=51), seq=2), device("DATA", metric("b", 61, at=52), seq=3)
    )
    history = f"{PRESS}/historical"
    assert readings(found) == [
        (51, PRESS, [51, 60]),
        (20, history, [10, 11]),
        (30, history, [12, 11]),
        (52, PRESS, [51, 61]),
    ]


def test_history_of_a_first_session_goes_on_from_its_birth() -> None:
    """Nobody can know what was before; a node's own history has a name that no device's stream has."""
    found = run(
        decoder(),
        node("BIRTH", metric("a", 1), metric("b", 2, at=0)),
        node("DATA", metric("a", 0, history=True, at=-5), seq=1),
    )
    assert readings(found)[1:] == [(-5, f"{NODE}//historical", [0, 2])]
