"""A reading that is an image, as a thumbnail that a page can hold."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_LARGEST: Final = 96
"""Pixels at a thumbnail's longer side, about."""
_COLOURS: Final = (1, 3)
_AXES: Final = 3


def thumbnail(values: object) -> str | None:
    """Return an image as a data URI; None where the values are none.

    Args:
        values: (colours, H, W) or (H, W, colours) numbers in lists, of any range: the darkest is drawn black.
    """
    pixels = _pixels(values)
    if pixels is None:
        return None
    step = math.ceil(max(pixels.shape[:2]) / _LARGEST)
    small = pixels[::step, ::step]
    low, high = float(small.min()), float(small.max())
    grey = np.round((small - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)
    return f"data:image/png;base64,{base64.b64encode(_png(grey)).decode()}"


def _pixels(values: object) -> NDArray[np.float32] | None:
    """Return (H, W, colours)."""
    try:
        pixels = np.array(values, np.float32)
    except (ValueError, TypeError):
        return None
    if pixels.ndim == _AXES and pixels.shape[2] not in _COLOURS and pixels.shape[0] in _COLOURS:
        pixels = np.moveaxis(pixels, 0, 2)
    is_image = pixels.ndim == _AXES and pixels.shape[2] in _COLOURS and pixels.size and np.isfinite(pixels).all()
    return pixels if is_image else None


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG of (H, W, 1 or 3) bytes (RFC 2083: a signature, then chunks with their CRC)."""
    height, width, colours = pixels.shape
    rows = np.zeros((height, 1 + width * colours), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    kind = 0 if colours == 1 else 2
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def is_image(row: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether a reading's values are an image's: lists of lists of lists."""
    return (
        isinstance(row, list)
        and bool(row)
        and isinstance(row[0], list)
        and bool(row[0])
        and isinstance(row[0][0], list)
    )
