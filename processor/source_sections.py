"""The section of a source, and those of its format's own keys: bounds, units, defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, get_args

import numpy as np
from pydantic import Field, field_validator, model_validator

from processor import document, sparkplug_section, topics
from processor.document import Flaw, Name
from processor.sections import Section, Text
from processor.sparkplug_section import SparkplugKeys
from processor.types import NS
from processor.units import Duration, PositiveDuration

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

_DELIMITER: Final = re.compile(r"[^\w\s\".+\-]|[ \t]")
_DTYPE: Final = re.compile(r"[<>=|]?([A-Za-z]+[0-9]*|\?)")
_LARGEST_PAYLOAD: Final = (1 << 28) - 1
"""Bytes that MQTT can say a packet has."""
_WIDEST: Final = 8
"""Bytes of a number; more is not the same on every machine."""

Pixels = Annotated[int, Field(ge=1, le=4096)]


class BaseKeys(Section):
    """Where an object holds many readings, the time of the first, and how many there are in a second."""

    time: Text = Field(description="field that holds the first reading's time")
    rate: Annotated[float, Field(gt=0)] | Text = Field(description="readings in a second, or the field that holds it")
    values: Text = Field(default="values", description="field that holds the readings: an array of arrays of numbers")


class CsvKeys(Section):
    """How readings are written in lines."""

    delimiter: str = Field(default=",", description="between cells")
    header: bool = Field(default=False, description="whether each payload begins with a line of column names")
    columns: list[Text] = Field(default=[], description="the columns' names in order, without a header; absent: fields")

    @field_validator("delimiter")
    @classmethod
    def _outside_numbers(cls, delimiter: str) -> str:
        if not re.fullmatch(_DELIMITER, delimiter):
            raise ValueError(
                f'found {document.describe(delimiter)}, expected one character that is in no number: "," ";" "\\t" "|"'
            )
        return delimiter

    @field_validator("columns")
    @classmethod
    def _distinct(cls, columns: list[str]) -> list[str]:
        return _distinct(columns, "column")


class BinaryKeys(Section):
    """How numbers lie one after another."""

    dtype: str = Field(default="<f4", description="of numpy: byte order, kind and bytes, such as <f4, >i2, u1")
    order: Literal["TC", "CT"] = Field(
        default="TC", description="TC: a reading's values side by side; CT: a channel's values side by side"
    )
    skip: Annotated[int, Field(ge=0, le=_LARGEST_PAYLOAD)] = Field(
        default=0, description="bytes in front that are no numbers"
    )
    rate: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="readings in a second: spreads their times back from the arrival time"
    )

    @field_validator("dtype")
    @classmethod
    def _number(cls, dtype: str) -> str:
        try:
            found = np.dtype(dtype) if _DTYPE.fullmatch(dtype) else None
        except TypeError:
            found = None
        if found is None or found.kind not in "biuf" or found.itemsize > _WIDEST:
            raise ValueError(
                f"found {document.describe(dtype)}, expected numpy's name of a number: byte order < or >, kind i, u or "
                "f, and bytes, such as <f4, >i2, u1; or b1 for booleans"
            )
        return dtype


class OpcuaKeys(Section):
    """Which nodes of OPC UA are read."""

    nodes: Annotated[list[Text], Field(min_length=1)] = Field(
        default=["*"], description="node ids, * for any text: each of these nodes is a stream of its own"
    )
    join: bool = Field(default=False, description="fields are node ids, and a DataSet message is one reading")


class ImageKeys(Section):
    """What images are made to look like, as the model wants them."""

    height: Pixels = Field(default=224, description="pixels")
    width: Pixels = Field(default=224, description="pixels")
    color: Literal["rgb", "grey"] = Field(default="rgb", description="three channels, or one")

    def __str__(self) -> str:
        """Return `rgb, 224 high and 224 wide`."""
        return f"{self.color}, {self.height} high and {self.width} wide"

    @property
    def channels(self) -> int:
        """Colours."""
        return 3 if self.color == "rgb" else 1


class JoinKeys(Section):
    """How readings of several sensors become one."""

    by: str = Field(description="what sensors that belong together share: {topic[1]}; it is the stream's key")
    topics: Annotated[dict[Name, Text], Field(min_length=1)] = Field(description="topic filters by name")
    within: PositiveDuration = Field(default=NS, description="times further apart than this do not go together")
    fill: Literal["none", "last"] = Field(
        default="none", description="last: what did not come in time is what came last; none: there is no reading"
    )

    @field_validator("by")
    @classmethod
    def _key(cls, template: str) -> str:
        if not _is_template(template) or "{field:" in template or "{topic}" in template:
            raise ValueError(
                f"found {document.describe(template)}, expected what the sensors' topics have in common, such as "
                "{topic[1]}, with any text between"
            )
        return template

    @field_validator("topics")
    @classmethod
    def _filters(cls, filters: dict[str, str]) -> dict[str, str]:
        texts = checked_filters(list(filters.values()))
        if shared := [text for text in texts if topics.split_share(text).group is not None]:
            raise ValueError(
                f"found {document.describe(shared[0])}; what is shared does not all come here to be joined"
            )
        if len(set(texts)) < len(texts):
            raise ValueError("each filter once: a message is of one sensor")
        for position, text in enumerate(texts):
            if taken_by := next((first for first in texts[:position] if topics.covers(first, text)), None):
                raise ValueError(
                    f"{document.describe(taken_by)} takes all messages of {document.describe(text)}, because it stands "
                    "before it; the narrower one stands first"
                )
        return filters


class Source(Section):
    """Topics, or an input of an IoT Edge module, of one format whose readings have the same fields."""

    name: Name = Field(description="absent: the input's")
    topics: list[Text] = Field(default=[], description="MQTT topic filters")
    input: Name | None = Field(default=None, description="of our IoT Edge module, such as input1")
    # At QoS 2 a message is released before its effect is on disk. What is published so arrives here at QoS 1.
    qos: Literal[0, 1] = Field(default=1, description="at 0 what comes while we are away is lost")
    format: Format = Field(default="json", description="of the payloads")
    stream: str = Field(
        default="{topic}", description="{topic}, {topic[1]}, {field:device}, {source} and text between them"
    )
    fields: list[Text] = Field(default=[], description="names, or JSON pointers like /sensor/accel/0")
    time: Text | None = Field(default=None, description="field that holds the time; absent: the arrival time")
    time_unit: Literal["auto", "s", "ms", "us", "ns", "iso8601"] = Field(
        default="auto", description="of that field; auto: by its size, or ISO 8601"
    )
    max_ahead: Duration = Field(
        default=86400 * NS, description="a reading further than this in the future is a dead letter"
    )
    missing: Literal["reject", "hold"] | float = Field(
        default="reject", description="a field that is absent or null: reject, hold its last value, or this number"
    )
    base: BaseKeys | None = Field(default=None, description="many readings in one object, with one time")
    csv: CsvKeys = Field(default=CsvKeys(), description="how readings are written in lines, for format csv")
    binary: BinaryKeys = Field(default=BinaryKeys(), description="how numbers lie, for format binary")
    opcua: OpcuaKeys = Field(default=OpcuaKeys(), description="which nodes are read, for format opcua")
    sparkplug: SparkplugKeys = Field(default=SparkplugKeys(), description="its nodes, for format sparkplug")
    image: ImageKeys = Field(default=ImageKeys(), description="what images are made to look like, for format image")
    join: JoinKeys | None = Field(default=None, description="one reading from several sensors")

    @property
    def channels(self) -> int:
        """Values in a reading; colours of an image."""
        return self.image.channels if self.format == "image" else len(self.fields)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of its images in pixels; None where readings are no images."""
        return (self.image.height, self.image.width) if self.format == "image" else None

    @property
    def stream_template(self) -> str:
        """`stream`, with a field in it where the format itself names streams inside the payload."""
        if self.format == "sparkplug":
            return "{field:stream}"
        return self.stream + "/{field:node}" if self.format == "opcua" and not self.opcua.join else self.stream

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse a source of nothing, keys of another format, and a stream of a level that the topics do not have."""
        yield from _format_flaws(data)
        yield from _csv_flaws(data)
        stream = data.get("stream")
        if data.get("format") in _WITHOUT_NAMES and isinstance(stream, str) and "{field:" in stream:
            yield Flaw(("stream",), f"a payload of format {data['format']} has no field with a name; use {{topic[1]}}")
        yield from _join_flaws(data)
        yield from sparkplug_section.flaws(data)
        yield from _opcua_flaws(data)
        filters = _filters(data)
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

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, data: object) -> object:
        """Fill in what other keys say: an input's name, the fields of one number, a join's topics and stream."""
        if not isinstance(data, dict):
            return data
        filled = dict(data)
        if isinstance(data.get("input"), str):
            fits = re.fullmatch("[A-Za-z0-9_-]{1,64}", data["input"])  # else it is refused as an input
            filled.setdefault("name", data["input"] if fits else "input")
        if _has_one_value(data):
            filled.setdefault("fields", ["value"])
        if data.get("format") == "sparkplug" and data.get("input") is None:
            filled.setdefault("topics", ["spBv1.0/#"])
        join = data.get("join")
        if isinstance(join, dict) and isinstance(join.get("topics"), dict):
            filled["topics"] = list(join["topics"].values())
            if _is_template(join.get("by")):
                filled["stream"] = join["by"]
            filled.setdefault("fields", list(join["topics"]))
        return filled

    @field_validator("topics")
    @classmethod
    def _valid_filters(cls, filters: list[str]) -> list[str]:
        return checked_filters(filters)

    @field_validator("stream")
    @classmethod
    def _template(cls, template: str) -> str:
        if not _is_template(template):
            raise ValueError(
                f"found {document.describe(template)}, expected {{topic}}, {{topic[1]}}, {{source}} or once "
                "{field:device}, with any text between them"
            )
        return template

    @field_validator("fields")
    @classmethod
    def _distinct(cls, fields: list[str]) -> list[str]:
        return _distinct(fields, "field")


def checked_filters(filters: list[str]) -> list[str]:
    """Return topic filters.

    Raises:
        ValueError: with all that is wrong with them.
    """
    problems = [problem for text in filters if (problem := topics.validate_filter(text))]
    if problems:
        raise ValueError("; ".join(problems))
    return filters


def _is_template(text: object) -> bool:
    """Whether this may name streams."""
    if not isinstance(text, str):
        return False
    rest = _TEMPLATE_PART.sub("", text)
    return text != "" and "{" not in rest and "}" not in rest and text.count("{field:") <= 1


def _distinct(names: list[str], kind: str) -> list[str]:
    """Return names; raises ValueError where one is there twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each {kind} once; {', '.join(map(document.describe, twice))} stands there more than once")
    return names


def _filters(data: Mapping[str, Any]) -> object:
    """Return the topic filters that a source is written with: of any type."""
    join = data.get("join")
    if isinstance(join, dict) and isinstance(join.get("topics"), dict):
        return list(join["topics"].values())
    return ["spBv1.0/#"] if data.get("format") == "sparkplug" and "topics" not in data else data.get("topics")


def _has_one_value(data: Mapping[str, Any]) -> bool:
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
    elif _has_one_value(data):
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
