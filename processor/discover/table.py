"""The families as a table, while they are learned and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group
from rich.text import Text

from processor.discover.examples import payload_text, printable
from processor.discover.proposals import Proposal
from processor.printing import size

_MOST: Final = 40
"""Families shown."""
_NAMES: Final = 6
"""Fields named."""
_WIDEST: Final = 44
"""Characters of a cell."""
_HEADINGS: Final = ("topics", "format", "fields", "time", "msg/s", "size", "decodes")
_RIGHT: Final = frozenset(("msg/s", "size", "decodes"))


def table_of(proposals: Sequence[Proposal]) -> Group:
    """Return the table: two lines a family, the second an example."""
    rows = [_cells(one) for one in proposals[:_MOST]]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    lines = [Text(_line(_HEADINGS, widths), style="bold", no_wrap=True, overflow="ellipsis")]
    for one, row in zip(proposals, rows, strict=False):
        lines.append(Text(_line(row, widths), no_wrap=True, overflow="ellipsis"))
        problem = f"{one.problem}: " if one.problem else ""
        told = f"  {printable(problem + payload_text(one))}"
        lines.append(Text(told, style="dim", no_wrap=True, overflow="ellipsis"))
    if len(proposals) > _MOST:
        lines.append(Text(f"and {len(proposals) - _MOST} families more"))
    return Group(*lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        f"{cell:>{width}}" if heading in _RIGHT else f"{cell:<{width}}"
        for heading, cell, width in zip(_HEADINGS, cells, widths, strict=True)
    ).rstrip()


def _cells(one: Proposal) -> tuple[str, ...]:
    count = len(one.family.topics)
    first, *more = one.family.filters
    topics = printable(first) + (f" and {len(more)} more" if more else "") + (f" ({count:,})" if count > 1 else "")
    names = [printable(name) for name in one.channels]
    fields = ", ".join(names[:_NAMES]) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")
    cells = (topics, one.family.signature.format or "?", fields if one.source else "-", _time(one))
    return (*map(_short, cells), _pace(one), size(round(one.size)), _share(one))


def _time(one: Proposal) -> str:
    if one.source is None:
        return "-"
    if one.source["format"] in ("opcua", "sparkplug"):
        return "its own"
    name = one.source.get("time", one.source.get("base", {}).get("time"))
    return "arrival" if name is None else f"{printable(name)} ({one.source['time_unit']})"


def _pace(one: Proposal) -> str:
    return f"{one.pace.messages:,.3g}" if one.pace.messages else "-"


def _share(one: Proposal) -> str:
    if one.tried is None:
        return "-"
    return f"{one.tried.decoded / one.tried.messages:.0%}" + (" ?" if one.guess else "")


def _short(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 2] + " …"
