"""The filter in force: where it came from, what was answered, and what survives a restart.

Everything here happens on the pipeline thread, between two batches, at the place in the stream where it was asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from processor.errors import ConfigurationError, FilterRejected, Problem
from processor.events import timestamp
from processor.filter import FilterDocument, all_problems, parse_filter, to_plain, validate_filter

log = logging.getLogger(__name__)

FilterSource = Literal["file", "topic", "twin"]

_REVISIONS: Final = 50
_REVISIONS_BYTES: Final = 256 << 10
"""How many are kept, and how much they may take together as JSON."""


class _Origin(NamedTuple):
    """Where a document came from."""

    source: FilterSource
    digest: str
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """What becomes of a filter document, once `install` is called.

    Attributes:
        active: the filter that will be in force.
        changed: whether it is another than before.
        memory: what has to be on disk first; None when that is there already.
        install: makes it so.
    """

    active: FilterDocument
    changed: bool
    memory: dict[str, Any] | None
    install: Callable[[], None]


class FilterControl:
    """Decides which filter is in force.

    Attributes:
        active: the filter in force.
        revision: grows by one with each applied change; persistent.
        answer: the last answer, as it stands on `filter/state`.
        revisions: the last filters that were in force, newest first, as they stand on `filter/history`.
    """

    def __init__(
        self,
        document: FilterDocument,
        text: bytes,
        check: Callable[[FilterDocument], Sequence[Problem]],
        kept: dict[str, Any] | None,
        now: int,
    ) -> None:
        """Settle on a filter at the start.

        Args:
            document: the file's filter, already checked.
            text: what it was read from.
            check: compares a filter with the model and the sources.
            kept: what `memory` returned in an earlier run.
            now: wall time, ns since the Unix epoch.
        """
        self._file = document
        self._file_digest = _digest(text)
        self._check = check
        self._seen: dict[str, str] = {}
        self.revision = 0
        self.active = document
        self.answer: dict[str, Any] = {}
        self.revisions: list[dict[str, Any]] = []
        self._source: FilterSource = "file"
        if kept is not None:
            self._seen = dict(kept["seen"])
            self.revision = kept["revision"]
            self.answer = kept["answer"] | {"active_source": kept["source"]}
            self.revisions = kept.get("revisions", [])  # an older version kept none
        if kept is None or not self._resume(kept):
            self._apply(document, _Origin("file", self._file_digest), now)
        self._seen["file"] = self._file_digest

    def _resume(self, kept: dict[str, Any]) -> bool:
        """Go on with the filter of an earlier run; whether that was possible."""
        if kept["source"] == "file":
            return bool(kept["seen"].get("file") == self._file_digest)
        try:
            document = validate_filter(kept["active"])
            problems = self._check(document)
        except ConfigurationError as error:
            problems = error.problems
        if problems:
            log.error(
                "The filter from the %s (revision %d) does not fit the model or the sources any more; the file's is in "
                "force: %s", kept["source"], self.revision, "; ".join(map(str, problems)),
            )  # fmt: skip
            self._seen.pop(kept["source"], None)  # when it comes again it is judged, and answered, again
            return False
        self.active, self._source = document, kept["source"]
        return True

    def offer(
        self,
        payload: bytes,
        source: FilterSource,
        now: int,
        *,
        problems: Sequence[Problem] = (),
        user: str | None = None,
    ) -> Offer:
        """Look at a document from `source`; an empty one returns to the file's filter. Changes nothing by itself.

        Args:
            payload: the document.
            source: where it came from.
            now: wall time, ns since the Unix epoch.
            problems: why it is rejected, whatever it says.
            user: who sent it, as they call themselves; nobody checks that.
        """
        origin = _Origin(source, _digest(payload), user)
        if self._seen.get(source) == origin.digest:
            return Offer(self.active, changed=False, memory=None, install=lambda: None)
        later = copy(self)
        changed = later._consider(payload, origin, now, problems)  # noqa: SLF001 - a copy of ourselves
        return Offer(later.active, changed, later.memory(), lambda: self.__dict__.update(later.__dict__))

    def _consider(self, payload: bytes, origin: _Origin, now: int, problems: Sequence[Problem]) -> bool:
        """Apply or reject a document that is new from its source; whether another filter is in force then."""
        self._seen = self._seen | {origin.source: origin.digest}
        if not payload.strip():
            return self._return_to_file(origin, now)
        try:
            document = self._read(payload, problems)
        except FilterRejected as error:
            self._reject(error.problems, origin)
            return False
        self._apply(document, origin, now)
        log.info("Filter revision %d from the %s is in force.", self.revision, origin.source)
        return True

    def _read(self, payload: bytes, problems: Sequence[Problem]) -> FilterDocument:
        if problems:
            raise FilterRejected(problems)
        try:
            document = parse_filter(payload)
        except FilterRejected as error:
            raise FilterRejected(all_problems(error, self._check)) from None
        if problems := self._check(document):
            raise FilterRejected(problems)
        return document

    def _return_to_file(self, origin: _Origin, now: int) -> bool:
        changed = self._source != "file"
        if changed and (problems := self._check(self._file)):  # the model may be another since the start
            self._reject(problems, origin)
            return False
        if changed:
            self._apply(self._file, origin._replace(source="file"), now)
            log.info("The %s's filter was removed: the file's is in force, revision %d.", origin.source, self.revision)
        else:
            said = {"status": "applied", "source": "file", "active_source": "file", "errors": []}
            self.answer = self.answer | said | {"sha256": origin.digest}
        return changed

    def _apply(self, document: FilterDocument, origin: _Origin, now: int) -> None:
        self.active, self._source = document, origin.source
        self.revision += 1
        self.answer = {
            "status": "applied",
            "revision": self.revision,
            "sha256": origin.digest,
            "applied_at": timestamp(now),
            "source": origin.source,
            "active_source": origin.source,
            "errors": [],
            "active": to_plain(document),
        }
        newest = {key: self.answer[key] for key in ("revision", "applied_at", "source")}
        newest |= {"user": origin.user, "filter": self.answer["active"]}
        self.revisions = _within_bounds([newest, *self.revisions])

    def _reject(self, problems: Sequence[Problem], origin: _Origin) -> None:
        log.warning("A filter from the %s was rejected: %s", origin.source, "; ".join(map(str, problems)))
        self.answer = {
            "status": "rejected",
            "revision": self.revision,
            "sha256": origin.digest,
            "applied_at": self.answer["applied_at"],
            "source": origin.source,
            "active_source": self._source,
            "errors": [{"path": problem.path, "message": problem.message} for problem in problems],
            "active": to_plain(self.active),
        }

    def memory(self) -> dict[str, Any]:
        """Return what has to survive a restart, as JSON holds it."""
        return {
            "revision": self.revision,
            "source": self._source,
            "seen": self._seen,
            "active": to_plain(self.active),
            "answer": self.answer,
            "revisions": self.revisions,
        }


def _within_bounds(revisions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the newest revisions, as many as may be kept; always the first."""
    kept, size = list(revisions[:1]), len(json.dumps(revisions[0]))
    for one in revisions[1:_REVISIONS]:
        size += len(json.dumps(one))
        if size > _REVISIONS_BYTES:
            break
        kept.append(one)
    return kept


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()
