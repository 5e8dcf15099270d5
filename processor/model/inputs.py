"""What a model's input wants, whether the sources give it, and how windows are laid out for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from processor.errors import ModelMisfit, Problem
from processor.sections import Layout
from processor.types import Array, Floats

Dimension = int | str | None
"""A number where it is fixed; a name or None where it is free."""

_AXES: Final = {"N": "batch", "C": "channels", "T": "time", "H": "height", "W": "width"}
_IMAGE_AXES: Final = 3
_LAYOUTS: Final[tuple[Layout, ...]] = ("NC", "NT", "NCT", "NTC", "NCHW", "NHWC")
NUMBER_TYPES: Final[Mapping[str, DTypeLike]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}
"""The tensors of numbers that numpy knows, as ONNX Runtime writes them."""


class Tensor(NamedTuple):
    """An input or output as the model declares it."""

    name: str
    type: str
    """ONNX's name of it: `tensor(float)`, `seq(map(string,tensor(float)))` …"""
    shape: tuple[Dimension, ...]
    """Empty where the model does not say."""

    def __str__(self) -> str:
        """Return `"x" float32 [N, 6, 100]`."""
        dimensions = ", ".join("?" if size is None else str(size) for size in self.shape)
        dtype = np.dtype(NUMBER_TYPES[self.type]).name if self.type in NUMBER_TYPES else self.type
        return f'"{self.name}" {dtype}' + (f" [{dimensions}]" if self.shape else "")


