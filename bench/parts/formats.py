"""What it costs to decode a message of each format."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import cbor2
import msgpack
import numpy as np
from PIL import Image

from bench.report import Result, Spread
from processor.decoders import decoder
from processor.source_sections import Source
from tests import sparkplug

_BATCHES: Final = (512, 1)
"""Messages decoded at once: under load, and where they come one by one."""
_FIELDS: Final = [f"field_{number}" for number in range(6)]
_NOW: Final = 1_795_341_600
_DIFFERENT: Final = 512
"""Messages that are made of each format; then they come again."""
_SERIES: Final = 50
"""Readings in a message that holds many."""


class Size(NamedTuple):
    """How long it takes."""

    messages: int
    """Of each format and batch size, a round."""
    rounds: int


FULL: Final = Size(messages=20_480, rounds=5)
QUICK: Final = Size(messages=2_048, rounds=3)


class _Case(NamedTuple):
    keys: Mapping[str, Any]
    """Of the source."""
    payload: Callable[[int], bytes]
    readings: int = 1
    topic: Callable[[int], str] = lambda _: "plant/7/press"
    share: float = 1.0
    """Of the messages that are decoded: images take a thousand times as long."""


def _values(number: int) -> list[float]:
    return [round(np.sin(number + place), 4) for place in range(len(_FIELDS))]


def _object(number: int) -> dict[str, Any]:
    return {"ts": _NOW + number / 100, **dict(zip(_FIELDS, _values(number), strict=True))}


def _opcua(number: int) -> bytes:
    stamp = f"2026-11-22T10:{number // 60 % 60:02}:{number % 60:02}.1234567Z"
    nodes = {
        f"nsu=http://plant.example/;s=Press{place}": {"Value": value, "SourceTimestamp": stamp}
        for place, value in enumerate(_values(number))
    }
    message = {"DataSetWriterId": 1, "Payload": nodes}
    return json.dumps({"MessageId": str(number), "MessageType": "ua-data", "Messages": [message]}).encode()


def _sparkplug(number: int) -> bytes:
    """Return a birth, then data with aliases; sequence numbers go up to 255."""
    values = enumerate(_values(number))
    metrics = [
        sparkplug.metric(f"{_FIELDS[place]}" if number == 0 else None, value, alias=place, at=number)
        for place, value in values
    ]
    return sparkplug.payload(metrics, seq=number % 256, at=number)


def _jpeg(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (30, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((640, 480)).save(file, "JPEG", quality=85)
    return file.getvalue()


_TREE: Final = {"fields": _FIELDS, "time": "ts"}
_CASES: Final[Mapping[str, _Case]] = {
    "json, an object": _Case({**_TREE}, lambda number: json.dumps(_object(number)).encode()),
    "json, objects in one another": _Case(
        {"fields": [f"/data/{name}" for name in _FIELDS], "time": "/head/ts"},
        lambda number: json.dumps({"head": {"ts": _NOW + number}, "data": _object(number)}).encode(),
    ),
    f"json, columns of {_SERIES}": _Case(
        {**_TREE},
        lambda number: json.dumps({key: [value] * _SERIES for key, value in _object(number).items()}).encode(),
        _SERIES,
    ),
    f"json, base time and {_SERIES} values": _Case(
        {"fields": _FIELDS, "base": {"time": "t0", "rate": 100, "values": "values"}},
        lambda number: json.dumps({"t0": _NOW + number, "values": [_values(number)] * _SERIES}).encode(),
        _SERIES,
    ),
    "json, half the fields held": _Case(
        {**_TREE, "missing": "hold"},
        lambda number: json.dumps(dict(list(_object(number).items())[: 4 if number else 7])).encode(),
    ),
    "json, two topics joined": _Case(
        {"join": {"by": "{topic[1]}", "topics": {"a": "plant/+/0", "b": "plant/+/1"}}},
        lambda number: str(_values(number)[0]).encode(),
        topic=lambda number: f"plant/7/{number % 2}",
    ),
    "number": _Case({"format": "number"}, lambda number: str(_values(number)[0]).encode()),
    "csv, a line": _Case(
        {"format": "csv", "fields": _FIELDS, "time": "ts", "csv": {"columns": ["ts", *_FIELDS]}},
        lambda number: ",".join(map(str, _object(number).values())).encode(),
    ),
    f"csv, {_SERIES} lines": _Case(
        {"format": "csv", "fields": _FIELDS},
        lambda number: "\n".join([",".join(map(str, _values(number)))] * _SERIES).encode(),
        _SERIES,
    ),
    "binary, a reading": _Case(
        {"format": "binary", "fields": _FIELDS}, lambda number: np.array(_values(number), "<f4").tobytes()
    ),
    f"binary, {_SERIES} readings": _Case(
        {"format": "binary", "fields": _FIELDS, "binary": {"rate": 100}},
        lambda number: np.array([_values(number)] * _SERIES, "<f4").tobytes(),
        _SERIES,
    ),
    "msgpack, an object": _Case({**_TREE, "format": "msgpack"}, lambda number: msgpack.packb(_object(number))),
    "cbor, an object": _Case({**_TREE, "format": "cbor"}, lambda number: cbor2.dumps(_object(number))),
    "opcua, 6 nodes": _Case({"format": "opcua"}, _opcua, 6),
    "opcua, 6 nodes joined": _Case(
        {
            "format": "opcua",
            "opcua": {"join": True},
            "fields": [f"nsu=http://plant.example/;s=Press{place}" for place in range(6)],
        },
        _opcua,
    ),
    "sparkplug, 6 metrics by alias": _Case(
        {"format": "sparkplug", "fields": _FIELDS, "topics": ["spBv1.0/#"]},
        _sparkplug,
        topic=lambda number: f"spBv1.0/plant/{'NDATA' if number else 'NBIRTH'}/press",
    ),
    "image, JPEG 640 x 480 to 224 x 224": _Case({"format": "image"}, _jpeg, share=0.01),
}


def measure(size: Size, _folder: Path, tell: Callable[[str], None]) -> Result:
    """Decode messages that are all different, in batches and one by one."""
    found: dict[str, list[Spread]] = {}
    lengths: dict[str, int] = {}
    for name, case in _CASES.items():
        tell(name)
        payloads = [case.payload(number) for number in range(_DIFFERENT)]
        lengths[name] = round(sum(map(len, payloads)) / len(payloads))
        found[name] = [_microseconds(case, payloads, batch, size) for batch in _BATCHES]
    return Result(
        f"Formats: µs a message of {len(_FIELDS)} values, decoded {_BATCHES[0]} at once and one by one",
        ("", "bytes", "readings", f"{_BATCHES[0]} at once", "one by one"),
        [
            (name, f"{lengths[name]:,}", str(_CASES[name].readings), *(spread.text(2) for spread in spreads))
            for name, spreads in found.items()
        ],
        [],
        {name: [spread.as_json() for spread in spreads] for name, spreads in found.items()},
        notes=("CPU time of one thread; JPEGs are decoded and resized.",),
    )


def _microseconds(case: _Case, payloads: list[bytes], batch: int, size: Size) -> Spread:
    keys = {"name": "s", **({} if "join" in case.keys else {"topics": ["plant/#"]}), **case.keys}
    subject = decoder(Source.model_validate(keys))
    count = max(batch, round(size.messages * case.share))
    topics = [case.topic(number % _DIFFERENT) for number in range(count)]
    messages = [payloads[number % _DIFFERENT] for number in range(count)]
    arrivals = (_NOW + 60) * 10**9 + np.arange(count, dtype=np.int64)
    rounds = []
    for _ in range(size.rounds + 1):
        started = time.thread_time()
        for start in range(0, count, batch):
            part = slice(start, start + batch)
            decoded = subject.decode(messages[part], arrivals[part], topics[part])
        rounds.append((time.thread_time() - started) / count * 1e6)
        if decoded.failures:
            raise ValueError(f"{case.keys}: {decoded.failures[0].detail}")
    return Spread(tuple(rounds[1:]))
