"""The part of the configuration that is about the model: its window and layout, and whether it opens so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from processor import settings
from processor.assembly import open_model
from processor.discover.choice import Choice
from processor.discover.pace import window_for
from processor.discover.wishes import layout_key
from processor.errors import ModelError
from processor.model.onnx_model import OnnxModel


class ModelPart(NamedTuple):
    """What is written about the model.

    Attributes:
        keys: of `model`.
        window: why the window is as it is, a clause; empty where there is none.
        model: as `mlade run` would open it; None: there is none, or it does not open.
        problem: why it does not, as `mlade check` tells it; empty where it does, or where nothing fits it anyway.
    """

    keys: Mapping[str, Any]
    window: str = ""
    model: OnnxModel | None = None
    problem: str = ""


def model_part(choice: Choice, path: str | None, directory: Path) -> ModelPart:
    """Return what is written about the model.

    Args:
        choice: what is active, and what the model takes.
        path: of the model, relative to `directory`; None: there is none.
        directory: where the configuration will be.
    """
    keys: dict[str, Any] = {"path": "model.onnx" if path is None else path}
    if not choice.active:
        return ModelPart(keys)
    first, wish = choice.active[0], choice.wish
    why = ""
    if first.family.signature.format != "image":
        window = window_for(first.pace, None if wish is None else wish.size)
        keys["window"] = {"size": window.size, "step": window.step}
        if window.max_gap is not None:
            keys["window"]["max_gap"] = window.max_gap
        why = window.why
    layout = None if wish is None else layout_key(wish)
    if layout is not None:
        keys["input"] = {"layout": layout}
    if path is None or choice.complaint:
        return ModelPart(keys, why)
    sources = [one.source for one in choice.active]
    made = settings.build({"id": "discover", "sources": sources, "model": keys, "filter": {"rules": []}}, directory)
    try:
        return ModelPart(keys, why, open_model(made.slots[0]))
    except ModelError as error:
        return ModelPart(keys, why, problem=str(error))
