"""The device or module twin: what the cloud desires of us, and what we report.

The pipeline thread, between two batches.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from processor import __version__
from processor.cloud import CloudLink, Desired
from processor.control import Offer
from processor.document import is_plain
from processor.errors import ConfigurationError, ModelError, ModelMisfit, Problem
from processor.lanes import Lane
from processor.legacy import FILTER_KEYS, KEYS, LENGTH, as_filter, legacy_values, window_size
from processor.settings import HubLegacy
from processor.sizing import Resize
from processor.types import MODEL_SLOT

_KEYS: Final = ("filter", "filters", "desired", *KEYS)
_MOST_ERRORS: Final = 20
"""Reported; a twin's reported properties have 32 KiB, and its texts 4 KiB."""
_LONGEST_TEXT: Final = 400
"""Characters of a reported path or message."""
_LONGEST_KEPT: Final = 256 << 10
"""Characters of desired properties that are kept for a restart; a hub's twin has 32 KiB."""
_MOST_PATCHES: Final = 100
_NOTHING_YET: Final[Mapping[str, Any]] = {
    "desired": {},
    "has_filter": False,
    "filters": [],
    "window_size": None,
    "legacy": None,
}
_LONGEST_NAME: Final = 64
_MOST_UNKNOWN: Final = 5
"""Filters of models that there are not, that are told."""
_UNREADABLE: Final = "nested too deeply, or holds what cannot be stored"


class TwinChange(NamedTuple):
    """What becomes of desired properties, once `install` is called."""

    offers: Sequence[tuple[Lane, Offer]]
    """For the filters about which the twin has something to say."""
    resize: Resize | None
    """For the windows; None where they stay."""
    memory: dict[str, Any] | None
    """What has to be on disk first; None when that is there already."""
    install: Callable[[], None]


class _Document(NamedTuple):
    """The filter that is desired."""

    payload: bytes
    """Empty where none is. The same filter is always the same bytes."""
    problems: Sequence[Problem] = ()


