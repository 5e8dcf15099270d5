"""The thread that loads models, tries them, and looks whether what a path leads to has moved."""

from __future__ import annotations

import ctypes
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from processor.errors import ModelError, ModelMisfit, ModelUnavailable, Problem
from processor.exchange.opening import Opened, only_model_errors, open_wanted
from processor.exchange.recent import RecentWindows, Trial
from processor.obtaining import current_version, prune
from processor.registry.fetched import Fetched
from processor.settings import Settings, Slot
from processor.shadow.timing import Kept
from processor.types import NS

log = logging.getLogger(__name__)

Kind = Literal["file", "topic", "refresh", "command"]
"""Who wants a model: the configuration, an operator's document, a path that leads elsewhere, the command."""

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_JITTER: Final = 0.2
"""By how much a pause differs from what it should be, so that many processors do not ask a registry at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A model that is wanted. Two requests are never the same.

    Attributes:
        kind: who wants it.
        slot: the configuration's, with the model's own keys.
        sha256: of the document as it came; that of the configuration's keys where there is none.
        document: as it was read; None: the configuration's.
        known: version of what is there already, for which nothing is loaded; None: it is loaded whatever it is.
        in_force: SHA-256 of the model in force.
        measured: what windows took in models and their shadows.
    """

    kind: Kind
    slot: Slot
    sha256: str
    document: dict[str, Any] | None
    known: str | None = None
    in_force: str = ""
    measured: Sequence[Kept] = ()

    @property
    def is_lasting(self) -> bool:
        """Whether it is on disk, so that it is tried until it can be told whether the model is good."""
        return self.kind in ("file", "topic")


class Loaded(NamedTuple):
    """The model was loaded, and can judge."""

    opened: Opened
    trial: Trial


class Unchanged(NamedTuple):
    """It is the one that is there already."""


class Failed(NamedTuple):
    """It is no good, and trying again will not mend that."""

    problems: tuple[Problem, ...]


class Away(NamedTuple):
    """Where it should be cannot be reached; a request that lasts is tried again."""

    reason: str


class Moved(NamedTuple):
    """The path of the model in force leads to another model."""

    version: str


Result = Loaded | Unchanged | Failed | Away | Moved


class Arrival(NamedTuple):
    """What the loader has to say, for the pipeline thread to take between two batches."""

    lane: str
    """Whose model it is."""
    request: Request | None
    """None: nobody asked."""
    window_size: int
    result: Result


class Watch(NamedTuple):
    """A path that is looked at again and again."""

    slot: Slot
    versions: frozenset[str]
    """What is known of it: the model in force, and one that was refused."""


