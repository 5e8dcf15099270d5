"""Pictures, by how they begin."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from processor.discover.look import Look

_BEGINNINGS: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


def look_at(payload: bytes) -> Look | None:
    """Return how high and wide a JPEG or a PNG is; None where a payload is neither."""
    if not payload.startswith(_BEGINNINGS):
        return None
    try:
        with Image.open(io.BytesIO(payload), formats=("JPEG", "PNG")) as image:
            width, height = image.size
            color = "grey" if image.mode in ("1", "L", "I;16") else "rgb"
    except Exception:  # noqa: BLE001 - what Pillow's readers raise has no other base in common; the decoder says why
        width = height = 0
        color = "rgb"
    return Look("image", "image", [{"height": height, "width": width, "color": color}], 1)