@dataclass(frozen=True, slots=True)
class Feed:
    """What the sources give.

    Attributes:
        window_size: readings in a window.
        channels: values in a reading; colours of an image.
        fields: the channels' names, for messages; may be empty.
        image: (height, width) in pixels where a reading is an image.
    """

    window_size: int
    channels: int
    fields: tuple[str, ...] = ()
    image: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Return `3 channels (ax, ay, az) in windows of 50 readings`."""
        if self.image is not None:
            colours = "grey images" if self.channels == 1 else f"images of {self.channels} colours"
            return f"{colours}, {self.image[0]} high and {self.image[1]} wide"
        names = f" ({', '.join(self.fields)})" if self.fields else ""
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        readings = "1 reading" if self.window_size == 1 else f"{self.window_size} readings"
        return f"{channels}{names} in windows of {readings}"

    def sizes(self) -> dict[str, int]:
        """Return the size of each axis but the batch; 1 where the sources have no such axis."""
        height, width = self.image or (1, 1)
        return {"C": self.channels, "T": self.window_size, "H": height, "W": width}


@dataclass(frozen=True, slots=True)
class ModelInput:
    """How windows become the model's input.

    Attributes:
        tensor: the input.
        layout: order of its axes.
        dtype: its numbers.
        rows: its first dimension where that is fixed, else None.
        shape: a window's shape as `arrange` gets it: (size, C), or (H, W, C) for images.
        mean: (C,) or (1,), subtracted from the values. None: nothing is.
        std: (C,) or (1,), then divided by.
    """

    tensor: Tensor
    layout: Layout
    dtype: np.dtype[Any]
    rows: int | None
    shape: tuple[int, ...]
    mean: Floats | None
    std: Floats | None

    def __str__(self) -> str:
        """Return the tensor and the meaning of its axes."""
        return f"{self.tensor} as {self.layout} ({_words(self.layout)})"

    @property
    def values_per_window(self) -> int:
        """How many numbers a window has."""
        return math.prod(self.shape)

    def arrange(self, values: Array) -> Array:
        """Return (W, *shape) values normalised, laid out as the model wants them, contiguous and of its dtype.

        For a model of whole numbers values are rounded to the nearest (a half to the even one) and held within the
        type's range. For float32 and float16 what is too large becomes infinite. For booleans 0 is false.
        """
        if self.mean is not None or self.std is not None:
            # Bytes need no more than single precision, and half the room.
            values = values.astype(np.float32 if values.dtype == np.uint8 and self.dtype != np.float64 else np.float64)
        if self.mean is not None:
            values -= self.mean
        if self.std is not None:
            values /= self.std
        match self.layout:
            case "NC":
                values = values[:, -1]
            case "NT":
                values = values[:, :, 0]
            case "NCT":
                values = values.swapaxes(1, 2)
            case "NCHW":
                values = np.moveaxis(values, -1, 1)
            case "NTC" | "NHWC":
                pass
        if self.dtype.kind in "iu" and values.dtype.kind == "f":
            limits = np.iinfo(self.dtype)
            # The largest int64 is no float64; the next lower one is the last that converts.
            highest = float(limits.max) if int(float(limits.max)) <= limits.max else np.nextafter(float(limits.max), 0)
            values = np.rint(values).clip(float(limits.min), highest)
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(values, self.dtype)

    def trial_windows(self, count: int) -> Array:
        """Return (count, *shape) windows of many scales, the same each time; the first is all zeros.

        After normalisation they are normal numbers times 0.01 to 10,000, small and large side by side. Images are
        noise, each within its own range of brightness.
        """
        random = np.random.default_rng(0)
        if len(self.shape) == _IMAGE_AXES:
            darkest, brightest = np.resize([0, 0, 100, 200, 0, 60], count), np.resize([1, 256, 140, 256, 30, 61], count)
            ranges = zip(darkest.tolist(), brightest.tolist(), strict=True)
            return np.stack([random.integers(low, high, self.shape, np.uint8) for low, high in ranges])
        scales = np.resize([1, 0.1, 100, 1, 0.5, 10, 1, 3, 0.01, 2, 1000, 0.3, 30, 1, 10000, 5], count)
        scales[0] = 0
        values = random.normal(size=(count, *self.shape))
        values *= scales.reshape(-1, *(1 for _ in self.shape))
        if self.std is not None:
            values *= self.std
        if self.mean is not None:
            values += self.mean
        return values


def fit_input(
    file: str,
    tensors: Sequence[Tensor],
    feed: Feed,
    *,
    name: str | None = None,
    layout: Layout | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> ModelInput:
    """Decide how `feed` goes into the model.

    Args:
        file: the model's file name, for messages.
        tensors: the model's inputs.
        feed: what the sources give.
        name: the wanted input's name; None: the only one.
        layout: order of its axes; None: by its rank.
        mean: subtracted from the values; one number, or one a channel.
        std: then divided by; one number, or one a channel.

    Raises:
        ModelMisfit: with everything that does not fit.
    """
    tensor = _pick(file, tensors, name)
    problems: list[Problem] = []
    if tensor.type not in NUMBER_TYPES:
        problems.append(
            Problem("model.path", f"the input {tensor} of {file} takes no numbers; expected a tensor of them")
        )
    by_rank = layout or _layout_for(len(tensor.shape), feed)
    if by_rank is None or (tensor.shape and len(by_rank) != len(tensor.shape)):
        problems.append(_wrong_rank(file, tensor, feed, by_rank))
    elif tensor.type in NUMBER_TYPES:
        problems.extend(_misfits(file, tensor, feed, by_rank))
    moments = []
    for key, given in (("mean", mean), ("std", std)):
        numbers = None if given is None else np.atleast_1d(np.asarray(given, np.float64))
        if numbers is not None and len(numbers) not in (1, feed.channels):
            found = f"{len(numbers)} numbers for {feed.channels} channels"
            problems.append(Problem(f"model.input.{key}", f"{found}; expected one, or one a channel"))
        moments.append(numbers)
    if problems or by_rank is None:
        raise ModelMisfit(problems)
    first = tensor.shape[0] if tensor.shape else None
    return ModelInput(
        tensor,
        by_rank,
        np.dtype(NUMBER_TYPES[tensor.type]),
        first if isinstance(first, int) and first > 0 else None,
        (feed.window_size, feed.channels) if feed.image is None else (*feed.image, feed.channels),
        *moments,
    )


def _pick(file: str, tensors: Sequence[Tensor], name: str | None) -> Tensor:
    """Return the input to feed; every other one would stay empty."""
    names = ", ".join(f'"{tensor.name}"' for tensor in tensors) or "none"
    if name is not None and all(tensor.name != name for tensor in tensors):
        raise ModelMisfit([Problem("model.input.name", f'{file} has no input "{name}"; its inputs: {names}')])
    if len(tensors) != 1:
        message = (
            f"{file} has {len(tensors)} inputs ({names}) and mlade feeds one; export it with the others as constants"
        )
        raise ModelMisfit([Problem("model.path", message)])
    return tensors[0]


def _layout_for(rank: int, feed: Feed) -> Layout | None:
    """Return the usual layout of `rank` dimensions (0: unknown); None where there is none for this feed."""
    if feed.image is not None:
        return "NCHW" if rank in (0, 4) else None
    if rank in (0, 2):
        flat: Layout | None = "NC" if feed.window_size == 1 else "NT" if feed.channels == 1 else None
        return flat if rank or flat else "NCT"
    layouts: dict[int, Layout] = {3: "NCT", 4: "NCHW"}
    return layouts.get(rank)


def _words(layout: Layout) -> str:
    return ", ".join(_AXES[axis] for axis in layout)


def _wants(file: str, tensor: Tensor, feed: Feed, layout: Layout | None) -> str:
    words = f" ({_words(layout)})" if layout and len(layout) == len(tensor.shape) else ""
    return f"the model {file} wants input {tensor}{words}; the sources give {feed}"


def _wrong_rank(file: str, tensor: Tensor, feed: Feed, layout: Layout | None) -> Problem:
    """Say that the input's number of dimensions and the layout differ, or that no layout has so many."""
    rank = len(tensor.shape)
    wants = _wants(file, tensor, feed, layout)
    possible = " or ".join(other for other in _LAYOUTS if len(other) == rank)
    if layout is not None and possible:
        message = f"{wants}: layout {layout} has {len(layout)} dimensions, the input {rank}; set {possible}"
        return Problem("model.input.layout", message)
    if rank == 2 and feed.image is None:  # noqa: PLR2004  two dimensions: NC or NT
        message = f"{wants}: set model.window.size to 1, or give one field only"
        return Problem("model.window.size", message)
    expected = "4 for images" if feed.image else "2, 3 or 4"
    return Problem("model.path", f"{wants}: the input has {rank} dimensions; expected {expected}")


