"""What the demo shows while it runs: a live line on a terminal, elsewhere a plain line every other second."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_PLAIN_EVERY: Final = 2.0
"""Seconds between two lines where there is no terminal."""


class Display:
    """Shows how far the demo is; a context manager, in which the live line is shown."""

    def __init__(self, console: Console, seconds: float) -> None:
        """Show `seconds` of playing on `console`."""
        self._console = console
        self._next_plain = time.monotonic() + _PLAIN_EVERY
        self._progress = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=console,
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._task = self._progress.add_task("", total=seconds, numbers="")

    def __enter__(self) -> Self:
        """Show the live line."""
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the live line away."""
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text)

    def update(self, elapsed: float, metrics: Mapping[str, Any], active: Mapping[str, Any]) -> None:
        """Show where it stands.

        Args:
            elapsed: seconds since the watches began.
            metrics: the processor's newest; empty before the first.
            active: the filter in force.
        """
        if not metrics:
            return
        numbers = "  ".join(
            (
                f"{elapsed:4.1f} s",
                f"{metrics['rates']['messages']:5,.0f} msg/s",
                f"{metrics['counters']['accepted']:4,} kept",
                f"band {band_of(active)}",
                f"outbox {metrics['outbox']['samples']:,}",
            )
        )
        if self._console.is_terminal:
            self._progress.update(self._task, completed=elapsed, numbers=numbers, refresh=True)
        elif time.monotonic() >= self._next_plain:
            self._next_plain += _PLAIN_EVERY
            self._console.print(f"  {numbers}")


def band_of(active: Mapping[str, Any]) -> str:
    """Return the first band of a filter, as `0.40-0.70`."""
    for rule in active.get("rules", ()):
        if band := rule.get("band"):
            return f"{band['min']:.2f}-{band['max']:.2f}"
    return "none"


def describe_filter(active: Mapping[str, Any]) -> str:
    """Return the demo's filter in words, rule by rule."""
    return "; ".join(
        f"[b]{rule['name']}[/b]: {rule['measure']} {band_of({'rules': [rule]})}"
        if rule.get("band")
        else f"[b]{rule['name']}[/b]: {rule['sample']:.0%} of everything"
        for rule in active["rules"]
    )
