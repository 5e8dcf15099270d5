"""The sections of the configuration file: every key with its bounds, unit and default.

Durations are integer nanoseconds and sizes are bytes once read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from processor import document
from processor.document import Flaw
from processor.registry import references
from processor.types import NS
from processor.units import ByteSize, Duration, PositiveDuration, duration_text, size_text

_USER_INFO: Final = re.compile(r"//[^/]*@")

Text = Annotated[str, Field(min_length=1)]
Layout = Literal["NCT", "NTC", "NT", "NC", "NCHW", "NHWC"]


def within(low: int, high: int, write: Callable[[int], str]) -> AfterValidator:
    """Return a check of bounds that says them as users write them."""

    def check(value: int) -> int:
        if not low <= value <= high:
            raise ValueError(f"found {write(value)}, expected {write(low)} to {write(high)}")
        return value

    return AfterValidator(check)


def without_password(url: str) -> str:
    """Return a URL that may be shown: without user and password."""
    return _USER_INFO.sub("//", url)


class Section(document.Section):
    """A mapping in the file. Numbers and truth values may be text, because in the environment everything is."""

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        return {
            key: _plain(value) if key in cls.model_fields and _is_number(cls, key) else value
            for key, value in data.items()
        }


def _is_number(section: type[Section], key: str) -> bool:
    expected = section.model_fields[key].annotation
    parts = {expected, *get_args(expected)}
    return bool((parts | {get_args(part)[0] for part in parts if get_origin(part) is Annotated}) & {bool, int, float})


def _plain(value: object) -> object:
    try:
        plain = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value
    return plain if isinstance(plain, bool | int | float) else value


class Tls(Section):
    """Files for TLS to the broker, PEM."""

    ca: str | None = Field(default=None, description="certificates to trust; absent: the system's")
    cert: str | None = Field(default=None, description="our certificate")
    key: str | None = Field(default=None, description="its private key")
    insecure_skip_verify: bool = Field(default=False, description="do not check the broker's certificate")


class Broker(Section):
    """The MQTT broker to plug into."""

    url: str = Field(default="mqtt://127.0.0.1:1883", description="mqtt, mqtts, ws or wss")
    username: str | None = Field(default=None, description="absent: anonymous")
    password: str | None = Field(default=None, repr=False, description="better: password_file")
    password_file: str | None = Field(default=None, description="file that holds the password")
    tls: Tls = Field(default=Tls(), description="files for mqtts and wss")
    protocol: Literal[5, "3.1.1"] = Field(default=5, description="5 or 3.1.1")
    session_expiry: Duration = Field(
        default=3600 * NS, description="how long the broker keeps what arrives while we are away; 0: not at all"
    )
    receive_maximum: int = Field(
        default=1000, ge=1, le=65535, description="messages the broker may send before one is acknowledged"
    )
    max_payload: Annotated[ByteSize, within(1, 256 << 20, size_text)] = Field(
        default=1 << 20, description="larger ones are dead letters"
    )

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse TLS files that would not be used."""
        url, tls = data.get("url", "mqtt:"), data.get("tls")
        tls = tls if isinstance(tls, dict) else {}
        unused = [key for key in ("ca", "cert", "key") if tls.get(key) is not None]
        if unused and isinstance(url, str) and url.startswith(("mqtt:", "ws:")):
            yield Flaw(("tls", unused[0]), "this connection is not encrypted; broker.url needs mqtts:// or wss://")
        if tls.get("key") is not None and tls.get("cert") is None:
            yield Flaw(("tls", "key"), "a private key needs its certificate, broker.tls.cert")

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("mqtt", "mqtts", "ws", "wss") or not parts.hostname or port == 0:
            shown = document.describe(without_password(url))
            raise ValueError(
                f"found {shown}, expected a broker's address with mqtt, mqtts, ws or wss: mqtt://host:1883"
            )
        return url

    @field_validator("protocol", mode="before")
    @classmethod
    def _from_environment(cls, protocol: object) -> object:
        return 5 if protocol == "5" else protocol

    @field_validator("password_file")
    @classmethod
    def _one_password(cls, password_file: str | None, info: ValidationInfo) -> str | None:
        if password_file and info.data.get("password"):
            raise ValueError("give password or password_file, not both")
        return password_file


