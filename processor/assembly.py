"""What the live path and a replay are both made of: the model, and the computation around it.

`app.build` adds the broker, the state and the bridges; a replay adds a recording and counts.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from processor import context
from processor.computation import Computation
from processor.decoders import decoder
from processor.errors import Problem
from processor.filter import FilterDocument, check_against, validate_filter
from processor.intake import Intake
from processor.legacy import as_filter
from processor.memories import Memories, Remembered
from processor.model.onnx_model import OnnxModel, load_model
from processor.obtaining import obtain, remember
from processor.protocols import Model
from processor.retained import RetainedCopies
from processor.selection import Selection
from processor.settings import HubBridge, HubLegacy, Slot
from processor.shadow.judge import Shadow
from processor.types import MODEL_SLOT, OutputKind
from processor.windows import Shape, WindowBuffer

log = logging.getLogger(__name__)

_PIXELS_AT_ONCE: Final = 32 << 20
"""Bytes."""


def obtain_model(slot: Slot) -> tuple[Slot, OnnxModel]:
    """Bring a configured model here, and load it.

    Returns:
        The slot, with the model's annotations where the file says nothing, and the model.

    Raises:
        ModelError: it cannot be had or loaded, or does not fit what the sources give.
    """
    obtained, _ = obtain(slot)
    return obtained, open_model(obtained)


def open_model(slot: Slot) -> OnnxModel:
    """Load a configured model; it is fetched where `obtain` has not done so before.

    Raises:
        ModelError: it cannot be had or loaded, or does not fit what the sources give.
    """
    slot, fetched = obtain(slot)
    model, source = slot.model, slot.sources[0]
    loaded = load_model(
        fetched.path,
        name=fetched.name,
        window_size=model.window.size,
        channels=source.channels,
        fields=source.fields,
        image=source.image_size,
        input_name=model.input.name,
        layout=model.input.layout,
        mean=model.input.mean,
        std=model.input.std,
        output_name=model.output.name,
        output_kind=model.output.kind,
        labels=model.output.labels,
        temperature=model.temperature,
        max_batch=model.batch.max_size,
        threads=model.threads,
        providers=model.providers,
        custom_ops=[slot.path(name) for name in model.custom_ops],
    )
    remember(slot)
    return loaded


def signature(slot: Slot) -> str:
    """Return what windows look like: those kept from a run in which they looked different are useless."""
    window = slot.model.window
    sources = [[source.name, source.fields] for source in slot.sources]
    return json.dumps([window.size, window.step, window.max_gap, sources])


class Answers(Protocol):
    """What filters have to fit of a model."""

    @property
    def kind(self) -> OutputKind:
        """What its predictions are."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels; empty for `value`."""
        ...


def filter_problems(slot: Slot, model: Answers, document: FilterDocument) -> Sequence[Problem]:
    """Return where a filter does not fit the model or the sources."""
    window, source = slot.model.window, slot.sources[0]
    channels = None if source.format == "image" else len(source.fields)
    return [
        *check_against(
            document,
            kind=model.kind,
            labels=model.labels,
            fields=slot.fields,
            shadow=slot.model.shadow is not None,
        ),
        *context.problems(document, step=window.step, channels=channels, max_streams=window.max_streams),
    ]


def legacy_problems(slot: Slot, model: Answers) -> Sequence[Problem]:
    """Return where what the configuration says of MLADE's desired properties does not fit the model or the sources."""
    if slot.name != MODEL_SLOT:  # they are for that one alone
        return []
    return [
        problem
        for position, bridge in enumerate(slot.settings.bridges)
        if isinstance(bridge, HubBridge) and bridge.legacy is not None
        for problem in _legacy_problems(slot, model, bridge.legacy, f"bridges[{position}].legacy")
    ]


def _legacy_problems(slot: Slot, model: Answers, legacy: HubLegacy, path: str) -> Iterator[Problem]:
    document = validate_filter(as_filter({}, legacy.field, legacy.label))
    for problem in filter_problems(slot, model, document):
        key = "field" if ".where.fields" in problem.path else "label"
        yield Problem(f"{path}.{key}", problem.message)


def most_messages(slot: Slot) -> int:
    """Return how many messages may be carried through at once: an image is a small one, and takes much room."""
    source = slot.sources[0]
    if source.image_size is None:
        return sys.maxsize
    height, width = source.image_size
    return max(1, _PIXELS_AT_ONCE // (height * width * source.channels))


def make_windows(slot: Slot) -> WindowBuffer:
    """Return empty windows."""
    window = slot.model.window
    # Of images only their places and times are kept.
    shape = Shape(window.size, window.step, len(slot.sources[0].fields), window.max_gap)
    return WindowBuffer(shape, window.max_streams)


class Assembly(NamedTuple):
    """A computation, and how the selection in it is replaced."""

    computation: Computation
    make_selection: Callable[[FilterDocument, Model], Selection]
    """Makes a filter ready for a model; its conditions go on with what those in force remember."""


def build_computation(
    slot: Slot,
    model: Model,
    document: FilterDocument,
    *,
    windows: WindowBuffer,
    shadow: Shadow | None = None,
    revision: int = 1,
    paused: bool = False,
    copies: RetainedCopies | None = None,
    held: Callable[[], Sequence[str]] | None = None,
    memories: Memories | None = None,
    of_sources: Iterable[Remembered] = (),
    samples: bool = True,
) -> Assembly:
    """Put decoders, windows, model and filter together.

    Args:
        slot: the model's part of the configuration.
        model: from `open_model`.
        document: the filter, which fits the model and the sources.
        windows: from `make_windows`, with what is known from an earlier run.
        shadow: judges a part of the windows beside the model; None: there is none.
        revision: the filter's.
        paused: whether every window is refused, as `disabled`.
        copies: tells retained messages that were read before; None: there are none.
        held: returns the filters that a message may have a copy for; None: the sources'.
        memories: what the filter's conditions remember from an earlier run; None: nothing.
        of_sources: what the sources remember from it.
        samples: whether accepted windows become samples; else they are only counted.
    """
    field_names = [(source.name, source.fields) for source in slot.sources]

    def make_selection(active: FilterDocument, judge: Model) -> Selection:
        return Selection(active, judge.labels, field_names, computation.selection.memories.successor())

    decoders = [decoder(source) for source in slot.sources]
    intake = Intake(slot.sources, decoders, windows, slot.settings.topic_prefix, copies=copies, held=held)
    intake.memory.restore(of_sources)
    computation = Computation(
        slot.settings.id,
        slot=slot.name,
        intake=intake,
        windows=windows,
        model=model,
        selection=Selection(document, model.labels, field_names, memories),
        shadow=shadow,
        revision=revision,
        paused=paused,
        fields=dict(field_names),
        samples=samples,
    )
    return Assembly(computation, make_selection)
