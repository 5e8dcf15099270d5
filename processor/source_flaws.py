"""What is wrong between the keys of a source. `data` is what the user wrote: any value may be of any type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, get_args

from processor import document, sparkplug_section, topics
from processor.document import Flaw

Format = Literal["json", "number", "csv", "binary", "msgpack", "cbor", "opcua", "sparkplug", "image"]
FORMATS: Final = get_args(Format)

_TEMPLATE_PART: Final = re.compile(r"\{(topic|source|topic\[([0-9]{1,4})\]|field:[^{}]+)\}")
_TREES: Final = ("json", "msgpack", "cbor")
"""Formats whose payloads are objects and arrays inside one another."""
_OWN_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "base": _TREES,
    "missing": (*_TREES, "csv", "opcua", "sparkplug"),
    "csv": ("csv",),
    "binary": ("binary",),
    "opcua": ("opcua",),
    "sparkplug": ("sparkplug",),
    "image": ("image",),
    "join": (*_TREES, "number"),
    "time": (*_TREES, "csv"),
}
"""Keys that not every format has."""
_WITHOUT_NAMES: Final = ("number", "binary", "image")
"""Formats whose payloads hold nothing that has a name."""
_ONE_VALUE: Final = ("number", "opcua")
"""Formats whose readings are one number, unless joined: its name is `value` where none is given."""


def flaws(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Return a source of nothing, keys of another format, and a stream of a level that the topics do not have."""
    yield from _format_flaws(data)
    yield from _csv_flaws(data)
    stream = data.get("stream")
    if data.get("format") in _WITHOUT_NAMES and isinstance(stream, str) and "{field:" in stream:
        yield Flaw(("stream",), f"a payload of format {data['format']} has no field with a name; use {{topic[1]}}")
    yield from _join_flaws(data)
    yield from sparkplug_section.flaws(data)
    yield from _opcua_flaws(data)
    filters = written_filters(data)
    if not filters and data.get("input") is None and (filters is None or isinstance(filters, list)):
        yield Flaw(("topics",), "found none, expected MQTT topic filters, or an input")
    join = data.get("join")
    key = ("join", "by") if isinstance(join, dict) else ("stream",)
    template = join.get("by") if isinstance(join, dict) else data.get("stream")
    if not isinstance(template, str):
        return
    filters = filters if isinstance(filters, list) else []
    if data.get("input") is not None:
        filters = [*filters, data["input"]]
    deepest = max((int(level) for _, level in _TEMPLATE_PART.findall(template) if level), default=-1)
    for text in filters:
        levels = topics.split_share(text).filter.split("/") if isinstance(text, str) else ["#"]
        if levels[-1] != "#" and deepest >= len(levels):
            message = f"found {document.describe(template)}, but topics of {document.describe(text)} have "
            yield Flaw(key, message + f"the levels {{topic[0]}} to {{topic[{len(levels) - 1}]}}")


def is_template(text: object) -> bool:
    """Whether this may name streams."""
    if not isinstance(text, str):
        return False
    rest = _TEMPLATE_PART.sub("", text)
    return text != "" and "{" not in rest and "}" not in rest and text.count("{field:") <= 1


def written_filters(data: Mapping[str, Any]) -> object:
    """Return the topic filters that a source is written with: of any type."""
    join = data.get("join")
    if isinstance(join, dict) and isinstance(join.get("topics"), dict):
        return list(join["topics"].values())
    return ["spBv1.0/#"] if data.get("format") == "sparkplug" and "topics" not in data else data.get("topics")


def has_one_value(data: Mapping[str, Any]) -> bool:
    """Whether a reading of this source is one number."""
    joined = data.get("join") is not None or _joins_nodes(data)
    return data.get("format") in _ONE_VALUE and not joined


def _joins_nodes(data: Mapping[str, Any]) -> bool:
    opcua = data.get("opcua")
    return isinstance(opcua, dict) and opcua.get("join") is True


