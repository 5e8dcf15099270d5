"""What the command line says: the broker, the page's address, and who may change something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from processor.broker_options import read_broker, read_secret
from processor.dashboard.access import is_loopback
from processor.document import describe
from processor.errors import ConfigurationError, Problem
from processor.sections import without_password
from processor.topics import validate_topic

_HIGHEST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for, checked.

    Attributes:
        broker: how to reach it, as `Connection` takes it.
        shown_broker: its address, without a password.
        prefixes: what processors' topics start with.
        host: where the page is served.
        port: 0: any that is free.
        cert: PEM file, for HTTPS.
        key: PEM file of its private key.
        password: that changes ask for; None: they ask for none.
        read_only: nobody may change anything.
        warnings: what whoever starts it should know.
    """

    broker: Mapping[str, Any] = field(repr=False)
    shown_broker: str
    prefixes: Sequence[str]
    host: str
    port: int
    cert: str | None
    key: str | None
    password: str | None = field(repr=False)
    read_only: bool
    warnings: Sequence[str]


def read(
    *,
    broker: Mapping[str, Any],
    broker_password: str | None,
    broker_password_file: Path | None,
    prefixes: Sequence[str],
    listen: str,
    cert: Path | None,
    key: Path | None,
    password: str | None,
    password_file: Path | None,
    read_only: bool,
) -> Options:
    """Check what was asked for.

    Raises:
        ConfigurationError: with every problem, each with its option.
    """
    problems: list[Problem] = []
    secret = read_secret("--password-file", password, password_file, problems)
    section, client = read_broker(broker, broker_password, broker_password_file, problems)
    problems += [Problem("--prefix", flaw) for prefix in prefixes if (flaw := validate_topic(prefix))]
    host, _, digits = listen.rpartition(":")
    if not host or not digits.isdecimal() or int(digits) > _HIGHEST_PORT:
        problems.append(Problem("--listen", f"found {describe(listen)}, expected host:port, such as 127.0.0.1:8321"))
        digits = "0"
    if (cert is None) != (key is None):
        given, missing = ("--cert", "--key") if key is None else ("--key", "--cert")
        problems.append(Problem(missing, f"{given} needs it"))
    if problems:
        raise ConfigurationError(problems)
    host = host.strip("[]")
    alone = is_loopback(host)
    read_only = read_only or (secret is None and not alone)
    return Options(
        broker=client,
        shown_broker=without_password(section.url),
        prefixes=tuple(dict.fromkeys(prefixes)),
        host=host,
        port=int(digits),
        cert=None if cert is None else str(cert),
        key=None if key is None else str(key),
        password=secret,
        read_only=read_only,
        warnings=tuple(_warnings(alone=alone, secret=secret, encrypted=cert is not None)),
    )


def _warnings(*, alone: bool, secret: str | None, encrypted: bool) -> Iterator[str]:
    if not alone and secret is None:
        yield "Others can connect and there is no password, so nothing can be changed; give --password-file."
    elif not alone and not encrypted:
        yield "The password crosses the network unencrypted; --cert and --key serve the page by HTTPS."
