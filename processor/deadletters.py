"""What could not be processed, as the state directory keeps it; read beside a running processor or without one."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from processor.errors import StateError
from processor.events import timestamp
from processor.store import FILE_NAME
from processor.types import NS


class StoredLetter(NamedTuple):
    """One dead letter."""

    number: int
    arrival: int
    """Nanoseconds since the Unix epoch."""
    topic: str
    reason: str
    detail: str
    size: int
    """Bytes of the payload that are kept; at most 64 KiB."""
    payload: bytes


def read(state: Path, *, number: int | None = None, newest: int | None = None) -> Iterator[StoredLetter]:
    """Yield dead letters, oldest first.

    Args:
        state: the processor's state directory.
        number: only that one.
        newest: only the last so many.

    Raises:
        StateError: there is no state there, or it cannot be read.
    """
    path = state / FILE_NAME
    if not path.exists():
        raise StateError(f"there is no {path}: no processor has run with this configuration yet")
    query = "SELECT seq, arrival, topic, reason, detail, size, payload FROM deadletters"
    try:
        with closing(sqlite3.connect(path, timeout=10.0)) as connection:
            connection.execute("PRAGMA query_only = 1")
            if number is not None:
                rows = connection.execute(f"{query} WHERE seq = ?", (number,))
            else:
                limit = -1 if newest is None else newest
                rows = connection.execute(f"SELECT * FROM ({query} ORDER BY 1 DESC LIMIT ?) ORDER BY 1", (limit,))  # noqa: S608 - a constant
            for row in rows:
                yield StoredLetter(*row)
    except sqlite3.Error as error:
        raise StateError(f"{path} cannot be read: {error}") from error


def as_line(letter: StoredLetter) -> str:
    """Return a letter in one line, for a list."""
    return f"{letter.number}  {timestamp(letter.arrival)}  {letter.topic}  {letter.reason}: {letter.detail}"


def as_rows(letter: StoredLetter) -> list[tuple[str, str]]:
    """Return a letter with its payload, as text where it is text, else in hexadecimal."""
    try:
        payload = letter.payload.decode()
    except UnicodeDecodeError:
        payload = letter.payload.hex(" ")
    return [
        ("number", str(letter.number)),
        ("arrived", timestamp(letter.arrival)),
        ("topic", letter.topic),
        ("reason", letter.reason),
        ("detail", letter.detail),
        ("payload", payload),
    ]


def as_recording(letter: StoredLetter) -> dict[str, Any]:
    """Return a letter as a line of a recording, which a mended configuration can replay, with why it is there."""
    return {
        "time": letter.arrival / NS,
        "topic": letter.topic,
        "qos": 0,
        "payload": base64.b64encode(letter.payload).decode(),
        "number": letter.number,
        "reason": letter.reason,
        "detail": letter.detail,
    }
