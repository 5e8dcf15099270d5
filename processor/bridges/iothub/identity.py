"""Who we are at the hub, read from where the settings say; read again for each connection, so that keys can change."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from processor import certificates, connection_string
from processor.bridge_sections import HubBridge, HubDps
from processor.errors import ConfigurationError, Problem
from processor.settings import Settings

_EDGE_VARIABLES: Final = (
    "IOTEDGE_IOTHUBHOSTNAME", "IOTEDGE_DEVICEID", "IOTEDGE_MODULEID", "IOTEDGE_GATEWAYHOSTNAME",
    "IOTEDGE_MODULEGENERATIONID", "IOTEDGE_WORKLOADURI", "IOTEDGE_APIVERSION",
)  # fmt: skip
_SECRET: Final = re.compile("SharedAccess|-----BEGIN")
_KEY_LENGTH: Final = 40
"""Characters that a hub's keys have at least: 32 bytes in Base64 have 44."""
_EDGE_DEBUGGING: Final = ("EdgeHubConnectionString", "EdgeModuleCACertificateFile")


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client's certificate and its private key: PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class WithConnectionString:
    """A device or a module that signs with the key in its connection string."""

    parsed: connection_string.ConnectionString


@dataclass(frozen=True, slots=True)
class WithKey:
    """A device that signs with a key."""

    host: str
    device: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WithCertificate:
    """A device that shows a certificate."""

    host: str
    device: str
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A device that asks the Device Provisioning Service for its hub."""

    service: str
    scope: str
    registration: str
    certificate: Certificate | None
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class EdgeModule:
    """A module that IoT Edge started: its environment and its workload API say who it is."""


Identity = WithConnectionString | WithKey | WithCertificate | Provisioned | EdgeModule


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are, and whom we trust.

    Attributes:
        identity: who we are.
        ca: certificates to trust, PEM; None: the system's.
    """

    identity: Identity
    ca: str | None


def load(bridge: HubBridge, settings: Settings, environment: Mapping[str, str] = os.environ) -> Credentials:
    """Read what a bridge's settings point to.

    Raises:
        ConfigurationError: with every problem, each with its path; no secret is in any of them.
    """
    found = _Reader(settings, f"bridges[{settings.bridges.index(bridge)}]")
    identity = _identity(bridge, found, environment)
    ca = found.text("tls.ca", bridge.tls.ca)
    if ca is not None and (problem := certificates.problem_of_authorities(ca)):
        found.add("tls.ca", f"{bridge.tls.ca} {problem}")
    if found.problems:
        raise ConfigurationError(found.problems)
    return Credentials(identity, ca)


def describe(identity: Identity) -> str:
    """Return who we are, without a secret."""
    if isinstance(identity, WithConnectionString):
        parsed = identity.parsed
        module = f"module {parsed.module} of " if parsed.module else ""
        return f"{module}{parsed.device} at {parsed.host}" + (f" by way of {parsed.gateway}" if parsed.gateway else "")
    if isinstance(identity, Provisioned):
        return f"{identity.registration}, at the hub that {identity.service} assigns"
    if isinstance(identity, EdgeModule):
        return "the module that IoT Edge says"
    return f"{identity.device} at {identity.host}"


class _Reader:
    """Reads files, and gathers what is wrong with them."""

    def __init__(self, settings: Settings, path: str) -> None:
        self.problems: list[Problem] = []
        self._settings = settings
        self._path = path

    def add(self, key: str, message: str) -> None:
        """Take note of a problem."""
        self.problems.append(Problem(f"{self._path}.{key}", message))

    def certificate(self, key: str, cert: str, private_key: str) -> Certificate:
        """Return a client's certificate, which has to be usable; `key` is that of the two."""
        files = [self._settings.path(name) for name in (cert, private_key)]
        is_there = True
        for part, name, path in zip(("cert", "key"), (cert, private_key), files, strict=True):
            try:
                path.open("rb").close()
            except OSError as error:
                self._unreadable(f"{key}.{part}", name, error)
                is_there = False
        if is_there and (found := certificates.problem_of_pair(*files)):
            part, why = found
            self.add(f"{key}.{part}", why)
        return Certificate(*files)

    def text(self, key: str, name: str | None) -> str | None:
        """Return what is in a file, without the white space around it; None where there is nothing to read."""
        if name is None:
            return None
        path = self._settings.path(name)
        try:
            return path.read_text(encoding="utf-8").strip()
        except OSError as error:
            self._unreadable(key, name, error)
        except UnicodeDecodeError:
            self.add(key, f"{path} is no text")
        return None

    def key(self, key: str, name: str) -> str:
        """Return a shared access key from a file."""
        text = self.text(key, name)
        if text is not None and (problem := connection_string.key_problem(text)):
            self.add(key, f"the text in {name} {problem}")
        return text or ""

    def _unreadable(self, key: str, name: str, error: OSError) -> None:
        """Take note of a file that cannot be read, without its name where that is what should be in it."""
        if _SECRET.search(name) or (len(name) >= _KEY_LENGTH and connection_string.key_problem(name) is None):
            self.add(key, "this looks like the secret itself; expected the name of a file that holds it")
        else:
            self.add(key, f"{self._settings.path(name)} cannot be read: {error.strerror}")


def _identity(bridge: HubBridge, found: _Reader, environment: Mapping[str, str]) -> Identity:
    if bridge.x509 is not None:
        given = bridge.x509
        return WithCertificate(given.host, given.device, found.certificate("x509", given.cert, given.key))
    if bridge.sas is not None:
        return WithKey(bridge.sas.host, bridge.sas.device, found.key("sas.key_file", bridge.sas.key_file))
    if bridge.dps is not None:
        return _provisioned(bridge.dps, found)
    if bridge.edge:
        for problem in _edge_problems(environment):
            found.add("edge", problem)
        return EdgeModule()
    where, text = "connection_string", bridge.connection_string
    if text is None:
        where = "connection_string_file"
        text = found.text(where, bridge.connection_string_file)
    try:
        return WithConnectionString(connection_string.parse(text or ""))
    except ValueError as error:
        if not found.problems:
            found.add(where, str(error))
        return EdgeModule()  # nobody sees it: the problem is raised


def _provisioned(dps: HubDps, found: _Reader) -> Provisioned:
    certificate = key = None
    if dps.cert is not None and dps.key is not None:
        certificate = found.certificate("dps", dps.cert, dps.key)
    elif dps.key_file is not None:
        key = found.key("dps.key_file", dps.key_file)
    return Provisioned(dps.host, dps.scope, dps.registration, certificate, key)


def _edge_problems(environment: Mapping[str, str]) -> Iterator[str]:
    if all(name in environment for name in _EDGE_DEBUGGING):
        return
    if missing := [name for name in _EDGE_VARIABLES if not environment.get(name)]:
        yield f"the environment lacks {', '.join(missing)}; edge: true works in a container that IoT Edge started"
