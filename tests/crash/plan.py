"""Which life of the processor ends how, and what goes wrong meanwhile; drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tests.crash.faults import KINDS, Fault
from tests.crash.victim import BROKEN_CLAIM, FIRST_START, MENDING, START, WORK

End = Literal["at a point", "at a statement", "at a moment", "stopped", "killed while it stops"]
_FRACTION_FAULTY: Final = 0.35


@dataclass(frozen=True, slots=True)
class Life:
    """One life of the processor.

    Attributes:
        end: how it ends: at a named point, at any SQL statement, at a moment, or asked to.
        point: the named one.
        nth: how often it comes there, or how many statements it runs.
        after: seconds from its start, or from its connection to the broker, to its end.
        connected: whether those seconds begin when it is connected.
        faults: what goes wrong meanwhile.
    """

    end: End
    point: str = ""
    nth: int = 1
    after: float = 0.0
    connected: bool = False
    faults: Sequence[Fault] = ()

    def __str__(self) -> str:
        """Tell it in a few words."""
        where = f" {self.point}" if self.point else ""
        nth = f" ({self.nth})" if self.end in ("at a point", "at a statement") else f" after {self.after:.3f} s"
        faults = "".join(f", {fault.kind} at {fault.moment:.3f} s" for fault in self.faults)
        return f"{self.end}{where}{nth}{' of connection' if self.connected else ''}{faults}"


FIRST_LIVES: Final = tuple(Life("at a point", point) for point in FIRST_START)
"""Before the first that works; the order matters."""


class Plan:
    """Draws lives."""

    def __init__(self, seed: int, *, longest: float, fault_lasts: float, without: Collection[str] = ()) -> None:
        """Draw from a seed.

        Args:
            seed: of the plan.
            longest: seconds that a life has at most, once it is connected.
            fault_lasts: seconds that a fault has at most.
            without: points that such a processor never comes to.
        """
        self._random = random.Random(f"plan {seed}")  # noqa: S311 - a plan, not a secret
        self._longest = longest
        self._fault_lasts = fault_lasts
        self._points = [point for point in (*START, *WORK) if point not in without]

    def lives(self, kills: int) -> list[Life]:
        """Return lives that end at every named point once and `kills` times at random, in random order."""
        named = [[self._named(point)] for point in self._points]
        for group in named:
            if group[0].point == BROKEN_CLAIM:
                group += [Life("at a point", point) for point in MENDING]
        groups = named + [[self.draw()] for _ in range(kills)]
        self._random.shuffle(groups)
        return [life for group in groups for life in group]

    def __iter__(self) -> Iterator[Life]:
        """Draw lives for ever: every named point again and again, and as many others."""
        while True:
            yield from self.lives(len(self._points))

    def _named(self, point: str) -> Life:
        """Near its start or later, but not so late that it may not come there."""
        often = point in ("before the commit", "in mid-commit", "between commit and PUBACK", "after the PUBACK")
        return Life("at a point", point, 1 if point in START else self._random.randint(1, 20 if often else 2))

    def draw(self) -> Life:
        """Return a life that ends at random."""
        draw = self._random.random()
        faults = self._faults() if self._random.random() < _FRACTION_FAULTY else ()
        if draw < 0.2:
            return Life("at a statement", nth=round(2 ** self._random.uniform(0, 10)), faults=faults)
        if draw < 0.3:
            return Life("at a moment", after=self._random.uniform(0, 0.15), faults=faults)
        after = self._random.uniform(0, self._longest)
        if draw < 0.35:
            return Life("stopped", after=after, connected=True, faults=faults)
        if draw < 0.4:
            return Life("killed while it stops", after=after, connected=True, faults=faults)
        return Life("at a moment", after=after, connected=True, faults=faults)

    def _faults(self) -> list[Fault]:
        return sorted(
            Fault(
                self._random.uniform(0, self._longest),
                self._random.choice(KINDS),
                self._random.uniform(0, self._fault_lasts),
                self._random.randrange(1, 50_000),
            )
            for _ in range(self._random.randint(1, 3))
        )
