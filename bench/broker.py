"""A fresh Mosquitto for each run."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.errors import BenchError
from bench.processes import Child, running, wait_until

HOST = "127.0.0.1"
SETTINGS = "max_queued_messages 0, no persistence, else defaults; every subscriber MQTT 5 with receive maximum 1000"
"""What the broker and its clients are told, in words."""
_CONFIGURATION = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 0
log_dest stderr
log_type error
log_type warning
log_type notice
log_type subscribe
"""
# Debian puts the broker where a user's PATH does not reach.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


class Broker:
    """A running Mosquitto.

    Attributes:
        port: it listens there, on the loopback interface.
        folder: for its files and those of its clients; ends with it.
        child: its process.
    """

    def __init__(self, port: int, folder: Path, child: Child) -> None:
        """Wrap a process that writes who subscribes to its log."""
        self.port = port
        self.folder = folder
        self.child = child

    def wait_for_subscription(self, topic_filter: str, subscriber: Child) -> None:
        """Wait until somebody has subscribed to `topic_filter`: what is published from then on, they get."""
        wait_until(
            lambda: f" {topic_filter}\n" in (self.folder / "mosquitto.log").read_text(errors="replace"),
            f"it subscribed to {topic_filter}",
            subscriber,
            timeout=30,
        )


def find(program: str) -> str:
    """Return the path of `mosquitto` or one of its clients. Raises BenchError when it is not installed."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise BenchError(f"there is no {program} on the PATH (on Debian: apt-get install mosquitto mosquitto-clients)")
    return path


def version() -> str:
    """Return Mosquitto's version."""
    text = subprocess.run([find("mosquitto"), "-h"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    found = re.search(r"version (\S+)", text)
    return found[1] if found else "unknown"


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def mosquitto(*settings: str) -> Iterator[Broker]:
    """Run a broker until the block ends; `settings` are lines of its configuration, in place of those of their name."""
    port = free_port()
    names = {line.split()[0] for line in settings}
    lines = [line for line in _CONFIGURATION.format(port=port).splitlines() if line.split()[0] not in names]
    with TemporaryDirectory(prefix="mlade-bench-") as directory:
        configuration = Path(directory) / "mosquitto.conf"
        configuration.write_text("\n".join([*lines, *settings, ""]), encoding="ascii")
        with running("mosquitto", [find("mosquitto"), "-c", str(configuration)], Path(directory)) as child:
            wait_until(lambda: _listens(port), "it listened", child, timeout=10)
            yield Broker(port, Path(directory), child)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
