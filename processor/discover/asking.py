"""What was asked for on the command line, checked before anything is listened to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from processor.broker_options import read_broker
from processor.discover.wishes import Wanted, look_at_model
from processor.errors import ConfigurationError, Problem
from processor.topics import split_share, validate_filter


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for.

    Attributes:
        client: how to reach the broker, as `Connection` takes it.
        broker: keys of `broker` in the configuration to write; no password is among them.
        has_secret: whether there is a password that the configuration does not hold.
        topic: filter to listen to.
        seconds: to listen.
        wanted: the model; None: there is none.
        output: the file to write; None: stdout.
        timeout: seconds for the broker to answer.
    """

    client: Mapping[str, Any] = field(repr=False)
    broker: Mapping[str, Any]
    has_secret: bool
    topic: str
    seconds: float
    wanted: Wanted | None
    output: Path | None
    timeout: float

    @property
    def model_path(self) -> str | None:
        """The model's path as the configuration names it: relative to its own place."""
        if self.wanted is None:
            return None
        return os.path.relpath(self.wanted.path, self.directory)

    @property
    def directory(self) -> Path:
        """Where the configuration will be, as far as that is known."""
        return (Path() if self.output is None else self.output.parent).resolve()


def read(
    *,
    broker: Mapping[str, Any],
    password: str | None,
    password_file: Path | None,
    topic: str,
    seconds: float,
    model: Path | None,
    output: Path | None,
    timeout: float,
) -> Asked:
    """Check what was asked for; `broker` are keys of that section.

    Raises:
        ConfigurationError: with every problem, each with its option.
        ModelError: the model cannot be read, or takes nothing that mlade gives.
    """
    problems: list[Problem] = []
    section, client = read_broker(broker, password, password_file, problems)
    if flaw := validate_filter(topic):
        problems.append(Problem("--topic", flaw))
    elif split_share(topic).group is not None:
        problems.append(Problem("--topic", f"{topic!r} is shared; a listener would take messages from others"))
    if output is not None and output.exists():
        problems.append(Problem("--output", f"{output} exists already; give another name, or remove it"))
    elif output is not None and not output.parent.is_dir():
        problems.append(Problem("--output", f"there is no directory {output.parent}"))
    if problems:
        raise ConfigurationError(problems)
    parts = urlsplit(section.url)
    given = section.model_dump(exclude_defaults=True)
    given["url"] = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if parts.username:
        given.setdefault("username", unquote(parts.username))
    if password_file is not None:
        given["password_file"] = str(password_file.resolve())
    if "tls" in given:
        given["tls"] = {key: _absolute(value) for key, value in given["tls"].items()}
    return Asked(
        client=client,
        broker=given,
        has_secret=password_file is None and bool(password or parts.password),
        topic=topic,
        seconds=seconds,
        wanted=None if model is None else look_at_model(model),
        output=output,
        timeout=timeout,
    )


def _absolute(value: object) -> object:
    return str(Path(value).resolve()) if isinstance(value, str) else value
