"""The model in force: where it came from, what was answered, and what survives a restart.

Everything here happens on the pipeline thread, between two batches, at the place in the stream where it was asked for.
Nothing here loads a model, publishes or writes: each change is proposed first, and made when it is on disk.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Final

from processor.errors import ConfigurationError, Problem
from processor.events import timestamp
from processor.exchange.document import configured, parse_model, wanted
from processor.exchange.in_force import Change, InForce, Wanted
from processor.exchange.loader import Arrival, Away, Failed, Kind, Loaded, Moved, Request, Result, Unchanged
from processor.exchange.opening import Opened
from processor.exchange.recent import Trial
from processor.settings import Slot

log = logging.getLogger(__name__)

_MOST_ERRORS: Final = 100
_MOST_TRIES: Final = 3
_NOTHING_TRIED: Final = ("", 0)
_DEADLY: Final = Problem(
    "path",
    f"the process ended {_MOST_TRIES} times while this was loaded: it may take more memory than there is; publish it "
    "again to try it again",
)
_MOST_LABELS: Final = 64
"""Told in an answer."""


class ModelControl:
    """Decides which model is in force.

    Attributes:
        slot: the configuration's, with the windows that every model gets.
        in_force: the model that judges.
        revision: grows by one with each swap; persistent.
        pending: what the loader should be working on; None: nothing.
        answer: the last answer, as it stands on `model/state`.
        refused: version of what the path in force leads to, and which was rejected; empty: none was.
    """

    def __init__(
        self, slot: Slot, in_force: InForce, kept: dict[str, Any] | None, now: int, *, wanted: Wanted | None
    ) -> None:
        """Start, or go on where an earlier run ended.

        Args:
            slot: the configuration's, with the windows that every model gets.
            in_force: the model, which fits the filter in force.
            kept: what `memory` returned last.
            now: wall time, ns since the Unix epoch.
            wanted: what was not loaded yet.
        """
        self.slot = slot
        self.in_force = in_force
        self.revision = 0
        self.pending: Request | None = None
        self.refused = ""
        self._seen = ""  # digest of the topic's last document
        self._settled: dict[str, Any] = {}  # the last answer that was no interim one
        self._trying = _NOTHING_TRIED  # what is loaded, and how often that was begun
        if kept is not None:
            self._seen, self.revision, self._settled = kept["seen"], kept["revision"], kept["answer"]
            self._trying = (kept["trying"][0], kept["trying"][1])
        if kept is None or (kept["in_force"]["source"], kept["in_force"]["model"]) != (
            in_force.source, in_force.model.sha256
        ):  # fmt: skip
            self._put_in_force(in_force, in_force.source, in_force.sha256, now, Trial())
        self._settled = self._settled | {"active": self._told(), "active_source": in_force.source}
        self.answer = self._settled
        if wanted is not None:
            self._request_wanted(wanted)

    def offer(
        self, payload: bytes, *, repeated: bool, problems: Sequence[Problem] = (), user: str | None = None
    ) -> Change:
        """Look at a document from the topic; an empty one returns to the configuration's. Changes nothing by itself.

        Args:
            payload: the document.
            repeated: whether it is what the broker retains; a rejected document that is published again is tried again.
            problems: why it is rejected, whatever it says.
            user: who sent it, as they call themselves; nobody checks that.
        """
        digest = hashlib.sha256(payload).hexdigest()
        answer = self.answer
        again = not repeated and (answer["status"], answer["sha256"]) == ("rejected", digest)
        if self._seen == digest and not again:
            return Change(None, None, _nothing)
        later = copy(self)
        later._consider(payload, digest, problems, user)  # noqa: SLF001 - a copy of ourselves
        return Change(None, later.memory(), lambda: self._become(later), later.answer["status"] == "rejected")

    def look_again(self, kind: Kind, version: str = "") -> None:
        """Have what the path in force leads to now loaded, where that is another model. Nothing of it lasts.

        Args:
            kind: who wants it, `refresh` or `command`.
            version: of what it leads to, where that is known.
        """
        now = self.in_force
        self.refused = version or self.refused  # until it is loaded
        try:
            slot = self._wish(now.document)
        except ConfigurationError as error:  # a link may lead out of the configuration's folder now
            self._reject(kind, now.sha256, error.problems)
            return
        self.pending = Request(
            kind,
            slot,
            now.sha256,
            now.document,
            known=now.fetched.version,
            in_force=now.model.sha256,
            measured=now.measured,
        )
        self._tell("loading", self.pending)

    def arrive(self, arrival: Arrival, now: int, problems: Callable[[Opened], Sequence[Problem]]) -> Change:
        """Find out what becomes of what the loader has to say. Changes nothing by itself.

        Args:
            arrival: what it says.
            now: wall time, ns since the Unix epoch.
            problems: says why a model that was loaded cannot take over.
        """
        request, result = arrival.request, arrival.result
        if isinstance(result, Moved):
            return self._move(result.version)
        if request is None or request is not self.pending:  # another was wanted meanwhile
            return Change(None, None, _nothing)
        later = copy(self)
        if isinstance(result, Away) and request.is_lasting:
            later._wait_for(request, result.reason)  # noqa: SLF001 - a copy of ourselves
            memory = later.memory() if later._trying != self._trying else None  # noqa: SLF001 - as above
            return Change(None, memory, lambda: self._become(later))
        later.pending, later._trying = None, _NOTHING_TRIED  # noqa: SLF001 - as above
        if isinstance(result, Unchanged | Away) or self._is_same(request, result):
            later._leave(result)  # noqa: SLF001 - as above
            return Change(None, later.memory(), lambda: self._become(later))
        swap = later._conclude(request, result, now, problems)  # noqa: SLF001 - as above
        return Change(swap, later.memory(), lambda: self._become(later), swap is None)

    def memory(self) -> dict[str, Any]:
        """Return what has to survive a restart, as JSON holds it."""
        now, pending = self.in_force, self.pending
        lasting = pending if pending is not None and pending.is_lasting else None
        return {
            "revision": self.revision,
            "seen": self._seen,
            "answer": self._settled,
            "trying": list(self._trying),
            "in_force": {
                "source": now.source,
                "document": now.document,
                "sha256": now.sha256,
                "model": now.model.sha256,
                "version": now.fetched.version,
                "key": now.fetched.key,
            },
            "wanted": lasting and {"source": lasting.kind, "document": lasting.document, "sha256": lasting.sha256},
        }

    def _become(self, later: ModelControl) -> None:
        self.__dict__.update(later.__dict__)

    def _wish(self, document: dict[str, Any] | None) -> Slot:
        return wanted(document, self.slot)

    def _consider(self, payload: bytes, digest: str, problems: Sequence[Problem], user: str | None) -> None:
        """Begin to load, or reject, a document that is new; what is under way for an older one is dropped."""
        self._seen, self.pending, self._trying = digest, None, _NOTHING_TRIED
        if not payload.strip() and not problems:
            self._return_to_file(digest)
            return
        if problems:
            self._reject("topic", digest, problems)
            return
        try:
            document = parse_model(payload, self.slot)
        except ConfigurationError as error:
            self._reject("topic", digest, error.problems)
            return
        log.info("A model from the topic%s is loaded: %s.", f", sent by {user}" if user else "", document["path"])
        self._request_wanted(Wanted("topic", document, digest))

    def _return_to_file(self, digest: str) -> None:
        if self.in_force.source == "file":
            said = {"status": "applied", "source": "file", "active_source": "file", "errors": [], "sha256": digest}
            self._settle(self._settled | said)
        else:
            log.info("The topic's model was removed: the configuration's is loaded.")
            self._request_wanted(Wanted("file", None, digest))

    def _request_wanted(self, one: Wanted) -> None:
        try:
            slot = self._wish(one.document)
        except ConfigurationError as error:  # the configuration has changed since it was accepted
            self._reject(one.source, one.sha256, error.problems)
            return
        if not self._try(one.sha256):
            self._reject(one.source, one.sha256, [_DEADLY])
            return
        now = self.in_force
        self.pending = Request(
            one.source, slot, one.sha256, one.document, in_force=now.model.sha256, measured=now.measured
        )
        self._tell("loading", self.pending)

    def _move(self, version: str) -> Change:
        """Have what the path in force leads to now loaded."""
        if self.pending is not None or version in (self.in_force.fetched.version, self.refused):
            return Change(None, None, _nothing)
        later = copy(self)
        is_tried = later._try(f"refresh {version}")  # noqa: SLF001 - a copy of ourselves
        if is_tried:
            later.look_again("refresh", version)
        else:
            later.refused = version
            later._reject("refresh", self.in_force.sha256, [_DEADLY])  # noqa: SLF001 - as above
        return Change(None, later.memory(), lambda: self._become(later), not is_tried)

    def _try(self, what: str) -> bool:
        """Take note, to be on disk before it is loaded, that something is; whether it was not tried too often.

        A model that ends the process, because it takes all the memory, must not do so at each start.
        """
        before, times = self._trying
        self._trying = (what, times + 1 if before == what else 1)
        return self._trying[1] <= _MOST_TRIES

    def _wait_for(self, request: Request, reason: str) -> None:
        self._trying = _NOTHING_TRIED
        told = self.answer["errors"]
        self._tell("waiting", request, reason)
        if told != self.answer["errors"]:
            log.warning("A model cannot be had now and is tried again, the model in force stays: %s", reason)

    def _is_same(self, request: Request, result: Loaded | Failed) -> bool:
        """Whether who looked again found the same model, touched or under another tag."""
        if request.is_lasting or isinstance(result, Failed):
            return False
        now, found = self.in_force, result.opened
        return (found.model.sha256, configured(found.slot)) == (now.model.sha256, configured(now.slot))

    def _leave(self, result: Result) -> None:
        """Leave everything as it was before somebody looked again, where what was found is the same, or nothing."""
        if isinstance(result, Loaded):
            self.in_force = replace(self.in_force, fetched=result.opened.fetched)
        self.answer, self.refused = self._settled, ""

    def _conclude(
        self, request: Request, result: Loaded | Failed, now: int, problems: Callable[[Opened], Sequence[Problem]]
    ) -> Opened | None:
        """Put a model in force, or say why not; return it."""
        found = result.problems if isinstance(result, Failed) else problems(result.opened)
        if isinstance(result, Loaded) and not found:
            document = request.document
            sha256 = digest_of_configuration(self.slot) if document is None else request.sha256
            in_force = InForce.of(result.opened, document, sha256)
            self._put_in_force(in_force, request.kind, request.sha256, now, result.trial)
            return result.opened
        if isinstance(result, Loaded):
            self.refused = result.opened.fetched.version
        self._reject(request.kind, request.sha256, found)
        return None

    def _put_in_force(self, in_force: InForce, source: Kind, sha256: str, now: int, trial: Trial) -> None:
        self.in_force, self.refused = in_force, ""
        self.revision += 1
        model = in_force.model
        if self.revision > 1:  # the first is the configuration's, which the log names anyway
            log.info(
                "Model revision %d is in force: %s, sha256 %.12s…, wanted by the %s.",
                self.revision, model.name, model.sha256, source,
            )  # fmt: skip
        failed = trial.raised + trial.not_finite
        if failed:
            log.warning(
                "The model %s could not judge %d of the newest %d windows; such windows become dead letters or have no "
                "label.", model.name, failed, trial.windows,
            )  # fmt: skip
        self._settle(
            {
                "status": "applied",
                "source": source,
                "active_source": in_force.source,
                "revision": self.revision,
                "sha256": sha256,
                "applied_at": timestamp(now),
                "errors": [],
                "active": self._told(),
                "recent": {"windows": trial.windows, "failed": failed, "agreement": trial.agreement},
            }
        )

    def _told(self) -> dict[str, Any]:
        """Return what is said of the model in force."""
        now = self.in_force
        return {
            "name": now.model.name,
            "path": now.slot.model.path,
            "sha256": now.model.sha256,
            "digest": now.fetched.digest,
            "kind": now.model.kind,
            "labels": list(now.model.labels[:_MOST_LABELS]),
            "document": now.document,
        }

    def _reject(self, source: Kind, digest: str, problems: Sequence[Problem]) -> None:
        log.warning(
            "A model, wanted by the %s, was rejected, the model in force stays: %s",
            source,
            "; ".join(map(str, problems)),
        )
        self._settle(
            self._settled
            | {
                "status": "rejected",
                "source": source,
                "sha256": digest,
                "errors": [{"path": problem.path, "message": problem.message} for problem in problems[:_MOST_ERRORS]],
            }
        )

    def _settle(self, answer: dict[str, Any]) -> None:
        self._settled = self.answer = answer

    def _tell(self, status: str, request: Request, reason: str = "") -> None:
        """Give an interim answer."""
        errors = [{"path": "path", "message": reason}] if reason else []
        self.answer = self._settled | {
            "status": status, "source": request.kind, "sha256": request.sha256, "errors": errors
        }  # fmt: skip


def digest_of_configuration(slot: Slot) -> str:
    """Return the digest of what the configuration says of its model, as far as that may change."""
    return hashlib.sha256(json.dumps(configured(slot), sort_keys=True).encode()).hexdigest()


def _nothing() -> None:
    """Install nothing."""
