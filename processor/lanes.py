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
from processor.computation import Computation, Outcome
from processor.control import FilterControl
from processor.errors import ConfigurationError, Problem
from processor.filter import FilterDocument
from processor.journal import Journal
from processor.memories import OF_SOURCES, Memories, Remembered
from processor.model.onnx_model import OnnxModel
from processor.retained import RetainedCopies
from processor.selection import Selection
from processor.settings import Slot, load_filter
from processor.shadow.opening import META as SHADOW
from processor.shadow.opening import open_both, open_shadow
from processor.shadow.timing import Kept
from processor.shadow.timing import read as read_times
from processor.sizing import WindowSize
from processor.slot_state import SlotState
from processor.store import Changes
from processor.types import Message
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

    def carry(self, messages: Sequence[Message], changes: Changes) -> Outcome:
        """Carry its part of a batch from messages to samples, and add to `changes` what that changes on disk."""
        outcome = self.computation.run(messages)
        own = changes.of(self.name)
        own.remembered = outcome.remembered
        self.journal.record(own, outcome.taken.readings.slots, outcome.past)
        changes.samples = [*changes.samples, *outcome.outgoing]
        changes.dead_letters = [*changes.dead_letters, *outcome.dead_letters]
        return outcome

    def memory(self) -> dict[str, Any]:
        """Return what has to survive a restart, as JSON holds it."""
        filters, selection = self.filters.memory(), self.computation.selection
        return {"filter": filters, SHADOW: self.measured, **self.computation.memory(selection)}


class Parts(NamedTuple):
    """A configured model and filter that fit each other and the sources: what a lane is made of.

    Attributes:
        slot: the model's part of the configuration, the model obtained.
        document: the file's filter.
        text: what it was read from.
        model: loaded.
    """

    slot: Slot
    document: FilterDocument
    text: bytes
    model: OnnxModel

    def check(self, document: FilterDocument) -> Sequence[Problem]:
        """Return where a filter does not fit the model or the sources."""
        return filter_problems(self.slot, self.model, document)


def prepare(slot: Slot) -> Parts:
    """Load a model and its filter.

    Raises:
        ConfigurationError: filter, model and sources do not fit.
        ModelError: the model cannot be loaded.
    """
    document, text = load_filter(slot)
    slot, model = obtain_model(slot)
    parts = Parts(slot, document, text, model)
    problems = [Problem(f"filter.{problem.path}", problem.message) for problem in parts.check(document)]
    if problems:
        raise ConfigurationError(slot.named(problems))
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
    slot = parts.slot
    control = FilterControl(parts.document, parts.text, parts.check, state.meta("filter"), now)
    sized, model = with_window_size(slot, parts.model, window_size)
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
        configured=slot.model.window.size,
        computation=computation,
        journal=journal,
        open_models=lambda size: open_both(slot.with_window_size(size), opened.memory),
        signature=lambda size: signature(slot.with_window_size(size)),
    )
    return Lane(
        name=slot.name,
        root=slot.root,
        computation=computation,
        filters=control,
        make_selection=make_selection,
        journal=journal,
        sizes=sizes,
        source_names=[source.name for source in slot.sources],
        fields=slot.fields,
        measured=opened.memory,
    )
