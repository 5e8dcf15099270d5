"""Who we are for a registry: from the settings, from Docker's configuration, from a managed identity.

Nothing of a secret is in an error, a log or a `repr`.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from processor.errors import ModelError, ModelUnavailable
from processor.registry.options import Options
from processor.registry.references import is_loopback
from processor.registry.web import OK, Web, refused

log = logging.getLogger(__name__)

_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPERS_PATIENCE: Final = 30.0
"""Seconds."""
_NOTHING_KNOWN: Final = "credentials not found"
"""What Docker's helpers say for a registry they know nothing of."""
_TOKEN_USER: Final = "<token>"  # noqa: S105 - no secret
"""Docker's helpers give this name where the secret is a refresh token."""
_AZURE: Final = (".azurecr.io", ".azurecr.cn", ".azurecr.us")


@dataclass(frozen=True, slots=True)
class Password:
    """A user name and its password."""

    username: str
    secret: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A token that the registry's token server takes for one that opens a repository."""

    secret: str = field(repr=False)


Credentials = Password | RefreshToken


def find(web: Web, base: str, host: str) -> Credentials | None:
    """Return our credentials for a registry; None: we are anonymous. Called when the registry has asked for some.

    Args:
        web: asks on our behalf.
        base: `https://host`.
        host: the registry, with its port.

    Raises:
        ModelError: they are configured and cannot be had.
    """
    options = web.options
    if options.username is not None:
        return Password(options.username, options.password or "")
    if options.identity == "managed":
        return _exchanged(web, base, host)
    return None if options.docker_config is None else _from_docker(options.docker_config, host)


def of_settings(options: Options) -> Credentials | None:
    """Return the credentials for a server that is no registry: only what the settings themselves say."""
    return None if options.username is None else Password(options.username, options.password or "")


def _from_docker(path: Path, host: str) -> Credentials | None:
    """Look a registry up in Docker's config.json."""
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"Docker's configuration {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise ModelError(f"Docker's configuration {path} is no JSON") from None
    if not isinstance(config, dict):
        raise ModelError(f"Docker's configuration {path} is no JSON object")
    names = [host, f"https://{host}", f"http://{host}"]
    if host == "registry-1.docker.io":
        names = ["https://index.docker.io/v1/", "index.docker.io", "docker.io", *names]
    helpers = _mapping(config.get("credHelpers"))
    helper = next((helpers[name] for name in names if name in helpers), None)
    if helper is None and not (auths := _mapping(config.get("auths"))).keys().isdisjoint(names):
        found = _inline(_mapping(next(auths[name] for name in names if name in auths)), path, host)
        if found is not None:
            return found
    helper = helper or config.get("credsStore")
    return None if not helper else _from_helper(str(helper), names[0])


def _inline(entry: Mapping[str, Any], path: Path, host: str) -> Credentials | None:
    """Read an entry of `auths`; None: a credential store holds what belongs there."""
    if token := entry.get("identitytoken"):
        return RefreshToken(str(token))
    if not (encoded := entry.get("auth")):
        return None
    try:
        username, colon, secret = base64.b64decode(str(encoded), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise ModelError(f"Docker's configuration {path}: auth of {host} is no user:password in Base64")
    return Password(username, secret)


def _from_helper(helper: str, server: str) -> Credentials | None:
    """Ask one of Docker's credential programs."""
    program = f"docker-credential-{helper}"
    where = shutil.which(program) if _HELPER.fullmatch(helper) else None
    if where is None:
        raise ModelError(f"Docker's configuration names {program} for {server}, and there is no such program")
    try:
        done = subprocess.run(  # noqa: S603 - the program that the user's Docker runs
            [where, "get"], input=server.encode(), capture_output=True, timeout=_HELPERS_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelUnavailable(f"{program} gave no credentials for {server}: {type(error).__name__}") from None
    if done.returncode:
        if _NOTHING_KNOWN in (done.stdout + done.stderr).decode(errors="replace"):
            return None
        raise ModelError(f"{program} gave no credentials for {server} (exit code {done.returncode})")
    try:
        given = json.loads(done.stdout)
        username, secret = str(given["Username"]), str(given["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{program} answered something else than credentials for {server}") from None
    return RefreshToken(secret) if username == _TOKEN_USER else Password(username, secret)


def _exchanged(web: Web, base: str, host: str) -> RefreshToken:
    """Let Azure Container Registry give a refresh token for our managed identity's token."""
    name = host.partition(":")[0]
    if not name.endswith(_AZURE) and not is_loopback(host):
        raise ModelError(
            f"model.registry.identity: managed is for Azure Container Registry, and {host} is none: our identity's "
            "token is not sent there"
        )
    from processor.registry.identity import managed_identity  # noqa: PLC0415 - what it needs takes memory and a while

    form = {"grant_type": "access_token", "service": name, "access_token": managed_identity(web.options.client_id)}
    with web.ask("POST", f"{base}/oauth2/exchange", **posted(form)) as answer:
        if answer.status != OK:
            raise refused(answer, "a token for our managed identity (AcrPull on the registry?)")
        token = answer.mapping(f"what {host} gives for our managed identity").get("refresh_token")
    if not isinstance(token, str):
        raise ModelError(f"{host} gives no refresh token for our managed identity")
    return RefreshToken(token)


def posted(form: Mapping[str, str]) -> dict[str, Any]:
    """Return how a form is sent, as `Web.ask` takes it."""
    return {"headers": {"Content-Type": "application/x-www-form-urlencoded"}, "body": urlencode(form).encode()}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
