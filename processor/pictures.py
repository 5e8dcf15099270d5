"""What of an image is compared instead of its pixels."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from processor.types import Floats, Ints, Pixels

_SIDE: Final = 16
_LUMA: Final = np.array([299.0, 587.0, 114.0])
"""Thousandths of red, green and blue in brightness (ITU-R BT.601)."""


def brightness(pixels: Pixels, rows: Ints) -> Floats:
    """Return the brightness of images in 16 x 16 fields, each the mean of a field's pixels.

    Args:
        pixels: (W, height, width, C) images, of one colour or three.
        rows: (N,) which of them.

    Returns:
        (N, 256, 1) from 0 to 255, as a window of 256 readings of one field.
    """
    found = np.empty((len(rows), _SIDE * _SIDE, 1))
    for place, row in enumerate(rows.tolist()):
        found[place] = _brightness(pixels[row]).reshape(-1, 1)
    return found


def _brightness(pixels: Pixels) -> Floats:
    """Return (16, 16); all sums are of whole numbers, and exact in whatever order the machine adds them up."""
    height, width, colours = pixels.shape
    down, across = _shares(height), _shares(width)
    bands = np.empty((_SIDE, width, colours))
    for band, shares in enumerate(down):  # one after another, because as float64 pixels take eight times the room
        first, last = band * height // _SIDE, -(-(band + 1) * height // _SIDE)
        bands[band] = np.tensordot(shares[first:last], pixels[first:last], 1)
    luma = _LUMA if colours == len(_LUMA) else np.ones(1)
    found: Floats = (bands @ luma) @ across.T / (height * width * luma.sum())
    return found


@lru_cache(maxsize=8)
def _shares(length: int) -> Floats:
    """Return (16, length): how many sixteenths of each pixel along a side lie in each of 16 fields."""
    edges, pixels = np.arange(_SIDE + 1.0) * length, np.arange(float(length)) * _SIDE
    covered = np.minimum(edges[1:, None], pixels + _SIDE) - np.maximum(edges[:-1, None], pixels)
    shares: Floats = np.maximum(covered, 0.0)
    return shares
