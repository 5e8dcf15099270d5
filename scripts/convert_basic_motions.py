"""Make processor/demo/basic_motions.npz from the BasicMotions data set inside a wheel of aeon.

    pip download --no-deps aeon==1.6.0
    python -m scripts.convert_basic_motions aeon-1.6.0-py3-none-any.whl

The same wheel gives the same arrays. Values are kept as the source has them; names of activities become lower case.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from processor.types import Floats

FOLDER = "aeon/datasets/data/BasicMotions/"
SOURCE = (
    "BasicMotions, UEA multivariate time series classification archive "
    "(A. Bagnall et al., 2018, arXiv:1811.00075, https://www.timeseriesclassification.com), "
    "as distributed in the Python package aeon: {wheel}, SHA-256 {digest}"
)
DESTINATION = Path(__file__).parents[1] / "processor" / "demo" / "basic_motions.npz"


def read_series(text: str) -> tuple[Floats, list[str]]:
    """Read a data set in the archive's .ts format.

    Args:
        text: comments (`#`), a header (`@`), then a series a line: its channels, and last its class, parted by colons.

    Returns:
        (N, C, T) values, and N class names in lower case.
    """
    cases = [line.split(":") for line in text.splitlines() if line.strip() and not line.startswith(("#", "@"))]
    values = [[[float(value) for value in channel.split(",")] for channel in channels] for *channels, _ in cases]
    return np.array(values), [case[-1].strip().lower() for case in cases]


def convert(
    wheel: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A wheel of aeon.")],
    destination: Annotated[Path, typer.Argument(dir_okay=False, help="The .npz file to write.")] = DESTINATION,
) -> None:
    """Write both halves of BasicMotions, their labels, their source and its licence into one compressed file."""
    with zipfile.ZipFile(wheel) as archive:
        train_x, train_y = read_series(archive.read(f"{FOLDER}BasicMotions_TRAIN.ts").decode())
        test_x, test_y = read_series(archive.read(f"{FOLDER}BasicMotions_TEST.ts").decode())
        licence = next(name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
        terms = archive.read(licence).decode()
    labels = sorted({*train_y, *test_y})
    np.savez_compressed(
        destination,
        train_x=train_x,
        train_y=np.searchsorted(labels, train_y),
        test_x=test_x,
        test_y=np.searchsorted(labels, test_y),
        labels=labels,
        source=SOURCE.format(wheel=wheel.name, digest=hashlib.sha256(wheel.read_bytes()).hexdigest()),
        licence=terms,
    )
    typer.echo(f"{destination}: {train_x.shape} to train, {test_x.shape} to test, {destination.stat().st_size} bytes")


if __name__ == "__main__":
    typer.run(convert)
