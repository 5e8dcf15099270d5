"""OPC UA PubSub's JSON: other people's messages, every layer that may be missing, and what cannot be used."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from processor.decoders.opcua import OpcuaDecoder, _pattern
from processor.document import parse
from processor.source_sections import Source
from processor.types import Decoded, Failure

NOW = 1_795_777_200_000_000_000
"""2026-11-27T11:00:00Z."""
TAKEN = 1_634_721_900_203_952_000
"""2021-10-20T09:25:00.2039520Z."""
AT = "2021-10-20T09:25:00.2039520Z"
RECORDED = Path(__file__).with_name("opcua")
PLC = "nsu=http://microsoft.com/Opc/OpcPlc/;s="
SPECIAL = PLC + "Special_\"!§$%&/()=?`\u00b4\\+~*'#_-:.;,<>|@^°€µ{[]}"
LONG = PLC + "Long" + "x" * 4000
SCALAR = {"Value": 42, "SourceTimestamp": AT}


def decoder(**keys: Any) -> OpcuaDecoder:  # noqa: ANN401 - the source's keys
    """Return a decoder of every node, unless told otherwise."""
    return OpcuaDecoder(Source.model_validate({"name": "s", "topics": ["t"], "format": "opcua", **keys}))


def joined(*fields: str, **keys: Any) -> OpcuaDecoder:  # noqa: ANN401 - the source's keys
    """Return a decoder of readings of `fields`."""
    return decoder(fields=list(fields), opcua={"join": True}, **keys)


def run(subject: OpcuaDecoder, *payloads: object) -> Decoded:
    """Decode payloads, JSON where they are no bytes, that arrive a second apart; check what always holds."""
    written = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in payloads]
    arrivals = NOW + np.arange(len(written), dtype=np.int64) * 10**9
    decoded = subject.decode(written, arrivals, ["t"] * len(written))
    count = len(decoded.origin)
    assert decoded.values.shape == (count, subject._channels)
    assert decoded.values.dtype == np.float64
    assert decoded.times.shape == (count,)
    assert decoded.times.dtype == decoded.origin.dtype == np.int64
    assert (np.diff(decoded.origin) >= 0).all()
    held = np.zeros_like(decoded.values, np.bool_) if decoded.absent is None else decoded.absent
    assert (np.isfinite(decoded.values) | held).all()
    failed = [failure.position for failure in decoded.failures]
    assert failed == sorted(set(failed))
    assert {*failed, *decoded.origin.tolist()} <= set(range(len(written)))
    assert all(len(failure.detail) < 400 for failure in decoded.failures)
    assert (decoded.keys is not None) == subject._keyed
    if decoded.keys is not None:
        assert len(decoded.keys) == count
        assert all(key and key.encode() for key in decoded.keys)
    return decoded


def found(subject: OpcuaDecoder, *payloads: object) -> dict[str, list[tuple[int, float]]]:
    """Return the times and values of every node in payloads with nothing wrong."""
    decoded = run(subject, *payloads)
    assert decoded.failures == []
    nodes: dict[str, list[tuple[int, float]]] = {}
    for key, time, (value,) in zip(decoded.keys or (), decoded.times.tolist(), decoded.values.tolist(), strict=True):
        nodes.setdefault(key, []).append((time, value))
    return nodes


def failure(subject: OpcuaDecoder, payload: object) -> Failure:
    """Return what is said of a payload between two good ones, which it must not affect."""
    field = SPECIAL if not subject._keyed else "x"
    good = {field: SCALAR}
    decoded = run(subject, good, payload, good)
    assert [decoded.values[decoded.origin == index].tolist() for index in (0, 2)] == [[[42]]] * 2
    assert [failed.position for failed in decoded.failures] == [1]
    return decoded.failures[0]


def ns(text: str) -> int:
    """Return a time in this century as ns since the epoch: NumPy's reading of it."""
    return int(np.datetime64(text.removesuffix("Z"), "ns").astype(np.int64))


def test_the_example_in_the_documentation() -> None:
    """Its source reads its message."""
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = page.partition("\n## OPC UA\n")[2].partition("\n## ")[0]
    source, message = (re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)[0] for language in ("yaml", "json"))
    configured = parse(source)
    assert isinstance(configured, list)
    subject = OpcuaDecoder(Source.model_validate(configured[0]))
    assert found(subject, message.encode()) == {
        PLC + "SlowUInt1": [(ns("2026-11-22T10:00:00.203952"), 42)],
        PLC + "AlternatingBoolean": [(ns("2026-11-22T09:59:59.5"), 1)],
    }


# What MLADE read, from OPC Publisher 2.8 with --mm=PubSub --me=Json.
MLADE = [
    {
        "MessageId": "18",
        "MessageType": "ua-data",
        "PublisherId": "opc.tcp://opcplc:50000_D09D61EF",
        "Messages": [
            {
                "DataSetWriterId": "1000",
                "Payload": {
                    PLC + "SlowUInt1": SCALAR,
                    PLC + "AlternatingBoolean": {"Value": True, "SourceTimestamp": "2021-10-20T09:24:59.5Z"},
                    PLC + "g=8a3ba9e8-7dbb-4e4c-9b1f-bfd4a1f0b3a1": {"Value": -0.5, "SourceTimestamp": AT},
                    SPECIAL: {"Value": 3, "SourceTimestamp": "2021-10-20T09:25:01Z"},
                    LONG: {"Value": "9007199254740993", "SourceTimestamp": "2021-10-20T09:25:00.2Z"},
                },
            },
            {"DataSetWriterId": "1001", "Payload": {PLC + "SlowUInt1": {"Value": 43, "SourceTimestamp": AT}}},
        ],
    },
    {"MessageId": "19", "MessageType": "ua-data", "Messages": [{"Payload": {PLC + "FastUInt1": SCALAR}}]},
]


