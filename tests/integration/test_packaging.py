"""The wheel is complete and works outside the repository, and every dependency is pinned."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

pytestmark = pytest.mark.xdist_group("packaging")  # one worker builds the wheel, once

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def run(*command: str, cwd: Path) -> str:
    """Run a command and return its stdout; fail with what it wrote to stderr."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as `pip wheel .` does, with the build backend of this environment instead of the index's."""
    directory = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", ".", str(ROOT), cwd=directory)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a virtual environment that borrows this one's dependencies, and return its directory."""
    directory = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(directory, with_pip=False)
    run(*PIP, "--python", str(directory), "install", "--no-deps", "--no-index", str(wheel), cwd=directory)
    # A path file brings the packages, but not the path files beside them: an editable mlade stays out.
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(directory), "platbase": str(directory)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return directory


def test_wheel_holds_the_package_with_its_data_and_nothing_else(wheel: Path) -> None:
    """Every file under processor/ is in the wheel, the demo's recording and model included, and no other."""
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "processor").rglob("*")
        if path.is_file() and path.suffix != ".pyc" and not path.name.startswith(".")
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == source
    assert {Path(name).suffix for name in packed if name.startswith("processor/demo/")} >= {".py", ".npz", ".onnx"}


def test_wheel_carries_the_license(wheel: Path) -> None:
    """The license travels with every copy."""
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]


def test_installed_package_is_the_wheels(installed: Path) -> None:
    """What the next test runs comes from the wheel and not from the repository."""
    place = run(str(installed / "bin/python"), "-c", "import processor; print(processor.__file__)", cwd=installed)
    assert Path(place.strip()).is_relative_to(installed)


@pytest.mark.parametrize("command", [["bin/mlade"], ["bin/python", "-m", "processor"]])
def test_installed_command_starts(installed: Path, command: list[str]) -> None:
    """The console script and the module are the same command, and list the subcommands."""
    text = run(str(installed / command[0]), *command[1:], "--help", cwd=installed)
    for name in ("demo", "run", "check", "filter", "status", "deadletters", "record", "replay", "suggest"):
        assert re.search(rf"\b{name}\b", text), f"{name} is not in the help"


def test_every_dependency_is_pinned_at_the_version_in_use() -> None:
    """Whatever mlade, its tests and its build need, directly or not, has its one version in constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    waiting = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
        *project["build-system"]["requires"],
    ]
    used: dict[NormalizedName, str] = {}
    seen: set[str] = set()
    while waiting:
        text = waiting.pop()
        if text in seen:
            continue
        seen.add(text)
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        used[name] = metadata.version(name)
        for further in metadata.requires(name) or []:
            marker = Requirement(further).marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)):
                waiting.append(further)
    assert used == {name: pins.get(name) for name in used}
