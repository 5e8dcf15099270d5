"""Another window size while we run: windows begin anew, and the model is looked at with windows of that size.

The pipeline thread, between two batches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from processor.computation import Computation
from processor.errors import ModelMisfit, Problem
from processor.journal import Journal
from processor.protocols import Model
from processor.shadow.judge import Shadow

log = logging.getLogger(__name__)


class Resize(NamedTuple):
    """Another window size, once `install` is called."""

    size: int
    meta: dict[str, Any]
    """What has to be on disk first, in one transaction in which the journal of the windows is forgotten."""
    install: Callable[[], None]


class WindowSize:
    """Changes the size of all windows."""

    def __init__(
        self,
        *,
        configured: int,
        computation: Computation,
        journal: Journal,
        open_models: Callable[[int], tuple[Model, Shadow | None]],
        signature: Callable[[int], str],
    ) -> None:
        """Take what `app.build` made.

        Args:
            configured: readings in a window where nobody wants another size.
            computation: whose windows and model change.
            journal: of these windows.
            open_models: opens the model, and the shadow where there is one, for windows of a size; raises ModelError.
            signature: says, for the journal, what windows of a size look like.
        """
        self.configured = configured
        self._computation = computation
        self._journal = journal
        self._open_models = open_models
        self._signature = signature

    @property
    def current(self) -> int:
        """Readings in a window now."""
        return self._computation.windows.shape.size

    def propose(self, size: int) -> Resize:
        """Look whether windows may have `size` readings. Changes nothing by itself.

        Takes as long as to load the model. With `install` all windows are empty, and full again after `size` readings.

        Raises:
            ModelError: the model does not take such windows, or cannot be opened any more.
        """
        now = self._computation.model
        then, shadow = self._open_models(size)
        if then.sha256 != now.sha256:
            message = "the model's file has changed since it was loaded; have it loaded with the command reload_model"
            raise ModelMisfit([Problem("model.path", message)])
        if (then.kind, then.labels) != (now.kind, now.labels):
            message = f"with windows of {size} readings the model's output is read as {then.kind}, not as {now.kind}"
            raise ModelMisfit([Problem("model.output.kind", f"{message}; set model.output.kind")])

        def install() -> None:
            self._computation.resize(size, then, shadow)
            self._journal.begin_anew()
            log.info("Windows have %d readings now, and fill anew.", size)

        return Resize(size, {"windows": self._signature(size)}, install)
