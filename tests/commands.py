"""mlade's commands as a user runs them, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple
from unittest import mock

import pytest

from processor.cli import main

PATIENCE = 30.0
"""Seconds a command may take."""


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def command_line(*arguments: str) -> list[str]:
    """Return how `mlade` is run with this interpreter."""
    return [sys.executable, "-m", "processor", *arguments]


def environment(**variables: str) -> Mapping[str, str]:
    """Return this process's environment without mlade's variables, and with `variables`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MLADE_")} | variables


def mlade(*arguments: str, stdin: bytes | None = None, **variables: str) -> Done:
    """Run a command in a process of its own."""
    done = subprocess.run(
        command_line(*arguments),
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        env=environment(**variables),
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def mlade_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> Done:
    """Run a command in this process, which is much faster; for those that neither log nor take signals."""
    with mock.patch.object(sys, "argv", ["mlade", *arguments]), pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    assert isinstance(code, int) or code is None
    return Done(code or 0, *capsys.readouterr())
