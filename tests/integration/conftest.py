"""What these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.iothub import Hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """Run a hub."""
    with Hub(tmp_path / "hub") as running:
        yield running