class Twin:
    """Follows the desired properties, and reports what became of them.

    `filter` is the whole filter of the model `default`. MLADE's keys are another way to say one, and its windows' size.
    `filters` are those of the other models, by name.
    """

    def __init__(
        self,
        *,
        link: CloudLink,
        lanes: Sequence[Lane],
        legacy: HubLegacy | None,
        kept: dict[str, Any] | None,
    ) -> None:
        """Go on where an earlier run ended.

        Args:
            link: takes what is reported.
            lanes: whose filters are steered, and the windows of the one named `default`.
            legacy: what MLADE's keys apply to; None: they are ignored.
            kept: what a change's `memory` was last.
        """
        self._link = link
        self._lane = next((lane for lane in lanes if lane.name == MODEL_SLOT), None)
        self._others = {lane.name: lane for lane in lanes if lane.name != MODEL_SLOT}
        self._applies_to = legacy
        self._memory: dict[str, Any] = {**_NOTHING_YET, **(kept or {})}  # an older version knew no `filters`
        self._desired: dict[str, Any] = self._memory["desired"]
        self._told_unknown: Sequence[str] = ()
        self._refused: tuple[int, list[Problem]] | None = None  # a window size, and what speaks against it
        self._version: int | None = None  # of the desired properties, as the hub counts it
        self._patches: dict[int, dict[str, Any]] = {}  # those since the whole was read, by their version

    def consider(self, desired: Desired, now: int) -> TwinChange:
        """Look at desired properties. Changes nothing by itself.

        Args:
            desired: all of them, or those that changed.
            now: wall time, ns since the Unix epoch.
        """
        version = desired.properties.get("$version")
        version = version if isinstance(version, int) and version > 0 else None
        if not desired.complete and version is not None and version <= (self._version or 0):
            return TwinChange((), None, None, _nothing)  # the whole that was read later holds it already
        ours = {key: _readable(desired.properties[key]) for key in _KEYS if key in desired.properties}
        if isinstance(filters := desired.properties.get("filters"), Mapping):  # one of them spoils no other
            ours["filters"] = {name: _readable(document) for name, document in filters.items()}
        wanted = _merged({} if desired.complete else self._desired, ours)
        if desired.complete:
            # A patch may overtake the whole that was asked for before it.
            while version is not None and (patch := self._patches.get(version + 1)) is not None:
                version += 1
                wanted = _merged(wanted, patch)
        given = legacy_values(wanted)
        document = self._document(wanted, given)
        # A twin without a filter says nothing, unless it had one: that was removed.
        offer = None
        if self._lane is not None and (document.payload or self._memory["has_filter"]):
            offer = self._lane.filters.offer(document.payload, "twin", now, problems=document.problems)
        others = self._offers(wanted, now)
        resize, problems, size = self._resize(given)
        memory = {
            "desired": wanted if len(json.dumps(wanted)) <= _LONGEST_KEPT else {},
            "has_filter": bool(document.payload),
            "filters": sorted(_filters(wanted).keys() & self._others.keys()),
            "window_size": size,
            "legacy": self._legacy(wanted, given, offer, problems),
        }

        def install() -> None:
            self._desired, self._memory, self._version = wanted, memory, version
            if desired.complete:
                self._patches.clear()
            elif version is not None and len(self._patches) < _MOST_PATCHES:
                self._patches[version] = ours

        offers = others if self._lane is None or offer is None else [(self._lane, offer), *others]
        return TwinChange(offers, resize, None if memory == self._memory else memory, install)

    def _offers(self, wanted: Mapping[str, Any], now: int) -> list[tuple[Lane, Offer]]:
        """Return what is desired of the filters of models that are not `default`, or was and is removed."""
        given, problems = wanted.get("filters"), []
        if given is not None and not isinstance(given, Mapping):
            problems = [Problem("", "filters is no mapping; expected a filter for each model, by its name")]
            given = dict.fromkeys(self._others, given)
        given = given or {}
        return [
            (lane, lane.filters.offer(_payload(given.get(name)), "twin", now, problems=problems))
            for name, lane in self._others.items()
            if name in given or name in self._memory["filters"]
        ]

    def report(self) -> None:
        """Report the last answers to filters, what became of MLADE's keys, and who we are."""
        body: dict[str, Any] = {"version": __version__, "legacy": self._memory["legacy"]}  # null removes it
        if self._lane is not None:
            body |= {
                "model": _model(self._lane),
                "window": {"size": self._lane.sizes.current},
                "filter": _answer(self._lane),
            }
        if self._others:
            body["models"] = {name: _model(lane) for name, lane in self._others.items()}
            most = _MOST_ERRORS // len(self._others)
            body["filters"] = {name: _answer(lane, most) for name, lane in self._others.items()}
        unknown = sorted(name[:_LONGEST_NAME] for name in _filters(self._desired).keys() - self._others.keys())
        unknown = unknown[:_MOST_UNKNOWN]
        if unknown or self._told_unknown:
            told = dict.fromkeys(self._told_unknown) | {name: self._unknown(name) for name in unknown}
            body["filters"] = body.get("filters", {}) | told
        self._told_unknown = unknown
        self._link.report(body)

    def _unknown(self, name: str) -> dict[str, Any]:
        """Return what is reported of a filter for a model that there is not, or that has another key."""
        text = f"no such model; this processor has {', '.join(self._others) or 'only one, whose filter is filter'}"
        if name == MODEL_SLOT and self._lane is not None:
            text = f"the filter of the model {MODEL_SLOT} is the desired property filter"
        return _told("rejected", [Problem("", text)])

    def _document(self, wanted: Mapping[str, Any], given: Mapping[str, Any]) -> _Document:
        """Return the desired filter; that of MLADE's keys where there is no other."""
        if wanted.get("filter") is not None:
            return _Document(_payload(wanted["filter"]))
        ours = {key: given[key] for key in FILTER_KEYS if key in given}
        if not ours or self._applies_to is None:
            return _Document(b"")
        try:
            return _Document(_canonical(as_filter(ours, self._applies_to.field, self._applies_to.label)))
        except ConfigurationError as error:
            return _Document(_canonical(ours), error.problems)

    def _resize(self, given: Mapping[str, Any]) -> tuple[Resize | None, list[Problem], int | None]:
        """Return the change of the windows' size that MLADE's key asks for, or what speaks against it.

        The last is the size that windows have then; None where it is the configured one.
        """
        if self._lane is None:
            return None, [], None
        sizes = self._lane.sizes
        current = None if sizes.current == sizes.configured else sizes.current
        try:
            size = None if self._applies_to is None else window_size(given)
        except ConfigurationError as error:
            return None, list(error.problems), current
        size = sizes.configured if size is None else size
        if size == sizes.current:
            return None, [], current
        if self._refused is None or self._refused[0] != size:  # the twin comes again with every connect
            try:
                return sizes.propose(size), [], None if size == sizes.configured else size
            except ModelError as error:
                found = error.problems if isinstance(error, ModelMisfit) else [Problem("", str(error))]
                self._refused = (size, [Problem(LENGTH, problem.message) for problem in found])
        return None, self._refused[1], current

    def _legacy(
        self, wanted: Mapping[str, Any], given: Mapping[str, Any], offer: Offer | None, size_problems: list[Problem]
    ) -> dict[str, Any] | None:
        """Return what is reported of MLADE's keys; None where none is set."""
        if not given:
            return None
        if self._applies_to is None:
            text = "the bridge has no legacy: {field: …} in the configuration, so that MLADE's keys are ignored"
            return _told("ignored", [Problem(key, text) for key in given])
        filter_keys = [key for key in FILTER_KEYS if key in given]
        if "filter" in wanted:
            text = "the desired property filter is set, and wins; remove that, or this"
            ignored = [Problem(key, text) for key in filter_keys]
            status = "rejected" if size_problems else "applied" if LENGTH in given else "ignored"
            return _told(status, [*ignored, *size_problems])
        errors = _as_errors(size_problems)
        before = self._memory["legacy"]
        if offer is not None and offer.memory is not None:  # it was judged now
            errors = offer.memory["answer"]["errors"] + errors
        elif filter_keys and before is not None and before["status"] == "rejected":
            errors = [error for error in before["errors"] if error["path"] != LENGTH] + errors
        return {"status": "rejected" if errors else "applied", "errors": _shortened(errors)}


