"""Samples as CloudEvents 1.0, and the identifiers that make a repeat recognisable."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from processor.types import MODEL_SLOT, NS, Floats, Predictions, Times

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - its text carries no offset; a Z is added


def event_id(
    processor: str, source: str, stream: str, times: Times, values: Floats | bytes, *, slot: str = MODEL_SLOT
) -> str:
    """Return the 32 hex digits that name a window: the same window always has the same.

    Args:
        processor: its id.
        source: the source's name.
        stream: the stream's key.
        times: (size,) ns since the Unix epoch.
        values: (size, C); of an image its payload.
        slot: the model's.
    """
    digest = hashlib.sha256()
    for text in (processor, source, slot, stream):
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(struct.pack("<I", len(encoded)) + encoded)
    digest.update(times.astype("<i8").tobytes())
    digest.update(values if isinstance(values, bytes) else np.ascontiguousarray(values, "<f8").tobytes())
    return digest.hexdigest()[:32]


def uniform(event: str, rule: str) -> float:
    """Return the number in [0, 1) that decides whether `rule` samples the window with this event id."""
    return int.from_bytes(hashlib.sha256(f"{event}/{rule}".encode()).digest()[:8], "big") / 2**64


def timestamps(times: Times) -> list[str]:
    """Return times as RFC 3339 in UTC: with microseconds, or nanoseconds where there are any."""
    if len(times) == 1 and not (time := int(times[0])) % 1000:  # the same, for which numpy takes 13 µs
        moment = _EPOCH + timedelta(microseconds=time // 1000)
        return [f"{moment.isoformat(timespec='microseconds')}Z"]
    unit = "us" if not (times % 1000).any() else "ns"
    texts = np.datetime_as_string(times.astype("datetime64[ns]"), unit=unit)  # type: ignore[call-overload]
    return [f"{text}Z" for text in texts]


def timestamp(time: int) -> str:
    """Return one time as RFC 3339 in UTC."""
    return timestamps(np.array([time], np.int64))[0]


def date(time: int) -> str:
    """Return a time's UTC date as YYYY-MM-DD."""
    return str(datetime.fromtimestamp(time // NS, UTC).date())


def inference(predictions: Predictions, row: int) -> dict[str, Any]:
    """Return one prediction as it stands in an event: label, confidence, probabilities, value; and the shadow's."""
    answer = _answer(predictions, row)
    shadow = predictions.shadow
    place = None if shadow is None else shadow.place(row)
    if shadow is not None and place is not None:
        answer["shadow"] = {
            **_answer(shadow.predictions, place),
            "disagreement": _finite(shadow.disagreement[place]),
            "part": shadow.part,
            "model": {"name": shadow.name, "sha256": shadow.sha256},
        }
    return answer


def _answer(predictions: Predictions, row: int) -> dict[str, Any]:
    label, confidence, probabilities = None, None, None
    if predictions.probabilities is not None:
        chances = predictions.probabilities[row]
        best = int(chances.argmax())
        if not np.isnan(chances[best]):  # a model that gave no number gave no label
            label, confidence = predictions.labels[best], float(chances[best])
        probabilities = dict(zip(predictions.labels, map(_finite, chances.tolist()), strict=True))
    value = None if predictions.value is None else _finite(predictions.value[row])
    return {"label": label, "confidence": confidence, "probabilities": probabilities, "value": value}


def _finite(number: float) -> float | None:
    """JSON has no NaN."""
    return float(number) if math.isfinite(number) else None


def _image(payload: bytes) -> dict[str, Any]:
    kind = "image/png" if payload.startswith(b"\x89PNG") else "image/jpeg"
    return {"values": [], "image": {"content_type": kind, "base64": payload}}  # bytes are Base64 in msgspec's JSON


def sample_event(
    *,
    identifier: str,
    processor: str,
    source: str,
    stream: str,
    fields: Sequence[str],
    times: Times,
    values: Floats | bytes,
    answer: Mapping[str, Any],
    selection: Mapping[str, Any],
    model: Mapping[str, Any],
) -> bytes:
    """Return the CloudEvent of an accepted window.

    Args:
        identifier: from `event_id`.
        processor: its id.
        source: the source's name.
        stream: the stream as written in topics.
        fields: C names.
        times: (size,) ns since the Unix epoch.
        values: (size, C); of an image its payload.
        answer: from `inference`.
        selection: rule, measure, score, band and so on.
        model: name and sha256.
    """
    moments = timestamps(times)
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": identifier,
            "source": f"/mlade/{processor}",
            "type": "mlade.sample.v1",
            "subject": stream,
            "time": moments[-1],
            "datacontenttype": "application/json",
            "data": {
                "readings": {
                    "source": source,
                    "start": moments[0],
                    "end": moments[-1],
                    "fields": fields,
                    "times": moments,
                    **(_image(values) if isinstance(values, bytes) else {"values": values.tolist()}),
                },
                "inference": answer,
                "selection": selection,
                "model": model,
            },
        }
    )
