"""The section of a source, and those of its format's own keys: bounds, units, defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from processor import document, source_flaws, topics
from processor.document import Flaw, Name
from processor.sections import Section, Text
from processor.source_flaws import Format
from processor.sparkplug_section import SparkplugKeys
from processor.types import NS
from processor.units import Duration, PositiveDuration

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
        if not source_flaws.is_template(template) or "{field:" in template or "{topic}" in template:
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
    model: Name | None = Field(default=None, description="the name in models that it feeds; absent: the only one")
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
        return source_flaws.flaws(data)

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
        if source_flaws.has_one_value(data):
            filled.setdefault("fields", ["value"])
        if data.get("format") == "sparkplug" and data.get("input") is None:
            filled.setdefault("topics", ["spBv1.0/#"])
        join = data.get("join")
        if isinstance(join, dict) and isinstance(join.get("topics"), dict):
            filled["topics"] = list(join["topics"].values())
            if source_flaws.is_template(join.get("by")):
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
        if not source_flaws.is_template(template):
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


def _distinct(names: list[str], kind: str) -> list[str]:
    """Return names; raises ValueError where one is there twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"each {kind} once; {', '.join(map(document.describe, twice))} stands there more than once")
    return names
