"""`mlade run` as a process, for tests that need the real thing."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests import forks
from tests.forks import Fork
from tests.mosquitto import Mosquitto

PATIENCE = 20.0


class ProcessorProcess:
    """A processor with a configuration of its own."""

    def __init__(self, directory: Path, configuration: Mapping[str, Any]) -> None:
        self.directory = directory
        self.configuration = dict(configuration)
        self.root = f"{configuration.get('topic_prefix', 'mlade')}/{configuration['id']}"
        self.client_id = self.root.replace("/", "-")
        self.file = directory / "processor.yaml"
        self.configure()
        self._process: Fork | None = None
        self._log = directory / "log.txt"

    def configure(self, **changes: Any) -> None:  # noqa: ANN401 - JSON
        """Write its file, with other values for some keys; the next start reads it."""
        self.configuration |= changes
        self.file.write_text(json.dumps(self.configuration))  # JSON is YAML

    @property
    def resident(self) -> int:
        """Bytes of memory that it takes now (VmRSS)."""
        if self._process is None:
            return 0
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def start(self) -> None:
        """Start it and return when the broker has answered its subscriptions."""
        connected = self.log().count("Connected to the broker")
        self.launch()
        self.wait_until(lambda: self.log().count("Connected to the broker") > connected, "connected")
        self.wait_until(lambda: '"broker: ' not in self.get("/readyz"), "subscribed")

    def launch(self, *oddities: str) -> None:
        """Start it and return at once; `oddities` are those of its machine (odd_machine.py)."""
        self._process = forks.run(self.file, self._log, oddities)

    @property
    def pid(self) -> int:
        """The process's number; 0 where it does not run."""
        return 0 if self._process is None else self._process.pid

    def wait_for_end(self, timeout: float) -> int | None:
        """Return the exit code if it ends by itself within `timeout` seconds."""
        if self._process is None:
            return 0
        code = self._process.wait(timeout)
        if code is not None:
            self._process = None
        return code

    def wait(self, timeout: float = PATIENCE) -> int:
        """Return the exit code, when it ends by itself."""
        code = self.wait_for_end(timeout)
        if code is None:
            self.kill()
            pytest.fail(f"still running after {timeout:g} s\n{self.log()}")
        return code

    def get(self, path: str) -> str:
        """Return what it answers to an HTTP request."""
        port = int(re.findall("Health and metrics .* port ([0-9]+)", self.log())[-1])
        with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def log(self) -> str:
        """Return what it has printed, over all its starts."""
        return self._log.read_text() if self._log.exists() else ""

    def wait_until(self, condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
        """Wait for a condition, and fail with the log when it does not come."""
        deadline = time.monotonic() + timeout
        while not condition():
            if self._process is not None and (code := self._process.wait()) is not None:
                pytest.fail(f"the processor ended with {code} before: {what}\n{self.log()}")
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout:g} s: {what}\n{self.log()}")
            time.sleep(0.01)  # between two looks at the condition

    def wait_for_log(self, text: str, times: int = 1) -> None:
        """Wait until it has printed `text` so many times, over all its starts."""
        self.wait_until(lambda: self.log().count(text) >= times, f"{text!r}, {times} times, in the log")

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = PATIENCE) -> int:
        """Send a signal and return the exit code."""
        if self._process is not None:
            self._process.send(number)
        return self.wait(timeout)

    def kill(self) -> None:
        """End it as a power cut does."""
        self.stop(signal.SIGKILL)

    def events(self, bridge: str = "accepted") -> list[dict[str, Any]]:
        """Return the events in the files bridge's finished files, in the order they were written."""
        files = sorted((self.directory / bridge).glob("date=*/*.jsonl"), key=lambda path: path.name)
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


class ProcessorFactory:
    """Makes processors on the shared broker, each with an id and a directory of its own, and ends them."""

    def __init__(self, broker: Mosquitto, directory: Path, cleanup: ExitStack) -> None:
        self._broker = broker
        self.directory = directory
        self._cleanup = cleanup
        self.url = broker.url

    def __call__(self, *, on: Mosquitto | None = None, **configuration: Any) -> ProcessorProcess:  # noqa: ANN401 - JSON
        """Write a configuration; `start` runs it.

        Args:
            on: the broker; absent: the shared one.
            configuration: keys of the file over small defaults.
        """
        name = f"p-{uuid4().hex[:8]}"
        directory = self.directory / name
        directory.mkdir()
        defaults = {
            "id": name,
            "broker": {"url": (on or self._broker).url},
            "bridges": [{"type": "files", "path": "./accepted", "rotate": {"max_age": "100ms"}}],
            "metrics": {"publish_every": "100ms"},
            "http": {"listen": "127.0.0.1:0"},
        }
        processor = ProcessorProcess(directory, {**defaults, **configuration})
        self._cleanup.callback(processor.stop, signal.SIGKILL)
        return processor


@pytest.fixture
def make_processor(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[ProcessorFactory]:
    """Make processors on the shared broker."""
    with ExitStack() as cleanup:
        yield ProcessorFactory(mosquitto, tmp_path, cleanup)
