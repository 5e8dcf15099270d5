"""Where a model's file is found, and the model opened from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from processor.assembly import open_model
from processor.errors import ModelError
from processor.protocols import Model
from processor.settings import Settings


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that was opened, and where it came from.

    Attributes:
        settings: the configuration with the model's own keys; windows have the size that it was opened for.
        model: ready to judge.
        digest: of what its path led to; another one means another model.
        file: of the copy that is kept of it; None where the path is a file here.
    """

    settings: Settings
    model: Model
    digest: str
    file: str | None = None


def open_wanted(settings: Settings) -> Opened:
    """Fetch what `model.path` leads to now, and open it. May take long.

    Raises:
        ModelError: it cannot be had, or opened, or does not fit what the sources give.
    """
    model = open_model(settings)
    return Opened(settings, model, model.sha256)


def open_kept(settings: Settings, file: str, digest: str) -> Opened:
    """Open the copy that is kept of what `model.path` led to, without asking anybody.

    Raises:
        ModelError: it cannot be opened, or does not fit what the sources give.
    """
    there = settings.model_copy(update={"model": settings.model.model_copy(update={"path": file})})
    return Opened(settings, open_model(there), digest, file)


def open_again(settings: Settings, file: str | None, digest: str) -> Opened:
    """Open a model that was opened before, from the copy that is kept of it where there is one.

    Raises:
        ModelError: it cannot be opened, or does not fit what the sources give.
    """
    return open_wanted(settings) if file is None else open_kept(settings, file, digest)


def current_digest(settings: Settings) -> str:
    """Return the digest of what `model.path` leads to now.

    Raises:
        ModelError: that cannot be told.
    """
    path = settings.path(settings.model.path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"the model {path} cannot be read: {error.strerror or error}") from error
