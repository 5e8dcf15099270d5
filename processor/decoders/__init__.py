"""Formats: each turns payloads into readings. A new one is a file here and a line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from processor.decoders.binary import BinaryDecoder
from processor.decoders.csv import CsvDecoder
from processor.decoders.json import JSON
from processor.decoders.tree import TreeDecoder
from processor.protocols import Decoder
from processor.source_sections import Source


def _image(source: Source) -> Decoder:
    from processor.decoders.image import ImageDecoder  # noqa: PLC0415 - Pillow takes 5 MB, and a while to load

    return ImageDecoder(source)


FORMATS: Final[Mapping[str, Callable[[Source], Decoder]]] = {
    "json": partial(TreeDecoder, JSON),
    "csv": CsvDecoder,
    "binary": BinaryDecoder,
    "image": _image,
}


def decoder(source: Source) -> Decoder:
    """Return the decoder for a source."""
    return FORMATS[source.format](source)