class Loader:
    """One request at a time, the newest; `run` is the loader's thread, everything else is called by the pipeline's.

    Attributes:
        lane: whose model is loaded.
        failures: how often a path could not be looked at.
    """

    def __init__(self, lane: str, recent: RecentWindows, wake: Callable[[], None]) -> None:
        """Load nothing yet.

        Args:
            lane: whose model is loaded.
            recent: the windows that models are tried on.
            wake: called, on the loader's thread, when there is something to `take`; must not block.
        """
        self.failures = 0
        self.lane = lane
        self._recent = recent
        self._wake = wake
        self._news = threading.Condition()
        self._request: Request | None = None
        self._window_size = 0
        self._try_at = 0.0
        self._pause = _FIRST_PAUSE
        self._watch: Watch | None = None
        self._look_at = math.inf
        self._tidying: tuple[Settings, Collection[Fetched]] | None = None
        self._told = ""  # why a path could not be looked at
        self._inbox: Arrival | None = None
        self._stopping = False

    def ask(self, request: Request | None, window_size: int) -> None:
        """Load this in place of whatever is under way, for windows of so many readings; None: load nothing."""
        with self._news:
            self._request, self._window_size, self._inbox = request, window_size, None
            self._try_at, self._pause = 0.0, _FIRST_PAUSE
            self._news.notify()

    def hurry(self) -> None:
        """Try at once what waits for its next try."""
        with self._news:
            self._try_at, self._pause = 0.0, _FIRST_PAUSE
            self._news.notify()

    def watch(self, watch: Watch, *, now: bool = False) -> None:
        """Look at a path from now on, as often as its settings say, and at once where that is wanted."""
        with self._news:
            if watch == self._watch:
                return
            self._watch = watch
            self._set_next_look()
            self._look_at = 0.0 if now else self._look_at
            self._news.notify()

    def tidy(self, settings: Settings, in_force: Collection[Fetched]) -> None:
        """Clear up after a swap or a rejection, when there is nothing else to do."""
        with self._news:
            self._tidying = (settings, in_force)
            self._news.notify()

    def take(self) -> Arrival | None:
        """Return what has come and was not taken yet."""
        with self._news:
            arrival, self._inbox = self._inbox, None
            return arrival

    def stop(self) -> None:
        """End after the call under way. Any thread."""
        with self._news:
            self._stopping = True
            self._news.notify()

    def run(self) -> None:
        """Work until stopped."""
        while (job := self._wait()) is not None:
            job()

    def _wait(self) -> Callable[[], None] | None:
        """Wait for something to do; None: to stop."""
        with self._news:
            while not self._stopping:
                now = time.monotonic()
                until = self._look_at if self._request is None else self._try_at
                if now >= until:
                    return self._next_job()
                if self._tidying is not None:
                    (settings, in_force), self._tidying = self._tidying, None
                    return partial(_tidy, settings, in_force)
                self._news.wait(None if until == math.inf else until - now)
        return None

    def _next_job(self) -> Callable[[], None]:
        if self._request is not None:
            return partial(self._load, self._request, self._window_size)
        self._set_next_look()
        return self._look

    def _load(self, request: Request, window_size: int) -> None:
        """Carry a request as far as it comes, and say how far that was, if it is still wanted."""
        slot = request.slot.with_window_size(window_size)
        result: Result
        try:
            with only_model_errors():
                result = self._found(request, slot)
        except ModelUnavailable as error:
            result = Away(str(error))
        except ModelMisfit as error:
            result = Failed(tuple(Problem(each.path.removeprefix("model."), each.message) for each in error.problems))
        except ModelError as error:
            result = Failed((Problem("path", str(error)),))
        with self._news:
            if self._request is not request or self._window_size != window_size:
                return
            if isinstance(result, Away) and request.is_lasting:
                self._try_at = time.monotonic() + _jittered(self._pause)
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            else:
                self._request = None
            self._inbox = Arrival(self.lane, request, window_size, result)
        self._wake()

    def _found(self, request: Request, slot: Slot) -> Result:
        if request.known is not None and current_version(slot) == request.known:
            return Unchanged()
        opened = open_wanted(slot, request.measured, or_last_good=request.kind == "file")
        trial = self._recent.attempt(opened.model, request.in_force)
        return Failed((_hopeless(trial),)) if trial.is_hopeless else Loaded(opened, trial)

    def _look(self) -> None:
        """Look whether a path leads elsewhere now."""
        watch = self._watch
        if watch is None:
            return
        try:
            with only_model_errors():
                version = current_version(watch.slot)
        except ModelError as error:
            self.failures += 1
            if self._told != str(error):
                self._told = str(error)
                log.warning("The model's path could not be looked at, the model in force stays: %s", error)
            with self._news:
                if self._look_at == math.inf:  # it was to be looked at once, and that is still to do
                    self._look_at = time.monotonic() + _jittered(_LONGEST_PAUSE)
            return
        if self._told:
            log.info("The model's path can be looked at again.")
            self._told = ""
        with self._news:
            busy = self._request is not None or self._inbox is not None
            if busy or self._watch is not watch or version in watch.versions:
                return
            self._inbox = Arrival(self.lane, None, 0, Moved(version))
        self._wake()

    def _set_next_look(self) -> None:
        every = None if self._watch is None else self._watch.slot.model.refresh
        self._look_at = math.inf if every is None else time.monotonic() + _jittered(every / NS)


def _tidy(settings: Settings, in_force: Collection[Fetched]) -> None:
    """Remove what was fetched and is not needed, and return the memory of models that are gone to the system.

    glibc keeps what a thread has freed for that thread: half of what a swap takes, measured.
    """
    prune(settings, in_force)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret


def _hopeless(trial: Trial) -> Problem:
    if trial.raised:
        said = f"it raises on {trial.raised} of the newest {trial.windows} windows: {trial.first_error}"
    else:
        said = "it gives no number"
    return Problem("path", f"of the newest {trial.windows} windows the model can judge none; {said}")
