"""Samples and dead letters as a page shows them: small, whatever arrived."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from processor.thumbnails import of_file

_CHANNELS: Final = 6
"""Shown of a sample."""
_PICTURE: Final = 96
"""Pixels of an image's longer side."""
_POINTS: Final = 120
"""Shown of a channel; of more, some."""
_LONGEST_TEXT: Final = 512
_LETTER_BYTES: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class Sample:
    """An accepted window.

    Attributes:
        id: the event's.
        time: of its newest reading, RFC 3339.
        stream: its name.
        rule: that kept it.
        label: the predicted one, None where the model has none.
        confidence: of the prediction.
        measure: the rule's.
        score: by that measure.
        band: the rule's, either end may be None; None: it has none.
        context: it was sent beside another sample.
        revision: of the filter.
        size: readings in it.
        channels: names and values, a few of each.
        picture: a data URL of the reading, small, where it is an image.
    """

    id: str
    time: str
    stream: str
    rule: str
    label: str | None
    confidence: float | None
    measure: str | None
    score: float | None
    band: tuple[float | None, float | None] | None
    context: bool
    revision: int | None
    size: int
    channels: tuple[tuple[str, tuple[float, ...]], ...]
    picture: str | None


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that could not be processed.

    Attributes:
        time: of its arrival, RFC 3339.
        topic: where it came.
        reason: one word.
        detail: a sentence.
        payload: its beginning.
        size: bytes of what the processor sent of it.
    """

    time: str
    topic: str
    reason: str
    detail: str
    payload: bytes
    size: int


def read_sample(payload: bytes) -> Sample | None:
    """Return the sample in a CloudEvent; None where it is none."""
    event = _object(payload)
    data = _part(event, "data")
    readings, selection, inference = (_part(data, key) for key in ("readings", "selection", "inference"))
    if not isinstance(event.get("id"), str) or not readings:
        return None
    band, values = selection.get("band"), readings.get("values")
    rows = values if isinstance(values, list) else []
    return Sample(
        id=_text(event.get("id")),
        time=_text(event.get("time")),
        stream=_text(event.get("subject")),
        rule=_text(selection.get("rule")),
        label=_text(inference["label"]) if isinstance(inference.get("label"), str) else None,
        confidence=_number(inference.get("confidence")),
        measure=_text(selection["measure"]) if isinstance(selection.get("measure"), str) else None,
        score=_number(selection.get("score")),
        band=(_number(band[0]), _number(band[1])) if isinstance(band, list) and len(band) == 2 else None,  # noqa: PLR2004
        context=isinstance(selection.get("context"), dict),
        revision=selection["filter_revision"] if isinstance(selection.get("filter_revision"), int) else None,
        size=len(rows),
        channels=_channels(rows, readings.get("fields")),
        picture=_picture(_part(readings, "image")),
    )


def read_letter(payload: bytes) -> Letter | None:
    """Return the dead letter in a message; None where it is none."""
    body = _object(payload)
    if not isinstance(body.get("reason"), str):
        return None
    try:
        content = base64.b64decode(_raw_text(body.get("payload")), validate=True)
    except (binascii.Error, ValueError):
        content = b""
    return Letter(
        time=_text(body.get("time")),
        topic=_text(body.get("topic")),
        reason=_text(body["reason"]),
        detail=_text(body.get("detail")),
        payload=content[:_LETTER_BYTES],
        size=len(content),
    )


def shown_payload(letter: Letter) -> str:
    """Return a dead letter's payload as text where it is text, else in hexadecimal."""
    cut = f"\n… and {letter.size - len(letter.payload):,} more bytes" if letter.size > len(letter.payload) else ""
    try:
        text = letter.payload.decode()
    except UnicodeDecodeError as error:
        whole = cut and error.start >= len(letter.payload) - 3  # a character was cut in two
        text = letter.payload[: error.start].decode() if whole else letter.payload.hex(" ")
    return text + cut


def _picture(image: Mapping[str, Any]) -> str | None:
    try:
        return of_file(base64.b64decode(_raw_text(image.get("base64"))), _PICTURE)
    except ValueError:  # no Base64
        return None


def _channels(rows: Sequence[Any], fields: object) -> tuple[tuple[str, tuple[float, ...]], ...]:
    if not rows or not isinstance(fields, list):
        return ()
    step = max(1, math.ceil(len(rows) / _POINTS))
    picked = [row for row in rows[::step] if isinstance(row, list) and len(row) >= len(fields)]
    columns: list[tuple[str, tuple[float, ...]]] = []
    for position, field in enumerate(fields[:_CHANNELS]):
        values = [_number(row[position]) for row in picked]
        columns.append((_text(field), tuple(value for value in values if value is not None)))
    return tuple(columns)


def _object(payload: bytes) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _part(whole: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = whole.get(key)
    return found if isinstance(found, dict) else {}


def _raw_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _text(value: object) -> str:
    text = _raw_text(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def band_text(band: Sequence[float | None] | None) -> str:
    """Return a band in words; empty where there is none."""
    low, high = band if band is not None else (None, None)
    if low is None:
        return "" if high is None else f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