def test_what_mlade_read() -> None:
    """A list of network messages: each node with its time to the 100 ns, whatever characters its id has."""
    assert found(decoder(), MLADE) == {
        PLC + "SlowUInt1": [(TAKEN, 42), (TAKEN, 43)],
        PLC + "AlternatingBoolean": [(1_634_721_899_500_000_000, 1)],
        PLC + "g=8a3ba9e8-7dbb-4e4c-9b1f-bfd4a1f0b3a1": [(TAKEN, -0.5)],
        SPECIAL: [(1_634_721_901_000_000_000, 3)],
        LONG: [(1_634_721_900_200_000_000, 9007199254740992)],
        PLC + "FastUInt1": [(TAKEN, 42)],
    }


def test_what_mlade_skipped_is_one_failure_and_the_rest_is_read() -> None:
    """An entry without Value or SourceTimestamp, and a text of 200 kB: the first is named, and how many there are."""
    payload = {
        "a": {"SourceTimestamp": AT},
        "b": {"Value": 1},
        "text": {"Value": "x" * 200_000, "SourceTimestamp": AT},
        "c": SCALAR,
    }
    decoded = run(decoder(), [{"Messages": [{"Payload": payload}]}], [{"Messages": [{"Payload": {"b": SCALAR}}]}])
    assert decoded.keys == ["c", "b"]
    sentence = "node 'a': its value is missing; expected a number; 3 of the payload's 4 values cannot be used"
    assert decoded.failures == [Failure(0, "field", sentence)]


# The messages of OPC Publisher 2.9 in PubSub mode, as its documentation shows them.
PUBLISHER = {
    "MessageId": "27",
    "MessageType": "ua-data",
    "PublisherId": "opc.tcp://opcplc:50000_70FB9F43",
    "Messages": [
        {
            "DataSetWriterId": 1,
            "DataSetWriterName": "1000",
            "SequenceNumber": 27,
            "MetaDataVersion": {"MajorVersion": 1, "MinorVersion": 0},
            "MessageType": "ua-deltaframe",
            "Timestamp": "2022-03-18T12:55:21.3424136Z",
            "Payload": {
                "AlternatingBoolean": {
                    "Value": True,
                    "SourceTimestamp": "2022-03-18T12:55:20.9313098Z",
                    "ServerTimestamp": "2022-03-18T12:55:20.9314784Z",
                },
                "StepUp": {
                    "Value": 23305,
                    "SourceTimestamp": "2022-03-18T12:55:21.3313539Z",
                    "ServerTimestamp": "2022-03-18T12:55:21.3313638Z",
                },
                "RandomSignedInt32": {
                    "Value": 1076635612,
                    "SourceTimestamp": "2022-03-18T12:55:21.3419164Z",
                    "ServerTimestamp": "2022-03-18T12:55:21.3419728Z",
                },
                "BadFastUInt1": {
                    "StatusCode": {"Symbol": "BadNoCommunication", "Code": 2150694912},
                    "SourceTimestamp": "2022-03-18T12:55:20.8409353Z",
                    "ServerTimestamp": "2022-03-18T12:55:20.8409362Z",
                },
            },
        }
    ],
}
METADATA = {
    "MessageId": "0",
    "MessageType": "ua-metadata",
    "PublisherId": "opc.tcp://localhost:57537/UA/SampleServer_A2425855",
    "DataSetWriterId": 1,
    "MetaData": {"Fields": [{"Name": "Output", "BuiltInType": 26, "ValueRank": -1}]},
}
EVENT = {
    "MessageId": "43",
    "MessageType": "ua-data",
    "PublisherId": "SIMPLE-EVENTS",
    "DataSetWriterGroup": "SIMPLE-EVENTS",
    "Messages": [
        {
            "DataSetWriterId": "SIMPLE-EVENTS",
            "MetaDataVersion": {"MajorVersion": 1222304427, "MinorVersion": 801860751},
            "MessageType": "ua-event",
            "Payload": {"EventId": "+6CQjN1eqkO6+yHJnxMz5w==", "Severity": 1, "Time": "2021-06-21T12:38:55.5814078Z"},
        }
    ],
}
KEEP_ALIVE = {
    "MessageId": "64",
    "MessageType": "ua-data",
    "PublisherId": "MyPublisher",
    "Messages": [
        {
            "DataSetWriterId": 1,
            "DataSetWriterName": "DataSet33",
            "SequenceNumber": 66,
            "MetaDataVersion": {"MajorVersion": 1, "MinorVersion": 0},
            "MessageType": "ua-keepalive",
            "Timestamp": "2023-03-18T12:55:21.3423234Z",
        }
    ],
}


def test_opc_publishers_pubsub_messages() -> None:
    """Values are read; a bad quality is a reason, with the status' name and number."""
    decoded = run(decoder(), PUBLISHER)
    assert decoded.keys == ["AlternatingBoolean", "StepUp", "RandomSignedInt32"]
    assert decoded.values.ravel().tolist() == [1, 23305, 1076635612]
    assert decoded.times[1] == ns("2022-03-18T12:55:21.3313539")
    status = (
        "node 'BadFastUInt1': its status is BadNoCommunication (0x80310000); expected one that is good or uncertain"
    )
    assert decoded.failures == [Failure(0, "quality", status)]


@pytest.mark.parametrize(
    "payload",
    [
        METADATA,
        [METADATA],
        EVENT,
        {"Messages": [{"MessageType": "ua-condition", "Payload": {"Severity": 100}}]},
        KEEP_ALIVE,
        {"MessageType": "ua-data", "Messages": [{"DataSetWriterId": "1", "SequenceNumber": 5}]},
        {"DataSetWriterId": 1, "SequenceNumber": 66, "Status": 0, "Timestamp": AT},
        {"Messages": [{"DataSetWriterId": 1, "Payload": None}]},
        {"MessageType": "ua-status", "MessageId": "1", "PublisherId": "p", "IsCyclic": False, "Status": 2},
        {"MessageType": "ua-connection", "Connection": {}, "Messages": 5},
        {"Messages": []},
        {"Payload": {}},
        {},
        [],
    ],
)
def test_what_holds_no_values_gives_nothing(payload: object) -> None:
    """Descriptions of the publisher, events, keep-alives with and without a type: neither readings nor failures."""
    for subject in (decoder(), joined("Severity")):
        decoded = run(subject, payload)
        assert len(decoded.origin) == 0
        assert decoded.failures == []


