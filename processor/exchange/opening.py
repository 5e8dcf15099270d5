"""A wanted model, brought here and opened."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from processor.assembly import open_model
from processor.errors import ConfigurationError, MladeError, ModelError, ModelMisfit
from processor.obtaining import obtain, obtain_copy
from processor.protocols import Model
from processor.registry.fetched import Fetched
from processor.settings import Slot
from processor.shadow.judge import Shadow
from processor.shadow.opening import open_shadow
from processor.shadow.timing import Kept

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that was opened.

    Attributes:
        slot: the configuration's, with the model's own keys; windows have the size that it was opened for.
        model: ready to judge.
        fetched: the file that it was opened from.
        shadow: that goes beside it; None: none is wanted.
        measured: what windows take in both, now and in earlier pairs.
    """

    slot: Slot
    model: Model
    fetched: Fetched
    shadow: Shadow | None = None
    measured: Sequence[Kept] = ()


def open_wanted(slot: Slot, measured: Sequence[Kept], *, or_last_good: bool = False) -> Opened:
    """Bring what `model.path` leads to now, and open it, with its shadow. May take long.

    Args:
        slot: the configuration's, with the model's own keys.
        measured: what windows took in models and their shadows.
        or_last_good: whether the last good model will do where nobody can be asked.

    Raises:
        ModelError: it cannot be had, or opened, or does not fit what the sources give.
    """
    with only_model_errors():
        return _open(*obtain(slot, or_last_good=or_last_good), measured)


def open_kept(slot: Slot, measured: Sequence[Kept], key: str, version: str) -> Opened | None:
    """Open what was brought here before, without asking anybody; None: it is not here any more, or is damaged.

    Raises:
        ModelError: it cannot be opened, or does not fit what the sources give.
    """
    with only_model_errors():
        found = obtain_copy(slot, key, version) if key else None
        return None if found is None else _open(*found, measured)


@contextmanager
def only_model_errors() -> Iterator[None]:
    """Make whatever a model brings about a ModelError: it must end neither a running processor nor the next start."""
    try:
        yield
    except ConfigurationError as error:
        raise ModelMisfit(error.problems) from error
    except MladeError:
        raise
    except Exception as error:
        log.exception("A model brought about an error that it should not have; please report it.")
        raise ModelError(f"it cannot be used ({type(error).__name__}: {error}); please report it") from error


def _open(obtained: Slot, fetched: Fetched, measured: Sequence[Kept]) -> Opened:
    model = open_model(obtained)
    beside = open_shadow(obtained, model, measured)
    return Opened(obtained, model, fetched, beside.shadow, beside.memory)
