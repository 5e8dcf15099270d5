"""What there is once for each model: its windows, its filter, what of them is on disk, and how each is changed.

A lane is what a processor with one model has; its computation takes the messages of its own sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from processor.assembly import build_computation, make_windows, signature
from processor.computation import Computation, Outcome
from processor.control import FilterControl
from processor.exchange.beginning import Beginning, reopen, resized
from processor.exchange.control import ModelControl
from processor.filter import FilterDocument
from processor.journal import Journal
from processor.memories import OF_SOURCES, Memories, Remembered
from processor.protocols import Model
from processor.retained import RetainedCopies
from processor.selection import Selection
from processor.shadow.opening import META as SHADOW
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
        models: decides which model is in force.
        make_selection: makes a filter ready for a model, and lets it go on with what the one in force remembers.
        journal: which readings the store keeps for its windows.
        sizes: changes the size of its windows.
        source_names: of its sources, in the configuration's order.
        fields: of all of them.
    """

    name: str
    root: str
    computation: Computation
    filters: FilterControl
    models: ModelControl
    make_selection: Callable[[FilterDocument, Model], Selection]
    journal: Journal
    sizes: WindowSize
    source_names: Sequence[str]
    fields: Sequence[str]

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
        filters, models, selection = self.filters.memory(), self.models.memory(), self.computation.selection
        measured = self.models.in_force.measured
        return {"filter": filters, "model": models, SHADOW: measured, **self.computation.memory(selection)}


def open_lane(
    beginning: Beginning,
    state: SlotState,
    *,
    window_size: int | None,
    paused: bool,
    copies: RetainedCopies,
    held: Callable[[], Sequence[str]],
) -> Lane:
    """Go on where an earlier run ended.

    Args:
        beginning: the model and the filter in force.
        state: of its slot.
        window_size: readings in a window, as a twin had asked for; None: as configured.
        paused: whether every window is refused.
        copies: tells retained messages that were read before.
        held: returns the filters that a message may have a copy for.
    """
    slot, models, filters, opened = beginning
    sized, model, shadow = resized(slot, models, opened, window_size)
    del opened, beginning  # they would hold the model after another has taken over
    windows = make_windows(sized)
    windows.keep(LookBack(*(state.meta("look_back") or ())))
    journal = Journal(windows, signature(sized), state)  # before the filter says how far to look back from now on
    remembered = state.remembered()
    computation, make_selection = build_computation(
        sized,
        model,
        filters.active,
        windows=windows,
        shadow=shadow,
        memories=Memories.kept(state.meta("memories"), remembered),
        of_sources=[Remembered(*row) for row in remembered if row[0] == OF_SOURCES],
        revision=filters.revision,
        paused=paused,
        copies=copies,
        held=held,
    )
    sizes = WindowSize(
        configured=slot.model.window.size,
        computation=computation,
        journal=journal,
        open_models=partial(reopen, models),
        signature=lambda size: signature(slot.with_window_size(size)),
    )
    return Lane(
        name=slot.name,
        root=slot.root,
        computation=computation,
        filters=filters,
        models=models,
        make_selection=make_selection,
        journal=journal,
        sizes=sizes,
        source_names=[source.name for source in slot.sources],
        fields=slot.fields,
    )