def sample(node: str, **keys: object) -> dict[str, object]:
    """Return a message of OPC Publisher's samples mode: with --fm=true what it is by `keys`, else the least of them."""
    return {"NodeId": PLC + node, "EndpointUrl": "opc.tcp://opcplc:50000/", **keys}


FULL = {
    "ApplicationUri": "urn:OpcPlc:opcplc",
    "DisplayName": "StepUp",
    "Timestamp": "2022-03-18T12:52:42.137703Z",
    "Value": {
        "Value": 21713,
        "SourceTimestamp": "2022-03-18T12:52:42.1327544Z",
        "ServerTimestamp": "2022-03-18T12:52:42.1327633Z",
    },
    "SequenceNumber": 120,
    "ExtensionFields": {"PublisherId": "opc.tcp://opcplc:50000_D09D61EF", "DataSetWriterId": "1000"},
}


def test_opc_publishers_samples() -> None:
    """With all its parts or the least, one or an array, a status that is uncertain; a bad one is a reason."""
    step = [(ns("2022-03-18T12:52:42.1327544"), 21713)]
    assert found(decoder(), sample("StepUp", **FULL)) == {PLC + "StepUp": step}
    bulk = [
        sample("AlternatingBoolean", Value={"Value": True, "SourceTimestamp": "2022-03-18T13:06:30.932775Z"}),
        sample("StepUp", Value={"Value": 30003, "SourceTimestamp": "2022-03-18T13:06:31.1337676Z"}),
        sample(
            "BadFastUInt1",
            Value={
                "Value": 4,
                "StatusCode": {"Symbol": "UncertainLastUsableValue", "Code": 1083179008},
                "SourceTimestamp": "2022-03-18T13:04:14.8405063Z",
            },
        ),
    ]
    assert found(decoder(), bulk) == {
        PLC + "AlternatingBoolean": [(ns("2022-03-18T13:06:30.932775"), 1)],
        PLC + "StepUp": [(ns("2022-03-18T13:06:31.1337676"), 30003)],
        PLC + "BadFastUInt1": [(ns("2022-03-18T13:04:14.8405063"), 4)],
    }
    bad = {
        "StatusCode": {"Symbol": "BadNoCommunication", "Code": 2150694912},
        "SourceTimestamp": "2022-03-18T13:06:30.8423538Z",
    }
    decoded = run(decoder(), [*bulk[:2], sample("BadFastUInt1", Value=bad)])
    assert len(decoded.origin) == 2
    assert [failed.reason for failed in decoded.failures] == ["quality"]


@pytest.mark.parametrize(
    ("keys", "time"),
    [
        ({"Value": "7", "SourceTimestamp": AT, "Status": "Good", "StatusCode": 0}, TAKEN),
        ({"Value": 7, "SourceTimestamp": AT}, TAKEN),
        ({"Value": {"Value": {"Type": "Int32", "Body": 7}, "SourceTimestamp": AT}}, TAKEN),
        ({"Value": 7, "Timestamp": AT}, TAKEN),
        ({"Value": 7}, NOW),
        ({"Value": {"Type": 6, "Body": 7}, "Timestamp": AT}, TAKEN),
    ],
)
def test_flat_samples(keys: dict[str, object], time: int) -> None:
    """The value's parts beside the node id, or the value alone; Variants inside."""
    assert found(decoder(), sample("a", **keys)) == {PLC + "a": [(time, 7)]}


# The examples of OPC 10000-14, A.3.
MULTIPLE = {
    "MessageId": "9279c0b3-da88-45a4-af74-451cebf82db0",
    "MessageType": "ua-data",
    "PublisherId": "MyPublisher",
    "Messages": [
        {
            "DataSetWriterId": 101,
            "SequenceNumber": 68468,
            "MinorVersion": 672341762,
            "Timestamp": "2021-09-27T18:45:19.555Z",
            "Payload": {
                "Active": True,
                "Temperature": 25.5,
                "Counter": 0,
                "AdditionalInfo": "The system is running normally (1)",
            },
        },
        {
            "DataSetWriterId": 102,
            "SequenceNumber": 25460,
            "MinorVersion": 672341762,
            "Timestamp": "2021-09-27T18:45:19.555Z",
            "Status": {"Code": 1073741824},
            "Payload": {
                "LocationName": "Building A",
                "Coordinate": {"X": 0, "Y": 0.2},
                "Measurements": [20030, 20020, 20010],
            },
        },
        {
            "DataSetWriterId": 103,
            "SequenceNumber": 66915,
            "MinorVersion": 672341762,
            "Timestamp": "2021-09-27T18:45:19.555Z",
            "Payload": {
                "BooleanValue": False,
                "Int64Value": "1",
                "UInt32Value": 1,
                "DoubleValue": 0.5,
                "DateTimeValue": "2021-09-14T07:14:30Z",
                "GuidValue": "ebfc352a-3142-4b99-9bbe-89a517d6a77e",
                "StatusCodeValue": {"Code": 2147483648, "Symbol": "Bad"},
                "LocalizedTextValue": {"Locale": "en", "Text": "Localized text 1"},
                "NodeIdValue": "nsu=http://test.org/UA/Data/Instance;s=Pipe001.Valve001.Input",
            },
        },
    ],
}
SINGLE = {
    "PublisherId": "MyPublisher",
    "DataSetWriterId": 101,
    "SequenceNumber": 68468,
    "MinorVersion": 672341762,
    "Timestamp": "2021-09-27T18:45:19.555Z",
    "Payload": {
        "Active": {
            "Value": True,
            "Status": {"Code": 1073741824, "Symbol": "Uncertain"},
            "SourceTimestamp": "2021-09-27T11:32:38.349925Z",
        },
        "Temperature": {"Value": 25.5, "SourceTimestamp": "2021-09-27T11:32:38.349925Z"},
    },
}


