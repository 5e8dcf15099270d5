"""Prometheus's own tool, for tests of what Prometheus is given."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def promtool(*arguments: str, stdin: str = "") -> None:
    """Run promtool; fail the test with what it says where it complains.

    Args:
        arguments: its command line; paths are relative to the repository.
        stdin: what it reads there.
    """
    program = shutil.which("promtool", path=os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / "build" / "bin")]))
    if program is None:
        pytest.fail("There is no promtool; get it and try again: scripts/setup.sh promtool", pytrace=False)
    done = subprocess.run(
        [program, *arguments], input=stdin, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode or done.stderr:
        pytest.fail(f"promtool {' '.join(arguments)}:\n{done.stdout}{done.stderr}", pytrace=False)
