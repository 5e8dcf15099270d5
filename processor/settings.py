"""The configuration file as a whole: how it is read, what its sections have to do with each other.

Paths are relative to the configuration file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import Field, PrivateAttr, ValidationError, field_validator

from processor import document, fitting
from processor.bridge_sections import BridgeSettings, FilesBridge, HubBridge, HubLegacy, MqttBridge
from processor.document import Flaw, Name
from processor.environment import Overlay, lay_over
from processor.errors import ConfigurationError, FilterRejected, Problem
from processor.filter import FilterDocument, parse_filter, validate_filter
from processor.mqtt.client import Tls as TlsFiles
from processor.registry.fetched import Fetched
from processor.sections import (
    Broker,
    HttpSettings,
    Layout,
    MetricsSettings,
    ModelSettings,
    OutboxSettings,
    Section,
    SlotSettings,
    Text,
    Tls,
    without_password,
)
from processor.source_sections import Source
from processor.types import MODEL_SLOT

__all__ = [
    "BridgeSettings",
    "FilesBridge",
    "HubBridge",
    "HubLegacy",
    "Layout",
    "MqttBridge",
    "Settings",
    "Slot",
    "Source",
    "as_written",
    "build",
    "check",
    "client_options",
    "load",
    "load_filter",
    "read",
    "read_filter",
    "resolve",
    "without_password",
]

_SOURCE: Final = re.compile(r"\bsources\[([0-9]+)\]")
_MODEL: Final = re.compile(r"(?<![\w.])model\.(?=[a-z])")
_FILTER: Final = re.compile(r"^filter(?=$|[.\[])")


class Settings(Section):
    """The whole file."""

    id: Name = Field(description="in topics, client id and events")
    topic_prefix: str = Field(default="mlade", description="all own topics start <prefix>/<id>/")
    state_dir: Text = Field(default="./state", description="outbox, windows' journal, last good filter; of one process")
    broker: Broker | None = Field(default=Broker(), description="null: there is none, and all sources are inputs")
    sources: list[Source] = Field(min_length=1, description="what is read; all that feed one model look alike")
    model: ModelSettings | None = Field(default=None, description="what judges windows")
    filter: Text | dict[str, Any] | None = Field(
        default=None, description="what is kept: a file beside this one, or the mapping itself"
    )
    models: dict[Name, SlotSettings] = Field(
        default={}, description="instead of model and filter, several of them by name; each source says which it feeds"
    )
    outbox: OutboxSettings = Field(default=OutboxSettings(), description="the durable queue of accepted samples")
    bridges: list[BridgeSettings] = Field(default=[MqttBridge(type="mqtt")], description="where samples go")
    publish_inference: bool = Field(default=False, description="every prediction to <prefix>/<id>/inference/<stream>")
    metrics: MetricsSettings = Field(default=MetricsSettings(), description="the metrics topic")
    http: HttpSettings | None = Field(default=HttpSettings(), description="health and Prometheus metrics; null: none")

    _directory: Path = PrivateAttr(default_factory=Path)

    @field_validator("topic_prefix")
    @classmethod
    def _plain_topic(cls, prefix: str) -> str:
        if not prefix or prefix[0] in "/$" or prefix[-1] == "/" or any(c in prefix for c in "+#\0"):
            found = f"found {document.describe(prefix)}, expected the first levels of our topics, such as mlade:"
            raise ValueError(f"{found} no wildcards, no / at either end, no $ in front")
        return prefix

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse what does not fit between sections."""
        return fitting.flaws(data)

    @property
    def slots(self) -> list[Slot]:
        """The models with what belongs to each, in the file's order; the one of `model` is `default`."""
        if self.model is not None and self.filter is not None:
            return [Slot(MODEL_SLOT, self.model, self.filter, range(len(self.sources)), self)]
        only = next(iter(self.models))  # where a source does not say which it feeds, there is one
        fed = [source.model or only for source in self.sources]
        return [
            Slot(name, one, one.filter, [at for at, feeds in enumerate(fed) if feeds == name], self)
            for name, one in self.models.items()
        ]

    def path(self, name: str) -> Path:
        """Return a path of the file's as one that can be opened from anywhere."""
        return resolve(self._directory, name)

    @property
    def legacy(self) -> HubLegacy | None:
        """How MLADE's desired properties are understood; None: they are ignored."""
        return None if self.hub is None else self.hub.legacy

    @property
    def hub(self) -> HubBridge | None:
        """The bridge whose hub steers us, the first of its type."""
        return next((one for one in self.bridges if isinstance(one, HubBridge)), None)

    @property
    def state_path(self) -> Path:
        """Where the state is kept."""
        return self.path(self.state_dir)

    @property
    def root(self) -> str:
        """What every own topic starts with, without the last slash."""
        return f"{self.topic_prefix}/{self.id}"

    @property
    def client_id(self) -> str:
        """MQTT client id; fixed, because the broker keeps our session under it."""
        return f"{self.topic_prefix}-{self.id}".replace("/", "-")

    @property
    def needed_broker(self) -> Broker:
        """The broker, for what does not go without.

        Raises:
            ConfigurationError: there is none.
        """
        if self.broker is None:
            raise ConfigurationError([Problem("broker", "found null, and this needs an MQTT broker")])
        return self.broker

    @property
    def password(self) -> str | None:
        """The broker's password, read from its file if that is where it is.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        broker = self.needed_broker
        if broker.password_file is None:
            return broker.password
        try:
            return self.path(broker.password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError([Problem("broker.password_file", f"cannot be read: {error}")]) from error


@dataclass(frozen=True, slots=True)
class Slot:
    """A model slot: one model of a configuration, with its filter and its sources.

    Attributes:
        name: as in `models`; `default` where there is one model.
        model: what judges windows.
        filter: a file, or the mapping itself.
        positions: of its sources, in the configuration.
        settings: the whole configuration.
        fetched: the model, where `obtaining.obtain` has brought it here.
    """

    name: str
    model: ModelSettings
    filter: str | dict[str, Any]
    positions: Sequence[int]
    settings: Settings
    fetched: Fetched | None = None

    @property
    def sources(self) -> list[Source]:
        """What feeds it, at least one."""
        return [self.settings.sources[position] for position in self.positions]

    @property
    def fields(self) -> list[str]:
        """The fields of all its sources, each once."""
        return list(dict.fromkeys(field for source in self.sources for field in source.fields))

    @property
    def root(self) -> str:
        """What the topics about this model start with, without the last slash."""
        return f"{self.settings.root}/{self.below}".removesuffix("/")

    @property
    def below(self) -> str:
        """What stands between the processor's own root and the topics about this model; empty, or ends with a slash."""
        return "" if self.name == MODEL_SLOT else f"models/{self.name}/"

    @property
    def given(self) -> dict[str, Any]:
        """The keys of `model`, as the file has them."""
        return self.model.model_dump(exclude_unset=True, by_alias=True, exclude={"filter"})

    def path(self, name: str) -> Path:
        """Return a path of the file's as one that can be opened from anywhere."""
        return self.settings.path(name)

    def with_window_size(self, size: int) -> Slot:
        """Return the same with another `window.size`."""
        window = self.model.window.model_copy(update={"size": size})
        return replace(self, model=self.model.model_copy(update={"window": window}))

    def with_model(self, data: Mapping[str, Any]) -> Slot:
        """Return the same with other keys of the model, as in the file, checked with the whole configuration.

        Raises:
            ConfigurationError: with every problem.
        """
        given = self.settings.model_dump(exclude_unset=True, by_alias=True)
        if self.settings.model is not None:
            given["model"] = data
        else:
            given["models"] = given["models"] | {self.name: {**data, "filter": self.filter}}
        rebuilt = build(given, self.settings.path("."))
        (slot,) = [slot for slot in rebuilt.slots if slot.name == self.name]
        return replace(slot, positions=self.positions, fetched=self.fetched)

    def named(self, problems: Iterable[Problem]) -> list[Problem]:
        """Return problems, which are told as if this were the only model, with the keys as the file has them."""
        where = "model" if self.settings.model is not None else f"models.{self.name}"
        return as_written(problems, where, self.positions)


