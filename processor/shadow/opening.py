"""The shadow as the configuration wants it: loaded, compared with the model, and its part decided."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

from processor.assembly import obtain_model, open_model
from processor.database import FILE_NAME
from processor.errors import ConfigurationError, ModelError, ModelMisfit, Problem
from processor.model.onnx_model import OnnxModel
from processor.obtaining import obtain
from processor.sections import ModelSettings, ShadowSettings
from processor.settings import Slot
from processor.shadow.comparison import Comparison, problems
from processor.shadow.judge import Shadow
from processor.shadow.timing import Kept, find, measure, memory, part_of, read
from processor.slot_state import meta_key

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


def open_shadow(slot: Slot, model: OnnxModel, known: Sequence[Kept] = ()) -> Opened:
    """Load the configured shadow, if there is one.

    Args:
        slot: the model's part of the configuration.
        model: the one it is compared with.
        known: what was measured before.

    Raises:
        ModelError: it cannot be loaded, does not fit what the sources give, or cannot be compared with the model.
    """
    wanted, as_model = slot.model.shadow, obtain_shadow(slot)
    if wanted is None or as_model is None:
        return Opened(None, None, list(known))
    second = _load(as_model)
    if misfits := list(problems(model, second, wanted.compare)):
        raise ModelMisfit(misfits)
    compared = Comparison(model, second, wanted.compare)
    shadow = Shadow(second, model.sha256, slot.settings.id, wanted.sample or 1.0, compared)
    if wanted.sample is not None:
        return Opened(shadow, second, list(known))
    times = find(known, model.sha256, second.sha256) or measure(model, shadow)
    measured = replace(shadow, part=part_of(wanted.cpu, times), times=times)
    return Opened(measured, second, memory(known, model.sha256, second.sha256, times))


def open_both(slot: Slot, known: Sequence[Kept]) -> tuple[OnnxModel, Shadow | None]:
    """Load a configured model and its shadow; see `open_shadow`."""
    model = open_model(slot)
    return model, open_shadow(slot, model, known).shadow


def obtain_both(slot: Slot, known: Sequence[Kept]) -> tuple[Slot, OnnxModel, Shadow | None]:
    """Bring a configured model and its shadow here, and load them; see `assembly.obtain_model`, `open_shadow`."""
    slot, model = obtain_model(slot)
    return slot, model, open_shadow(slot, model, known).shadow


def obtain_shadow(slot: Slot) -> Slot | None:
    """Bring the configured shadow here, which may take long; None where there is none.

    Returns:
        The same slot, whose model is the shadow: read as it says itself, else as its annotations say, else as the model
        is.

    Raises:
        ModelMisfit: it cannot be had, or its annotations do not go with what the file says.
    """
    wanted = slot.model.shadow
    if wanted is None:
        return None
    own = wanted.model_dump(exclude_unset=True, include=set(_OWN))
    own = {key: value for key, value in own.items() if value is not None}
    model = {key: value for key, value in slot.given.items() if key not in {"shadow", "refresh", *_OWN}}
    try:
        obtained, _ = obtain(replace(slot, fetched=None).with_model(model | own))
    except (ModelMisfit, ConfigurationError) as misfit:
        raise _of_shadow(misfit) from misfit
    except ModelError as error:
        raise ModelMisfit([Problem("model.shadow.path", str(error))]) from error
    left = {key: getattr(slot.model, key) for key in _OWN if key not in obtained.model.model_fields_set}
    return replace(obtained, model=obtained.model.model_copy(update=left))


def _load(slot: Slot) -> OnnxModel:
    try:
        return open_model(slot)
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


def known_times(slot: Slot) -> list[Kept]:
    """Return what a processor has measured, from its state, whether it runs or not; nothing where there is no state.

    A replay beside it then chooses the windows that it chooses.
    """
    path = slot.settings.state_path / FILE_NAME
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(path, timeout=10.0)) as connection:
            connection.execute("PRAGMA query_only = 1")
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (meta_key(slot.name, META),)).fetchone()
    except sqlite3.Error:  # damaged or not ours: the processor itself says so when it starts
        return []
    return read(None if row is None else json.loads(row[0]))
