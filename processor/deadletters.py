"""What could not be processed, as the state directory keeps it; read beside a running processor or without one."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from processor.database import FILE_NAME
from processor.errors import StateError
from processor.events import timestamp
from processor.types import NS, DeadLetter

_MOST: Final = 10_000
_MOST_BYTES: Final = 64 << 20
"""Of payloads, topics and details together."""
_PAYLOAD_KEPT: Final = 64 << 10
_AT_ONCE: Final = 100
"""Letters read in one query: an open one would keep SQLite's log from shrinking while somebody pages."""


def keep(connection: sqlite3.Connection, letters: Sequence[DeadLetter]) -> None:
    """Add letters within the bounds, in the caller's transaction; the oldest give way."""
    rows = []
    for letter in letters:
        payload = letter.payload[:_PAYLOAD_KEPT]
        size = len(payload) + sum(len(text.encode(errors="replace")) for text in (letter.topic, letter.detail))
        rows.append((letter.arrival, letter.topic, letter.reason, letter.detail, size, payload))
    connection.executemany(
        "INSERT INTO deadletters (arrival, topic, reason, detail, size, payload) VALUES (?, ?, ?, ?, ?, ?)", rows
    )
    connection.execute("DELETE FROM deadletters WHERE seq <= (SELECT max(seq) FROM deadletters) - ?", (_MOST,))
    (excess,) = connection.execute("SELECT total(size) - ? FROM deadletters", (_MOST_BYTES,)).fetchone()
    while excess > 0:
        seq, size = connection.execute("SELECT seq, size FROM deadletters ORDER BY seq LIMIT 1").fetchone()
        connection.execute("DELETE FROM deadletters WHERE seq = ?", (seq,))
        excess -= size


class StoredLetter(NamedTuple):
    """One dead letter."""

    number: int
    arrival: int
    """Nanoseconds since the Unix epoch."""
    topic: str
    reason: str
    detail: str
    size: int
    """Bytes it takes; of a payload at most 64 KiB are kept."""
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
    try:
        with closing(sqlite3.connect(path, timeout=10.0)) as connection:
            connection.execute("PRAGMA query_only = 1")
            for chunk in _chunks(connection, number, newest):
                yield from chunk
    except sqlite3.Error as error:
        raise StateError(f"{path} cannot be read: {error}") from error


def _chunks(connection: sqlite3.Connection, number: int | None, newest: int | None) -> Iterator[Sequence[StoredLetter]]:
    query = "SELECT seq, arrival, topic, reason, detail, size, payload FROM deadletters WHERE seq"
    if number is not None:
        yield [StoredLetter(*row) for row in connection.execute(f"{query} = ?", (number,))]
        return
    after = -1
    if newest is not None:
        (after,) = connection.execute(
            "SELECT ifnull(min(seq), 0) - 1 FROM (SELECT seq FROM deadletters ORDER BY seq DESC LIMIT ?)", (newest,)
        ).fetchone()
    while True:
        rows = connection.execute(f"{query} > ? ORDER BY seq LIMIT ?", (after, _AT_ONCE)).fetchall()
        if not rows:
            return
        yield [StoredLetter(*row) for row in rows]
        after = rows[-1][0]


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
