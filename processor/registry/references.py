"""`model.path` as a user writes it, and what it means."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

_SCHEME: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_LONGEST: Final = 4096
_HIGHEST_PORT: Final = 65535
_DOCKER_HUB: Final = ("docker.io", "index.docker.io")

EXPECTED: Final = (
    "a file, https://host/path/model.onnx[#sha256=<64 hex digits>] or oci://registry/repository:tag[@sha256:…]"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a model is.

    Attributes:
        kind: `file`, `https` (or plain http, where that is allowed) or `oci`.
        text: as it may be shown and logged: without a URL's query, which may hold a key.
        location: a file's path as written, a whole URL without its fragment, or a repository.
        host: with the port where one is given; empty for a file.
        tag: of a repository; empty where only a digest is given.
        pin: `sha256:…`, which a URL's file or a repository's manifest must have; empty: none.
    """

    kind: Literal["file", "https", "oci"]
    text: str
    location: str
    host: str = ""
    tag: str = ""
    pin: str = ""

    @property
    def key(self) -> str:
        """What tells this reference from others, 64 hex digits that give nothing away."""
        return hashlib.sha256(f"{self.host}\n{self.location}\n{self.tag}\n{self.pin}".encode()).hexdigest()

    @property
    def name(self) -> str:
        """The model's name in events: of the file without its suffix, or of the repository's last part."""
        path = urlsplit(self.location).path if self.kind == "https" else self.location
        last = path.rstrip("/").rpartition("/")[2]
        return (last if self.kind == "oci" else last.rpartition(".")[0] or last) or "model"

    @property
    def moves(self) -> bool:
        """Whether it may stand for another model tomorrow."""
        return not self.pin


def is_remote(text: str) -> bool:
    """Whether this is no path of a file."""
    return _SCHEME.match(text) is not None


def parse(text: str) -> Reference:
    """Read a reference.

    Raises:
        ValueError: it is none; the text says what was found and what was expected, without a password.
    """
    scheme = _SCHEME.match(text)
    if scheme is None:
        return Reference("file", text, text)
    if len(text) > _LONGEST or not text.isprintable() or " " in text:
        raise ValueError(f"found {len(text)} characters with blanks or control characters, expected {EXPECTED}")
    match scheme[1].lower():
        case "oci":
            return _repository(text)
        case "https" | "http":
            return _url(text)
        case other:
            raise ValueError(f"found {other}://…, expected {EXPECTED}")


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _url(text: str) -> Reference:
    _refuse_user(re.split("[/?#]", text.partition("://")[2], maxsplit=1)[0])
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if not parts.hostname or _HOST.fullmatch(parts.netloc) is None:
        raise ValueError(f"found {text.partition('?')[0]}, expected {EXPECTED}")
    pin = ""
    if parts.fragment:
        key, _, value = parts.fragment.partition("=")
        pin = f"sha256:{value.lower()}"
        if key != "sha256" or _DIGEST.fullmatch(pin) is None:
            raise ValueError(f"found #{parts.fragment}, expected #sha256= and the file's SHA-256, 64 hex digits")
    plain = parts._replace(scheme=parts.scheme.lower(), fragment="")
    shown = plain._replace(query="").geturl() + ("?…" if parts.query else "") + (f"#{parts.fragment}" if pin else "")
    return Reference("https", shown, plain.geturl(), parts.netloc.lower(), pin=pin)


def _repository(text: str) -> Reference:
    host, _, rest = text.partition("://")[2].partition("/")
    _refuse_user(host)
    named, _, pin = rest.partition("@")
    repository, _, tag = named.partition(":")
    match = _HOST.fullmatch(host)
    if match is None or (match[1] and not 0 < int(match[1]) <= _HIGHEST_PORT):
        raise ValueError(f"found {text}: {host or 'nothing'} is no registry; expected {EXPECTED}")
    if _REPOSITORY.fullmatch(repository) is None:
        raise ValueError(
            f"found {text}: {repository or 'nothing'} is no repository, lower-case words between slashes; "
            f"expected {EXPECTED}"
        )
    if ":" in named and _TAG.fullmatch(tag) is None:
        raise ValueError(f"found {text}: {tag or 'nothing'} is no tag; expected {EXPECTED}")
    if "@" in rest and _DIGEST.fullmatch(pin) is None:
        raise ValueError(f"found {text}: after @ stands a digest, sha256: and 64 hex digits in lower case")
    host = host.lower()
    if host in _DOCKER_HUB:
        host = "registry-1.docker.io"
        repository = repository if "/" in repository else f"library/{repository}"
    return Reference("oci", text, repository, host, tag or ("" if pin else "latest"), pin)


def _refuse_user(authority: str) -> None:
    if "@" in authority:
        raise ValueError(
            "found a user name in the address; expected none: it belongs in model.registry.username, its password in "
            "the file model.registry.password_file"
        )
