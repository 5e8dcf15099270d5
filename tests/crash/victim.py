"""`mlade` that kills itself with SIGKILL at a named point: `python -m tests.crash.victim POINT NTH run -c FILE`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from processor import cli
from processor.bridges.files import FilesBridge
from processor.journal import Journal
from processor.mqtt.connection import Connection
from processor.outbox import Outbox
from processor.reporting import Reporting
from processor.store import Store

POINTS: dict[str, tuple[type, str, bool]] = {
    # a class, its method, and whether to die before it is called, or after
    "before the commit": (Store, "commit", True),
    "between commit and acknowledgement": (Store, "commit", False),
    "after the acknowledgement": (Connection, "acknowledge", False),
    "between claim and file": (Outbox, "claim", False),
    "between a file's rename and its confirmation": (FilesBridge, "deliver", False),
    "after the confirmation": (Outbox, "confirm", False),
    "between filter applied and answered": (Reporting, "publish_filter_state", True),
    "while windows are restored": (Journal, "_restore", False),
}


def die_at(point: str, nth: int) -> None:
    """Replace the point's method with one that ends the process at the `nth` call."""
    owner, name, before = POINTS[point]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def fatal(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the method takes
        nonlocal calls
        calls += 1
        if before and calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if not before and calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, fatal)


if __name__ == "__main__":
    die_at(sys.argv[1], int(sys.argv[2]))
    sys.argv[1:3] = []
    cli.main()
