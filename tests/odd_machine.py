"""What may be odd about the machine that a processor runs on, or in more of a hurry.

| key | value |
|---|---|
| `clock` | a file: its text is the seconds by which the machine's wall clock is wrong, looked at with every use |
| `stuck` | a file: while it exists, a file that a bridge has written does not become durable, and says nothing |
| `backoff` | seconds that an attempt to connect waits at most |
| `keepalive` | seconds, of the connection that readings come in on |
| `tidy` | seconds between two looks at what has become too old |
| `checked` | bytes up to which the database is checked as a whole at the start |
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processor import database, steering
from processor.clock import SystemClock
from processor.mqtt import attempts
from processor.mqtt.connection import Connection
from processor.types import NS


def replace(owner: object, name: str, value: Any) -> None:  # noqa: ANN401 - whatever it replaces
    """Put something in the place of what is there, and must be."""
    getattr(owner, name)
    setattr(owner, name, value)


def bend_clock(file: str) -> None:
    """Make the wall clock wrong by what a file says."""
    right = SystemClock.wall
    replace(SystemClock, "wall", lambda clock: right(clock) + round(float(Path(file).read_text()) * NS))


def stick(file: str) -> None:
    """Let `os.fsync`, of which SQLite has its own, hang while a file exists."""
    sync = os.fsync

    def hang(handle: int) -> None:
        while Path(file).exists():
            time.sleep(0.01)  # what a dead network drive does
        sync(handle)

    replace(os, "fsync", hang)


def hurry(keepalive: str) -> None:
    """Have connections look after so many seconds whether the broker still answers."""
    defaults = Connection.__init__.__kwdefaults__ or {}
    replace(Connection.__init__, "__kwdefaults__", {**defaults, "keepalive": int(keepalive)})


ODDITIES: dict[str, Callable[[str], None]] = {
    "clock": bend_clock,
    "stuck": stick,
    "backoff": lambda seconds: replace(attempts, "_LONGEST_BACKOFF", float(seconds)),
    "keepalive": hurry,
    "tidy": lambda seconds: replace(steering, "_TIDY_EVERY", float(seconds)),
    "checked": lambda size: replace(database, "_CHECKED", int(size)),
}


def bend(oddity: str) -> None:
    """Make this process's machine odd, as `key=value` says."""
    key, _, value = oddity.partition("=")
    ODDITIES[key](value)
