"""A plant's recording, for tests: wearables at ten readings a second, and a press without a clock of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from processor.demo.data import FIELDS, MODEL_PATH, readings
from processor.recording import Writer
from processor.types import Message

START: Final = 1_790_000_000
"""Seconds since the Unix epoch; 2026."""
NS: Final = 10**9


def messages(count: int, watches: int = 3) -> Iterator[Message]:
    """Yield what `watches` publish, a reading a message, in turn; now and then something that is no reading."""
    streams = [readings(watch) for watch in range(watches)]
    for number in range(count):
        tick, watch = divmod(number, watches)
        arrival = START * NS + number * NS // 10 // watches
        if number % 97 == 96:
            yield Message(f"wearable/{watch}/imu", b"no json", 1, 0, arrival)
            continue
        body = {"ts": START + tick / 10, **dict(zip(FIELDS, next(streams[watch]), strict=True))}
        yield Message(f"wearable/{watch}/imu", json.dumps(body).encode(), 1, 0, arrival)


def write(path: Path, count: int, watches: int = 3) -> Path:
    """Write a recording of `count` messages and return its path."""
    writer = Writer(path)
    writer.write(list(messages(count, watches)))
    writer.close()
    return path


def configuration(directory: Path, *rules: dict[str, Any], **more: Any) -> Path:  # noqa: ANN401 - JSON
    """Write a configuration for it, with a filter of `rules`, and return its path."""
    file = directory / "processor.yaml"
    parts = {
        "id": "line-1",
        "sources": [{"name": "imu", "topics": ["wearable/+/imu"], "fields": list(FIELDS), "time": "ts"}],
        "model": {"path": str(MODEL_PATH), "window": {"size": 20, "step": 10, "max_gap": "5s"}},
        "filter": {"rules": list(rules)},
        "http": None,
        **more,
    }
    file.write_text(json.dumps(parts))
    return file
