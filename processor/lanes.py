"""What there is once for each model: its windows, its filter, what of them is on disk, and how each is changed.

A lane is what a processor with one model has; its computation takes the messages of its own sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from processor.assembly import (
    build_computation,
    filter_problems,
    make_windows,
    obtain_model,
    signature,
    with_window_size,
)
from processor.computation import Computation
from processor.control import FilterControl
from processor.errors import ConfigurationError, Problem
from processor.filter import FilterDocument
from processor.journal import Journal
from processor.memories import OF_SOURCES, Memories, Remembered
from processor.model.onnx_model import OnnxModel
from processor.retained import RetainedCopies
from processor.selection import Selection
from processor.settings import Settings, load_filter
from processor.shadow.opening import META as SHADOW
from processor.shadow.opening import open_both, open_shadow
from processor.shadow.timing import Kept
from processor.shadow.timing import read as read_times
from processor.sizing import WindowSize
from processor.slot_state import SlotState
from processor.types import MODEL_SLOT
from processor.windows import LookBack


@dataclass(frozen=True, slots=True)
class Lane:
    """One model with all that is its own. Used by the pipeline thread.

    Attributes:
        name: of the model slot.
        root: what the topics of its filter start with, without the last slash.
        computation: from messages of its sources to samples.
        filters: decides which filter is in force.
        make_selection: makes a filter ready, and lets it go on with what the one in force remembers.
        journal: which readings the store keeps for its windows.
        sizes: changes the size of its windows.
        source_names: of its sources, in the configuration's order.
        fields: of all of them.
        measured: what windows take in its model and in its shadows.
    """

    name: str
    root: str
    computation: Computation
    filters: FilterControl
    make_selection: Callable[[FilterDocument], Selection]
    journal: Journal
    sizes: WindowSize
    source_names: Sequence[str]
    fields: Sequence[str]
    measured: Sequence[Kept] = ()

    def memory(self) -> dict[str, Any]:
        """Return what has to survive a restart, as JSON holds it."""
        filters, selection = self.filters.memory(), self.computation.selection
        return {"filter": filters, SHADOW: self.measured, **self.computation.memory(selection)}


class Parts(NamedTuple):
    """A configured model and filter that fit each other and the sources: what a lane is made of.

    Attributes:
        settings: the configuration, its model obtained.
        document: the file's filter.
        text: what it was read from.
        model: loaded.
    """

    settings: Settings
    document: FilterDocument
    text: bytes
    model: OnnxModel

    def check(self, document: FilterDocument) -> Sequence[Problem]:
        """Return where a filter does not fit the model or the sources."""
        return filter_problems(self.settings, self.model, document)


def prepare(settings: Settings) -> Parts:
    """Load the model and the filter.

    Raises:
        ConfigurationError: filter, model and sources do not fit.
        ModelError: the model cannot be loaded.
    """
    document, text = load_filter(settings)
    settings, model = obtain_model(settings)
    parts = Parts(settings, document, text, model)
    problems = [Problem(f"filter.{problem.path}", problem.message) for problem in parts.check(document)]
    if problems:
        raise ConfigurationError(problems)
    return parts


def open_lane(
    parts: Parts,
    state: SlotState,
    *,
    now: int,
    window_size: int | None,
    paused: bool,
    copies: RetainedCopies,
    held: Callable[[], Sequence[str]],
) -> Lane:
    """Go on where an earlier run ended.

    Args:
        parts: from `prepare`.
        state: of its slot.
        now: wall time, ns since the Unix epoch.
        window_size: readings in a window, as a twin had asked for; None: as configured.
        paused: whether every window is refused.
        copies: tells retained messages that were read before.
        held: returns the filters that a message may have a copy for.
    """
    settings = parts.settings
    control = FilterControl(parts.document, parts.text, parts.check, state.meta("filter"), now)
    sized, model = with_window_size(settings, parts.model, window_size)
    opened = open_shadow(sized, model, read_times(state.meta(SHADOW)))
    windows = make_windows(sized)
    windows.keep(LookBack(*(state.meta("look_back") or ())))
    journal = Journal(windows, signature(sized), state)  # before the filter says how far to look back from now on
    remembered = state.remembered()
    computation, make_selection = build_computation(
        sized,
        model,
        control.active,
        windows=windows,
        shadow=opened.shadow,
        memories=Memories.kept(state.meta("memories"), remembered),
        of_sources=[Remembered(*row) for row in remembered if row[0] == OF_SOURCES],
        revision=control.revision,
        paused=paused,
        copies=copies,
        held=held,
    )
    sizes = WindowSize(
        configured=settings.model.window.size,
        computation=computation,
        journal=journal,
        open_models=lambda size: open_both(settings.with_window_size(size), opened.memory),
        signature=lambda size: signature(settings.with_window_size(size)),
    )
    return Lane(
        name=MODEL_SLOT,
        root=settings.root,
        computation=computation,
        filters=control,
        make_selection=make_selection,
        journal=journal,
        sizes=sizes,
        source_names=[source.name for source in settings.sources],
        fields=list(dict.fromkeys(field for source in settings.sources for field in source.fields)),
        measured=opened.memory,
    )
