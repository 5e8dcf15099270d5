"""Processors that have imported everything before they start.

Most of the half second that a start takes are Python's imports. The suite starts hundreds of processors, so here a
process that has imported everything is forked. All else is as with `mlade run`, which the demo's tests start as a user
does.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any, Final

from processor import __main__ as mlade
from tests import odd_machine
from tests.commands import environment

_CONTEXT: Final = multiprocessing.get_context("forkserver")
# pytest, too: where it is the main program, every process would import it anew.
_CONTEXT.set_forkserver_preload(
    ["pytest", "tests.forks", "tests.crash.victim", "processor.app", "processor.checking", "processor.bridges.mqtt"]
)
_LOCK: Final = threading.Lock()
"""A process's exit code can be read once, and whoever starts a process reads those of all others."""


class Fork:
    """A process that runs a function."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - the function's
        """Start it; it ends at the latest with this process."""
        self._process = _CONTEXT.Process(target=target, args=arguments, daemon=True)
        with _LOCK:
            self._process.start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid or 0

    def wait(self, timeout: float = 0.0) -> int | None:
        """Return its exit code if it ends within so many seconds; negative: the number of the signal that ended it."""
        connection.wait([self._process.sentinel], max(timeout, 0.0))
        with _LOCK:
            return self._process.exitcode

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if self.wait() is None:
            os.kill(self.pid, number)


def run(file: Path, log: Path, oddities: Sequence[str]) -> Fork:
    """Start `mlade run`, and return at once.

    Args:
        file: its configuration.
        log: where its log is appended.
        oddities: of its machine (odd_machine.py).
    """
    return Fork(_live, file, log, oddities, Path.cwd(), environment())


def _live(file: Path, log: Path, oddities: Sequence[str], directory: Path, variables: Mapping[str, str]) -> None:
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(variables)
    for oddity in oddities:
        odd_machine.bend(oddity)
    become_mlade(file, log)


def become_mlade(file: Path, log: Path) -> None:
    """Go on as `mlade run` in the present process."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.argv = ["mlade", "run", "-c", str(file)]
    mlade.main()
