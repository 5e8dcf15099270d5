"""The shadow as the configuration wants it: loaded, compared with the model, and its part decided."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from processor.assembly import obtain_model, open_model
from processor.database import FILE_NAME
from processor.errors import ConfigurationError, ModelError, ModelMisfit, Problem
from processor.model.onnx_model import OnnxModel
from processor.obtaining import obtain
from processor.sections import ModelSettings, ShadowSettings
from processor.settings import Settings
from processor.shadow.comparison import Comparison, problems
from processor.shadow.judge import Shadow
from processor.shadow.timing import Kept, find, measure, memory, part_of, read
from processor.slot_state import meta_key
from processor.types import MODEL_SLOT

META: Final = "shadow"
"""Under what the store keeps what was measured."""
_OWN: Final = tuple(name for name in ShadowSettings.model_fields if name in ModelSettings.model_fields)
"""Keys that the shadow may have for itself."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A shadow, ready; or none, where none is wanted.

    Attributes:
        shadow: judges windows; None: there is none.
        model: the same second model, with what was found out about it.
        memory: what was measured, to be kept; a restart then has the same part.
    """

    shadow: Shadow | None
    model: OnnxModel | None
    memory: list[Kept]

    def describe(self) -> Iterator[tuple[str, str]]:
        """Yield what an operator wants to know of it, a line each, by its heading."""
        if self.shadow is None or self.model is None:
            return
        said = self.model.describe()
        for heading in ("model", "sha256", "input", "output", "kind", "labels", "execution", "temperature"):
            if heading in said:
                yield "shadow" if heading == "model" else f"shadow {heading}", said[heading]
        yield "shadow judges", self.shadow.share()


def open_shadow(settings: Settings, model: OnnxModel, known: Sequence[Kept] = ()) -> Opened:
    """Load the configured shadow, if there is one.

    Args:
        settings: the configuration.
        model: the one it is compared with.
        known: what was measured before.

    Raises:
        ModelError: it cannot be loaded, does not fit what the sources give, or cannot be compared with the model.
    """
    wanted, as_model = settings.model.shadow, obtain_shadow(settings)
    if wanted is None or as_model is None:
        return Opened(None, None, list(known))
    second = _load(as_model)
    if misfits := list(problems(model, second, wanted.compare)):
        raise ModelMisfit(misfits)
    shadow = Shadow(second, model.sha256, settings.id, wanted.sample or 1.0, Comparison(model, second, wanted.compare))
    if wanted.sample is not None:
        return Opened(shadow, second, list(known))
    times = find(known, model.sha256, second.sha256) or measure(model, shadow)
    measured = replace(shadow, part=part_of(wanted.cpu, times), times=times)
    return Opened(measured, second, memory(known, model.sha256, second.sha256, times))


def open_both(settings: Settings, known: Sequence[Kept]) -> tuple[OnnxModel, Shadow | None]:
    """Load the configured model and its shadow; see `open_shadow`."""
    model = open_model(settings)
    return model, open_shadow(settings, model, known).shadow


def obtain_both(settings: Settings, known: Sequence[Kept]) -> tuple[Settings, OnnxModel, Shadow | None]:
    """Bring the configured model and its shadow here, and load them; see `assembly.obtain_model`, `open_shadow`."""
    settings, model = obtain_model(settings)
    return settings, model, open_shadow(settings, model, known).shadow


def obtain_shadow(settings: Settings) -> Settings | None:
    """Bring the configured shadow here, which may take long; None where there is none.

    Returns:
        Settings whose model is the shadow: read as it says itself, else as its annotations say, else as the model is.

    Raises:
        ModelMisfit: it cannot be had, or its annotations do not go with the settings.
    """
    wanted = settings.model.shadow
    if wanted is None:
        return None
    given = settings.model_dump(exclude_unset=True, by_alias=True)
    own = wanted.model_dump(exclude_unset=True, include=set(_OWN))
    own = {key: value for key, value in own.items() if value is not None}
    model = {key: value for key, value in given["model"].items() if key not in {"shadow", "refresh", *_OWN}}
    try:
        obtained, _ = obtain(settings.rebuilt({**given, "model": model | own}))
    except (ModelMisfit, ConfigurationError) as misfit:
        raise _of_shadow(misfit) from misfit
    except ModelError as error:
        raise ModelMisfit([Problem("model.shadow.path", str(error))]) from error
    left = {key: getattr(settings.model, key) for key in _OWN if key not in obtained.model.model_fields_set}
    return obtained.model_copy(update={"model": obtained.model.model_copy(update=left)})


def _load(settings: Settings) -> OnnxModel:
    try:
        return open_model(settings)
    except ModelMisfit as misfit:
        raise _of_shadow(misfit) from misfit
    except ModelError as error:
        raise ModelMisfit([Problem("model.shadow.path", str(error))]) from error


def _of_shadow(misfit: ModelMisfit | ConfigurationError) -> ModelMisfit:
    return ModelMisfit([replace(problem, path=_path(problem.path)) for problem in misfit.problems])


def _path(path: str) -> str:
    """Return where a problem of the model's section stands in the shadow's; others stay where they are."""
    section, _, key = path.partition(".")
    own = section == "model" and key.split(".")[0].split("[")[0] in _OWN
    return f"model.shadow.{key}" if own else path


def known_times(state: Path) -> list[Kept]:
    """Return what a processor has measured, from its state, whether it runs or not; nothing where there is no state.

    A replay beside it then chooses the windows that it chooses.
    """
    path = state / FILE_NAME
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(path, timeout=10.0)) as connection:
            connection.execute("PRAGMA query_only = 1")
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (meta_key(MODEL_SLOT, META),)).fetchone()
    except sqlite3.Error:  # damaged or not ours: the processor itself says so when it starts
        return []
    return read(None if row is None else json.loads(row[0]))
