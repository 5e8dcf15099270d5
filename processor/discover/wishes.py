"""What a model takes, and how well what was heard fits it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from processor.errors import ModelError
from processor.model.declared import read_declared
from processor.model.inputs import Dimension, Tensor
from processor.model.outputs import names_in
from processor.sections import Layout

_NAME_KEYS: Final = ("fields", "features", "feature_names", "channels", "columns", "inputs")
"""Where a model's custom metadata names what it takes."""
_USUAL: Final[dict[int, Layout]] = {3: "NCT", 4: "NCHW"}
"""What a model with so many dimensions takes where `layout` is left out."""


class Wish(NamedTuple):
    """What a model takes, its dimensions being in one order."""

    layout: Layout | None
    channels: int | None
    """None: any number."""
    size: int | None
    """Readings in a window; None: any number."""
    height: int | None = None
    width: int | None = None

    @property
    def image(self) -> bool:
        """Whether it takes images."""
        return self.layout in ("NCHW", "NHWC")

    def __str__(self) -> str:
        """Return `6 channels in windows of 100 readings`."""
        if self.image:
            return f"images of {self.height or 'any'} by {self.width or 'any'} pixels"
        channels = "any number of channels" if self.channels is None else _counted(self.channels, "channel")
        size = "any number of readings" if self.size is None else _counted(self.size, "reading")
        return f"{channels} in windows of {size}"


class Wanted(NamedTuple):
    """A model, looked at before there is anything to feed it with.

    Attributes:
        path: its file.
        tensor: its input.
        wishes: what that may mean, the likeliest first.
        names: of its channels, where its metadata tells them.
    """

    path: Path
    tensor: Tensor
    wishes: tuple[Wish, ...]
    names: tuple[str, ...]

    @property
    def channels(self) -> Sequence[int]:
        """How many channels it may take; empty: any number."""
        return (
            [] if any(wish.channels is None for wish in self.wishes) else [wish.channels or 0 for wish in self.wishes]
        )


def look_at_model(path: Path) -> Wanted:
    """Return what a model takes.

    Raises:
        ModelError: it cannot be read, or takes nothing that mlade gives.
    """
    declared = read_declared(path)
    if len(declared.inputs) != 1:
        told = ", ".join(f'"{tensor.name}"' for tensor in declared.inputs) or "none"
        raise ModelError(f"{path} has {len(declared.inputs)} inputs ({told}), and mlade feeds one")
    (tensor,) = declared.inputs
    wishes = tuple(_wishes(tensor.shape))
    if not wishes:
        raise ModelError(f"{path} wants {tensor}: {len(tensor.shape)} dimensions; mlade gives 2, 3 or 4")
    return Wanted(path, tensor, wishes, names_in(declared.metadata, _NAME_KEYS) or ())


def _wishes(shape: Sequence[Dimension]) -> Iterator[Wish]:
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
    match sizes:
        case []:
            yield Wish(None, None, None)
        case [_, last]:
            yield Wish("NC", last, 1)
            yield Wish("NT", 1, last)
        case [_, second, last]:
            yield Wish("NCT", second, last)
            yield Wish("NTC", last, second)
        case [_, second, third, last]:
            yield Wish("NCHW", second, None, third, last)
            yield Wish("NHWC", last, None, second, third)


def layout_key(wish: Wish) -> Layout | None:
    """Return `model.input.layout`; None where it may be left out."""
    rank = len(wish.layout) if wish.layout else 0
    return wish.layout if wish.layout is not None and _USUAL.get(rank, wish.layout) != wish.layout else None


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
