"""The Docker engine of this machine, its images and compositions, for tests that need them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, NoReturn

import pytest

ROOT = Path(__file__).parents[2]
MADE_HERE = {"debian:bookworm-slim": "mlade-debian:test", "python:3.13-slim": "mlade-python:test"}
"""What the Dockerfiles begin with, and what scripts/docker_for_tests.sh makes where no registry can be reached."""
PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
PATIENCE = 120.0
"""Seconds that anything but a build may take."""
NOTHING: Mapping[str, str] = MappingProxyType({})


def run(
    *command: str,
    timeout: float = PATIENCE,
    check: bool = True,
    variables: Mapping[str, str] = NOTHING,
) -> str:
    """Run a command in the repository and return its stdout; fail with what it wrote, where it fails.

    Args:
        command: what to run.
        timeout: seconds that it may take.
        check: fail where it fails.
        variables: of its environment, over this process's.
    """
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"not within {timeout:g} s: {' '.join(command)}", pytrace=False)
    if check and done.returncode:
        pytest.fail(f"{' '.join(command)}:\n{done.stdout[-5000:]}{done.stderr[-5000:]}", pytrace=False)
    return done.stdout


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def give_up(reason: str) -> NoReturn:
    """Skip where nobody asked for Docker, and fail where somebody did, as CI does."""
    if os.environ.get("MLADE_TEST_MOSQUITTO") == "container":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require_engine() -> None:
    """Return if a Docker engine answers."""
    if not _succeeds("docker", "version", "--format", "{{.Server.Version}}"):
        give_up("no Docker engine answers; as root on Debian: scripts/docker_for_tests.sh start")


def compose_commands() -> list[list[str]]:
    """Return how Compose is called here: its version 2, its version 1, both or none."""
    known = [["docker", "compose"], ["docker-compose"]]
    return [command for command in known if shutil.which(command[0]) and _succeeds(*command, "version")]


class Built(NamedTuple):
    """An image that was built here.

    Attributes:
        name: its own.
        base: of the image that it begins with.
    """

    name: str
    base: str


def build(name: str, directory: str, base: str, **arguments: str) -> Built:
    """Build the Dockerfile in a directory.

    Args:
        name: of the image; only the tests use it.
        directory: in the repository.
        base: what the Dockerfile says for BASE.
        arguments: further build arguments.
    """
    here = MADE_HERE[base]
    if not _succeeds("docker", "image", "inspect", base) and _succeeds("docker", "image", "inspect", here):
        base = here
    given = [f"--build-arg={key}={value}" for key, value in {"BASE": base, **arguments}.items()]
    passed_on = [f"--build-arg={key}" for key in PASSED_ON if key in os.environ]
    run("docker", "build", "--network=host", f"--tag={name}", *given, *passed_on, directory, timeout=600)
    return Built(name, base)


def inspect(kind: Literal["image", "container"], name: str) -> dict[str, Any]:
    """Return what the engine knows."""
    found: dict[str, Any] = json.loads(run("docker", kind, "inspect", name))[0]
    return found


class Composition:
    """The composition of docker-compose.yml, under a name and with ports and images of the test's own.

    Attributes:
        variables: of the environment that Compose is called in.
    """

    def __init__(self, compose: Sequence[str], name: str, variables: Mapping[str, str]) -> None:
        self._command = [*compose, "--project-name", name]
        self.variables = dict(variables)
        self._name = name

    def call(self, *arguments: str, check: bool = True) -> str:
        """Give a Compose command."""
        return run(*self._command, *arguments, check=check, variables=self.variables)

    def container(self, service: str) -> str:
        """Return a service's container."""
        label = "label=com.docker.compose"
        filters = [f"--filter={label}.project={self._name}", f"--filter={label}.service={service}"]
        return run("docker", "ps", "--all", "--quiet", *filters).strip()

    def services(self) -> set[str]:
        """Return the services that have a container."""
        project = f"label=com.docker.compose.project={self._name}"
        return set(
            run(
                "docker", "ps", "--all", f"--filter={project}", '--format={{.Label "com.docker.compose.service"}}'
            ).split()
        )

    def remove(self) -> None:
        """End it in whatever state it is and leave nothing behind. Without Compose, which takes its time."""
        label = f"--filter=label=com.docker.compose.project={self._name}"
        for kind, listing, removing in (
            ("container", ["ls", "--all"], ["rm", "--force", "--volumes"]),
            ("network", ["ls"], ["rm"]),
            ("volume", ["ls"], ["rm", "--force"]),
        ):
            if found := run("docker", kind, *listing, "--quiet", label).split():
                run("docker", kind, *removing, *found)


def wait_until(condition: Callable[[], object], what: str, log: Callable[[], str] = str) -> None:
    """Wait for a condition; fail when it does not come."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {PATIENCE:g} s: {what}\n{log()}", pytrace=False)
        time.sleep(0.1)  # between two looks at the condition
