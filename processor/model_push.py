"""What `mlade model push` does: a file, with what is said of it, into a registry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from processor import settings as configuration
from processor.errors import ConfigurationError, Problem
from processor.model.onnx_file import foreign_operators, read_file
from processor.model.session import open_session
from processor.obtaining import options_of
from processor.registry import references
from processor.registry.fetched import ANNOTATED, PREFIX, as_annotations
from processor.registry.pushing import Pushed, push
from processor.settings import Slot


def push_file(
    path: Path,
    to: str,
    *,
    configured: Slot | None,
    labels: Sequence[str] | None,
    annotations: Sequence[str],
    registry: Mapping[str, Any],
) -> Pushed:
    """Push a model.

    Args:
        path: an ONNX file.
        to: `oci://registry/repository:tag`.
        configured: what its section `model` says is said of it, and how the registry is reached; None: there is none.
        labels: of its output.
        annotations: more of them, `key=value`.
        registry: keys of `model.registry`, instead of the configuration's.

    Raises:
        ConfigurationError: what was given is wrong.
        ModelError: it is no model that could be loaded, or the registry does not take it.
        ModelUnavailable: the registry is away.
    """
    try:
        reference = references.parse(to)
    except ValueError as error:
        raise ConfigurationError([Problem("", str(error))]) from error
    said: dict[str, str] = {}
    if configured is not None:
        given = configured.given
        said |= as_annotations(given)
        slot = configured.with_model({**given, "registry": {**given.get("registry", {}), **registry}})
    else:
        model = {"path": to, "registry": dict(registry)}
        source = {"name": "s", "topics": ["t"], "fields": ["a"]}
        (slot,) = configuration.build(
            {"id": "push", "sources": [source], "model": model, "filter": {"rules": []}}, Path.cwd()
        ).slots
    if labels:
        said[f"{PREFIX}output.labels"] = json.dumps(list(labels), ensure_ascii=False)
    for one in annotations:
        key, equals, value = one.partition("=")
        if not key or not equals:
            raise ConfigurationError([Problem("--annotation", f"found {one}, expected KEY=VALUE")])
        if key.startswith(PREFIX) and key.removeprefix(PREFIX) not in ANNOTATED:
            known = ", ".join(ANNOTATED)
            raise ConfigurationError([Problem("--annotation", f"found {key}; after {PREFIX} stands one of {known}")])
        said[key] = value
    if not foreign_operators(read_file(path.resolve())):
        open_session(path)  # raises where ONNX Runtime does not take it
    return push(path, reference, said, options_of(slot))
