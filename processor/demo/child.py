"""A process that the demo has started and will end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_LAST_LINES: Final = 5


class Child:
    """One process, its output in a file.

    It leads a session of its own: Ctrl-C in the terminal reaches the demo alone, which then ends its children in order.

    Attributes:
        log: the file with what it says.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] = os.environ) -> None:
        """Start `command`; its standard input stays open for as long as this process lives."""
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(environment),
                start_new_session=True,
            )

    def exit_code(self) -> int | None:
        """Return the exit code; None while it runs."""
        return self._process.poll()

    def stop(self, patience: float) -> int | None:
        """Send SIGTERM and return the exit code; kill it after `patience` seconds and return None."""
        self._process.terminate()
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None
        finally:
            if self._process.stdin is not None:
                self._process.stdin.close()

    def last_words(self) -> str:
        """Return the end of its log, indented, on lines of its own; empty when it has said nothing."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        return "".join(f"\n  {line}" for line in lines)
