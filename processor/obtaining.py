"""The configured model, brought here: what the settings say of it, and what its registry says where they do not."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from processor.errors import ConfigurationError, ModelError, ModelMisfit, Problem
from processor.registry import references
from processor.registry.cache import Cache
from processor.registry.fetched import Fetched, lay_under
from processor.registry.fetching import current, fetch, fetch_or_last_good
from processor.registry.options import Options
from processor.registry.references import Reference
from processor.settings import Settings, Slot


class Obtained(NamedTuple):
    """A slot and its model."""

    slot: Slot
    """With the model's annotations where the file says nothing."""
    fetched: Fetched
    """The same as `slot.fetched`."""


def obtain(slot: Slot, *, or_last_good: bool = True) -> Obtained:
    """Bring a configured model here.

    May take as long as `model.registry.timeout`; what was obtained already is returned at once.

    Args:
        slot: the model's part of the configuration.
        or_last_good: whether the last good model will do where the reference cannot be asked.

    Raises:
        ModelError: there is no such model.
        ModelMisfit: its annotations do not go with what the file says.
        ModelUnavailable: the place it is in is away.
    """
    if slot.fetched is not None:
        return Obtained(slot, slot.fetched)
    bring = fetch_or_last_good if or_last_good else fetch
    return _filled(slot, bring(reference_of(slot), cache_of(slot.settings), options_of(slot)))


def obtain_copy(slot: Slot, key: str, version: str) -> Obtained | None:
    """Return what `obtain` has brought here before, without asking anybody; None: it is not here, or is damaged.

    Args:
        slot: the model's part of the configuration.
        key: of what was fetched.
        version: of that.

    Raises:
        ModelMisfit: its annotations do not go with what the file says.
    """
    content = Cache(cache_of(slot.settings)).content(key)
    if content is None:
        return None
    found = Fetched(reference_of(slot), content.path, content.digest, version, content.annotations, content.key)
    return _filled(slot, found)


def obtain_last(slot: Slot) -> Obtained | None:
    """Return what `obtain` has brought here last, without asking anybody; None as in `obtain_copy`."""
    record = Cache(cache_of(slot.settings)).record(reference_of(slot))
    return None if record is None else obtain_copy(slot, record.content, record.version)


def current_version(slot: Slot) -> str:
    """Return the `Fetched.version` of what the configured reference stands for now.

    Raises:
        ModelError, ModelUnavailable: as `obtain`.
    """
    return current(reference_of(slot), options_of(slot))


def _filled(slot: Slot, fetched: Fetched) -> Obtained:
    """Return a slot with what its model's annotations say where the file says nothing."""
    filled = lay_under(slot.given, fetched.annotations)
    obtained = replace(slot, fetched=fetched)
    try:
        return Obtained(obtained if filled == slot.given else obtained.with_model(filled), fetched)
    except ConfigurationError as error:
        origin = f"(with the annotations of {fetched.reference.text})"
        problems = [Problem(problem.path, f"{problem.message} {origin}") for problem in error.problems]
        raise ModelMisfit(problems) from error


def remember(slot: Slot) -> None:
    """Keep in the cache that the obtained model was loaded and fits: it is the last good one."""
    fetched = slot.fetched
    if fetched is not None and fetched.key:
        Cache(cache_of(slot.settings)).loaded(fetched.reference, fetched.version, fetched.key)


def prune(settings: Settings, in_force: Collection[Fetched]) -> None:
    """Remove cached models that nobody needs; for `mlade run` only, which owns the state directory.

    Args:
        settings: the configuration.
        in_force: models that stay.
    """
    Cache(cache_of(settings)).prune([fetched.key for fetched in in_force])


def reference_of(slot: Slot) -> Reference:
    """Return where a configured model is; of a file with its path as it can be opened from anywhere."""
    path = slot.model.path
    return references.parse(path if references.is_remote(path) else str(slot.path(path)))


def cache_of(settings: Settings) -> Path:
    """Return where fetched models are kept."""
    return settings.state_path / "models"


def options_of(slot: Slot) -> Options:
    """Return how a configured model is fetched.

    Raises:
        ModelError: a file that it names cannot be read.
    """
    registry = slot.model.registry
    password, docker_config = None, dockers()
    if registry.docker_config is not None:
        docker_config = slot.path(registry.docker_config)
        if not os.access(docker_config, os.R_OK):
            raise ModelError(f"model.registry.docker_config: {docker_config} is not there, or may not be read")
    if registry.password_file is not None:
        path = slot.path(registry.password_file)
        try:
            password = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"model.registry.password_file: {path} cannot be read: {_reason(error)}") from error
    return Options(
        max_bytes=registry.max_bytes,
        timeout=registry.timeout / 1e9,
        username=registry.username,
        password=password,
        docker_config=docker_config,
        identity=registry.identity,
        client_id=registry.client_id,
        ca=None if registry.ca is None else slot.path(registry.ca),
        insecure=registry.insecure,
        file=registry.file,
    )


def dockers() -> Path | None:
    """Return the configuration of Docker for the user we are; None: there is none that we may read."""
    folder = os.environ.get("DOCKER_CONFIG") or str(Path("~", ".docker"))
    path = Path(os.path.expanduser(folder)) / "config.json"  # noqa: PTH111 - pathlib's own raises where there is no home
    return path if os.access(path, os.R_OK) else None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error.strerror or error)
