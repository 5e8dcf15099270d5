"""Every format through one running processor, each written by someone else's encoder; kills; images."""

from __future__ import annotations

import base64
import csv
import io
import json
import struct
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain, groupby, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import cbor2
import msgpack
import numpy as np
import pytest

from processor import deadletters
from tests import models
from tests.images import encoded, noise, photograph, prepared
from tests.integration.filters_again import identity
from tests.mqtt_client import Client, MqttClientFactory
from tests.running import ProcessorFactory, ProcessorProcess

START: Final = 1_790_000_000
"""Seconds since the Unix epoch; 2026."""
NS: Final = 10**9
PLC: Final = (Path(__file__).parents[1] / "unit" / "opcua" / "open62541.jsonl").read_bytes().splitlines()
"""What a server of open62541 published: Variants, then DataValues."""


class Reading(NamedTuple):
    """What must come out."""

    source: str
    stream: str
    time: int | None
    """Nanoseconds since the Unix epoch; None: that of arrival."""
    values: tuple[float, float]


class Sent(NamedTuple):
    """A message, and what becomes of it."""

    topic: str
    payload: bytes
    readings: Sequence[Reading] = ()
    reason: str = ""
    """Of its dead letter, if it is one."""


SOURCES: Final[list[dict[str, Any]]] = [
    {"name": "climate", "topics": ["climate/+"], "fields": ["temperature", "humidity"], "time": "last_seen",
     "missing": "hold"},
    {"name": "press", "fields": ["/vib/x", "/temp/value"], "time": "ts",
     "join": {"by": "press-{topic[1]}", "topics": {"temp": "press/+/temp", "vib": "press/+/vib"}, "within": "500ms"}},
    {"name": "gauges", "format": "number",
     "join": {"by": "{topic[1]}", "topics": {"a": "gauges/+/a", "b": "gauges/+/b"}, "within": "10m", "fill": "last"}},
    {"name": "pumps", "topics": ["pumps/+"], "format": "csv", "csv": {"delimiter": ";", "header": True},
     "fields": ["bar", "rpm"], "time": "when", "stream": "{field:pump}"},
    {"name": "raw", "topics": ["raw/+"], "format": "binary", "fields": ["left", "right"],
     "binary": {"dtype": ">i2", "skip": 4, "rate": 1000}},
    {"name": "motor", "topics": ["motor/+"], "format": "msgpack", "fields": ["amps", "7"], "time": "ts"},
    {"name": "meter", "topics": ["meter/+"], "format": "cbor", "fields": ["/u/0", "/u/2"], "time": "ts"},
    {"name": "plc", "topics": ["plc/#"], "format": "opcua", "opcua": {"join": True},
     "fields": ["Temperature", "Active"]},
    {"name": "vibration", "topics": ["vibration/+"], "fields": ["x", "y"],
     "base": {"time": "t0", "rate": 1600, "values": "samples"}},
]  # fmt: skip


def climate(room: str, second: int, given: dict[str, Any], *values: float) -> Sent:
    """Return what Zigbee2MQTT writes; without values nothing of it can be used yet."""
    moment = datetime.fromtimestamp(START + second, UTC).isoformat()
    payload = json.dumps({"last_seen": moment, **given, "battery": 100}).encode()
    if not values:
        return Sent(f"climate/{room}", payload, reason="field")
    return Sent(f"climate/{room}", payload, _readings("climate", f"climate/{room}", [second], [values]))


def press(sensor: str, milliseconds: int, part: dict[str, float], *values: float, reason: str = "") -> Sent:
    """Return one half of a reading, which has these values if this half completes it."""
    payload = json.dumps({"ts": (START * 1000 + milliseconds) / 1000, **part}).encode()
    whole = _readings("press", "press-7", [milliseconds / 1000], [values] if values else [])
    return Sent(f"press/7/{sensor}", payload, whole, reason)


def gauge(sensor: str, text: str, *values: float, reason: str = "") -> Sent:
    """Return one number as `mosquitto_pub -m` sends it."""
    whole = [Reading("gauges", "9", None, _pair(values))] if values else []
    return Sent(f"gauges/9/{sensor}", text.encode(), whole, reason)


