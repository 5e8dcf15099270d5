"""The device or module twin: what the cloud desires of us, and what we report.

The pipeline thread, between two batches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from processor import __version__
from processor.cloud import CloudLink, Desired
from processor.control import FilterControl, Offer
from processor.document import is_plain
from processor.protocols import Model

_MOST_ERRORS: Final = 20
"""Reported; a twin's reported properties have 32 KiB, and its texts 4 KiB."""
_LONGEST_TEXT: Final = 400
"""Characters of a reported path or message."""
_LONGEST_KEPT: Final = 256 << 10
"""Characters of desired properties that are kept for a restart; a hub's twin has 32 KiB."""
_UNREADABLE: Final = "nested too deeply, or holds what cannot be stored"


class TwinChange(NamedTuple):
    """What becomes of desired properties, once `install` is called."""

    offer: Offer | None
    """For the filter; None where the twin has never had one."""
    memory: dict[str, Any] | None
    """What has to be on disk first; None when that is there already."""
    install: Callable[[], None]


class Twin:
    """Follows the desired properties, of which `filter` is the whole filter, and reports what became of it."""

    def __init__(
        self, *, link: CloudLink, filters: FilterControl, model: Callable[[], Model], kept: dict[str, Any] | None
    ) -> None:
        """Go on where an earlier run ended.

        Args:
            link: takes what is reported.
            filters: which filter is in force.
            model: returns the model, whose name is reported.
            kept: what a change's `memory` was last.
        """
        self._link = link
        self._filters = filters
        self._model = model
        self._desired: dict[str, Any] = {} if kept is None else kept["desired"]

    def consider(self, desired: Desired, now: int) -> TwinChange:
        """Look at desired properties. Changes nothing by itself.

        Args:
            desired: all of them, or those that changed.
            now: wall time, ns since the Unix epoch.
        """
        ours = {key: _readable(desired.properties[key]) for key in _KEYS if key in desired.properties}
        wanted = _merged({} if desired.complete else self._desired, ours)
        payload, before = _payload(wanted), _payload(self._desired)
        # A twin without a filter says nothing, unless it had one: that was removed.
        offer = self._filters.offer(payload, "twin", now) if payload or before else None
        memory = {"desired": wanted}
        if wanted == self._desired:
            return TwinChange(offer, None, _nothing)

        def install() -> None:
            self._desired = wanted

        small = len(json.dumps(memory)) <= _LONGEST_KEPT
        return TwinChange(offer, memory if small else {"desired": {}}, install)

    def report(self) -> None:
        """Report the last answer to a filter, and who we are."""
        answer, model = self._filters.answer, self._model()
        said = ("status", "revision", "sha256", "source", "active_source", "applied_at")
        self._link.report(
            {
                "version": __version__,
                "model": {"name": model.name, "sha256": model.sha256},
                "filter": {key: answer[key] for key in said} | {"errors": _shortened(answer["errors"])},
            }
        )


_KEYS: Final = ("filter",)


def _readable(value: object) -> object:
    """Return a value that can be kept and compared as JSON; what cannot is a text that no filter is."""
    try:
        json.dumps(value)
    except (ValueError, TypeError, RecursionError):
        return _UNREADABLE
    return value if is_plain(value) else _UNREADABLE


def _merged(before: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return properties with a patch laid over them, as the hub does it: mappings key by key, and null removes."""
    merged = dict(before)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            old = merged.get(key)
            merged[key] = _merged(old if isinstance(old, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def _payload(desired: Mapping[str, Any]) -> bytes:
    """Return the desired filter as a document; the same filter is always the same bytes."""
    wanted = desired.get("filter")
    if wanted is None:
        return b""
    if isinstance(wanted, str):  # YAML or JSON
        return wanted.encode()
    return json.dumps(wanted, sort_keys=True, separators=(",", ":")).encode()


def _shortened(errors: list[dict[str, str]]) -> list[dict[str, str]]:
    shown = [{key: _cut(text) for key, text in error.items()} for error in errors[:_MOST_ERRORS]]
    if len(errors) > len(shown):
        shown.append({"path": "", "message": f"and {len(errors) - len(shown)} more, which stand on filter/state"})
    return shown


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " …"


def _nothing() -> None:
    """Install nothing."""
