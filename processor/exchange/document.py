"""The document on the `model` topic: the keys of the configuration's `model` that may change while we run. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from processor.document import describe, parse, problems_of
from processor.errors import ConfigurationError, Problem
from processor.filter import MAX_BYTES
from processor.registry import references
from processor.sections import ModelSettings
from processor.settings import Slot

LIVE: Final = ("path", "input", "output", "temperature", "refresh", "shadow")
"""Keys that a document may have; those that it leaves out are as in the configuration."""

_MOST_KEYS: Final = 100
_FIXED: Final = "only the configuration sets this, at a start; leave it out here"
_WHY_FIXED: Final = {"window": "windows keep their readings when the model changes; " + _FIXED}

_NOBODY: Final = {"username": None, "password_file": None, "identity": "none", "client_id": None}
"""Credentials are shown to the configuration's own hosts alone: who may write a document must not have them sent."""


def parse_model(payload: bytes, slot: Slot) -> dict[str, Any]:
    """Read a document, YAML or JSON.

    Args:
        payload: as it came.
        slot: the model's part of the configuration.

    Returns:
        The document, which `wanted` takes, here and after a restart.

    Raises:
        ConfigurationError: with every problem found; paths start at the document.
    """
    data = parse(payload, max_bytes=MAX_BYTES)
    if not isinstance(data, dict):
        message = f"found {describe(data)}, expected a mapping with path: {{path: models/new.onnx}}"
        raise ConfigurationError([Problem("", message)])
    if len(data) > _MOST_KEYS:
        raise ConfigurationError([Problem("", f"found {len(data)} keys, expected only {', '.join(LIVE)}")])
    wanted(data, slot)
    return data


def wanted(document: Mapping[str, Any] | None, slot: Slot) -> Slot:
    """Return the configuration with what a document says in place of its model's keys; None: as it is.

    Raises:
        ConfigurationError: with every problem found; paths start at the document.
    """
    if document is None:
        return slot
    fixed = [key for key in document if key in ModelSettings.model_fields and key not in LIVE]
    problems = [Problem(key, _WHY_FIXED.get(key, _FIXED)) for key in fixed]
    section = None
    try:
        registry = slot.model.registry.model_dump(exclude_unset=True)
        section = ModelSettings.model_validate(
            {"registry": registry, **{key: document[key] for key in document if key not in fixed}}
        )
    except ValidationError as error:
        problems += problems_of(error)
    shadow = None if section is None else section.shadow
    for key, one in (("path", section), ("shadow.path", shadow)):
        if one is not None and not _is_allowed(one.path, slot):
            message = f"found {describe(one.path)}, expected a file in the configuration's folder or below it"
            problems.append(Problem(key, message))
    if problems or section is None:
        raise ConfigurationError(problems)
    given = {key: getattr(section, key) for key in LIVE if key in document}
    own = slot.model.shadow
    hosts = _hosts(section.path, "" if shadow is None else shadow.path)
    if not hosts <= _hosts(slot.model.path, "" if own is None else own.path):
        given["registry"] = slot.model.registry.model_copy(update=_NOBODY)
    return replace(slot, model=slot.model.model_copy(update=given))


def _is_allowed(path: str, slot: Slot) -> bool:
    """Whether a path leads elsewhere, or to a file in the configuration's folder or below."""
    return references.is_remote(path) or slot.path(path).is_relative_to(slot.path("."))


def _hosts(*paths: str) -> set[str]:
    """Return the registries and servers that paths lead to."""
    return {references.parse(path).host for path in paths if references.is_remote(path)}


def configured(slot: Slot) -> dict[str, Any]:
    """Return what the configuration says of which model it is, as JSON holds it, to be compared."""
    return slot.model.model_dump(mode="json", include={*LIVE, "registry"})


def with_windows_of(slot: Slot, other: Slot) -> Slot:
    """Return a configuration whose windows are another's, whatever the annotations of models to come say."""
    size, step = other.model.window.size, other.model.window.step
    window = slot.model.window.model_copy(update={"size": size, "step": step})
    return replace(slot, model=slot.model.model_copy(update={"window": window}), fetched=None)
