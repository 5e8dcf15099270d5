"""What one payload looks like to one format."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Final, NamedTuple

MOST_RECORDS: Final = 32
"""Readings of one payload that are looked at."""
MOST_FIELDS: Final = 256
"""Fields of one reading that are looked at."""

_UNWRITABLE: Final = re.compile("[\0\ud800-\udfff]")

Record = dict[str, object]
"""A reading's values by field, written as in a source's `fields`."""


class Look(NamedTuple):
    """What one payload holds."""

    format: str
    """As in a source; empty where no format reads it."""
    kind: str
    """Its shape, in a word: payloads of two shapes are not of one family."""
    records: list[Record]
    """Its readings, the first `MOST_RECORDS`."""
    readings: int
    """How many it has."""
    details: tuple[Hashable, ...] = ()
    """What payloads of one source have in common beside that."""
    problem: str = ""
    """Why no format reads it, as a clause."""


def can_be_written(name: str) -> bool:
    """Whether a configuration may hold a field's name: NUL and half a character it may not."""
    return _UNWRITABLE.search(name) is None


def unknown(kind: str, problem: str) -> Look:
    """Return what a payload looks like that no format reads."""
    return Look("", kind, [], 1, (), problem)
