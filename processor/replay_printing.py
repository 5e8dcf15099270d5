"""What `mlade replay` prints: one filter in full, several side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from processor.events import timestamp
from processor.logs import one_line
from processor.printing import agreement_lines, as_yaml, size
from processor.replay import Replay, Side
from processor.suggest import Suggestion, Target
from processor.types import NS

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def show(console: Console, replay: Replay) -> None:
    """Print what came in, what was kept, and why the rest was not."""
    say = console.print
    say(f"[b]Came in[/b]  {_came_in(replay)}")
    for line in _remarks(replay):
        say(f"         {line}", soft_wrap=True)
    if len(replay.sides) == 1:
        side = replay.sides[0]
        share = _share(side.accepted, replay.windows)
        say(f"[b]Kept[/b]     {side.accepted:,} windows, {share}{_daily(replay, side)}\n")
        both = Table.grid(padding=(0, 4))
        reasons = {name: count for name, count in side.reasons().items() if count}
        both.add_row(_counts("by rule", side.rules()), _counts("not kept because of", reasons))
        say(both)
        _say_agreement(console, replay)
        return
    say()
    say(_comparison(replay))
    for line in overlaps(replay):
        say(Text(line), soft_wrap=True)
    _say_agreement(console, replay)


def _say_agreement(console: Console, replay: Replay) -> None:
    for number, line in enumerate(agreement_lines(replay.agreement.told(replay.shadow))):
        console.print(Text(line if number else f"\n{line}"), soft_wrap=True)


def _came_in(replay: Replay) -> str:
    text = f"{replay.messages:,} messages, {replay.readings:,} readings, {replay.windows:,} windows"
    if replay.seconds <= 0:
        return text
    return f"{text} in {length(replay.seconds)}, from {_moment(replay.first)} to {_moment(replay.last)}"


def _moment(time: int) -> str:
    return timestamp(time // NS * NS)[:19] + "Z"


def _remarks(replay: Replay) -> Iterator[str]:
    if replay.ignored:
        yield f"messages that no source reads: {replay.ignored:,}"
    if replay.dead_letters:
        why = ", ".join(f"{count:,} {reason}" for reason, count in replay.dead_letters.most_common())
        yield f"dead letters: {why}"
    if forgotten := replay.sides[0].computation.windows.forgotten:
        yield f"streams forgotten for others, as model.window.max_streams says: {forgotten:,}"


def length(seconds: float) -> str:
    """Return a length of time for people."""
    for unit, name, smaller, name_of_smaller in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name} {seconds % unit // smaller:.0f} {name_of_smaller}"
    return f"{seconds / _MINUTE:.1f} min" if seconds >= 2 * _MINUTE else f"{seconds:.1f} s"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%} of them" if whole else "none"


def _daily(replay: Replay, side: Side) -> str:
    """Return how many a day that is, for the end of a line."""
    daily = float(replay.daily(side).sum())
    if not np.isfinite(daily) or not side.accepted:
        return ""
    text = f", about {rounded(daily)} a day"
    return f"{text} with {size(round(side.bytes / side.accepted * daily))}" if side.events else text


def rounded(count: float) -> str:
    """Return a forecast with no more digits than it deserves."""
    return f"{float(f'{count:.3g}'):,.0f}" if count >= 10 else f"{count:.2g}"  # noqa: PLR2004 - no decimals from here


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right", style="dim")
    table.add_row(f"[b]{title}[/b]")
    whole = max(sum(counts.values()), 1)  # a share even then: next to an empty column, rich cuts names
    for name, count in counts.items():
        table.add_row(Text(f"  {name}"), f"{count:,}", f"{count / whole:.1%}")
    return table


def _comparison(replay: Replay) -> Table:
    """Return filters as columns: what each keeps, by which rule, and why not the rest."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column()
    sides = replay.sides
    for side in sides:
        table.add_column(Text(one_line(side.name)), justify="right", overflow="fold")
    table.add_row("kept", *(f"{side.accepted:,}" for side in sides), style="bold")
    table.add_row(
        "  of all windows", *(_share(side.accepted, replay.windows).removesuffix(" of them") for side in sides)
    )
    days = [float(replay.daily(side).sum()) for side in sides]
    table.add_row("  a day, about", *(rounded(count) if np.isfinite(count) else "" for count in days))
    for name in dict.fromkeys(name for side in sides for name in side.rules()):
        table.add_row(
            Text(f"  by {name}"), *(f"{side.rules()[name]:,}" if name in side.rules() else "" for side in sides)
        )
    table.add_row("not kept because of")
    for name in sides[0].reasons():
        counts = [side.reasons()[name] for side in sides]
        if any(counts):
            table.add_row(f"  {name}", *(f"{count:,}" for count in counts))
    return table


def overlaps(replay: Replay) -> Iterator[str]:
    """Yield a sentence for each two filters: what both keep, and what one of them only."""
    for one, other in itertools.combinations(range(len(replay.sides)), 2):
        both = int(replay.overlap[one, other])
        names = [one_line(replay.sides[number].name) for number in (one, other)]
        alone = [replay.sides[number].accepted - both for number in (one, other)]
        either = both + sum(alone)
        shared = f" ({both / either:.1%} of what either keeps)" if either else ""
        yield f"\nBoth keep {both:,}{shared}; only {names[0]} keeps {alone[0]:,}, only {names[1]} {alone[1]:,}."


def suggestion_lines(found: Suggestion, target: Target, recording: Path) -> Iterator[str]:
    """Yield a filter that was suggested, as YAML that `mlade filter set` takes, what it keeps in comments before it."""
    side = found.replay.sides[0]
    rule = found.plain["rules"][found.rule]
    yield f"# Asked for: {target}. Set: the {found.form} of rule {rule['name']}."
    rules = ", ".join(f"{name} {count:,}" for name, count in side.rules().items())
    a_day = f", about {rounded(found.kept)} {target.unit}" if target.per else ""
    kept = f"keeps {side.accepted:,} of {found.replay.windows:,} windows{a_day} ({rules})"
    yield f"# Replayed, it {kept} of {one_line(recording.name)}."
    for remark in found.remarks:
        yield f"# NOTE: {one_line(remark)}"
    yield as_yaml(found.plain).rstrip("\n")
