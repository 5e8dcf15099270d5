"""Which model is in force when the process starts: the one that was when it ended, where that can be had."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from processor.assembly import Answers, filter_problems, legacy_problems
from processor.control import FilterControl
from processor.errors import ConfigurationError, ModelError, Problem
from processor.exchange.control import ModelControl, digest_of_configuration
from processor.exchange.document import wanted, with_windows_of
from processor.exchange.in_force import InForce, Wanted
from processor.exchange.opening import Opened, only_model_errors, open_kept, open_wanted
from processor.filter import FilterDocument, validate_filter
from processor.obtaining import obtain, obtain_last
from processor.protocols import Model
from processor.registry import references
from processor.settings import Slot
from processor.shadow.judge import Shadow
from processor.shadow.opening import META as SHADOW
from processor.shadow.opening import open_both
from processor.shadow.timing import Kept, read

log = logging.getLogger(__name__)


class Beginning(NamedTuple):
    """What the process starts with."""

    slot: Slot
    """The model's part of the configuration, with what its model's annotations say where it says nothing."""
    models: ModelControl
    filters: FilterControl
    opened: Opened


def begin(slot: Slot, document: FilterDocument, text: bytes, meta: Callable[[str], Any], now: int) -> Beginning:
    """Find the model and the filter that are in force.

    Args:
        slot: the model's part of the configuration.
        document: the filter in it.
        text: that the latter was made from.
        meta: returns what the store keeps under a key.
        now: wall time, ns since the Unix epoch.

    Raises:
        ConfigurationError: filter, model and sources do not fit.
        ModelError: the configuration's model is needed, and cannot be had or opened.
    """
    kept_filter, kept, measured = meta("filter"), meta("model"), read(meta(SHADOW))
    again = None if kept is None else _open_topics(slot, kept, measured, partial(_misfits, document, kept_filter))
    if again is not None:
        obtained, opened, of_document, sha256 = again
    else:
        opened = _open_configured(slot, kept, measured)
        obtained, of_document, sha256 = opened.slot, None, digest_of_configuration(slot)
        if found := model_problems(obtained, opened.model, document):
            raise ConfigurationError(slot.named(found))
    in_force = InForce.of(opened, of_document, sha256)
    models = ModelControl(
        with_windows_of(slot, obtained), in_force, kept, now, wanted=_unfinished(kept, in_force)
    )  # fmt: skip

    def check(candidate: FilterDocument) -> Sequence[Problem]:
        return filter_problems(models.in_force.slot, models.in_force.model, candidate)

    return Beginning(obtained, models, FilterControl(document, text, check, kept_filter, now), opened)


def _misfits(document: FilterDocument, kept: dict[str, Any] | None, slot: Slot, model: Answers) -> Sequence[Problem]:
    """Return why an operator's model cannot judge: neither the filter that was in force fits it, nor the file's."""
    last = _filter_of(kept)
    if last is not None and not filter_problems(slot, model, last):
        return legacy_problems(slot, model)
    return model_problems(slot, model, document)


def model_problems(slot: Slot, model: Answers, document: FilterDocument) -> Sequence[Problem]:
    """Return why a model and a filter do not go together, with paths as the configuration has them."""
    of_filter = [Problem(f"filter.{each.path}", each.message) for each in filter_problems(slot, model, document)]
    return [*of_filter, *legacy_problems(slot, model)]


def _filter_of(kept: dict[str, Any] | None) -> FilterDocument | None:
    """Return the filter that was in force, where it is not the file's."""
    if kept is None or kept["source"] == "file":
        return None
    try:
        return validate_filter(kept["active"])
    except ConfigurationError:  # an older version's; the control says so
        return None


def resized(slot: Slot, models: ModelControl, opened: Opened, size: int | None) -> tuple[Slot, Model, Shadow | None]:
    """Return a slot and its models with windows of another size, as a twin had asked for; the same where that is None.

    Where the models do not take them any more, that is logged, and all are as they were.
    """
    if size is None:
        return slot, opened.model, opened.shadow
    try:
        return slot.with_window_size(size), *reopen(models, size)
    except ModelError as error:
        log.warning("The window size %d that the twin had asked for is not possible any more: %s", size, error)
        return slot, opened.model, opened.shadow


def reopen(models: ModelControl, size: int) -> tuple[Model, Shadow | None]:
    """Open the model in force, and its shadow, for windows of another size.

    Raises:
        ModelError: they do not take them, or cannot be opened any more.
    """
    with only_model_errors():
        return open_both(models.in_force.slot.with_window_size(size), models.in_force.measured)


class _OpenedAgain(NamedTuple):
    """An operator's model that was in force."""

    obtained: Slot
    opened: Opened
    document: dict[str, Any]
    sha256: str


def _open_topics(
    slot: Slot,
    kept: dict[str, Any],
    measured: Sequence[Kept],
    problems: Callable[[Slot, Answers], Sequence[Problem]],
) -> _OpenedAgain | None:
    """Open the operator's model that was in force; None where there was none, or that cannot be, which is logged."""
    before = kept["in_force"]
    if before["source"] != "topic":
        return None
    try:
        # For the windows, what the configuration's model says of them counts.
        obtained = slot
        if references.is_remote(slot.model.path):
            obtained = (obtain_last(slot) or obtain(slot)).slot
        own = wanted(before["document"], with_windows_of(slot, obtained))
        opened = open_kept(own, measured, before["key"], before["version"]) or open_wanted(
            own, measured, or_last_good=True
        )
        if found := problems(opened.slot, opened.model):
            raise ConfigurationError(found)  # noqa: TRY301 - told with the others
    except (ModelError, ConfigurationError) as error:
        log.error(  # noqa: TRY400 - for an operator
            "The topic's model (revision %d) cannot be used any more; the configuration's is in force, and the other "
            "is tried again: %s", kept["revision"], "; ".join(str(error).splitlines()),
        )  # fmt: skip
        return None
    return _OpenedAgain(obtained, opened, before["document"], before["sha256"])


def _open_configured(slot: Slot, kept: dict[str, Any] | None, measured: Sequence[Kept]) -> Opened:
    """Open the configuration's model; the one that was in force, where the configuration is as it was.

    Raises:
        ModelError: it cannot be had or opened.
    """
    before = {} if kept is None else kept["in_force"]
    if before and (before["source"], before["sha256"]) == ("file", digest_of_configuration(slot)):
        opened = open_kept(slot, measured, before["key"], before["version"])
        if opened is not None:
            return opened
    return open_wanted(slot, measured, or_last_good=True)


def _unfinished(kept: dict[str, Any] | None, in_force: InForce) -> Wanted | None:
    """Return what was to be loaded when the last run ended; also what was in force then and is not any more."""
    if kept is None:
        return None
    last, before = kept["wanted"], kept["in_force"]
    if last is not None:
        one = Wanted(**last)
        return None if one.source == in_force.source == "file" else one
    if before["source"] == "topic" and in_force.source == "file":
        return Wanted("topic", before["document"], before["sha256"])
    return None