def test_the_standards_examples() -> None:
    """Raw values at their message's time; text, arrays and structures are no numbers, and a status is no value."""
    decoded = run(decoder(), MULTIPLE)
    keys = ["Active", "Temperature", "Counter", "BooleanValue", "Int64Value", "UInt32Value", "DoubleValue"]
    assert decoded.keys == keys
    assert decoded.values.ravel().tolist() == [1, 25.5, 0, 0, 1, 1, 0.5]
    assert set(decoded.times.tolist()) == {ns("2021-09-27T18:45:19.555")}
    (only,) = decoded.failures
    assert only.reason == "field"
    assert only.detail == (
        "node 'AdditionalInfo': its value is 'The system is running normally (1)'; expected a number; "
        "9 of the payload's 16 values cannot be used"
    )
    assert found(decoder(), SINGLE) == {
        "Active": [(ns("2021-09-27T11:32:38.349925"), 1)],
        "Temperature": [(ns("2021-09-27T11:32:38.349925"), 25.5)],
    }
    minimal = {"Active": True, "Temperature": 25.5, "Counter": 0}
    assert found(decoder(), minimal) == {"Active": [(NOW, 1)], "Temperature": [(NOW, 25.5)], "Counter": [(NOW, 0)]}


def test_a_server_of_open62541() -> None:
    """Variants and DataValues of 1.05, statuses, 64 bits as text, an infinity as text; names that are node ids."""
    lines = (RECORDED / "open62541.jsonl").read_bytes().splitlines()
    variants, values, named = (run(decoder(), line) for line in lines)
    assert variants.keys == ["Active", "Temperature", "Counter", "Total", "Speed", "Broken", "Stale"]
    assert variants.values.ravel().tolist() == [1, 25.5, 0, -9007199254740992, float(np.float32(0.1)), 2.5, 2.5]
    assert set(variants.times.tolist()) == {ns("2026-11-26T03:35:04.884115")}
    assert [(reason, detail[:44]) for _, reason, detail in variants.failures] == [
        ("field", "node 'Name': its value is 'warm'; expected a")
    ]
    assert values.keys == ["Active", "Temperature", "Stale"]
    assert values.times.tolist()[0] == ns("2026-11-26T03:34:55.02898")
    assert values.failures[0].reason == "quality"
    assert named.keys == [SPECIAL.replace('"', "").replace("\\", ""), "i=2258", *(named.keys or ())[2:]]
    assert named.values.ravel().tolist() == [25.5, 0, -9007199254740992]
    assert named.failures == []


def test_values_of_node_opcua() -> None:
    """Every type in each of the four encodings, as a DataValue and as a Variant."""
    cases = [json.loads(line) for line in (RECORDED / "node-opcua.jsonl").read_text().splitlines()]
    assert len(cases) == 4 * 2 * 21
    payloads = [{"Messages": [{"Timestamp": AT, "Payload": {"x": case["written"]}}]} for case in cases]
    decoded = run(decoder(), *payloads)
    results: dict[int, object] = dict(zip(decoded.origin.tolist(), decoded.values.ravel().tolist(), strict=True))
    results |= {failed.position: failed.reason for failed in decoded.failures}
    assert [results[index] for index in range(len(cases))] == [case["expected"] for case in cases]
    times = dict(zip(decoded.origin.tolist(), decoded.times.tolist(), strict=True))
    millisecond = ns("2021-10-20T09:25:00.203")
    assert all(time == (millisecond if cases[index]["mask"] else TAKEN) for index, time in times.items())


@pytest.mark.parametrize(
    "payload",
    [
        {"MessageType": "ua-data", "Messages": [{"DataSetWriterId": 1, "Payload": {"x": SCALAR}}]},
        {"MessageType": "ua-data", "Messages": {"DataSetWriterId": 1, "Payload": {"x": SCALAR}}},
        {"MessageType": "ua-data", "Messages": [{"x": SCALAR}]},
        {"MessageType": "ua-data", "Messages": {"x": SCALAR}},
        [{"MessageType": "ua-data", "Messages": [{"Payload": {"x": SCALAR}}]}, METADATA],
        {"DataSetWriterId": 1, "MessageType": "ua-keyframe", "Payload": {"x": SCALAR}},
        [KEEP_ALIVE, {"DataSetWriterId": 1, "Payload": {"x": SCALAR}}],
        {"x": SCALAR},
        [{"x": SCALAR}],
        {"NodeId": "x", "Value": SCALAR},
        [{"NodeId": "x", "Value": SCALAR}],
    ],
)
def test_every_layer_may_be_missing_and_be_one_or_many(payload: object) -> None:
    """Network message and DataSet message; the same value comes out."""
    assert found(decoder(), payload, {"y": 1}) == {"x": [(TAKEN, 42)], "y": [(NOW + 10**9, 1)]}
    assert run(joined("x"), payload, {"y": 1}).values.tolist() == [[42]]


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        (True, 1),
        (False, 0),
        (-0.5, -0.5),
        ("21.5", 21.5),
        (" -1e3 ", -1000),
        (12345678901234567890123, 12345678901234567890123.0),
        ({"Type": 11, "Body": 1.5}, 1.5),
        ({"Type": "Int64", "Body": "-7"}, -7),
        ({"UaType": 6, "Value": 5}, 5),
        ({"UaType": 1}, 0),
        ({"UaType": 8, "SourceTimestamp": AT}, 0),
        ({"Value": {"Type": 11, "Body": 1.5}, "SourceTimestamp": AT}, 1.5),
        ({"Value": {"UaType": 11, "Value": 1.5}, "SourceTimestamp": AT}, 1.5),
        ({"Value": {"UaType": 11}, "SourceTimestamp": AT}, 0),
        ({"Value": "9", "SourceTimestamp": AT, "SourcePicoseconds": 12, "ServerTimestamp": AT}, 9),
    ],
)
def test_values(entry: object, value: float) -> None:
    """DataValues, Variants, values alone; zeros that 1.05 leaves out; at the SourceTimestamp, else the message's."""
    assert found(decoder(), {"Timestamp": AT, "Payload": {"x": entry}}) == {"x": [(TAKEN, value)]}


