"""The sections under `bridges`: every key with its bounds, unit and default. The others are in sections.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, field_validator

from processor import connection_string
from processor.document import Flaw, Name, describe
from processor.sections import Section, Text, within
from processor.types import NS
from processor.units import ByteSize, Duration, PositiveDuration, duration_text, size_text


class Rotate(Section):
    """When a file is finished."""

    max_bytes: Annotated[ByteSize, within(1, 1 << 40, size_text)] = Field(default=64 << 20, description="of a file")
    max_age: PositiveDuration = Field(default=10 * NS, description="since a file's first sample")


class FilesBridge(Section):
    """Samples as JSON Lines, a folder a day."""

    type: Literal["files"] = Field(description="files")
    name: Name = Field(default="files", description="in metrics and logs; of one bridge only")
    path: Text = Field(description="the folder")
    rotate: Rotate = Field(default=Rotate(), description="when a file is finished")


class MqttBridge(Section):
    """Samples as messages on `<prefix>/<id>/accepted/<rule>`."""

    type: Literal["mqtt"] = Field(description="mqtt")
    name: Name = Field(default="mqtt", description="in metrics and logs; of one bridge only")


def _host(text: str) -> str:
    if problem := connection_string.host_problem(text):
        raise ValueError(f"{describe(text)} {problem}")
    return text


def _id(text: str) -> str:
    if problem := connection_string.id_problem(text):
        raise ValueError(f"{describe(text)} {problem}")
    return text


Host = Annotated[str, AfterValidator(_host)]
DeviceId = Annotated[str, AfterValidator(_id)]


class HubX509(Section):
    """A device that shows a certificate."""

    host: Host = Field(description="the hub's name, such as plant.azure-devices.net")
    device: DeviceId = Field(description="the device's id")
    cert: Text = Field(description="file with its certificate, PEM")
    key: Text = Field(description="file with the certificate's private key, PEM")


class HubSas(Section):
    """A device that signs with a key."""

    host: Host = Field(description="the hub's name, such as plant.azure-devices.net")
    device: DeviceId = Field(description="the device's id")
    key_file: Text = Field(description="file with the key, Base64 as in the portal")


class HubDps(Section):
    """A device that the Device Provisioning Service tells its hub."""

    scope: Text = Field(description="the service's ID scope, such as 0ne00000000")
    registration: DeviceId = Field(description="the registration id")
    key_file: Text | None = Field(default=None, description="file with the registration's key, Base64")
    cert: Text | None = Field(default=None, description="file with its certificate, PEM")
    key: Text | None = Field(default=None, description="file with the certificate's private key, PEM")
    host: Host = Field(
        default="global.azure-devices-provisioning.net", description="the service's name; another in national clouds"
    )

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse anything but a key, or a certificate with its private key."""
        given = {name for name in ("key_file", "cert", "key") if data.get(name) is not None}
        if given not in ({"key_file"}, {"cert", "key"}):
            found = " and ".join(sorted(given)) or "neither"
            yield Flaw((), f"found {found}, expected key_file, or cert and key")


class HubTls(Section):
    """How the hub's certificate is checked."""

    ca: Text | None = Field(default=None, description="file with the certificates to trust, PEM; absent: the system's")


class HubRate(Section):
    """How much is sent at most. What is over it waits in the outbox."""

    messages_per_second: float | None = Field(default=None, gt=0, le=100_000, description="absent: no limit")
    messages_per_day: int | None = Field(
        default=None, ge=1, le=10**12, description="as the hub bills them, in blocks of 4 KiB, from midnight UTC on"
    )


_SMALLEST_PACK: Final = 4 << 10
_LARGEST_PACK: Final = 256 << 10


def _pack_size(size: int) -> int:
    if size and not _SMALLEST_PACK <= size <= _LARGEST_PACK:
        raise ValueError(f"found {size_text(size)}, expected 0 for one sample a message, or 4KiB to 256KiB")
    return size


class HubPack(Section):
    """How many samples of a rule go into one message."""

    max_bytes: Annotated[ByteSize, AfterValidator(_pack_size)] = Field(
        default=0, description="of a message with its properties; 0: one sample a message"
    )
    linger: Annotated[Duration, within(0, 3600 * NS, duration_text)] = Field(
        default=NS, description="how long a message that is not full waits for more samples"
    )


class HubLegacy(Section):
    """How MLADE's desired properties are understood."""

    field: Text = Field(description="the field that TemperatureThresholdLow and High apply to")
    label: Text | None = Field(default=None, description="the predicted label that is kept; absent: any")


_IDENTITIES: Final = ("connection_string", "connection_string_file", "x509", "sas", "dps", "edge")


class HubBridge(Section):
    """Samples as messages to Azure IoT Hub."""

    type: Literal["iothub"] = Field(description="iothub")
    name: Name = Field(default="iothub", description="in metrics and logs; of one bridge only")
    connection_string: str | None = Field(default=None, repr=False, description="a device's or a module's")
    connection_string_file: Text | None = Field(default=None, description="file that holds it")
    x509: HubX509 | None = Field(default=None, description="a device that shows a certificate")
    sas: HubSas | None = Field(default=None, description="a device that signs with a key")
    dps: HubDps | None = Field(default=None, description="a device that the provisioning service tells its hub")
    edge: bool = Field(default=False, description="we are a module of IoT Edge, which tells us who we are")
    tls: HubTls = Field(default=HubTls(), description="how the hub's certificate is checked")
    websockets: bool = Field(default=False, description="port 443 instead of 8883")
    window: int = Field(default=64, ge=1, le=1000, description="messages that may wait for their PUBACK")
    timeout: Annotated[Duration, within(NS, 600 * NS, duration_text)] = Field(
        default=30 * NS, description="how long one waits, before the connection is made anew"
    )
    rate: HubRate = Field(default=HubRate(), description="how much is sent at most")
    pack: HubPack = Field(default=HubPack(), description="how many samples go into one message")
    upload: Literal["oversize", "never"] = Field(
        default="oversize", description="samples over 256 KB: through the hub's storage account, or dead letters"
    )
    legacy: HubLegacy | None = Field(default=None, description="how MLADE's desired properties are understood")

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse anything but one identity, and certificates that would not be looked at."""
        given = [name for name in _IDENTITIES if data.get(name) not in (None, False, "false")]
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            expected = "connection_string, connection_string_file, x509, sas, dps, edge: true"
            yield Flaw((), f"found {found}, expected exactly one of {expected}: who we are at the hub")
        tls = data.get("tls")
        if "edge" in given and isinstance(tls, dict) and tls.get("ca") is not None:
            yield Flaw(("tls", "ca"), "with edge: true IoT Edge says which certificates to trust; leave it out")

    @field_validator("connection_string")
    @classmethod
    def _sound(cls, text: str | None) -> str | None:
        if text is not None:
            connection_string.parse(text)
        return text


BridgeSettings = Annotated[FilesBridge | MqttBridge | HubBridge, Field(discriminator="type")]
