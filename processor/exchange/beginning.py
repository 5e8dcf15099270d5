"""Which model is in force when the process starts: the one that was when it ended, where that can be had."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from processor.assembly import Answers, filter_problems, legacy_problems
from processor.control import FilterControl
from processor.errors import ConfigurationError, ModelError, Problem
from processor.exchange.control import InForce, ModelControl, Wanted, digest_of_configuration
from processor.exchange.document import wanted
from processor.exchange.opening import Opened, open_again, open_kept, open_wanted
from processor.filter import FilterDocument, validate_filter
from processor.protocols import Model
from processor.settings import Settings

log = logging.getLogger(__name__)


class Beginning(NamedTuple):
    """What the process starts with."""

    models: ModelControl
    filters: FilterControl
    opened: Opened


def begin(settings: Settings, document: FilterDocument, text: bytes, meta: Callable[[str], Any], now: int) -> Beginning:
    """Find the model and the filter that are in force.

    Args:
        settings: the configuration.
        document: its filter.
        text: that the latter was made from.
        meta: returns what the store keeps under a key.
        now: wall time, ns since the Unix epoch.

    Raises:
        ConfigurationError: filter, model and sources do not fit.
        ModelError: the configuration's model is needed, and cannot be opened.
    """
    kept = meta("filter")

    def misfits(model: Model) -> Sequence[Problem]:
        """Return why an operator's model cannot judge: neither the filter that was in force fits it, nor the file's."""
        last = _filter_of(kept)
        if last is not None and not filter_problems(settings, model, last):
            return legacy_problems(settings, model)
        return model_problems(settings, model, document)

    models, opened = _begin_model(settings, meta("model"), misfits, now)
    if models.in_force.source == "file" and (found := model_problems(settings, opened.model, document)):
        raise ConfigurationError(found)

    def check(candidate: FilterDocument) -> Sequence[Problem]:
        return filter_problems(settings, models.in_force.model, candidate)

    return Beginning(models, FilterControl(document, text, check, kept, now), opened)


def model_problems(settings: Settings, model: Answers, document: FilterDocument) -> Sequence[Problem]:
    """Return why a model and a filter do not go together, with paths as the configuration has them."""
    of_filter = [Problem(f"filter.{each.path}", each.message) for each in filter_problems(settings, model, document)]
    return [*of_filter, *legacy_problems(settings, model)]


def _filter_of(kept: dict[str, Any] | None) -> FilterDocument | None:
    """Return the filter that was in force, where it is not the file's."""
    if kept is None or kept["source"] == "file":
        return None
    try:
        return validate_filter(kept["active"])
    except ConfigurationError:  # an older version's; the control says so
        return None


def resized(settings: Settings, models: ModelControl, opened: Opened, size: int | None) -> tuple[Settings, Model]:
    """Return settings and model with windows of another size, as a twin had asked for; the same where that is None.

    Where the model does not take them any more, that is logged, and both are as they were.
    """
    if size is None:
        return settings, opened.model
    try:
        return settings.with_window_size(size), reopen(models, size)
    except ModelError as error:
        log.warning("The window size %d that the twin had asked for is not possible any more: %s", size, error)
        return settings, opened.model


def reopen(models: ModelControl, size: int) -> Model:
    """Open the model in force for windows of another size.

    Raises:
        ModelError: it does not take them, or cannot be opened any more.
    """
    now = models.in_force
    return open_again(now.settings.with_window_size(size), now.file, now.digest).model


def _begin_model(
    settings: Settings, kept: dict[str, Any] | None, problems: Callable[[Model], Sequence[Problem]], now: int
) -> tuple[ModelControl, Opened]:
    """Open the model that was in force; where that cannot be, the configuration's, and the other is tried again.

    Args:
        settings: the configuration.
        kept: the control's `memory`; None at the first start.
        problems: says why an operator's model cannot judge.
        now: wall time, ns since the Unix epoch.
    """
    unfinished = None if kept is None or kept["wanted"] is None else Wanted(**kept["wanted"])
    if kept is not None and (before := kept["in_force"])["source"] == "topic":
        try:
            opened = _open_again(wanted(before["document"], settings), before, problems)
        except (ModelError, ConfigurationError) as error:
            log.error(  # noqa: TRY400 - for an operator
                "The topic's model (revision %d) cannot be used any more; the configuration's is in force, and the "
                "other is tried again: %s", kept["revision"], "; ".join(str(error).splitlines()),
            )  # fmt: skip
            unfinished = unfinished or Wanted("topic", before["document"], before["sha256"])
        else:
            in_force = InForce.of(opened, before["document"], before["sha256"])
            return ModelControl(settings, in_force, kept, now, wanted=unfinished), opened
    digest = digest_of_configuration(settings)
    last = {} if kept is None else kept["in_force"]
    is_same = (last.get("source"), last.get("sha256")) == ("file", digest)
    opened = (_open_copy(settings, last) if is_same else None) or open_wanted(settings)
    if unfinished is not None and unfinished.source == "file":
        unfinished = None
    return ModelControl(settings, InForce.of(opened, None, digest), kept, now, wanted=unfinished), opened


def _open_again(settings: Settings, before: dict[str, Any], problems: Callable[[Model], Sequence[Problem]]) -> Opened:
    """Open an operator's model, from the copy that is kept of it where there is one.

    Raises:
        ModelError: it cannot be opened, or does not fit the filter in force.
        ConfigurationError: as the latter.
    """
    opened = _open_copy(settings, before) or open_wanted(settings)
    if found := problems(opened.model):
        raise ConfigurationError(found)
    return opened


def _open_copy(settings: Settings, before: dict[str, Any]) -> Opened | None:
    """Open the copy that is kept; None where there is none, or it is not what it was."""
    if before["file"] is None:
        return None
    try:
        opened = open_kept(settings, before["file"], before["digest"])
    except ModelError as error:
        log.warning("The copy of the model at %s cannot be used; it is fetched anew: %s", before["file"], error)
        return None
    return opened if opened.model.sha256 == before["model"] else None
