"""The log of `mlade run`, on stderr: one event a line, for people or as JSON, and not flooded by what repeats."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from processor.allowance import Allowance

AT_ONCE: Final = 10
"""Events of one kind that are written one by one, after a quiet time."""
PER_SECOND: Final = 0.1
"""Events of one kind that are written when there are more."""
LIMITED: Final = MappingProxyType({"limited": True})
"""For a call's `extra`: the caller keeps to these limits itself, and says what it leaves out."""


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def one_line(text: str) -> str:
    """Return text that comes from outside, such as a topic, without what would move a terminal's cursor."""
    return _CONTROL.sub(lambda found: " " if found.group() == "\n" else repr(found.group())[1:-1], text)


class LineFormatter(logging.Formatter):
    """One event, one line: local time with its UTC offset, level, message. A traceback, of a defect, follows it."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - the base class's
        """Return the time in ISO 8601, to the millisecond."""
        del datefmt
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's
        """Return the line."""
        count = _left_out(record)
        note = f" ({count} more like it were left out)" if count else ""
        return f"{self.formatTime(record)} {record.levelname} {one_line(record.message)}{note}"


class JsonFormatter(logging.Formatter):
    """One event, one JSON object on a line.

    Keys: `time` (UTC, ISO 8601), `level`, `logger`, `message`; where they apply, `left_out`, how many like it are not
    in the log, and `exception`, the traceback of a defect.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event: dict[str, Any] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if count := _left_out(record):
            event["left_out"] = count
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event)  # ASCII: readable whatever the collector takes for its encoding


def _left_out(record: logging.LogRecord) -> int:
    """Return how many events like this one were not written before it."""
    count: int = getattr(record, "left_out", 0)
    return count


class _Kind:
    """Events that are told at one place in the code."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.allowance = Allowance(monotonic, PER_SECOND, AT_ONCE)
        self.held_back: logging.LogRecord | None = None
        self.left_out = 0


class LimitingHandler(logging.StreamHandler[Any]):
    """Writes events to stderr; of a kind that repeats, AT_ONCE and then PER_SECOND.

    The last one that was held back is written when its time has come, or at the end, with the number of those that were
    left out before it. Debug events are written as they come.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin.

        Args:
            monotonic: the time in seconds.
        """
        super().__init__()
        self._monotonic = monotonic
        self._kinds: dict[tuple[str, int], _Kind] = {}
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the event, or hold it back. Any thread, under this handler's lock."""
        if record.levelno <= logging.DEBUG or getattr(record, "limited", False):
            super().emit(record)
            return
        place = (record.pathname, record.lineno)
        kind = self._kinds.get(place)
        if kind is None:
            kind = self._kinds[place] = _Kind(self._monotonic)
        kind.left_out += kind.held_back is not None
        kind.held_back = record
        if kind.allowance.take(1):
            self._write(kind)
        elif self._timer is None:
            self._catch_up_later()

    def _write(self, kind: _Kind) -> None:
        if kind.held_back is not None:
            kind.held_back.left_out = kind.left_out
            super().emit(kind.held_back)
            kind.held_back, kind.left_out = None, 0

    def _catch_up_later(self) -> None:
        self._timer = threading.Timer(1 / PER_SECOND, self.catch_up)
        self._timer.name = "log"
        self._timer.daemon = True
        with suppress(RuntimeError):  # no thread can be started: the next event of the kind brings the last one with it
            self._timer.start()

    def catch_up(self) -> None:
        """Write what was held back and may pass now. The timer's thread."""
        self.acquire()
        try:
            self._timer = None
            waiting = [kind for kind in self._kinds.values() if kind.held_back is not None]
            for kind in waiting:
                if kind.allowance.take(1):
                    self._write(kind)
            if any(kind.held_back is not None for kind in waiting):
                self._catch_up_later()
        finally:
            self.release()

    def close(self) -> None:
        """Write what was held back, and end."""
        self.acquire()
        try:
            if self._timer is not None:
                self._timer.cancel()
            for kind in self._kinds.values():
                self._write(kind)
        finally:
            self.release()
        super().close()


def set_up(level: str, *, as_json: bool) -> None:
    """Send this process's log to stderr.

    Args:
        level: the least that is written, such as "info".
        as_json: one JSON object a line, else text.
    """
    handler = LimitingHandler()
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
