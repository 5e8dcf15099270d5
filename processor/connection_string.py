"""Connection strings of Azure IoT Hub: what is in one, and what is wrong with one, without ever showing it."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

_KEYS: Final = ("HostName", "DeviceId", "ModuleId", "SharedAccessKey", "GatewayHostName")
_REQUIRED: Final = ("HostName", "DeviceId", "SharedAccessKey")
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_ID: Final = re.compile(r"[A-Za-z0-9\-:.+%_*?!(),=@$'#;]{1,128}")
_EXAMPLE: Final = "HostName=…;DeviceId=…;SharedAccessKey=…"


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """A device's or a module's.

    Attributes:
        host: of the hub.
        device: its id.
        module: the module's; None for a device.
        gateway: the host that is really connected to; None: the hub itself.
        text: the whole, as the SDK takes it. A secret.
    """

    host: str
    device: str
    module: str | None
    gateway: str | None
    text: str = field(repr=False)


def parse(text: str) -> ConnectionString:
    """Read a connection string as Azure's portal gives it; white space around it does not matter.

    Raises:
        ValueError: it is none; the message says what was expected and holds nothing of it but the names of its keys.
    """
    text = text.strip()
    parts = [part.partition("=") for part in text.split(";") if part]
    values: dict[str, str] = {}
    for key, separator, value in parts:
        if not separator or not re.fullmatch("[A-Za-z0-9]{1,32}", key):
            raise ValueError(f"this is no connection string; expected {_EXAMPLE}")
        if key in values:
            raise ValueError(f"the connection string has {key} twice; expected {_EXAMPLE}")
        values[key] = value
    if "SharedAccessKeyName" in values:
        raise ValueError(
            "this is a connection string of the hub's own; expected a device's or a module's: that of one device "
            "under Devices in the portal, not one of Shared access policies"
        )
    if "x509" in values:
        raise ValueError("the connection string says x509=true; give x509: {host, device, cert, key} instead")
    if unknown := [key for key in values if key not in _KEYS]:
        raise ValueError(f"the connection string has {', '.join(unknown)}; expected {_EXAMPLE}")
    if missing := [key for key in _REQUIRED if not values.get(key)]:
        raise ValueError(f"the connection string lacks {', '.join(missing)}; expected {_EXAMPLE}")
    for key, problem in (
        ("HostName", host_problem(values["HostName"])),
        ("GatewayHostName", host_problem(values["GatewayHostName"]) if values.get("GatewayHostName") else None),
        ("DeviceId", id_problem(values["DeviceId"])),
        ("ModuleId", id_problem(values["ModuleId"]) if values.get("ModuleId") else None),
        ("SharedAccessKey", key_problem(values["SharedAccessKey"])),
    ):
        if problem:
            raise ValueError(f"{key} in the connection string {problem}")
    return ConnectionString(
        values["HostName"], values["DeviceId"], values.get("ModuleId") or None, values.get("GatewayHostName") or None,
        ";".join(f"{key}={value}" for key, value in values.items() if value),
    )  # fmt: skip


def host_problem(host: str) -> str | None:
    """Return what is wrong with a host's name, as the rest of a sentence; None when nothing is."""
    if _HOST.fullmatch(host):
        return None
    return "is no host's name; expected one without scheme, port and path, such as plant.azure-devices.net"


def id_problem(name: str) -> str | None:
    """Return what is wrong with a device's or module's id, as the rest of a sentence; None when nothing is."""
    return (
        None if _ID.fullmatch(name) else "is no id; expected 1 to 128 letters, digits and - . % _ * ? ! ( ) , : = @ $ '"
    )


def key_problem(key: str) -> str | None:
    """Return what is wrong with a shared access key, as the rest of a sentence; None when nothing is."""
    try:
        decoded = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    return None if decoded else "is no key; expected the Base64 text that the portal gives"
