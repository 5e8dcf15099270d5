"""Images: JPEG and PNG, made the size and the colours that the model wants.

As a training script does it with Pillow: decoded, turned as EXIF says, converted, resized with a bilinear filter that
takes the mean of what it leaves out (Pillow's BILINEAR; "antialias" elsewhere).
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
from PIL import ExifTags
from PIL.Image import Image, Resampling, Transpose, fromarray
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from processor.decoders.checks import Unusable
from processor.source_sections import Source
from processor.types import Decoded, Failure, Pixels, Times

Mode = Literal["RGB", "L"]

_MOST_PIXELS: Final = 32 << 20
"""Of an image as it comes: 128 MiB while it is decoded, twice that where it is turned or converted."""
_LONGEST_SIDE: Final = 65_535
"""Pixels; JPEG has no longer ones, and to resize a side takes memory for its length."""
_MOST_SCANS: Final = 16
"""Passes over the pixels of the largest JPEG, more over those of smaller ones. Progressive ones have about ten;
thousands fit into a small file, and would take minutes."""
_SCAN: Final = b"\xff\xda"
_PNG_END: Final = b"IEND\xaeB`\x82"
"""The last chunk, and its checksum. Pillow does not miss it when all pixels are there."""
_LONGEST_REASON: Final = 120
"""Characters."""
_READERS: Final[Mapping[bytes, tuple[str, Callable[[io.BytesIO], ImageFile]]]] = {
    b"\xff\xd8\xff": ("JPEG", JpegImageFile),
    b"\x89PNG\r\n\x1a\n": ("PNG", PngImageFile),
}
_OTHERS: Final[Mapping[bytes, str]] = {
    b"GIF8": "a GIF",
    b"RIFF": "a WebP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"BM": "a BMP",
    b"\0\0\0\x0cjP": "a JPEG 2000",
    b"/9j/": "Base64 text",
    b"iVBOR": "Base64 text",
    b"data:": "a data URL",
    b"{": "JSON",
}
"""What else is sent, by how it begins."""
_TURNS: Final[Mapping[object, Transpose]] = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""What brings an image upright, by its EXIF orientation."""


# What Pillow thinks of metadata is nobody's business, and each new text would stay in memory.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class ImageDecoder:
    """Decoder of `format: image`."""

    def __init__(self, source: Source) -> None:
        """Prepare for one source's size and colours."""
        keys = source.image
        self._size = (keys.width, keys.height)
        self._shape = (keys.height, keys.width, keys.channels)
        self._mode: Mode = "RGB" if keys.color == "rgb" else "L"

    def decode(self, payloads: Sequence[bytes], arrivals: Times, topics: Sequence[str]) -> Decoded:
        """Decode N payloads, an image each; see `protocols.Decoder`. Takes N times the room of a decoded image."""
        del topics
        failures: list[Failure] = []
        found: list[int] = []
        pixels = np.empty((len(payloads), *self._shape), np.uint8)
        for index, payload in enumerate(payloads):
            try:
                pixels[len(found)] = self._pixels(payload)
            except Unusable as unusable:
                failures.append(Failure(index, unusable.reason, unusable.detail))
            else:
                found.append(index)
        origin = np.array(found, np.int64)
        return Decoded(origin, arrivals[origin], np.empty((len(found), 0)), None, failures, pixels=pixels[: len(found)])

    def _pixels(self, payload: bytes) -> Pixels:
        """Return an image as (H, W, C)."""
        image = read(payload, self._mode)
        if image.size != self._size:
            image = image.resize(self._size, Resampling.BILINEAR)
        return np.asarray(image).reshape(self._shape)


def read(payload: bytes, mode: Mode, *, at_least: int | None = None) -> Image:
    """Return an image, decoded, upright, and in a mode.

    Args:
        payload: a JPEG or a PNG.
        mode: RGB, or L for grey.
        at_least: pixels of a side; a JPEG may come smaller, but not below that, which is faster. None: as it is.

    Raises:
        Unusable: it is no such image, or would take too much time or room.
    """
    kind, reader = _reader(payload)
    try:
        with reader(io.BytesIO(payload)) as opened:
            _check(kind, opened, payload)
            if at_least is not None:
                opened.draft(mode, (at_least, at_least))
            opened.load()
            _check_end(kind, payload)
            image = _upright(opened)
            if image.mode == "I;16":  # 16 bits of grey, which Pillow would not scale, but cut off
                image = fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return image if image.mode == mode else image.convert(mode)
    except Unusable:
        raise
    except Exception as error:  # noqa: BLE001 - what Pillow's readers raise has no other base in common
        reason = str(error)[:_LONGEST_REASON] or type(error).__name__
        raise Unusable("decode", f"the {kind} cannot be read: {reason}") from None


def _reader(payload: bytes) -> tuple[str, Callable[[io.BytesIO], ImageFile]]:
    for beginning, reader in _READERS.items():
        if payload.startswith(beginning):
            return reader
    if not payload:
        raise Unusable("decode", "the payload is empty; expected a JPEG or a PNG")
    other = next((name for beginning, name in _OTHERS.items() if payload.startswith(beginning)), None)
    found = f"begins with the bytes {payload[:8].hex(' ')}" if other is None else f"is {other}"
    raise Unusable("decode", f"the payload {found}; expected a JPEG or a PNG")


def _check(kind: str, opened: ImageFile, payload: bytes) -> None:
    """Refuse what would take too long or too much room to decode, and what is more than one image."""
    width, height = opened.size
    if width * height > _MOST_PIXELS or max(opened.size) > _LONGEST_SIDE:
        expected = f"at most {_MOST_PIXELS} pixels and {_LONGEST_SIDE} a side are read"
        raise Unusable("too_large", f"the {kind} is {width} wide and {height} high; {expected}")
    frames = getattr(opened, "n_frames", 1)
    if frames != 1:
        raise Unusable("decode", f"the {kind} is animated, with {frames} pictures; expected one")
    most = _MOST_SCANS * _MOST_PIXELS // (width * height)
    if kind == "JPEG" and (scans := payload.count(_SCAN)) > most:
        raise Unusable("too_large", f"the JPEG passes {scans} times over its pixels; at most {most} times are read")


def _check_end(kind: str, payload: bytes) -> None:
    if kind == "PNG" and _PNG_END not in payload:
        raise Unusable("decode", "the PNG is cut off: its last chunk, IEND, is missing")


def _upright(image: Image) -> Image:
    """Return an image turned as its EXIF says; where that cannot be read, as it is, as viewers do."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # noqa: BLE001 - as above
        return image
    return image if turn is None else image.transpose(turn)