def as_written(problems: Iterable[Problem], where: str, positions: Sequence[int]) -> list[Problem]:
    """Return problems of a model, which are told as if it were the only one, with the keys as the file has them.

    Args:
        problems: of the model, its filter and its sources.
        where: `model`, or its place in `models`.
        positions: of its sources, in the configuration.
    """

    def place(found: re.Match[str]) -> str:
        number = int(found[1])
        return f"sources[{positions[number] if number < len(positions) else number}]"

    def told(text: str) -> str:
        text = _SOURCE.sub(place, text)
        return text if where == "model" else _FILTER.sub(f"{where}.filter", _MODEL.sub(f"{where}.", text))

    return [Problem(told(problem.path), told(problem.message)) for problem in problems]


def resolve(directory: Path, name: str) -> Path:
    """Return a path of a configuration file in `directory` as one that can be opened from anywhere."""
    # pathlib's own raise for an unknown user's home, and for links in a circle; these leave them as they are.
    return Path(os.path.realpath(directory / os.path.expanduser(name)))  # noqa: PTH111


def read(path: Path, environment: Mapping[str, str] = os.environ) -> Overlay:
    """Read a configuration file, with what the environment sets over it, without checking what it says.

    Raises:
        ConfigurationError: the file cannot be read, or is no YAML mapping.
    """
    try:
        data = document.parse(path.read_bytes())
    except OSError as error:
        raise ConfigurationError([Problem(str(path), f"cannot be read: {error.strerror}")]) from error
    except ConfigurationError as error:
        raise ConfigurationError(Problem(str(path), problem.message) for problem in error.problems) from error
    data = {} if data is None else data
    if not isinstance(data, dict):
        message = f"found {document.describe(data)}, expected a mapping with id, sources, model and filter"
        raise ConfigurationError([Problem(str(path), message)])
    return lay_over(data, environment, list(Settings.model_fields))


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read a configuration file, with what the environment sets over it.

    Raises:
        ConfigurationError: with every problem.
    """
    return check(read(path, environment), path.resolve().parent)


def check(overlay: Overlay, directory: Path) -> Settings:
    """Check what was read; its paths are relative to `directory`.

    Raises:
        ConfigurationError: with every problem.
    """
    problems = list(overlay.problems)
    try:
        settings = build(overlay.data, directory)
    except ConfigurationError as error:
        problems += overlay.name_variables(error.problems)
    if problems:
        raise ConfigurationError(problems)
    return settings


def build(data: Mapping[str, Any], directory: Path) -> Settings:
    """Check a configuration that was read already; its paths are relative to `directory`.

    Raises:
        ConfigurationError: with every problem.
    """
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(document.problems_of(error)) from error
    settings._directory = directory  # noqa: SLF001 - where it was read is not in the file
    return settings


def load_filter(slot: Slot) -> tuple[FilterDocument, bytes]:
    """Return a model's configured filter and the text it was made from.

    Raises:
        ConfigurationError: with every problem, each path starting with `filter`.
    """
    return read_filter(slot.filter, slot.path)


def read_filter(given: str | dict[str, Any], locate: Callable[[str], Path]) -> tuple[FilterDocument, bytes]:
    """Return a filter and the text it was made from.

    Args:
        given: the mapping itself, or the name of its file.
        locate: finds that file.

    Raises:
        ConfigurationError: with every problem, each path starting with `filter`.
    """
    try:
        if isinstance(given, dict):
            return validate_filter(given), json.dumps(given, sort_keys=True).encode()
        path = locate(given)
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ConfigurationError([Problem("filter", f"{path} cannot be read: {error.strerror}")]) from error
        return parse_filter(text), text
    except FilterRejected as error:
        whole = "" if isinstance(given, dict) else f"{given}: "
        raise ConfigurationError(
            Problem(f"filter.{problem.path}", problem.message)
            if problem.path
            else Problem("filter", whole + problem.message)
            for problem in error.problems
        ) from error


def client_options(settings: Settings) -> dict[str, Any]:
    """Return how to reach the broker, as `mqtt.new_client` takes it."""
    broker = settings.needed_broker
    files = {key: None if name is None else str(settings.path(name)) for key, name in _tls_files(broker.tls).items()}
    return {
        "url": broker.url,
        "username": broker.username,
        "password": settings.password,
        "tls": TlsFiles(**files, insecure_skip_verify=broker.tls.insecure_skip_verify),
        "protocol": broker.protocol,
    }


def _tls_files(tls: Tls) -> dict[str, str | None]:
    return {"ca": tls.ca, "cert": tls.cert, "key": tls.key}
