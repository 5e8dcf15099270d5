"""A broker as it stands on the command line of what has no configuration file, checked as `broker` in one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from processor.document import problems_of
from processor.errors import Problem
from processor.mqtt.client import Tls
from processor.sections import Broker

_OPTIONS: Final[Mapping[str, str]] = {"url": "--broker", "tls.insecure_skip_verify": "--broker-insecure"}
"""Where a key of `broker` has another name on the command line than `--broker-<key>`."""


class BrokerGiven(NamedTuple):
    """What was given."""

    section: Broker
    client: Mapping[str, Any]
    """How to reach it, as `Connection` takes it."""


def read_broker(
    keys: Mapping[str, Any], password: str | None, password_file: Path | None, problems: list[Problem]
) -> BrokerGiven:
    """Return the broker that the command line names; what is wrong is added to `problems`, each with its option.

    Args:
        keys: of `broker`, without a password.
        password: None: it is in the file or in the URL, or there is none.
        password_file: holds it.
        problems: gathers what is wrong.
    """
    secret = read_secret("--broker-password-file", password, password_file, problems)
    try:
        section = Broker.model_validate(dict(keys))
    except ValidationError as error:
        section = Broker()
        problems += [Problem(_option(problem.path), problem.message) for problem in problems_of(error)]
    tls = Tls(section.tls.ca, section.tls.cert, section.tls.key, section.tls.insecure_skip_verify)
    client = {
        "url": section.url,
        "username": section.username,
        "password": secret,
        "tls": tls,
        "protocol": section.protocol,
    }
    return BrokerGiven(section, client)


def read_secret(option: str, given: str | None, file: Path | None, problems: list[Problem]) -> str | None:
    """Return a password, from its file if there is one; None where there is none."""
    if file is None:
        return given or None
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(option, f"cannot be read: {error}"))
        return None
    if not text:
        problems.append(Problem(option, f"{file} is empty"))
    return text


def _option(path: str) -> str:
    return _OPTIONS.get(path) or f"--broker-{path.removeprefix('tls.').replace('_', '-')}"
