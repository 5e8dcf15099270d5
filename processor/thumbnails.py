"""Images small enough to stand in a page."""

from __future__ import annotations

import base64
import io

from PIL.Image import Image, fromarray

from processor.decoders.checks import Unusable
from processor.decoders.image import read
from processor.types import Pixels


def of_pixels(pixels: Pixels, side: int) -> str:
    """Return (height, width, colours) pixels as a data URL of an image at most `side` wide and high."""
    return _url(fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels), side)


def of_file(payload: bytes, side: int) -> str | None:
    """Return a JPEG or a PNG as `of_pixels` does; None where it is no such image."""
    try:
        return _url(read(payload, "RGB", at_least=side), side)
    except Unusable:
        return None


def _url(image: Image, side: int) -> str:
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
