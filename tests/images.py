"""Images for tests: files as encoders write them, and what a training script makes of them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
from PIL import Image, ImageOps

from processor.types import Pixels

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"
"""Of scikit-learn: china.jpg and flower.jpg, as the programs of their photographers wrote them."""


def photograph(name: str = "china") -> bytes:
    """Return a JPEG of 640 x 427 pixels."""
    return (PHOTOGRAPHS / f"{name}.jpg").read_bytes()


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Return the same image each time: smooth from corner to corner, and no two pixels alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    base = 200 * rows / max(height, 1) + 40 * columns / max(width, 1)
    random = np.random.default_rng(seed).uniform(0, 15, (height, width, channels))
    pixels: Pixels = (base[:, :, None] + random + 3 * np.arange(channels)).astype(np.uint8)
    return pixels


def encoded(pixels: Pixels | Image.Image, kind: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401 - Pillow's
    """Return a file that Pillow writes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels.squeeze())
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """Return a PNG's chunk."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """Return a PNG by the letter of its specification; `rows` each begin with their filter's number."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def prepared(payload: bytes, height: int, width: int, mode: str = "RGB") -> Pixels:
    """Return (height, width, C) as a training script has it: opened, upright, converted, resized."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(payload)))
    resized = image.convert(mode).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(height, width, -1)
