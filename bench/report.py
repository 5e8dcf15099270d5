"""What the benchmarks found, as tables for people and as JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements of one quantity.

    Attributes:
        values: one a round, in order; at least one.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the median."""
        return statistics.median(self.values)

    def text(self, digits: int = 1) -> str:
        """Return the median, and how far the rounds lie apart where there were several."""
        median = f"{self.median:,.{digits}f}"
        if len(self.values) == 1:
            return median
        return f"{median} ({min(self.values):,.{digits}f} to {max(self.values):,.{digits}f})"

    def as_json(self) -> dict[str, Any]:
        """Return median and rounds."""
        return {"median": self.median, "rounds": list(self.values)}


@dataclass(frozen=True, slots=True)
class Check:
    """A figure with its target."""

    name: str
    value: float
    relation: Literal["<=", ">="]
    target: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the target was reached."""
        return self.value <= self.target if self.relation == "<=" else self.value >= self.target

    def row(self) -> tuple[str, str, str, str]:
        """Return it as a table's row."""
        sign = "≤" if self.relation == "<=" else "≥"
        unit = f" {self.unit}" if self.unit else ""
        return self.name, f"{self.value:.3g}{unit}", f"{sign} {self.target:g}{unit}", "met" if self.met else "MISSED"

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        relation, target = self.relation, self.target
        return {"name": self.name, "value": self.value, "relation": relation, "target": target, "met": self.met}


@dataclass(slots=True)
class Result:
    """What one part found.

    Attributes:
        title: what was measured.
        columns: of the table.
        rows: of the table.
        checks: figures with targets.
        figures: everything, for --json.
        notes: sentences on how it was measured.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def print(self, console: Console) -> None:
        """Write it for people."""
        console.print(f"\n[bold]{self.title}")
        for note in self.notes:
            console.print(f"  {note}", soft_wrap=True, highlight=False)
        if self.rows:
            console.print(_table(self.columns, self.rows))
        if self.checks:
            console.print(_table(("target", "measured", "wanted", ""), [check.row() for check in self.checks]))

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"figures": self.figures, "checks": [check.as_json() for check in self.checks]}


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that `share` of the sorted measurements do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
