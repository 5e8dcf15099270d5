"""A wanted model, brought here and opened."""

from __future__ import annotations

from dataclasses import dataclass

from processor.assembly import open_model
from processor.obtaining import obtain, obtain_copy
from processor.protocols import Model
from processor.registry.fetched import Fetched
from processor.settings import Settings


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that was opened.

    Attributes:
        settings: the configuration with the model's own keys; windows have the size that it was opened for.
        model: ready to judge.
        fetched: the file that it was opened from.
    """

    settings: Settings
    model: Model
    fetched: Fetched


def open_wanted(settings: Settings, *, or_last_good: bool = False) -> Opened:
    """Bring what `model.path` leads to now, and open it. May take long.

    Args:
        settings: the configuration with the model's own keys.
        or_last_good: whether the last good model will do where nobody can be asked.

    Raises:
        ModelError: it cannot be had, or opened, or does not fit what the sources give.
    """
    obtained, fetched = obtain(settings, or_last_good=or_last_good)
    return Opened(obtained, open_model(obtained), fetched)


def open_kept(settings: Settings, key: str, version: str) -> Opened | None:
    """Open what was brought here before, without asking anybody; None: it is not here any more, or is damaged.

    Raises:
        ModelError: it cannot be opened, or does not fit what the sources give.
    """
    found = obtain_copy(settings, key, version) if key else None
    return None if found is None else Opened(found.settings, open_model(found.settings), found.fetched)
