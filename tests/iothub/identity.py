"""Devices and modules, and how they prove who they are (IoT Hub: "Control access with shared access signatures")."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

import trustme

API_VERSIONS = frozenset({"2019-10-01", "2020-09-30", "2021-04-12"})
"""What a user name may ask for: the SDK's own, the one of its Plug and Play clients, and the documentation's."""


class Unauthorized(Exception):
    """A client is not who it says it is; the text says why."""


@dataclass(slots=True)
class Device:
    """A device's or a module's registration, and what a client needs to be it.

    Attributes:
        device_id: of the device.
        module_id: of its module, where it is one.
        host: where the hub listens.
        hub: the hub's name, as in `HostName`.
        key: base64; empty where it has a certificate.
        certificate, private_key: PEM files, where it has a certificate.
        certificate_name: the common name that it has to have.
        enabled: False: refused.
    """

    device_id: str
    module_id: str | None
    host: str
    hub: str
    key: str = ""
    certificate: Path | None = None
    private_key: Path | None = None
    certificate_name: str = ""
    enabled: bool = True
    generation: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def id(self) -> str:
        """The client id: `device` or `device/module`."""
        return self.device_id if self.module_id is None else f"{self.device_id}/{self.module_id}"

    @property
    def resource(self) -> str:
        """What a token of its own is for, without the hub's name."""
        module = "" if self.module_id is None else f"/modules/{self.module_id}"
        return f"devices/{self.device_id}{module}"

    @property
    def connection_string(self) -> str:
        """What the SDK and mlade take; its gateway is the double."""
        secret = f"SharedAccessKey={self.key}" if self.key else "x509=true"
        module = "" if self.module_id is None else f"ModuleId={self.module_id};"
        return f"HostName={self.hub};DeviceId={self.device_id};{module}{secret};GatewayHostName={self.host}"


def new_key() -> str:
    """Return a random symmetric key, base64."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def sign(key: str, text: str) -> str:
    """Return the HMAC-SHA256 of a text, base64."""
    return base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), hashlib.sha256)).decode()


def make_token(resource: str, key: str, expires: int) -> str:
    """Write a shared access signature for a resource until `expires`, seconds since the epoch."""
    encoded = quote(resource, safe="")
    signature = quote(sign(key, f"{encoded}\n{expires}"), safe="")
    return f"SharedAccessSignature sr={encoded}&sig={signature}&se={expires}"


def check_token(token: str, key: str, resources: set[str]) -> int:
    """Return when a shared access signature expires, seconds since the epoch.

    Raises:
        Unauthorized: it is none, for something else, signed with another key, or over.
    """
    scheme, _, rest = token.partition(" ")
    fields = dict(part.partition("=")[::2] for part in rest.split("&"))
    if scheme != "SharedAccessSignature" or not {"sr", "sig", "se"} <= fields.keys():
        raise Unauthorized("not a shared access signature with sr, sig and se")
    if not fields["se"].isdecimal():
        raise Unauthorized(f"the expiry {fields['se']!r} is not a number of seconds")
    resource = unquote(fields["sr"])
    if resource.casefold() not in {each.casefold() for each in resources}:
        raise Unauthorized(f"the token is for {resource!r}, not for one of {sorted(resources)}")
    if not hmac.compare_digest(unquote(fields["sig"]), sign(key, f"{fields['sr']}\n{fields['se']}")):
        raise Unauthorized("the token is signed with another key")
    expires = int(fields["se"])
    if expires <= time.time():
        raise Unauthorized("the token has expired")
    return expires


class Authority:
    """A certification authority with files for everyone to use."""

    def __init__(self, directory: Path) -> None:
        """Make one, with its certificate in `directory`."""
        self._authority = trustme.CA()
        self._directory = directory
        self.file = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *identities: str) -> tuple[Path, Path]:
        """Return the files of a certificate and of its key.

        Args:
            name: the common name.
            identities: host names and addresses; none: it is a client's.
        """
        certificate = self._authority.issue_cert(*(identities or ("client.invalid",)), common_name=name)
        stem = name.replace("/", "-")
        chain, key = self._directory / f"{stem}.crt", self._directory / f"{stem}.key"
        chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(str(key))
        return chain, key