@pytest.mark.parametrize(
    "status",
    [
        0,
        None,
        {},
        {"Code": 0},
        0x40900000,
        {"Code": 1083179008},
        {"Symbol": "UncertainInitialValue"},
        "Good",
        0x00A60000,
    ],
)
def test_good_and_uncertain_statuses(status: object) -> None:
    """As a number, an object, a name; also where it is left out, for all or for one."""
    assert found(decoder(), {"x": {**SCALAR, "StatusCode": status}}) == {"x": [(TAKEN, 42)]}
    assert found(decoder(), {"x": {**SCALAR, "Status": status}}) == {"x": [(TAKEN, 42)]}
    assert found(decoder(), {"Status": status, "Payload": {"x": 7}}) == {"x": [(NOW, 7)]}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0x80310000, "0x80310000"),
        (2**32 - 1, "0xFFFFFFFF"),
        (0x80310000 - 2**32, "0x80310000"),
        ({"Code": 0x80310000, "Symbol": "BadNoCommunication"}, "BadNoCommunication (0x80310000)"),
        ({"Code": 0x80000000}, "0x80000000"),
        ({"Symbol": "Bad_OutOfService"}, "Bad_OutOfService"),
        ("BadNoCommunication", "BadNoCommunication"),
        ([5], "an array"),
        (1.5, "a number"),
        ({"Code": [], "Symbol": 5}, "an object"),
        ({"Symbol": "Bad" + "x" * 5000}, "Bad" + "x" * 57),
    ],
)
def test_bad_quality(status: object, said: str) -> None:
    """By a value's own status, or by the message's where it has none; the value may be there all the same."""
    expected = Failure(1, "quality", f"node 'x': its status is {said}; expected one that is good or uncertain")
    assert failure(decoder(), {"x": {**SCALAR, "StatusCode": status}}) == expected
    assert failure(decoder(), {"x": {"Status": status, "SourceTimestamp": AT}}) == expected
    assert failure(decoder(), {"Status": status, "Payload": {"x": 7}}) == expected
    assert failure(decoder(), {"Status": status, "Payload": {"x": {"UaType": 6, "Value": 7}}}) == expected


@pytest.mark.parametrize(
    "entry",
    [
        {"Code": 0x80310000},
        {"Type": 19, "Body": 0x80310000},
        {"Type": "StatusCode", "Body": {"Code": 0x80310000}},
        {"UaType": 19, "Value": {"Code": 0x80310000}},
        {"Value": {"Type": 19, "Body": 0x80310000}, "SourceTimestamp": AT},
        {"Value": {"Code": 0x80310000}, "SourceTimestamp": AT},
    ],
)
def test_a_status_in_place_of_a_value(entry: object) -> None:
    """That is how a Variant says that there is none."""
    detail = "node 'x': its status is 0x80310000; expected one that is good or uncertain"
    assert failure(decoder(), {"x": entry}) == Failure(1, "quality", detail)


def test_a_data_values_status_is_its_own() -> None:
    """OPC Publisher gives a message the status of the first bad value in it; the others are good."""
    message = {"Status": {"Code": 2150694912}, "Payload": {"x": SCALAR, "y": {"StatusCode": 2150694912}}}
    decoded = run(decoder(), message)
    assert decoded.keys == ["x"]
    assert [failed.reason for failed in decoded.failures] == ["quality"]


@pytest.mark.parametrize(
    ("payload", "reason", "sentence"),
    [
        (b"", "decode", "the payload is empty; expected JSON"),
        (b"\x1f\x8b\x08", "decode", "byte 1 is 0x8b, which is not UTF-8"),
        (b'{"Messages": [', "decode", "the payload is not JSON"),
        (b"[" * 100_000, "decode", "too many arrays or objects inside one another"),
        (b'{"x":' * 400 + b"1" + b"}" * 400, "field", "node 'x': its value is missing; expected a number"),
        (b'{"x":{"UaType":6,"Value":' + b'{"UaType":6,"Value":' * 400 + b"1" + b"}" * 402, "field", "an object"),
        (5, "decode", "is a number; expected an OPC UA network message, a DataSet message or values by node id"),
        ([[1]], "decode", "the payload, or an item of it, is an array; expected"),
        ({"Messages": 5}, "decode", "is a number; expected a DataSet message or values by node id"),
        ({"Payload": [1]}, "decode", "the Payload of a DataSet message is an array; expected values by node id"),
        ({"x": None}, "field", "node 'x': its value is null; expected a number"),
        ({"x": []}, "field", "node 'x': its value is empty; expected a number"),
        ({"x": [1, 2]}, "field", "node 'x': its value is an array; expected a number"),
        ({"x": {"Locale": "en", "Text": "5"}}, "field", "node 'x': its value is missing; expected a number"),
        ({"x": {"Type": 12, "Body": "warm"}}, "field", "node 'x': its value is 'warm'; expected a number"),
        ({"x": {"UaType": 12}}, "field", "node 'x': its value is missing"),
        ({"x": {"UaType": [1]}}, "field", "node 'x': its value is missing"),
        ({"x": {"Value": None, "SourceTimestamp": AT}}, "field", "node 'x': its value is null"),
        ({"x": {"Value": {}, "SourceTimestamp": AT}}, "field", "node 'x': its value is empty"),
        ({"NodeId": "x"}, "field", "node 'x': its value is missing; expected a number"),
        ({"NodeId": "x", "Value": {"EventId": "a", "Message": "b"}}, "field", "node 'x': its value is missing"),
        ({"x": "y" * 200_000}, "field", "node 'x': its value is '" + "y" * 59 + "; expected a number"),
        ({"x" * 200: "warm"}, "field", "node '" + "x" * 119 + ": its value is 'warm'"),
        ({"x": {"Value": 1}}, "time", "node 'x': it has a value, but no SourceTimestamp"),
        ({"x": {"Value": 1, "SourceTimestamp": None}}, "time", "node 'x': it has a value, but no SourceTimestamp"),
        ({"x": {"Value": 1, "SourceTimestamp": "soon"}}, "time", "node 'x': its time: 'soon' is not an ISO 8601 time"),
        ({"x": {"Value": 1, "SourceTimestamp": [1]}}, "time", "node 'x': its time: an array is not a time"),
        ({"x": {"Value": 1, "SourceTimestamp": "0001-01-01T00:00:00Z"}}, "time", "outside the years 1678 to 2261"),
        ({"Timestamp": "soon", "Payload": {"x": 1}}, "time", "node 'x': its time: 'soon' is not"),
        ({"x": {"Value": 1, "SourceTimestamp": "2026-11-29T12:00:00Z"}}, "time", "stream 'x': the time is 176399 s in"),
        ({"x": "NaN"}, "not_finite", "stream 'x': field 'value' is nan; expected a finite number"),
        (b'{"x": NaN}', "not_finite", "stream 'x': field 'value' is nan; expected a finite number"),
        (b'{"x": -1' + b"0" * 400 + b"}", "not_finite", "stream 'x': field 'value' is -inf; expected a finite"),
        ({"x": {"UaType": 11, "Value": "-Infinity"}}, "not_finite", "stream 'x': field 'value' is -inf"),
        ({"": 1}, "field", "node '': its id names the stream; expected 1 to 65535 characters, found 0"),
        ({"k" * 65_536: 1}, "field", "its id names the stream; expected 1 to 65535 characters, found 65536"),
        (b'{"\\ud800": 1}', "field", "holds half a surrogate pair, which is no character"),
    ],
)
def test_failures(payload: object, reason: str, sentence: str) -> None:
    """One a payload, with the node, what was found and what was expected; its neighbours are read."""
    told = failure(decoder(), payload)
    assert told.reason == reason
    assert sentence in told.detail
    assert " of the payload's " not in told.detail


