"""The first page: every processor on the broker, those with problems first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Any, Final

from nicegui import ui
from nicegui.element import Element

from processor.dashboard import drawing, words
from processor.dashboard.fleet import Processor
from processor.dashboard.problems import Level, level, problems
from processor.dashboard.shell import EVERY, Desk, Visitor, frame, html, now, page_of
from processor.told import Bridge, Metrics

_NOTHING: Final = "—"
_PROBLEMS: Final = 3
"""Said of each processor; its page says all."""


class FleetTable(Element, component="static/fleet.js"):
    """The table."""

    def show(self, rows: Sequence[dict[str, Any]]) -> None:
        """Show these rows."""
        self._props["rows"] = list(rows)
        self.update()


def build(desk: Desk, visitor: Visitor) -> None:
    """Build the page."""
    with frame(desk, visitor, ""):
        html("Processors", tag="h1")
        tiles = html(tag="div")
        table = FleetTable()
        empty = html().classes("empty")

    def look() -> None:
        processors = list(desk.watcher.fleet.processors.values())
        rows = [row(one, desk.watcher.until, now()) for one in processors]
        rows.sort(key=lambda one: (one["rank"], one["id"]))
        table.show(rows)
        table.set_visibility(bool(rows))
        empty.set_visibility(not rows)
        empty.set_content(_nothing_there(desk))
        tiles.set_content(summary(processors, rows))

    look()
    ui.timer(EVERY, look)


def _nothing_there(desk: Desk) -> str:
    if not desk.watcher.online:
        return "As soon as the broker is there, its processors are shown here."
    return (
        f"No processor has been on {escape(desk.broker)} yet. Start one with <code>mlade run -c processor.yaml</code> "
        "on any machine that reaches this broker; it appears here by itself."
    )


def summary(processors: Sequence[Processor], rows: Sequence[dict[str, Any]]) -> str:
    """Return the figures over the table."""
    if not processors:
        return ""
    online = sum(one.online is True for one in processors)
    attention = sum(row["rank"] < Level.NOTICE for row in rows)
    running = [one.metrics for one in processors if one.online and one.metrics is not None]
    messages = sum(metrics.rates.get("messages", 0.0) for metrics in running)
    kept = sum(metrics.rates.get("accepted", 0.0) for metrics in running)
    waiting = sum(one.metrics.outbox.samples for one in processors if one.metrics is not None)
    figures = [
        ("Online", f"{online} <small>of {len(processors)}</small>", ""),
        ("Need attention", str(attention), "broken" if attention else ""),
        ("Messages/s", words.rate(messages), ""),
        ("Kept/s", words.rate(kept), ""),
        ("Wait for delivery", words.count(waiting), ""),
    ]
    return tiles_of(figures)


def tiles_of(figures: Sequence[tuple[str, str, str]]) -> str:
    """Return figures under each other's names: name, HTML, class."""
    parts = (f'<div class="{kind}"><dt>{name}</dt><dd>{said}</dd></div>' for name, said, kind in figures)
    return f'<dl class="tiles">{"".join(parts)}</dl>'


def row(processor: Processor, clock: float, wall: datetime) -> dict[str, Any]:
    """Return a processor as `fleet.js` shows it."""
    found = problems(processor, clock, wall)
    metrics = processor.metrics or Metrics()
    known = processor.metrics is not None
    live = known and processor.online is True
    kept = share_kept(metrics)
    minutes = metrics.last_hour.minutes
    messages = minutes.get("messages", [])[:-1]  # the present one has just begun
    return {
        "root": processor.root,
        "id": processor.id,
        "href": page_of(processor.root),
        "rank": level(found),
        "level": level(found).name.lower(),
        "state": {True: "", False: "offline", None: "unknown"}[processor.online],
        "problems": [one.sentence for one in found[:_PROBLEMS]],
        "spark": drawing.spark(messages),
        "spark_said": f"{words.count(sum(messages))} messages in {len(messages)} minutes",
        "outbox_said": words.size(metrics.outbox.bytes),
        "bridges": [bridge_row(name, bridge) for name, bridge in metrics.bridges.items()],
        "said": {
            "messages": words.rate(metrics.rates.get("messages", 0.0)) if live else _NOTHING,
            "kept": words.rate(metrics.rates.get("accepted", 0.0)) if live else _NOTHING,
            "share": _NOTHING if kept is None else words.share(kept),
            "outbox": words.count(metrics.outbox.samples) if known else _NOTHING,
            "revision": processor.filter.revision if processor.filter else metrics.filter_revision or _NOTHING,
        },
        "sort": {
            "id": processor.id,
            "messages": metrics.rates.get("messages", 0.0) if live else -1.0,
            "kept": metrics.rates.get("accepted", 0.0) if live else -1.0,
            "share": -1.0 if kept is None else kept,
            "outbox": metrics.outbox.samples,
            "revision": metrics.filter_revision,
        },
    }


def share_kept(metrics: Metrics) -> float | None:
    """Return the share of the windows of the last hour that was kept; None where there were none."""
    minutes = metrics.last_hour.minutes
    windows = sum(minutes.get("windows", []))
    if windows:
        return sum(minutes.get("accepted", [])) / windows
    windows = int(metrics.counters.get("windows", 0))
    return metrics.counters.get("accepted", 0) / windows if windows and not minutes else None


def bridge_row(name: str, bridge: Bridge) -> dict[str, str]:
    """Return a bridge as a chip: its name, how it is, and what to say of it."""
    if bridge.error:
        state, said = Level.BROKEN, bridge.error
    elif bridge.connected == 0:
        state, said = Level.WARNING, "has no connection"
    else:
        state, said = Level.WELL, f"{words.count(bridge.delivered)} delivered"
    return {"name": name, "level": state.name.lower(), "said": said}