class Window(Section):
    """What the model sees of a stream."""

    size: int = Field(default=1, ge=1, le=1_000_000, description="readings in a window")
    step: int = Field(default=1, ge=1, le=1_000_000, description="readings from one window to the next")
    max_gap: Duration | None = Field(default=None, description="a longer pause between two readings empties the window")
    max_streams: int = Field(
        default=10_000, ge=1, le=1_000_000, description="beyond them the least recently heard one is forgotten"
    )


class Input(Section):
    """How a window becomes the model's input."""

    name: str | None = Field(default=None, description="of the model's input; absent: the only one")
    layout: Layout | None = Field(default=None, description="absent: from the input's rank: NC or NT, NCT, NCHW")
    mean: float | list[float] | None = Field(default=None, description="subtracted; one, or one a channel")
    std: float | list[float] | None = Field(default=None, description="divided by, after mean; one, or one a channel")

    @field_validator("std")
    @classmethod
    def _not_zero(cls, std: float | list[float] | None) -> float | list[float] | None:
        values = std if isinstance(std, list) else [] if std is None else [std]
        if any(value == 0 for value in values):
            raise ValueError("std divides: 0 is not possible")
        return std


class Output(Section):
    """How the model's answer is read."""

    name: str | None = Field(default=None, description="of the model's output; absent: the likeliest")
    kind: Literal["auto", "probabilities", "logits", "score", "value"] = Field(
        default="auto", description="what it means; auto: by what the model gives for trial windows"
    )
    labels: list[str] | None = Field(
        default=None, min_length=1, description="absent: the model's metadata's, else the class indices"
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _text(cls, labels: object) -> object:
        if not isinstance(labels, list):
            return labels
        return [str(label) if isinstance(label, int) and not isinstance(label, bool) else label for label in labels]


class Batch(Section):
    """How many messages are judged at once."""

    max_size: Annotated[int, Field(ge=1, le=65536)] | Literal["auto"] = Field(
        default=512,
        description="messages; auto: 512, and as many windows in a call of the model as is fastest",
    )
    max_delay: Annotated[Duration, within(0, 10 * NS, duration_text)] = Field(
        default=0, description="how long a small batch waits for company"
    )

    @property
    def messages(self) -> int:
        """How many messages are carried through at once at most."""
        return 512 if self.max_size == "auto" else self.max_size


class Registry(Section):
    """How a model is fetched that is not on this machine."""

    username: str | None = Field(default=None, description="absent: as Docker's configuration says, else anonymous")
    password_file: str | None = Field(default=None, description="file that holds the password, or an access token")
    identity: Literal["none", "managed"] = Field(
        default="none", description="managed: this machine's Azure identity, for Azure Container Registry"
    )
    client_id: str | None = Field(default=None, description="of a managed identity that is assigned by the user")
    docker_config: str | None = Field(
        default=None, description="absent: $DOCKER_CONFIG/config.json, else ~/.docker/config.json where it is"
    )
    ca: str | None = Field(default=None, description="certificates to trust, PEM; absent: the system's")
    insecure: bool = Field(default=False, description="plain HTTP to other machines than this one")
    file: Text | None = Field(default=None, description="the model's path in an image that holds several")
    max_bytes: Annotated[ByteSize, within(1, 1 << 40, size_text)] = Field(
        default=1 << 30, description="that a model may have, and its image's layers, packed and unpacked"
    )
    timeout: Annotated[PositiveDuration, within(NS, 86400 * NS, duration_text)] = Field(
        default=1800 * NS, description="how long a fetch may take as a whole; 30s without a byte end it, too"
    )

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse credentials that are half there, or twice."""
        given = {key for key in ("username", "password_file") if data.get(key) is not None}
        if len(given) == 1:
            other = ({"username", "password_file"} - given).pop()
            yield Flaw((given.pop(),), f"it goes with {other}: give both or neither")
        if given and data.get("identity") == "managed":
            yield Flaw(("identity",), "give a user name and a password, or identity: managed, not both")
        if data.get("client_id") is not None and data.get("identity") != "managed":
            yield Flaw(("client_id",), "it is a managed identity's; it goes with identity: managed")


def _known_reference(path: str) -> str:
    references.parse(path)
    return path


ModelPath = Annotated[Text, AfterValidator(_known_reference)]


class ShadowSettings(Section):
    """A second model that judges a part of the windows beside the model; its answers decide nothing by themselves.

    `measure: disagreement` in a filter's rule is how far the two lie apart.
    """

    path: ModelPath = Field(
        description="as the model's; fetched as model.registry says where it is not on this machine"
    )
    cpu: float = Field(
        default=0.2, gt=0, lt=1, description="its largest part of both models' computing time; it is measured"
    )
    sample: float | None = Field(
        default=None, gt=0, le=1, description="its part of the windows, instead of cpu: the same on every machine"
    )
    compare: Literal["probabilities", "labels"] = Field(
        default="probabilities", description="labels: disagreement is 0 or 1, by the likeliest label"
    )
    input: Input | None = Field(default=None, description="how a window becomes its input; absent: as the model's")
    output: Output | None = Field(default=None, description="how its answer is read; absent: as the model's")
    temperature: float | None = Field(default=None, gt=0, description="its calibration; absent: as the model's")

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse two ways to say how many windows it judges."""
        if data.get("cpu") is not None and data.get("sample") is not None:
            yield Flaw(("sample",), "give cpu, from which the part of the windows follows, or sample, not both")


class ModelSettings(Section):
    """The model and what it wants."""

    path: ModelPath = Field(description="an ONNX file, relative to this one; https://…; oci://registry/repository:tag")
    registry: Registry = Field(default=Registry(), description="how it is fetched where it is not on this machine")
    refresh: Annotated[Duration, within(NS, 36_500 * 86400 * NS, duration_text)] | None = Field(
        default=None, description="how often to look whether path leads to another model, which then takes over"
    )
    window: Window = Field(default=Window(), description="what the model sees of a stream")
    input: Input = Field(default=Input(), description="how a window becomes its input")
    output: Output = Field(default=Output(), description="how its answer is read")
    temperature: float = Field(
        default=1.0, gt=0, description="calibrates logits and probabilities; above 1 is less certain"
    )
    batch: Batch = Field(default=Batch(), description="how many messages are judged at once")
    threads: int = Field(default=1, ge=1, le=256, description="of ONNX Runtime")
    providers: list[Literal["cuda", "openvino", "cpu"]] = Field(
        default=["cpu"], min_length=1, description="what runs it, the best first; what is not there is passed over"
    )
    custom_ops: list[Text] = Field(
        default=[], description="libraries of operators that are not ONNX's, .so files; they may do anything"
    )
    shadow: ShadowSettings | None = Field(default=None, description="a second model beside it; absent: there is none")

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse to fetch a model over a connection that anybody can change, unless that is wanted."""
        shadow, registry = data.get("shadow"), data.get("registry")
        for where, section in (("path",), data), (("shadow", "path"), shadow):
            path = section.get("path") if isinstance(section, dict) else None
            if isinstance(path, str) and path.lower().startswith("http://"):
                insecure = registry.get("insecure") if isinstance(registry, dict) else None
                host = re.split("[/?#]", path[7:], maxsplit=1)[0]
                if str(insecure).lower() != "true" and not references.is_loopback(host):
                    text = "anybody on the way could change it: use https, or model.registry.insecure: true"
                    yield Flaw(where, text)


class SlotSettings(ModelSettings):
    """One of several models, with its filter."""

    filter: Text | dict[str, Any] = Field(description="what of its windows is kept: a file, or the mapping itself")


class OutboxSettings(Section):
    """The durable queue of accepted samples."""

    max_bytes: Annotated[ByteSize, within(1, 1 << 50, size_text)] = Field(
        default=1 << 30, description="of the samples that wait"
    )
    max_age: PositiveDuration = Field(default=7 * 86400 * NS, description="older samples are dropped, and counted")
    when_full: Literal["drop_oldest", "drop_newest", "block"] = Field(
        default="drop_oldest", description="what gives way; block: nothing is acknowledged until there is room"
    )
    durability: Literal["full", "normal"] = Field(
        default="full", description="full: an fsync each commit; normal: a power cut may cost the last ones"
    )


class MetricsSettings(Section):
    """The metrics topic."""

    publish_every: Annotated[Duration, within(NS // 10, 3600 * NS, duration_text)] = Field(
        default=NS, description="how often"
    )


class HttpSettings(Section):
    """Health and Prometheus metrics."""

    listen: str = Field(default="127.0.0.1:9464", description="/healthz /readyz /metrics: host:port")

    @field_validator("listen")
    @classmethod
    def _address(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:  # noqa: PLR2004 - the highest port
            raise ValueError(f"found {document.describe(listen)}, expected host:port, such as 127.0.0.1:9464")
        return listen