def test_values_that_cannot_be_used_are_counted_and_the_others_read() -> None:
    """Whatever it is that is wrong with them, and in whatever order."""
    values: dict[str, Any] = {
        "late": {"Value": 1, "SourceTimestamp": "2030-01-01T00:00:00Z"},
        "nan": {"Value": "NaN", "SourceTimestamp": AT},
        "soon": {"Value": 1, "SourceTimestamp": "soon"},
        "text": {"Value": "warm", "SourceTimestamp": AT},
        "bad": {"StatusCode": 2**31},
        "good": SCALAR,
    }
    for one in list(values)[:5]:
        told = failure(decoder(), [{"Payload": values}, 5, {"Payload": {one: values[one]}}])
        assert told.detail.endswith("; 7 of the payload's 8 values cannot be used")
    assert run(decoder(), {"Payload": values}).keys == ["good"]


@pytest.mark.parametrize(
    ("nodes", "read"),
    [
        (["*"], ["ns=2;s=Boiler.Temp", "ns=2;s=Boiler.[1]", "ns=3;s=Boiler*", "i=5"]),
        (["ns=2;*"], ["ns=2;s=Boiler.Temp", "ns=2;s=Boiler.[1]"]),
        (["*Boiler*"], ["ns=2;s=Boiler.Temp", "ns=2;s=Boiler.[1]", "ns=3;s=Boiler*"]),
        (["ns=2;s=Boiler.[1]"], ["ns=2;s=Boiler.[1]"]),
        (["ns=3;s=Boiler*"], ["ns=3;s=Boiler*"]),
        (["ns=?;s=Boiler*", "i=[0-9]"], []),
        (["i=5", "*Temp"], ["ns=2;s=Boiler.Temp", "i=5"]),
        (["NS=2*"], []),
    ],
)
def test_nodes(nodes: list[str], read: list[str]) -> None:
    """Only * stands for something else; nodes that are not asked for are no failure, however bad they are."""
    names = ["ns=2;s=Boiler.Temp", "ns=2;s=Boiler.[1]", "ns=3;s=Boiler*", "i=5"]
    subject = decoder(opcua={"nodes": nodes})
    for _ in range(2):  # the second time it is remembered
        assert list(found(subject, dict.fromkeys(names, 1))) == read
        others = {name: {"StatusCode": 2**31} for name in names if name not in read}
        assert found(subject, others) == {}


@given(st.text("ab*", max_size=8), st.text("ab*", max_size=12))
def test_a_pattern_is_what_a_regular_expression_says(pattern: str, text: str) -> None:
    """With .* for each * and everything else literally."""
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert _pattern(pattern)(text) == (re.fullmatch(expression, text, re.DOTALL) is not None)


def test_a_pattern_takes_no_longer_than_a_node_id_is_long() -> None:
    """Many * on a long id: a regular expression would go back and forth for hours."""
    assert not _pattern("*a" * 50 + "*b")("a" * 65_535)


def test_more_nodes_than_are_remembered() -> None:
    """And ids too long to be."""
    subject = decoder(opcua={"nodes": ["*"]})
    payload = {f"ns=2;s={number}": number for number in range(25_000)} | {LONG: 1}
    assert len(found(subject, payload, payload)) == 25_001
    assert len(subject._reader._known) <= 10_000  # type: ignore[attr-defined]


def test_a_data_set_message_is_a_reading() -> None:
    """Of the fields in their order, at the newest of their times."""
    subject = joined("b", SPECIAL, "a")
    payload = {
        "a": {"Value": 1, "SourceTimestamp": "2021-10-20T09:25:00.15Z"},
        SPECIAL: {"Value": "2.5", "SourceTimestamp": "2021-10-20T11:25:00.2+02:00"},
        "other": {"Value": 9, "SourceTimestamp": "2021-10-20T09:30:00Z"},
        "bad": {"StatusCode": 2**31},
        "b": {"Value": True, "SourceTimestamp": "2021-10-20T09:25:00.1Z"},
    }
    decoded = run(subject, [{"Messages": [{"Payload": payload}, {"Payload": {"c": 1}}, {"Payload": payload}]}], payload)
    assert decoded.values.tolist() == [[1, 2.5, 1]] * 3
    assert decoded.times.tolist() == [1_634_721_900_200_000_000] * 3
    assert decoded.origin.tolist() == [0, 0, 1]
    assert decoded.failures == []