def _format_flaws(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Refuse keys that the format does not have, and fields that it does not give."""
    found = data.get("format", "json")
    if found not in FORMATS:
        return
    for key, formats in _OWN_KEYS.items():
        if data.get(key) is not None and found not in formats:
            yield Flaw((key,), f"format {found} has no such key; it belongs to {', '.join(formats)}")
    fields = data.get("fields")
    number = len(fields) if isinstance(fields, list) else None
    if found == "image":
        if number:
            yield Flaw(("fields",), "an image has no fields; leave this key out")
    elif has_one_value(data):
        if number is not None and number != 1:
            yield Flaw(("fields",), f"found {number}, expected one: a reading of format {found} is one number")
    elif "join" not in data and not number and (number == 0 or "fields" not in data):
        yield Flaw(("fields",), "this key is required" if number is None else "found none, expected at least one")
    if isinstance(data.get("base"), dict) and data.get("time") is not None:
        yield Flaw(("time",), "the time of the first reading is base.time; leave this key out")


def _csv_flaws(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Refuse a source of lines without a header in which not every wanted column is named."""
    keys = data.get("csv")
    keys = keys if isinstance(keys, dict) else {}
    fields, columns = data.get("fields"), keys.get("columns")
    if data.get("format") != "csv":
        return
    if keys.get("header") in (True, "true"):
        if columns:
            yield Flaw(("csv", "columns"), "with a header each payload names its columns; leave this key out")
        return
    if not isinstance(fields, list):
        return
    named = columns if isinstance(columns, list) and columns else fields
    stream = data.get("stream")
    key = re.search(r"\{field:([^{}]+)\}", stream) if isinstance(stream, str) else None
    wanted: list[tuple[tuple[str | int, ...], object]] = [(("time",), data.get("time")), (("stream",), key and key[1])]
    wanted += [(("fields", position), field) for position, field in enumerate(fields)]
    for where, name in wanted:
        if isinstance(name, str) and name not in named:
            which = "of csv.columns" if named is columns else "of the fields, which are all columns without csv.columns"
            yield Flaw(where, f"{document.describe(name)} is none {which}; csv.columns names each of a line")


def _join_flaws(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Refuse beside a join what it says itself, what it does not do, and fields that are not of one of its sensors."""
    join = data.get("join")
    if join is None:
        return
    for key, instead in {"topics": "join.topics", "stream": "join.by", "input": "join.topics", "base": ""}.items():
        if data.get(key) is not None:
            yield Flaw((key,), "not possible in a join" + (f"; {instead} says it" if instead else ""))
    if data.get("missing", "reject") != "reject":
        yield Flaw(("missing",), "not possible in a join; join.fill says what becomes of sensors that did not come")
    sensors = join.get("topics") if isinstance(join, dict) else None
    fields = data.get("fields", sensors)
    if isinstance(sensors, dict) and isinstance(fields, list | dict):
        yield from _sensor_flaws(list(sensors), list(map(str, fields)), data.get("format"))


def _sensor_flaws(sensors: Sequence[str], fields: Sequence[str], found_format: object) -> Iterator[Flaw]:
    """Refuse fields that do not come from one of a join's sensors, and sensors that give none."""
    used = [field[1:].split("/")[0] if field.startswith("/") else field for field in fields]
    names = ", ".join(map(document.describe, sensors))
    for position, (field, sensor) in enumerate(zip(fields, used, strict=True)):
        found = f"found {document.describe(field)}, "
        if sensor not in sensors:
            expected = f"expected a name in join.topics ({names}), or a JSON pointer from one on, such as /temp/value"
            yield Flaw(("fields", position), found + expected)
        elif found_format == "number" and "/" in field[1:]:
            yield Flaw(("fields", position), found + f"expected {document.describe(sensor)}: a number has no parts")
    for sensor in sensors:
        if sensor not in used:
            yield Flaw(("join", "topics", str(sensor)), "no field comes from it; leave it out, or give it a field")


def _opcua_flaws(data: Mapping[str, Any]) -> Iterator[Flaw]:
    """Refuse what nodes of OPC UA do not have when they are joined, and what only those have."""
    if data.get("format") != "opcua":
        return
    if _joins_nodes(data):
        if data["opcua"].get("nodes", ["*"]) != ["*"]:
            yield Flaw(("opcua", "nodes"), "fields says which nodes are joined; leave this key out")
        return
    if data.get("missing") not in (None, "reject"):
        yield Flaw(("missing",), "a reading of one node lacks nothing; this key goes with opcua.join: true")
    stream = data.get("stream")
    if isinstance(stream, str) and "{field:" in stream:
        message = f"found {document.describe(stream)}, but a stream is this and the node id; a field of the DataSet "
        yield Flaw(("stream",), message + "message can only be in it with opcua.join: true")