def _misfits(file: str, tensor: Tensor, feed: Feed, layout: Layout) -> Iterator[Problem]:
    """Compare the input with the feed, dimension by dimension."""
    wants = _wants(file, tensor, feed, layout)
    if "C" not in layout and feed.channels != 1:
        yield Problem("sources[0].fields", f"{wants}: layout {layout} has no channels; give one field")
    if "T" not in layout and feed.window_size != 1:
        yield Problem("model.window.size", f"{wants}: layout {layout} has no time; set model.window.size to 1")
    if "H" in layout and feed.image is None:
        yield Problem("sources[0].format", f"{wants}: layout {layout} is for images; set format: image")
    if feed.image is not None and "H" not in layout:
        yield Problem("model.input.layout", f"{wants}: images need NCHW or NHWC")
    sizes = feed.sizes()
    if feed.image is None:
        sizes = {axis: size for axis, size in sizes.items() if axis in "CT"}
    wrong = list(_wrong_axes(tensor, layout, sizes))
    turned = [
        other
        for other in _LAYOUTS
        if sorted(other) == sorted(layout) and wrong and not list(_wrong_axes(tensor, other, sizes))
    ]
    hint = f", or set model.input.layout to {turned[0]}" if turned else ""
    for axis, size in wrong:
        colour = {1: "set image.color to grey", 3: "set image.color to rgb"}.get(size, "images have 1 colour or 3")
        fields = f"give {size} {'field' if size == 1 else 'fields'}"
        path, advice = {
            "C": ("sources[0].fields", fields) if feed.image is None else ("sources[0].image.color", colour),
            "T": ("model.window.size", f"set model.window.size to {size}"),
            "H": ("sources[0].image.height", f"set the image's height to {size}"),
            "W": ("sources[0].image.width", f"set the image's width to {size}"),
        }[axis]
        yield Problem(path, f"{wants}: {advice}{hint}")


def _wrong_axes(tensor: Tensor, layout: Layout, sizes: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield each axis whose fixed size is not that of `sizes`, with the size the model wants."""
    for axis, size in zip(layout, tensor.shape, strict=False):
        if isinstance(size, int) and size > 0 and size != sizes.get(axis, size):
            yield axis, size