@pytest.mark.parametrize(
    ("payload", "time"),
    [
        ({"Timestamp": AT, "Payload": {"a": 1, "b": 2}}, TAKEN),
        ({"Timestamp": AT, "Payload": {"a": {"Value": 1}, "b": {"Type": 6, "Body": 2}}}, TAKEN),
        ({"Timestamp": AT, "Payload": {"a": {"Value": 1, "SourceTimestamp": "2021-10-20T09:24:00Z"}, "b": 2}}, None),
        ({"a": 1, "b": 2}, NOW),
    ],
)
def test_the_time_of_a_reading_without_times(payload: object, time: int | None) -> None:
    """The message's, else that of arrival; a value's own comes first."""
    decoded = run(joined("a", "b"), payload)
    assert decoded.values.tolist() == [[1, 2]]
    assert decoded.times.tolist() == [time or ns("2021-10-20T09:24:00")]


DELTA = {"MessageType": "ua-deltaframe", "Payload": {"b": SCALAR}}
NULL = {"Payload": {"a": {"Value": None, "SourceTimestamp": AT}, "b": SCALAR}}


@pytest.mark.parametrize("payload", [DELTA, NULL, {"Payload": {"a": None, "b": SCALAR}}])
def test_what_a_delta_frame_lacks(payload: object) -> None:
    """Rejected, held, or a number, as the source says."""
    only = run(joined("a", "b"), payload).failures[0]
    assert only.reason == "field"
    assert re.fullmatch("node 'a': its value is (missing|null); expected a number", only.detail)
    held = run(joined("a", "b", missing="hold"), {"a": 1, "b": 2}, payload)
    assert held.absent is not None
    assert held.absent.tolist() == [[False, False], [True, False]]
    assert held.values[1, 1] == 42
    assert run(joined("a", "b", missing="hold"), {"a": 1, "b": 2}).absent is None
    constant = run(joined("a", "b", missing=-1), payload)
    assert (constant.values.tolist(), constant.absent) == ([[-1, 42]], None)


def test_a_field_of_bad_quality_is_not_held() -> None:
    """The reading is refused, whatever becomes of missing fields; those beside it are read."""
    bad = {"Payload": {"a": {"StatusCode": 2**31, "SourceTimestamp": AT}, "b": SCALAR}}
    for missing in ("reject", "hold", 5):
        decoded = run(joined("a", "b", missing=missing), [{"a": 1, "b": 2}, bad, bad])
        assert decoded.values.tolist() == [[1, 2]]
        (only,) = decoded.failures
        assert only.reason == "quality"
        assert only.detail.startswith("node 'a': its status is 0x80000000; ")
        assert only.detail.endswith("; 2 of the payload's 3 DataSet messages cannot be used")


def test_the_message_status_is_no_matter_for_what_is_missing() -> None:
    """OPC Publisher gives a message the status of any of its values."""
    decoded = run(joined("a", "b", missing="hold"), {"Status": 2**31, "Payload": {"b": SCALAR}})
    assert decoded.values[0, 1] == 42
    assert decoded.failures == []


def test_a_reading_with_a_time_that_is_none() -> None:
    """Is refused once, by the node's name."""
    when = {"Value": 1, "SourceTimestamp": "soon"}
    decoded = run(joined("a", "b"), [{"a": SCALAR, "b": when}, {"a": when, "b": when}, {"a": SCALAR, "b": SCALAR}])
    assert decoded.values.tolist() == [[42, 42]]
    (only,) = decoded.failures
    assert only.reason == "time"
    assert only.detail.startswith("node 'b': its time: 'soon' is not an ISO 8601 time")
    assert only.detail.endswith("; 2 of the payload's 3 DataSet messages cannot be used")


def test_samples_of_one_writer_and_time_are_a_reading() -> None:
    """In one payload; others are readings of their own, and lack a field."""

    def one(node: str, value: float, second: int, writer: object) -> dict[str, object]:
        extension = {"ExtensionFields": {"DataSetWriterId": writer}} if writer is not None else {}
        return {
            "NodeId": node,
            "Value": {"Value": value, "SourceTimestamp": f"2021-10-20T09:25:0{second}Z"},
            **extension,
        }

    payload = [one("a", 1, 0, 7), one("a", 2, 1, 7), one("b", 3, 0, 7), one("b", 4, 1, 7), one("c", 9, 0, 7)]
    decoded = run(joined("a", "b", stream="{field:DataSetWriterId}"), payload)
    assert decoded.values.tolist() == [[1, 3], [2, 4]]
    assert decoded.times.tolist() == [1_634_721_900_000_000_000, 1_634_721_901_000_000_000]
    assert decoded.keys == ["7", "7"]
    apart = run(joined("a", "b"), [one("a", 1, 0, 7), one("b", 3, 0, 8), one("a", 1, 0, None), one("b", 3, 0, None)])
    assert apart.values.tolist() == [[1, 3]]
    assert apart.failures[0].reason == "field"
    assert run(joined("a", "b"), [one("a", 1, 0, 7)], [one("b", 1, 0, 7)]).values.tolist() == []


def test_many_samples_are_joined_in_little_time() -> None:
    """Each is looked at once: there may be as many as fit into a payload."""
    payload = [{"NodeId": f"n{number}", "Value": number} for number in range(20_000)]
    decoded = run(joined("n0", "n19999"), payload)
    assert decoded.values.tolist() == [[0, 19_999]]


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("DataSetWriterId", "101"),
        ("DataSetWriterName", "Writer"),
        ("PublisherId", "MyPublisher"),
    ],
)
def test_a_stream_by_a_field_of_the_message(field: str, key: str) -> None:
    """Of the DataSet message, else of the network message."""
    message = {"DataSetWriterId": 101, "DataSetWriterName": "Writer", "Payload": {"x": 1}}
    decoded = run(joined("x", stream=f"plant/{{field:{field}}}"), {"PublisherId": "MyPublisher", "Messages": [message]})
    assert decoded.keys == [key]
    told = run(joined("x", stream=f"{{field:{field}}}"), {"Payload": {"x": 1}}).failures[0]
    assert told.detail == f"field {field!r} names the stream; expected text, found missing"


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"opcua": {"join": True}}, ("fields",), "this key is required"),
        ({"opcua": {"join": True, "nodes": ["ns=2*"]}, "fields": ["a"]}, ("opcua", "nodes"), "leave this key out"),
        ({"opcua": {"nodes": []}}, ("opcua", "nodes"), "at least 1 item"),
        ({"fields": ["a", "b"]}, ("fields",), "a reading of format opcua is one number"),
        ({"missing": "hold"}, ("missing",), "this key goes with opcua.join: true"),
        ({"missing": 0.5}, ("missing",), "this key goes with opcua.join: true"),
        ({"stream": "{field:DataSetWriterId}"}, ("stream",), "can only be in it with opcua.join: true"),
        ({"time": "SourceTimestamp"}, ("time",), "format opcua has no such key"),
    ],
)
def test_configurations_that_cannot_be(keys: dict[str, Any], path: tuple[str, ...], message: str) -> None:
    """Each is told at its place."""
    with pytest.raises(ValidationError) as refused:
        Source.model_validate({"name": "s", "topics": ["t"], "format": "opcua", **keys})
    errors = [(error["loc"], error["msg"]) for error in refused.value.errors()]
    assert any(where == path and message in text for where, text in errors), errors


