"""What windows look like, and what is kept of streams for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from processor.types import Floats, Ints, Times


@dataclass(frozen=True, slots=True)
class Shape:
    """What the windows look like. A change of it makes windows kept from an earlier run useless.

    Attributes:
        size: readings in a window, at least 1.
        step: readings from one window's end to the next one's, at least 1; may exceed `size`.
        channels: values in a reading.
        max_gap: ns between two neighbours above which a window starts anew; None: never.
    """

    size: int
    step: int
    channels: int
    max_gap: int | None = None

    @property
    def remembers(self) -> bool:
        """Whether a stream's past matters to its future at all."""
        return self.size > 1 or self.step > 1


@dataclass(frozen=True, slots=True)
class Past:
    """Readings with their place in their streams, as the journal keeps them: enough to restore the windows.

    Attributes:
        streams: (N,) number of each reading's stream; never used again for another stream.
        counts: (N,) the reading's place since its stream began or had a gap; the first is 1.
        times: (N,) ns since the Unix epoch.
        values: (N, C).
    """

    streams: Ints
    counts: Ints
    times: Times
    values: Floats


class LookBack(NamedTuple):
    """What is kept of streams beyond what their windows need, so that windows' neighbours can be found."""

    history: int = 0
    """Readings of each stream."""
    follows: bool = False
    """Whether readings' places are counted and journaled even where no window looks back."""
    since: int = 0
    """Number of the first reading that was kept so: neighbours that reach further back are not known."""
