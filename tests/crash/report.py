"""What the long form prints."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from tests.crash.faults import FaultKind
from tests.crash.plan import End
from tests.crash.storm import Storm
from tests.crash.trial import Kind, Trial
from tests.crash.victim import POINTS

_WARM: Final = 60.0
"""Seconds after which memory is expected to stay as it is."""


class Memory:
    """The resident memory of processors over time.

    Attributes:
        disturbed: the most that any life of a disturbed one had, in MiB.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Start with nothing."""
        self.disturbed = 0.0
        self._begun = time.monotonic()
        self._undisturbed: dict[str, list[tuple[float, float]]] = {name: [] for name in names}

    def look(self, trials: Iterable[Trial]) -> str:
        """Look now, and return it in a few words."""
        words: dict[str, list[str]] = {"disturbed": [], "undisturbed": []}
        for trial in trials:
            disturbed, undisturbed = trial.rss()
            self.disturbed = max(self.disturbed, disturbed or 0.0)
            if undisturbed is not None:
                self._undisturbed[trial.kind.name].append((time.monotonic() - self._begun, undisturbed))
            for name, size in (("disturbed", disturbed), ("undisturbed", undisturbed)):
                words[name].append("-" if size is None else f"{size:.0f}")
        return f"RSS {'/'.join(words['disturbed'])}, undisturbed {'/'.join(words['undisturbed'])} MiB"

    def slopes(self) -> Iterator[str]:
        """Yield a line for each undisturbed processor: where it was when warm, where at the end, the slope between."""
        for name, all_sizes in self._undisturbed.items():
            sizes = [(moment, size) for moment, size in all_sizes if moment >= _WARM] or all_sizes
            if len(sizes) < 2:
                continue
            moments, values = np.array(sizes).T
            slope = float(np.polyfit(moments / 60, values, 1)[0])
            yield (
                f"{name}: {values[0]:.1f} MiB after {moments[0]:.0f} s, {values[-1]:.1f} after {moments[-1]:.0f} s, at "
                f"most {values.max():.1f}; slope {slope:+.3f} MiB a minute"
            )


def beginning(kinds: Sequence[Kind], *, minutes: float, seed: int, rate: float) -> Iterator[str]:
    """Yield what is going to happen."""
    yield f"mlade chaos: {minutes:g} minutes, seed {seed}"
    for kind in kinds:
        shape = kind.shape
        more = ", overlapping filters" * kind.wide + ", retained readings" * kind.opening
        yield (
            f"  {kind.name:14}MQTT {kind.protocol!s:7}windows of {shape.size}, every {shape.step}, "
            f"{shape.max_streams:,} streams at most{more}"
        )
    yield "Each is killed with SIGKILL over and over, behind a proxy, on a Mosquitto that is restarted; beside it runs"
    yield f"an undisturbed `mlade run` on a calm Mosquitto. Both get the same {rate:g} messages a second, at QoS 1."
    yield ""


def line(storm: Storm, elapsed: float, memory: Memory) -> str:
    """Return where everything stands."""
    for trial in storm.trials:
        trial.look()
    faults = storm.faults
    network = faults["cut"] + faults["cut in mid-packet"]
    files = faults["files replaced"] + faults["files unwritable"]
    violations = len(storm.violations())
    return (
        f"{elapsed:5.0f} s {storm.kills:5,} kills  cut {network}, swallowed {faults['swallowed']}, "
        f"refused {faults['refused']}, broker restarted {faults['broker restarted']}, files {files}  "
        f"{storm.played:8,} messages {storm.compared:7,} samples equal  {memory.look(storm.trials)}"
        + (f"  {violations} VIOLATIONS" if violations else "")
    )


def end(storm: Storm, memory: Memory, violations: Sequence[str], seed: int) -> Iterator[str]:
    """Yield what came of it."""
    ends: Counter[End] = sum((trial.ends for trial in storm.trials), Counter())
    expected = [trial.expectation for trial in storm.trials]
    readings, windows = sum(one.readings for one in expected), sum(one.windows for one in expected)
    samples, letters = sum(one.accepted for one in expected), sum(len(one.garbage) for one in expected)
    revisions = sum(one.revision for one in expected)
    repeats = sum(trial.repeats for trial in storm.trials)
    yield ""
    yield f"Played    {storm.played:,} messages, {readings:,} readings, {windows:,} windows, {samples:,} to be kept"
    yield f"Killed    {storm.kills:,} times; lives ended {_counts(ends)}"
    yield f"          (the points are the {len(POINTS)} named in tests/crash/victim.py)"
    yield f"Broke     {_counts(storm.faults)}"
    yield f"Compared  {storm.compared:,} samples over the bridges files and mqtt with undisturbed runs, by id and body"
    yield f"          ({repeats:,} came more than once), {letters:,} dead letters, {revisions:,} filter revisions"
    yield f"Memory    {memory.disturbed:.1f} MiB at most in any life of a disturbed processor; undisturbed ones:"
    for text in memory.slopes():
        yield f"          {text}"
    yield ""
    if not violations:
        yield "Equal: nothing is missing, nothing is more, nothing is different."
    else:
        yield f"NOT EQUAL. The seed is {seed}."
        for violation in violations:
            yield f"- {violation}"


def _counts(counts: Counter[End] | Counter[FaultKind]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common()) or "nothing"
