"""The end of the demo: the samples read back and checked, and what there is to see."""

from __future__ import annotations

import functools
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from processor.demo.control_room import Document, Seen
from processor.demo.workspace import Workspace
from processor.errors import MladeError

_BAR: Final = 36
"""Columns of the longest bar."""


def read_back(directory: Path, filters: Mapping[int, Document]) -> list[Document]:
    """Read the samples under `directory` and hold each against the filter that accepted it.

    Args:
        directory: of the bridge `files`.
        filters: the filter in force at each revision.

    Raises:
        MladeError: a file is not what it should be.
    """
    events: dict[str, Document] = {}
    for path in sorted(directory.glob("date=*/*.jsonl")):
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                event = msgspec.json.decode(line)
                problem = "the same id a second time" if event["id"] in events else _problem(event, filters)
            except (msgspec.DecodeError, KeyError, TypeError) as error:
                problem = f"no sample ({error!r})"
            if problem:
                raise MladeError(f"{path}, line {number}: {problem}.")
            events[event["id"]] = event
    return list(events.values())


def _problem(event: Document, filters: Mapping[int, Document]) -> str | None:
    """Return why the filter of the event's revision would not have accepted it; None when it would."""
    selection = event["data"]["selection"]
    active = filters.get(selection["filter_revision"])
    if active is None:
        return f"filter revision {selection['filter_revision']} was never in force"
    rule = next((rule for rule in active["rules"] if rule["name"] == selection["rule"]), None)
    if rule is None:
        return f"rule {selection['rule']} is not in filter revision {selection['filter_revision']}"
    band = rule.get("band")
    if band and not band["min"] <= selection["score"] <= band["max"]:
        return f"score {selection['score']} is outside the band {band['min']} to {band['max']}"
    return None


def show(console: Console, seen: Seen, events: Sequence[Document], place: Path, workspace: Workspace) -> None:
    """Print what came in, what was kept and why, where it is, and what to try next.

    Args:
        console: where to.
        seen: what the processor has said.
        events: the samples, as read back.
        place: the directory as the user named it.
        workspace: the same directory.
    """
    metrics = seen.metrics
    counters = metrics["counters"]
    windows, accepted = counters["windows"], counters["accepted"]
    console.print()
    console.print(
        f"[b]Came in[/b]  {counters['messages']:,} messages, {counters['readings']:,} readings, "
        f"{metrics['streams']} streams, {windows:,} windows"
    )
    console.print(f"[b]Kept[/b]     {accepted:,} windows, {_share(accepted, windows)} of them\n")
    kept = Table.grid(padding=(0, 4))
    kept.add_row(_table("by rule", by_rule(seen)), _table("by predicted label", metrics["by_label"]))
    console.print(kept)
    _histogram(console, seen)
    files = len(list(workspace.accepted.glob("date=*/*.jsonl")))
    noun = "file" if files == 1 else "files"
    mlade, shown = _invocation(), shlex.quote(str(place))
    say = functools.partial(console.print, soft_wrap=True)
    say(f"[b]Samples[/b]  {len(events):,} CloudEvents in {files} {noun} under {escape(str(place))}/accepted,")
    say("         read back and checked; the same came by MQTT\n")
    say("[b]Next[/b]")
    for remark, command in (
        (
            "one sample: the readings, the inference, the reason",
            f"cat {shown}/accepted/*/*.jsonl | head -n 1 | python3 -m json.tool",
        ),
        ("the demo's configuration", f"{mlade} check -c {shown}/processor.yaml"),
        (
            "your plant: what is on your broker, and a configuration for it",
            f"{mlade} discover --broker mqtt://BROKER --model MODEL.onnx -o plant.yaml",
        ),
    ):
        say(f"  [dim]# {remark}[/dim]\n  [cyan]{escape(command)}[/cyan]")


def by_rule(seen: Seen) -> dict[str, int]:
    """Return how many windows each rule that was in force has accepted."""
    names = dict.fromkeys(rule["name"] for _, active in sorted(seen.filters.items()) for rule in active["rules"])
    return {name: seen.metrics["by_rule"].get(name, 0) for name in names}


def totals(seen: Seen, seconds: float) -> dict[str, Any]:
    """Return what `--json` prints, of a run in which the watches played for `seconds`."""
    counters = seen.metrics["counters"]
    names = ("messages", "readings", "windows", "accepted")
    return {name: counters[name] for name in names} | {"by_rule": by_rule(seen), "seconds": round(seconds, 2)}


def _table(title: str, counts: Mapping[str, int]) -> Table:
    """Return counts and their shares, largest first."""
    table = Table.grid(padding=(0, 2))
    table.add_column(title)
    table.add_column(justify="right")
    table.add_column(justify="right", style="dim")
    table.add_row(f"[b]{title}[/b]")
    for name, count in Counter(counts).most_common():
        table.add_row(f"  {name}", f"{count:,}", _share(count, sum(counts.values())))
    return table


def _histogram(console: Console, seen: Seen) -> None:
    """Print the scores of the whole run, with each revision's band beside them."""
    columns = list(seen.scores.values())
    counts = [sum(column) for column in zip(*columns, strict=True)]
    if not any(counts):
        return
    block, mark = ("#", "|") if console.options.ascii_only else ("█", "┃")
    revisions = sorted(seen.filters)
    bands = [_band(seen.filters[revision]) for revision in revisions]
    console.print(f"\n[bold]Confidence[/bold] of {sum(counts):,} windows, and the band of each filter revision")
    marks = "  ".join(str(revision) for revision in revisions)
    console.print(f"  {'':13}{marks}", style="dim")
    lowest = next(number for number, count in enumerate(counts) if count)
    for number, count in enumerate(counts):
        if number < lowest:
            continue
        low, high = seen.edges[number : number + 2]
        middle = (low + high) / 2
        inside = [band is not None and band[0] <= middle <= band[1] for band in bands]
        marks = "  ".join(mark if one else " " for one in inside)
        bar = block * -(-count * _BAR // max(counts))
        style = "green" if any(inside) else "dim"
        console.print(f"  {low:.2f}-{high:.2f}  [green]{marks}[/green]  [{style}]{bar}[/{style}] {count:,}")
    console.print()


def _band(active: Document) -> tuple[float, float] | None:
    for rule in active["rules"]:
        if band := rule.get("band"):
            return band["min"], band["max"]
    return None


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _invocation() -> str:
    """Return how the user can call mlade again, from where they called it now."""
    called = Path(sys.argv[0])
    if called.name != "mlade":
        return f"{shlex.quote(sys.executable)} -m processor"
    found = shutil.which("mlade")
    return "mlade" if found and Path(found).resolve() == called.resolve() else shlex.quote(str(called))
