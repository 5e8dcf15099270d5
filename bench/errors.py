"""What ends a benchmark."""

from __future__ import annotations


class BenchError(Exception):
    """A measurement could not be made, or what was measured is not what was meant; its text says why."""
