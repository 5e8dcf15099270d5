"""The document on the `model` topic: the keys of the configuration's `model` that may change while we run. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from processor.document import describe, parse, problems_of
from processor.errors import ConfigurationError, Problem
from processor.filter import MAX_BYTES
from processor.registry import references
from processor.sections import ModelSettings
from processor.settings import Settings

LIVE: Final = ("path", "input", "output", "temperature", "refresh", "shadow")
"""Keys that a document may have; those that it leaves out are as in the configuration."""

_FIXED: Final = "only the configuration sets this, at a start; leave it out here"
_WHY_FIXED: Final = {"window": "windows keep their readings when the model changes; " + _FIXED}


def parse_model(payload: bytes, settings: Settings) -> dict[str, Any]:
    """Read a document, YAML or JSON.

    Args:
        payload: as it came.
        settings: the configuration.

    Returns:
        The document, which `wanted` takes, here and after a restart.

    Raises:
        ConfigurationError: with every problem found; paths start at the document.
    """
    data = parse(payload, max_bytes=MAX_BYTES)
    if not isinstance(data, dict):
        message = f"found {describe(data)}, expected a mapping with path: {{path: models/new.onnx}}"
        raise ConfigurationError([Problem("", message)])
    wanted(data, settings)
    return data


def wanted(document: Mapping[str, Any] | None, settings: Settings) -> Settings:
    """Return the configuration with what a document says in place of its model's keys; None: as it is.

    Raises:
        ConfigurationError: with every problem found; paths start at the document.
    """
    if document is None:
        return settings
    fixed = [key for key in document if key in ModelSettings.model_fields and key not in LIVE]
    problems = [Problem(key, _WHY_FIXED.get(key, _FIXED)) for key in fixed]
    section = None
    try:
        registry = settings.model.registry.model_dump(exclude_unset=True)
        section = ModelSettings.model_validate(
            {"registry": registry, **{key: document[key] for key in document if key not in fixed}}
        )
    except ValidationError as error:
        problems += problems_of(error)
    shadow = None if section is None else section.shadow
    for key, one in (("path", section), ("shadow.path", shadow)):
        if one is not None and not _is_allowed(one.path, settings):
            message = f"found {describe(one.path)}, expected a file in the configuration's folder or below it"
            problems.append(Problem(key, message))
        if one is not None and not _may_have_password(one.path, settings):
            message = f"found {describe(one.path)}, and the configuration's user name and password are for another host"
            problems.append(Problem(key, f"{message}; credentials for several hosts belong in Docker's configuration"))
    if problems or section is None:
        raise ConfigurationError(problems)
    given = {key: getattr(section, key) for key in LIVE if key in document}
    return settings.model_copy(update={"model": settings.model.model_copy(update=given)})


def _is_allowed(path: str, settings: Settings) -> bool:
    """Whether a path leads elsewhere, or to a file in the configuration's folder or below."""
    return references.is_remote(path) or settings.path(path).is_relative_to(settings.path("."))


def _may_have_password(path: str, settings: Settings) -> bool:
    """Whether a host may be given the configured password: who writes on the topic must not have it sent elsewhere."""
    if settings.model.registry.username is None:
        return True
    shadow = settings.model.shadow
    own = {references.parse(one.path).host for one in (settings.model, shadow) if one is not None} - {""}
    return not own or references.parse(path).host in {"", *own}


def configured(settings: Settings) -> dict[str, Any]:
    """Return what the configuration says of which model it is, as JSON holds it, to be compared."""
    return settings.model.model_dump(mode="json", include={*LIVE, "registry"})


def with_windows_of(settings: Settings, other: Settings) -> Settings:
    """Return a configuration whose windows are another's, whatever the annotations of models to come say."""
    size, step = other.model.window.size, other.model.window.step
    window = settings.model.window.model_copy(update={"size": size, "step": step})
    changed = settings.model_copy(update={"model": settings.model.model_copy(update={"window": window})})
    return changed.with_fetched(None)
