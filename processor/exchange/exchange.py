"""What comes for the model, carried out. Called by the pipeline thread, between two batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from processor import own_topics
from processor.errors import Problem
from processor.exchange.in_force import Change
from processor.exchange.loader import Arrival, Away, Loader, Watch
from processor.exchange.opening import Opened
from processor.filter import FilterDocument
from processor.lanes import Lane
from processor.metrics import Metrics
from processor.mqtt.properties import properties
from processor.protocols import Clock, Model, Source
from processor.registry.fetched import PREFIX, Fetched
from processor.settings import Slot
from processor.shadow.opening import META as SHADOW
from processor.slot_state import SlotChanges
from processor.store import Changes
from processor.types import Message

log = logging.getLogger(__name__)

Answer = Callable[[int, Mapping[str, Any]], None]
"""As in `live_commands`."""

_OK: Final = 200
_CONFLICT: Final = 409
_LATER: Final = 503
_PATIENCE: Final = 30.0
"""Seconds that whoever sent `reload_model` waits for more than "it is being loaded"."""
_MOST_ASKERS: Final = 100


class _Asker(NamedTuple):
    """Who waits to hear what became of `reload_model`."""

    answer: Answer
    until: float
    """On the monotonic clock."""


class Exchange:
    """Carries out what is wanted of a lane's model, and says what became of it.

    Attributes:
        lane: whose model is exchanged.
    """

    def __init__(
        self,
        *,
        lane: Lane,
        source: Source,
        loader: Loader,
        problems: Callable[[Slot, Model, FilterDocument], Sequence[Problem]],
        metrics: Metrics,
        clock: Clock,
        report: Callable[[], None],
        in_force: Callable[[], Collection[Fetched]],
    ) -> None:
        """Take what `app.build` made, and go on with what an earlier run was loading.

        Args:
            lane: whose model is exchanged.
            source: our connection.
            loader: loads models.
            problems: says why a slot and its model do not fit a filter.
            metrics: to count in.
            clock: for intervals and times.
            report: tells the twin which model is in force.
            in_force: returns the files of all lanes' models in force, which stay in the cache.
        """
        self.lane = lane
        self._source = source
        self._control = lane.models
        self._loader = loader
        self._problems = problems
        self._metrics = metrics
        self._clock = clock
        self._report = report
        self._in_force = in_force
        self._askers: list[_Asker] = []
        self._show()
        # The copy that is kept was opened: meanwhile its path may lead elsewhere.
        self._watch(now=bool(lane.models.in_force.fetched.key))
        loader.tidy(lane.models.slot.settings, in_force())
        if lane.models.pending is not None:
            loader.ask(lane.models.pending, self._window_size)

    @property
    def _window_size(self) -> int:
        return self.lane.computation.windows.shape.size

    def offer(self, message: Message) -> tuple[Changes, Callable[[], None]]:
        """Find out what a message on the `model` topic wants.

        Returns:
            What has to be on disk first; and what then carries it out and answers.
        """
        size = message.oversize
        cut = [Problem("", f"{size} bytes; broker.max_payload allows less")] if size else []
        user = properties(message).user
        change = self._control.offer(message.payload, repeated=message.retain, problems=cut, user=user)

        def install() -> None:
            self._carry_out(change.install)
            if change.memory is not None:
                self._metrics.add("model_rejected", change.rejected, self.lane.name)
                self._tell_askers("a newer document on the model topic came before it was loaded")

        return self._changes({} if change.memory is None else {"model": change.memory}), install

    def apply(self, arrival: Arrival) -> tuple[Changes, Callable[[], None]]:
        """Find out what becomes of what the loader has to say.

        Returns:
            What has to be on disk first; and what then puts a model in force, or says why it is not, and answers.
        """
        request = arrival.request
        is_wanted = request is not None and request is self._control.pending
        if is_wanted and arrival.window_size != self._window_size:
            return Changes(), lambda: self._loader.ask(request, self._window_size)
        change = self._control.arrive(arrival, self._clock.wall(), self._find_problems)
        meta = {} if change.memory is None else {"model": change.memory}
        swap, selection = change.swap, None
        if swap is not None:
            selection = self.lane.make_selection(self.lane.filters.active, swap.model)
            meta |= self.lane.computation.memory(selection) | {SHADOW: swap.measured}

        def install() -> None:
            if swap is not None and selection is not None:
                self.lane.computation.exchange(swap.model, swap.shadow, selection)
                self._metrics.add("model_swaps", 1, self.lane.name)
                self._metrics.forget_scores(self.lane.name)
            self._carry_out(change.install)
            if swap is not None:
                self._show()
                self._report()
            if swap is not None or change.rejected:
                self._loader.tidy(self._control.slot.settings, self._in_force())
            self._metrics.add("model_rejected", change.rejected, self.lane.name)
            if is_wanted and self._control.pending is None:
                self._answer_askers(arrival, change)

        return self._changes(meta), install

    def _changes(self, meta: dict[str, Any]) -> Changes:
        return Changes(slots={self.lane.name: SlotChanges(meta=meta)})

    def reload(self, answer: Answer) -> None:
        """Look again at what the path in force leads to, or go on with what is under way; answer when that is known."""
        if len(self._askers) >= _MOST_ASKERS:
            answer(_CONFLICT, _error("too many commands wait for a model already; wait for their answers"))
            return
        self._askers.append(_Asker(answer, self._clock.monotonic() + _PATIENCE))
        if self._control.pending is None:
            self._carry_out(lambda: self._control.look_again("command"))
            if self._control.pending is None:
                self._tell_askers(self._told())
        else:
            self._loader.hurry()

    def tick(self) -> None:
        """Answer those who have waited long enough."""
        if self._askers and self._clock.monotonic() >= self._askers[0].until:
            asker = self._askers.pop(0)
            told = "; ".join(error["message"] for error in self._control.answer["errors"])
            text = f"the model is still {self._control.answer['status']}{f' ({told})' if told else ''}"
            asker.answer(_LATER, _error(f"{text}; what becomes of it is said on {self.lane.root}/model/state"))

    def publish_state(self) -> None:
        """Publish the last answer, retained."""
        own_topics.MODEL_STATE.publish(self._source, self.lane.root, msgspec.json.encode(self._control.answer))

    def _carry_out(self, install: Callable[[], None]) -> None:
        """Make a change, tell the loader what is wanted now, and say what came of it."""
        pending = self._control.pending
        install()
        if self._control.pending is not pending:
            self._loader.ask(self._control.pending, self._window_size)
        self._watch()
        self.publish_state()

    def _watch(self, *, now: bool = False) -> None:
        control, in_force = self._control, self._control.in_force
        self._loader.watch(Watch(in_force.slot, frozenset({in_force.fetched.version, control.refused})), now=now)

    def _show(self) -> None:
        model = self._control.in_force.model
        self._metrics.set_only("model_info", 1, self.lane.name, model.name, model.sha256)
        self._metrics.set("model_revision", self._control.revision, self.lane.name)
        for name in ("model_swaps", "model_rejected"):
            self._metrics.expect(name, self.lane.name)

    def _find_problems(self, opened: Opened) -> Sequence[Problem]:
        found = list(self._problems(opened.slot, opened.model, self.lane.filters.active))
        annotated = opened.fetched.annotations.get(f"{PREFIX}window.size")
        sizes = self.lane.sizes
        if annotated is not None and sizes.current == sizes.configured and annotated != str(sizes.current):
            message = f"the model is for {annotated} readings, and windows have {sizes.current} and keep them"
            found.append(Problem("window.size", f"{message}; set model.window.size in the configuration, and restart"))
        return opened.slot.named(found)

    def _answer_askers(self, arrival: Arrival, change: Change) -> None:
        """Say to those who sent `reload_model` what became of it."""
        control, result = self._control, arrival.result
        model = control.in_force.model
        body = {
            "status": "ok",
            "changed": change.swap is not None,
            "model": {"name": model.name, "sha256": model.sha256},
            "revision": control.revision,
        }
        status = _OK
        if isinstance(result, Away):
            status, body = _LATER, _error(result.reason)
        elif change.rejected:
            status, body = _CONFLICT, _error(self._told())
        askers, self._askers = self._askers, []
        for asker in askers:
            asker.answer(status, body)

    def _told(self) -> str:
        """Return the errors of the last answer in one line."""
        return "; ".join(": ".join(filter(None, each.values())) for each in self._control.answer["errors"])

    def _tell_askers(self, reason: str) -> None:
        """Say that what they asked for will not be."""
        askers, self._askers = self._askers, []
        for asker in askers:
            asker.answer(_CONFLICT, _error(reason))


def _error(sentence: str) -> dict[str, Any]:
    return {"status": "error", "error": sentence}
