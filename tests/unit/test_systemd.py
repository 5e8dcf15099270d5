"""config/systemd/mlade.service: systemd takes it, it is shut off from the machine, and it starts what there is."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from processor import settings
from processor.app import _STOP_PATIENCE
from tests.commands import mlade_here

UNIT = Path(__file__).parents[2] / "config" / "systemd" / "mlade.service"
LINES = [line.partition("=") for line in UNIT.read_text().splitlines() if re.match("[A-Z].*=", line)]
SERVICE = {key: value for key, _, value in LINES}


def analyze(*arguments: str) -> str:
    """Run systemd-analyze and return what it says; fail where it complains."""
    program = shutil.which("systemd-analyze")
    if program is None:
        assert not os.environ.get("CI"), "CI installs systemd"
        pytest.skip("there is no systemd here")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_understands_it(tmp_path: Path) -> None:
    """Every section, key and value; with a program that is there."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/mlade/bin/mlade", shutil.which("true") or "/bin/true"))
    assert analyze("verify", str(unit)) == ""


def test_it_is_shut_off_from_the_machine() -> None:
    """As systemd counts; what is left is the network, and /proc/cpuinfo. 10 is a service without any of it."""
    found = re.search(r"exposure level for mlade.service: ([0-9.]+)", analyze("security", "--offline=true", str(UNIT)))
    assert found is not None
    assert float(found[1]) <= 1.5


def test_it_starts_the_command_that_there_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With its configuration, which may not be there, and its state where it can be written to."""
    program, *arguments = shlex.split(SERVICE["ExecStart"])
    assert Path(program).name == "mlade"
    assert arguments[:2] == ["run", "-c"]
    missing = str(tmp_path / "processor.yaml")
    done = mlade_here(capsys, "check", "-c", missing)
    assert str(done.code) == SERVICE["RestartPreventExitStatus"]
    variable, _, place = SERVICE["Environment"].partition("=")
    assert Path(place).is_relative_to(f"/var/lib/{SERVICE['StateDirectory']}")
    monkeypatch.setenv(variable, place)
    example = settings.load(UNIT.parents[1] / "processor.yaml")
    assert str(example.path(example.state_dir)) == place


def test_it_is_given_the_time_to_end() -> None:
    """More than the processor takes."""
    assert int(SERVICE["TimeoutStopSec"].removesuffix("s")) > _STOP_PATIENCE
