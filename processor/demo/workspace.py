"""The demo's directory: what is written into it, and what may be removed from it."""

from __future__ import annotations

import fcntl
import shutil
import string
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple

from processor.demo.data import MODEL_PATH, WINDOW_SIZE, WINDOW_STEP
from processor.errors import MladeError

_MARKER: Final = ".mlade-demo"
_MARKER_TEXT: Final = "Made by `mlade demo`, which replaces its own files in here each time it runs.\n"
_FOLDERS: Final = ("accepted", "state")
_FILES: Final = ("processor.yaml", "filter.yaml", "tightened.yaml", "motions.onnx", "mosquitto.conf")
_LOGS: Final = ("processor.log", "broker.log")


class Workspace(NamedTuple):
    """Where the demo keeps what.

    Attributes:
        directory: all of it.
    """

    directory: Path

    @property
    def configuration(self) -> Path:
        """The processor's configuration."""
        return self.directory / "processor.yaml"

    @property
    def tightened(self) -> Path:
        """The filter that the operator sends."""
        return self.directory / "tightened.yaml"

    @property
    def accepted(self) -> Path:
        """The samples, a folder a day."""
        return self.directory / "accepted"

    @property
    def processor_log(self) -> Path:
        """What the processor says."""
        return self.directory / "processor.log"

    @property
    def broker_log(self) -> Path:
        """What the broker says."""
        return self.directory / "broker.log"

    @property
    def broker_configuration(self) -> Path:
        """What Mosquitto is started with; absent with the embedded broker."""
        return self.directory / "mosquitto.conf"

    def configure(self, port: int, *, mqtt_5: bool) -> None:
        """Write the processor's configuration, its model and both filters.

        Args:
            port: where the broker listens.
            mqtt_5: whether it speaks MQTT 5; else 3.1.1.
        """
        values = {
            "port": str(port),
            "protocol": "5" if mqtt_5 else '"3.1.1"',
            "size": str(WINDOW_SIZE),
            "step": str(WINDOW_STEP),
        }
        for path in (self.configuration, self.directory / "filter.yaml", self.tightened):
            text = (resources.files("processor.demo") / path.name).read_text(encoding="utf-8")
            path.write_text(string.Template(text).substitute(values), encoding="utf-8")
        shutil.copyfile(MODEL_PATH, self.directory / "motions.onnx")


@contextmanager
def prepare(directory: Path) -> Iterator[Workspace]:
    """Make the directory, or clear the last demo out of it, and keep other demos away while this one runs.

    Raises:
        MladeError: the directory holds something else, is another running demo's, or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        marker = directory / _MARKER
        if not marker.exists() and any(directory.iterdir()):
            raise MladeError(
                f"{directory} is not empty and was not made by a demo, so nothing in it was touched; "
                "name a new or empty directory with --out."
            )
        with marker.open("a", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise MladeError(
                    f"Another demo is running in {directory}; wait for its end or name another directory with --out."
                ) from error
            marker.write_text(_MARKER_TEXT, encoding="utf-8")
            _clear(directory)
            yield Workspace(directory.resolve())
    except OSError as error:
        raise MladeError(f"The demo cannot use {error.filename or directory}: {error.strerror}.") from error


def _clear(directory: Path) -> None:
    """Remove what an earlier demo left: only what a demo makes, and through no link."""
    for name in (*_FOLDERS, *_FILES, *_LOGS):
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