def _nothing() -> None:
    """Install nothing."""


def _filters(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the desired filters of models by name; none where what is desired is no mapping."""
    given = wanted.get("filters")
    return given if isinstance(given, Mapping) else {}


def _payload(document: object) -> bytes:
    """Return a desired filter as one that came in a message; empty where there is none."""
    if isinstance(document, str):  # YAML or JSON
        return document.encode()
    return b"" if document is None else _canonical(document)


def _model(lane: Lane) -> dict[str, str]:
    model = lane.computation.model
    return {"name": model.name, "sha256": model.sha256}


def _answer(lane: Lane, most_errors: int = _MOST_ERRORS) -> dict[str, Any]:
    answer = lane.filters.answer
    said = ("status", "revision", "sha256", "source", "active_source", "applied_at")
    return {key: answer[key] for key in said} | {"errors": _shortened(answer["errors"], most_errors)}


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


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _told(status: str, problems: Sequence[Problem]) -> dict[str, Any]:
    return {"status": status, "errors": _shortened(_as_errors(problems))}


def _as_errors(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"path": problem.path, "message": problem.message} for problem in problems]


def _shortened(errors: Sequence[Mapping[str, str]], most: int = _MOST_ERRORS) -> list[dict[str, str]]:
    shown = [{key: _cut(text) for key, text in error.items()} for error in errors[:most]]
    if len(errors) > len(shown):
        shown.append({"path": "", "message": f"and {len(errors) - len(shown)} more, which stand on filter/state"})
    return shown


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " …"
