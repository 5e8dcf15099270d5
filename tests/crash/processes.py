"""The disturbed processor: started often, ended often."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.crash import victim
from tests.crash.victim import Statement
from tests.forks import Fork

_MIB: Final = 1 << 20
_STOP_PATIENCE: Final = 10.0


def rss(pid: int) -> float | None:
    """Return a process's resident memory in MiB; None where it is gone, or where there is no /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGESIZE") / _MIB


class VictimProcess:
    """A processor with a configuration and a state directory, and one life after another.

    Attributes:
        directory: its own.
        lives: how often it was started.
    """

    def __init__(self, directory: Path, configuration: Mapping[str, Any]) -> None:
        """Write the configuration; `launch` runs it."""
        self.directory = directory
        self.lives = 0
        self._file = directory / "processor.yaml"
        self._file.write_text(json.dumps(configuration))  # JSON is YAML
        self._log = directory / "log-0.txt"
        self._process: Fork | None = None

    def launch(self, point: str | Statement | None = None, nth: int = 1) -> None:
        """Start it and return at once; it dies at the `nth` time it comes to `point`."""
        self.lives += 1
        self._log = self.directory / f"log-{self.lives}.txt"
        self._process = Fork(victim.live, self._file, self._log, point, nth)

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.wait() is None

    @property
    def connected(self) -> bool:
        """Whether this life has been connected to the broker."""
        return "Connected to the broker" in self.log()

    def log(self) -> str:
        """Return what this life has printed."""
        return self._log.read_text() if self._log.exists() else ""

    def forget_log(self) -> None:
        """Drop it: it holds nothing of interest."""
        self._log.unlink(missing_ok=True)

    def rss(self) -> float | None:
        """Return this life's resident memory in MiB."""
        return None if self._process is None else rss(self._process.pid)

    def wait(self, timeout: float) -> int | None:
        """Return the exit code when it ends by itself within `timeout` seconds; negative: the signal's number."""
        return None if self._process is None else self._process.wait(timeout)

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> int | None:
        """End it as a power cut does, and return the exit code: another one where it had ended before."""
        self._signal(signal.SIGKILL)
        return self.wait(_STOP_PATIENCE)

    def stop(self) -> tuple[int | None, float]:
        """Send SIGTERM; return the exit code, None where it does not end, and the seconds it took."""
        begun = time.monotonic()
        self.ask_to_stop()
        return self.wait(_STOP_PATIENCE), time.monotonic() - begun

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send(number)