def pumps(second: int, *lines: tuple[str, float, float]) -> Sent:
    """Return lines of several pumps by Python's csv module."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";")
    writer.writerow(["pump", "note", "rpm", "when", "bar"])
    for pump, bar, rpm in lines:
        writer.writerow([pump, 'filter; "B"\nchanged', rpm, (START + second) * 1000, bar])
    made = chain.from_iterable(_readings("pumps", pump, [second], [pair]) for pump, *pair in lines)
    return Sent("pumps/all", text.getvalue().encode(), list(made))


def raw(device: int, payload: bytes, *values: tuple[float, float]) -> Sent:
    """Return numbers behind a header."""
    return Sent(f"raw/{device}", payload, [Reading("raw", f"raw/{device}", None, pair) for pair in values])


def motor(nanoseconds: int, amps: float, seven: str, number: float) -> Sent:
    """Return a message of MessagePack with a time of its own, and a key that is no text; `seven` is JSON."""
    moment = msgpack.Timestamp(START, nanoseconds)
    payload: bytes = msgpack.packb({"ts": moment, "amps": amps, 7: json.loads(seven), "state": b"\0"})
    return Sent("motor/m1", payload, [Reading("motor", "motor/m1", START * NS + nanoseconds, (amps, number))])


def meter(second: int, *values: float, text: bool) -> Sent:
    """Return a message of CBOR with a time in one of its two tags."""
    moment = datetime.fromtimestamp(START + second, UTC)
    payload = cbor2.dumps({"u": [values[0], None, values[1]], "ts": moment}, datetime_as_timestamp=not text)
    return Sent("meter/main", payload, _readings("meter", "meter/main", [second], [values]))


def plc(line: int, moment: str) -> Sent:
    """Return what a server of OPC UA wrote at that time."""
    nanoseconds = int(np.datetime64(moment, "ns").astype(np.int64))
    return Sent("plc/line", PLC[line], [Reading("plc", "plc/line", nanoseconds, (25.5, 1))])


def vibration(second: int, *rows: tuple[float, float]) -> Sent:
    """Return many readings with one time."""
    payload = json.dumps({"t0": START + second, "samples": rows}).encode()
    times = [second + place / 1600 for place in range(len(rows))]
    return Sent("vibration/v", payload, _readings("vibration", "vibration/v", times, rows))


def _readings(source: str, stream: str, seconds: Iterable[float], rows: Iterable[Sequence[float]]) -> list[Reading]:
    times = [START * NS + round(second * NS) for second in seconds]
    return [Reading(source, stream, time, _pair(row)) for time, row in zip(times, rows, strict=False)]


def _pair(values: Sequence[float]) -> tuple[float, float]:
    first, second = values
    return first, second


BEFORE: Final = [
    climate("hall", 0, {"temperature": 21.5, "humidity": "40"}, 21.5, 40),
    climate("hall", 1, {"temperature": 21.75}, 21.75, 40),
    Sent("climate/hall", b'{"last_seen": 1790000002, "tempera', reason="decode"),
    climate("cellar", 0, {"temperature": 12}),
    gauge("a", "1"),
    gauge("b", " 2.0\n", 1, 2),
    gauge("a", "3"),
    gauge("b", "3,5", reason="decode"),
    press("vib", 0, {"x": 0.03}),
    press("temp", 250, {"value": 80}, 0.03, 80),
    press("temp", 10_000, {"value": 81}),
    Sent("press/7/vib", b'{"x": "loud"}', reason="field"),
    pumps(0, ("north", 2.5, 1480), ("south", 2.25, 1475)),
    Sent("pumps/all", b"pump;when;bar\nnorth;1790000001;2.5", reason="field"),
    raw(1, struct.pack(">I6h", 1, 1, -2, 3, -4, 5, -6), (1, -2), (3, -4), (5, -6)),
    Sent("raw/1", b"\0" * 11, reason="decode"),
    motor(1, 4.5, "1", 1),
    Sent("motor/m1", b"\xc1", reason="decode"),
    meter(0, 230.5, 0.25, text=True),
    Sent("meter/main", b"\x9f" * 5000, reason="decode"),
    plc(1, "2026-11-26T03:34:55.028986"),
    Sent("plc/line", b"[1, 2]", reason="decode"),
    Sent("vibration/v", b'{"t0": 1790000000, "samples": [[1, 2], [3]]}', reason="field"),
    vibration(0, (0.01, -0.02), (0.02, -0.03), (0.03, -0.04)),
]
"""The last of each phase gives samples: when they are there, all that came before is on disk."""
AWAY: Final = [
    climate("hall", 2, {"humidity": 41}, 21.75, 41),
    climate("cellar", 1, {"humidity": 70}, 12, 70),
    gauge("b", "4e0", 3, 4),
    press("vib", 10_250, {"x": 0.04}, 0.04, 81),
    press("vib", 20_000, {"x": 0.05}),
    pumps(1, ("south", 2, 1470)),
    raw(2, b"head" + np.array([[7, 8], [-32768, 32767]], ">i2").tobytes(), (7, 8), (-32768, 32767)),
    motor(2, 5.5, "true", 1),
    meter(1, 231, -1, text=False),
    plc(0, "2026-11-26T03:35:04.884115"),
    vibration(1, (0.04, 0), (0.05, 1)),
]
AFTER: Final = [
    climate("hall", 3, {"temperature": 22, "humidity": None}, 22, 41),
    climate("cellar", 2, {"temperature": 12.5}, 12.5, 70),
    Sent("gauges/9/a", b"\xff\xfe", reason="decode"),
    gauge("a", "5"),
    gauge("a", "6", 5, 4),
    gauge("b", "7", 6, 7),
    press("temp", 20_500, {"value": 82}, 0.05, 82),
    press("temp", 30_000, {"value": 83}),
    press("temp", 40_000, {"value": 84}, reason="incomplete"),
    press("vib", 40_125, {"x": 0.06}, 0.06, 84),
    pumps(2, ("south", 2.125, 1465), ("north", 2.375, 1485)),
    motor(3, 6.5, '"2.5"', 2.5),
    meter(2, 232, 0.5, text=True),
    vibration(2, (0.06, 2)),
]


def samples(phases: Iterable[Sent]) -> dict[tuple[str, str], list[tuple[Reading, Reading]]]:
    """Return the windows of two readings that messages give, by source and stream."""
    made = sorted(chain.from_iterable(sent.readings for sent in phases), key=lambda one: one[:2])  # stays in order
    streams = {key: list(group) for key, group in groupby(made, lambda one: one[:2])}
    return {key: list(pairwise(group)) for key, group in streams.items() if len(group) > 1}


class Kept:
    """The samples that a listener hears, each once."""

    def __init__(self, listener: Client, processor: ProcessorProcess) -> None:
        """Listen to a processor."""
        self._listener = listener
        self._processor = processor
        listener.subscribe(f"{processor.root}/accepted/#")
        self.events: dict[str, dict[str, Any]] = {}

    def wait(self, count: int) -> None:
        """Wait until so many samples have come."""

        def enough() -> bool:
            for message in self._listener.received():
                assert message.topic == f"{self._processor.root}/accepted/all"
                event = json.loads(message.payload)
                self.events.setdefault(event["id"], event)
            return len(self.events) >= count

        self._processor.wait_until(enough, f"{count} samples")

    def streams(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Return the readings in each sample by source and stream, in the order they came."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for event in self.events.values():
            readings = event["data"]["readings"]
            found.setdefault((readings["source"], event["subject"]), []).append({**readings, "id": event["id"]})
        return found


def _nanoseconds(moments: Sequence[str]) -> list[int]:
    found: list[int] = np.array([moment.removesuffix("Z") for moment in moments], "datetime64[ns]").astype(int).tolist()
    return found


@pytest.mark.parametrize("kills", [False, True])
def test_every_format_beside_the_others(
    make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path, *, kills: bool
) -> None:
    """Values, times, streams, fields and ids are those that were sent, also where it is killed in the middle."""
    path = models.write(models.cnn(channels=2, size=2), tmp_path)
    processor = make_processor(
        sources=SOURCES,
        model={"path": str(path), "window": {"size": 2}},
        filter={"rules": [{"name": "all"}]},
        bridges=[{"type": "mqtt"}],
    )
    plant, kept = mqtt_client(), Kept(mqtt_client(), processor)
    begun = time.time_ns()
    processor.start()
    sent: list[Sent] = []
    for phase in (BEFORE, AWAY, AFTER):
        for message in phase:
            plant.publish(message.topic, message.payload)
        sent += phase
        if kills and phase is AWAY:  # whatever of it is under way
            processor.start()
            processor.kill()
            processor.start()
        expected = samples(sent)
        kept.wait(sum(map(len, expected.values())))
        if kills and phase is BEFORE:  # between two halves, and before what holds on to earlier values
            processor.kill()
    ended = time.time_ns()
    fields = {"press": ["/vib/x", "/temp/value"], "gauges": ["a", "b"]} | {
        source["name"]: source["fields"] for source in SOURCES if "fields" in source
    }
    found = kept.streams()
    assert found.keys() == expected.keys()
    for (source, stream), windows in expected.items():
        came = found[source, stream]
        assert [one["values"] for one in came] == [[list(reading.values) for reading in pair] for pair in windows]
        for one, pair in zip(came, windows, strict=True):
            times = _nanoseconds(one["times"])
            assert one["fields"] == fields[source]
            assert one["id"] == identity(processor.configuration["id"], source, stream, times, one["values"])
            if pair[0].time is not None:
                assert times == [reading.time for reading in pair]
            elif source == "raw":
                assert begun - NS < times[0] == times[1] - 1_000_000 < ended
            else:
                assert begun < times[0] <= times[1] < ended
    letters = [
        (letter.topic, letter.reason, letter.payload) for letter in deadletters.read(processor.directory / "state")
    ]
    assert sorted(letters) == sorted((one.topic, one.reason, one.payload) for one in sent if one.reason)
    assert processor.stop() == 0


def test_images(make_processor: ProcessorFactory, mqtt_client: MqttClientFactory, tmp_path: Path) -> None:
    """JPEG and PNG: the model sees what a training script makes of them, and samples hold the files as they came."""
    size = 8, 12
    path = models.write(models.mean_image("float", "NCHW", size), tmp_path)
    processor = make_processor(
        sources=[
            {"name": "belt", "topics": ["belt/+/camera"], "format": "image", "stream": "{topic[1]}",
             "image": {"height": size[0], "width": size[1]}},
        ],
        model={"path": str(path), "window": {"size": 1}, "input": {"layout": "NCHW", "std": 255}},
        filter={"rules": [{"name": "all"}]},
        bridges=[{"type": "mqtt"}],
    )  # fmt: skip
    plant, kept = mqtt_client(), Kept(mqtt_client(), processor)
    processor.start()
    grey = noise(30, 20, 1)
    files = {"1": photograph("china"), "2": encoded(noise(*size)), "3": encoded(grey), "4": encoded(grey, "JPEG")}
    refused = {"1": encoded(grey, "GIF"), "2": files["1"][:5000], "3": b"\xff\xd8\xff", "4": files["2"][:200]}
    for camera, file in files.items():
        plant.publish(f"belt/{camera}/camera", refused[camera])
        plant.publish(f"belt/{camera}/camera", file)
    kept.wait(len(files))
    found = {event["subject"]: event["data"] for event in kept.events.values()}
    assert found.keys() == files.keys()
    for camera, data in found.items():
        image = data["readings"]["image"]
        assert base64.b64decode(image["base64"]) == files[camera]
        assert image["content_type"] == ("image/jpeg" if camera in "14" else "image/png")
        assert (data["readings"]["fields"], data["readings"]["values"]) == ([], [])
        assert data["inference"]["value"] == pytest.approx(prepared(files[camera], *size).mean() / 255, rel=1e-5)
    letters = list(deadletters.read(processor.directory / "state"))
    assert {letter.topic: letter.payload for letter in letters} == {f"belt/{n}/camera": refused[n] for n in files}
    assert {letter.reason for letter in letters} == {"decode"}
    assert processor.stop() == 0
