"""A model that is here, with what its registry says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from processor.registry.references import Reference

PREFIX: Final = "dev.mlade.model."
"""Of annotations of ours; what follows is the path of a key in the section `model`."""
ANNOTATED: Final = (
    "window.size", "window.step", "input.name", "input.layout", "input.mean", "input.std", "output.name", "output.kind",
    "output.labels", "temperature",
)  # fmt: skip
"""The keys of the section `model` that a model's annotations may set where the configuration does not."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model that is here, its bytes verified; nothing was loaded yet.

    Attributes:
        reference: what it was fetched for.
        path: of the ONNX file.
        digest: `sha256:…`: of the manifest that named it, or of the file where no manifest did.
        version: what `current` says of the reference as long as it stands for this model.
        annotations: of the manifest; empty where there is none.
        key: of the cached model; empty for a file of the user's.
        stale: why this is not what the reference stands for now but the last model that was good; empty: it is.
    """

    reference: Reference
    path: Path
    digest: str
    version: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    stale: str = ""

    @property
    def name(self) -> str:
        """The model's name in events."""
        return self.reference.name


def as_annotations(model: Mapping[str, Any]) -> dict[str, str]:
    """Return the annotations that stand for a section `model`: JSON, or text as it is."""
    found = {}
    for path in ANNOTATED:
        value: Any = model
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            # As it is where it is text and cannot be taken for anything else: a name may be a number.
            as_it_is = isinstance(value, str) and _value(value) == value
            found[PREFIX + path] = value if as_it_is else json.dumps(value, ensure_ascii=False)
    return found


def lay_under(model: Mapping[str, Any], annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return a section `model` with what annotations say where it says nothing itself."""
    filled = {key: dict(value) if isinstance(value, Mapping) else value for key, value in model.items()}
    for path in ANNOTATED:
        text = annotations.get(PREFIX + path)
        if text is None:
            continue
        *sections, last = path.split(".")
        part = filled.setdefault(sections[0], {}) if sections else filled
        part.setdefault(last, _value(text))
    return filled


def _value(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value