def test_a_configuration_with_every_key() -> None:
    """Joined with its defaults written out; the stream of a node has its id."""
    assert joined("a", missing="hold", stream="{source}/{field:PublisherId}")
    assert Source.model_validate(
        {"name": "s", "topics": ["t"], "format": "opcua", "fields": ["a"], "opcua": {"join": True, "nodes": ["*"]}}
    ).stream_template == ("{topic}")
    one = Source.model_validate({"name": "s", "topics": ["t"], "format": "opcua"})
    assert (one.stream_template, one.fields) == ("{topic}/{field:node}", ["value"])


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(
        [AT, "2030-01-01T00:00:00Z", "1", "NaN", "ua-data", "ua-keyframe", "ua-keepalive", "Bad", "x", "y"]
    ),
    st.text(max_size=4),
)
names = st.sampled_from(
    [
        *(
            "Messages",
            "MessageType",
            "Payload",
            "DataSetWriterId",
            "Timestamp",
            "Status",
            "StatusCode",
            "Code",
            "Symbol",
        ),
        *("NodeId", "Value", "SourceTimestamp", "Type", "Body", "UaType", "ExtensionFields", "x", "y"),
    ]
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=3), inner, max_size=4),
    max_leaves=25,
)
entries = st.one_of(
    st.just(SCALAR),
    st.fixed_dictionaries(
        {"Value": leaves, "SourceTimestamp": st.sampled_from([AT, "2021-10-20T09:25:00Z", "soon", None])},
        optional={"StatusCode": leaves, "Status": leaves, "UaType": st.integers(0, 25)},
    ),
    trees,
)
messages = st.fixed_dictionaries(
    {"Payload": st.dictionaries(st.sampled_from("xyz"), entries, max_size=3)},
    optional={"MessageType": leaves, "Timestamp": leaves, "Status": leaves, "DataSetWriterId": leaves},
)
payloads = st.one_of(
    trees, st.lists(st.fixed_dictionaries({"Messages": st.lists(messages, max_size=3)}), max_size=2), messages
).map(lambda tree: json.dumps(tree).encode())
mutated = st.tuples(payloads, st.integers(0, 2000), st.binary(max_size=3)).map(
    lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + len(drawn[2]) :]
)
SUBJECTS = (
    decoder(),
    decoder(opcua={"nodes": ["x", "*y*"]}),
    joined("x", "y"),
    joined("x", "y", missing="hold", stream="{field:DataSetWriterId}"),
    joined("y", missing=0),
)


@given(st.lists(st.one_of(st.binary(max_size=60), payloads, mutated), max_size=4), st.sampled_from(SUBJECTS))
@settings(max_examples=250, deadline=None)
def test_any_payload_gives_readings_or_a_reason_whatever_comes_with_it(
    batch: list[bytes], subject: OpcuaDecoder
) -> None:
    """Never an exception; and a payload gives the same in a batch as alone."""
    together = run(subject, *batch)
    readings: list[tuple[object, ...]] = []
    failures: list[tuple[object, ...]] = []
    for index, payload in enumerate(batch):
        arrival = np.array([NOW + index * 10**9], np.int64)
        alone = subject.decode([payload], arrival, ["t"])
        readings += [(index, *row) for row in _rows(alone)]
        failures += [(index, *failed[1:]) for failed in alone.failures]
    assert list(zip(together.origin.tolist(), strict=True)) == [row[:1] for row in readings]
    assert _rows(together) == [row[1:] for row in readings]
    assert list(together.failures) == failures


def _rows(decoded: Decoded) -> Sequence[tuple[object, ...]]:
    count = len(decoded.origin)
    absent = np.zeros_like(decoded.values, np.bool_) if decoded.absent is None else decoded.absent
    values = np.where(absent, 0, decoded.values)
    keys = [""] * count if decoded.keys is None else decoded.keys
    return list(
        zip(decoded.times.tolist(), keys, map(tuple, values.tolist()), map(tuple, absent.tolist()), strict=True)
    )


@given(
    st.dictionaries(
        st.sampled_from("xyz"), st.one_of(st.just(SCALAR), leaves.map(lambda leaf: {**SCALAR, "Value": leaf}))
    )
)
@settings(max_examples=100, deadline=None)
def test_the_fast_way_and_the_slow_way_agree(payload: dict[str, dict[str, Any]]) -> None:
    """A status that is good changes nothing but the way."""
    fast, slow = decoder(), decoder()
    run(fast, {"x": 1, "y": 1, "z": 1})  # nodes are known
    first = run(fast, payload)
    second = run(slow, {node: {**entry, "StatusCode": 0} for node, entry in payload.items()})
    assert _rows(first) == _rows(second)
    assert first.failures == second.failures


def test_more_readings_than_a_payload_has_bytes_for_are_refused() -> None:
    """Joined, a message of one value is a reading of all fields, where they may be missing."""
    subject = decoder(fields=[f"f{number}" for number in range(100)], missing=0, opcua={"join": True})
    decoded = run(subject, [{"f0": 1}] * 64, [{"f0": 1}] * 65)
    assert len(decoded.origin) == 64
    assert list(decoded.failures) == [(1, "too_large", "the payload holds 65 readings of 100 fields")]
