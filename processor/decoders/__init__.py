"""Formats: each turns payloads into readings. A new one is a file here and a line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from processor.decoders.json import JSON
from processor.decoders.opcua import OpcuaDecoder
from processor.decoders.tree import TreeDecoder
from processor.protocols import Decoder
from processor.source_sections import Source

FORMATS: Final[Mapping[str, Callable[[Source], Decoder]]] = {
    "json": partial(TreeDecoder, JSON),
    "opcua": OpcuaDecoder,
}


def decoder(source: Source) -> Decoder:
    """Return the decoder for a source."""
    return FORMATS[source.format](source)
