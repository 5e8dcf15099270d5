"""Decoders under test: made from a source's keys, run on payloads, with what holds for any checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import cbor2
import msgpack
import numpy as np

from processor.decoders import decoder
from processor.protocols import Decoder
from processor.source_sections import Source
from processor.types import Decoded
from tests.formats import example

NOW: Final = 1_795_341_600_000_000_000
"""2026-11-22T10:00:00Z."""
STEP: Final = 100_000_000
"""Nanoseconds from one payload's arrival to the next one's."""


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


ENCODERS: Final[Mapping[str, Callable[[Any], bytes]]] = {
    "json": _json,
    "msgpack": msgpack.packb,
    "cbor": cbor2.dumps,
}
"""Other people's, by format."""


def made(**keys: Any) -> Decoder:  # noqa: ANN401 - the source's keys
    """Return the decoder of a source that says this, with a name and a topic of its own."""
    topics = {} if "join" in keys else {"topics": ["t"]}
    return decoder(Source.model_validate({"name": "s", **topics, **keys}))


def run(subject: Decoder, *payloads: bytes, topics: Sequence[str] = (), first: int = NOW) -> Decoded:
    """Decode payloads that arrived from `first` on, and check what holds for any."""
    arrivals = first + np.arange(len(payloads), dtype=np.int64) * STEP
    decoded = subject.decode(payloads, arrivals, topics or ["t"] * len(payloads))
    count = len(decoded.origin)
    assert decoded.values.ndim == 2
    assert len(decoded.values) == count
    assert decoded.values.dtype == np.float64
    assert decoded.times.shape == (count,)
    assert decoded.times.dtype == decoded.origin.dtype == np.int64
    assert (np.diff(decoded.origin) >= 0).all()
    held = np.zeros(decoded.values.shape, np.bool_) if decoded.absent is None else decoded.absent
    assert held.shape == decoded.values.shape
    assert (np.isfinite(decoded.values) | held).all()
    failed = [failure.position for failure in decoded.failures]
    assert failed == sorted(set(failed))
    assert all(failure.detail and len(failure.detail) < 400 for failure in decoded.failures)
    assert decoded.keys is None or len(decoded.keys) == count
    return decoded


def shown(section: str) -> Decoded:
    """Decode the payload that a section of docs/formats.md shows, as its source says."""
    source, payload = example(section)
    return run(decoder(source), payload)


def complete(decoded: Decoded, count: int) -> bool:
    """Whether each of `count` payloads gave readings, or a failure, and not both."""
    failed = [failure.position for failure in decoded.failures]
    read = set(decoded.origin.tolist())
    return sorted({*failed, *read}) == list(range(count)) and len(failed) + len(read) == count


def rows(decoded: Decoded) -> list[list[float | None]]:
    """Return the values, with None for those that are to be held."""
    values = decoded.values.astype(object)
    if decoded.absent is not None:
        values[decoded.absent] = None
    found: list[list[float | None]] = values.tolist()
    return found


def told(decoded: Decoded) -> list[tuple[Any, ...]]:
    """Return all that was decoded, to compare."""
    keys = decoded.keys or [""] * len(decoded.origin)
    readings = zip(decoded.origin.tolist(), decoded.times.tolist(), keys, rows(decoded), strict=True)
    return [*readings, *map(tuple, decoded.failures)]
