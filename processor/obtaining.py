"""The configured model, brought here: what the settings say of it, and what its registry says where they do not."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from processor.errors import ConfigurationError, ModelError, ModelMisfit, Problem
from processor.registry import references
from processor.registry.cache import Cache
from processor.registry.fetched import Fetched, lay_under
from processor.registry.fetching import current, fetch, fetch_or_last_good
from processor.registry.options import Options
from processor.registry.references import Reference
from processor.settings import Settings


class Obtained(NamedTuple):
    """Settings and their model."""

    settings: Settings
    """With the model's annotations where the file says nothing."""
    fetched: Fetched
    """The same as `settings.fetched`."""


def obtain(settings: Settings, *, or_last_good: bool = True) -> Obtained:
    """Bring the configured model here.

    May take as long as `model.registry.timeout`; settings that were obtained already are returned at once.

    Args:
        settings: the configuration.
        or_last_good: whether the last good model will do where the reference cannot be asked.

    Raises:
        ModelError: there is no such model.
        ModelMisfit: its annotations do not go with the settings.
        ModelUnavailable: the place it is in is away.
    """
    if settings.fetched is not None:
        return Obtained(settings, settings.fetched)
    bring = fetch_or_last_good if or_last_good else fetch
    return _filled(settings, bring(reference_of(settings), cache_of(settings), options_of(settings)))


def obtain_copy(settings: Settings, key: str, version: str) -> Obtained | None:
    """Return what `obtain` has brought here before, without asking anybody; None: it is not here, or is damaged.

    Args:
        settings: the configuration.
        key: of what was fetched.
        version: of that.

    Raises:
        ModelMisfit: its annotations do not go with the settings.
    """
    content = Cache(cache_of(settings)).content(key)
    if content is None:
        return None
    found = Fetched(reference_of(settings), content.path, content.digest, version, content.annotations, content.key)
    return _filled(settings, found)


def obtain_last(settings: Settings) -> Obtained | None:
    """Return what `obtain` has brought here last, without asking anybody; None as in `obtain_copy`."""
    record = Cache(cache_of(settings)).record(reference_of(settings))
    return None if record is None else obtain_copy(settings, record.content, record.version)


def current_version(settings: Settings) -> str:
    """Return the `Fetched.version` of what the configured reference stands for now.

    Raises:
        ModelError, ModelUnavailable: as `obtain`.
    """
    return current(reference_of(settings), options_of(settings))


def _filled(settings: Settings, fetched: Fetched) -> Obtained:
    """Return settings with what a model's annotations say where they say nothing themselves."""
    given = settings.model_dump(exclude_unset=True, by_alias=True)
    filled = lay_under(given["model"], fetched.annotations)
    if filled == given["model"]:
        return Obtained(settings.with_fetched(fetched), fetched)
    try:
        return Obtained(settings.rebuilt({**given, "model": filled}).with_fetched(fetched), fetched)
    except ConfigurationError as error:
        origin = f"(with the annotations of {fetched.reference.text})"
        problems = [Problem(problem.path, f"{problem.message} {origin}") for problem in error.problems]
        raise ModelMisfit(problems) from error


def remember(settings: Settings) -> None:
    """Keep in the cache that the obtained model was loaded and fits: it is the last good one."""
    fetched = settings.fetched
    if fetched is not None and fetched.key:
        Cache(cache_of(settings)).loaded(fetched.reference, fetched.version, fetched.key)


def prune(settings: Settings, others: Collection[Fetched] = ()) -> None:
    """Remove cached models that nobody needs; for `mlade run` only, which owns the state directory.

    Args:
        settings: the configuration, whose model stays.
        others: models that are in force beside it.
    """
    in_force = [*others, *([] if settings.fetched is None else [settings.fetched])]
    Cache(cache_of(settings)).prune([fetched.key for fetched in in_force])


def reference_of(settings: Settings) -> Reference:
    """Return where the configured model is; of a file with its path as it can be opened from anywhere."""
    path = settings.model.path
    return references.parse(path if references.is_remote(path) else str(settings.path(path)))


def cache_of(settings: Settings) -> Path:
    """Return where fetched models are kept."""
    return settings.state_path / "models"


def options_of(settings: Settings) -> Options:
    """Return how the configured model is fetched.

    Raises:
        ModelError: a file that it names cannot be read.
    """
    registry = settings.model.registry
    password, docker_config = None, dockers()
    if registry.docker_config is not None:
        docker_config = settings.path(registry.docker_config)
        if not os.access(docker_config, os.R_OK):
            raise ModelError(f"model.registry.docker_config: {docker_config} is not there, or may not be read")
    if registry.password_file is not None:
        path = settings.path(registry.password_file)
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
        ca=None if registry.ca is None else settings.path(registry.ca),
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
