"""Formats: each turns payloads into readings. A new one is a file here and a line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from processor.decoders.binary import BinaryDecoder
from processor.decoders.cbor import CBOR
from processor.decoders.codec import Codec
from processor.decoders.csv import CsvDecoder
from processor.decoders.join import JoinDecoder
from processor.decoders.json import JSON
from processor.decoders.msgpack import MSGPACK
from processor.decoders.number import NUMBER, NumberDecoder
from processor.decoders.opcua import OpcuaDecoder
from processor.decoders.series import SeriesDecoder
from processor.decoders.sparkplug import SparkplugDecoder
from processor.decoders.tree import TreeDecoder
from processor.protocols import Decoder
from processor.source_sections import Source


def _tree(codec: Codec, source: Source) -> Decoder:
    if source.join is not None:
        return JoinDecoder(codec, source, source.join)
    return TreeDecoder(codec, source) if source.base is None else SeriesDecoder(codec, source, source.base)


def _number(source: Source) -> Decoder:
    return NumberDecoder(source) if source.join is None else JoinDecoder(NUMBER, source, source.join)


def _image(source: Source) -> Decoder:
    from processor.decoders.image import ImageDecoder  # noqa: PLC0415 - Pillow takes 5 MB, and a while to load

    return ImageDecoder(source)


FORMATS: Final[Mapping[str, Callable[[Source], Decoder]]] = {
    "cbor": partial(_tree, CBOR),
    "json": partial(_tree, JSON),
    "msgpack": partial(_tree, MSGPACK),
    "number": _number,
    "csv": CsvDecoder,
    "binary": BinaryDecoder,
    "opcua": OpcuaDecoder,
    "sparkplug": SparkplugDecoder,
    "image": _image,
}


def decoder(source: Source) -> Decoder:
    """Return the decoder for a source."""
    return FORMATS[source.format](source)
