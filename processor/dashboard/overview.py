"""A processor at a glance: figures, scores with the band, the last hour, reasons, the schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from html import escape
from typing import Any, Final

from nicegui import ui

from processor.dashboard import drawing, week, words
from processor.dashboard.band import build_bands
from processor.dashboard.fleet_page import bridge_row, share_kept, tiles_of
from processor.dashboard.shell import html, now
from processor.dashboard.view import Look, View
from processor.told import Metrics, Shadow

_MINUTES: Final = 60
_SERIES: Final = (("messages", "Received"), ("accepted", "Kept"), ("delivered", "Delivered"))
REASONS: Final[Mapping[str, str]] = {
    "no_rule": "there are no rules",
    "disabled": "switched off or paused",
    "schedule": "outside the schedule",
    "where": "label, stream or field not wanted",
    "band": "score outside the band",
    "keep": "score not extreme enough",
    "dedup": "too like a sample kept lately",
    "sampled_out": "not drawn by the sampling",
    "cooldown": "too soon after a sample",
    "limit": "limit reached",
}
"""Why a window was not kept, in words."""


def build(view: View) -> Look:
    """Build the part of the page; return what brings it up to date."""
    figures = html()
    with ui.element("div").classes("grid"):
        with ui.element("section").classes("card w12"):
            bands = build_bands(view)
        with ui.element("div").classes("w7 column-of-cards"):
            with ui.element("section").classes("card"):
                html("The last hour", tag="h2")
                html("By the minute, the newest at the right; each on a scale of its own.", tag="p").classes("lead")
                hour = html()
            with ui.element("section").classes("card"):
                html("When it collects", tag="h2")
                schedule = html()
        with ui.element("div").classes("w5 column-of-cards"):
            with ui.element("section").classes("card"):
                html("Why the rest was not kept", tag="h2")
                html("Windows since its start, by the furthest that any rule came.", tag="p").classes("lead")
                reasons = html()
            with ui.element("section").classes("card"):
                html("Kept since its start", tag="h2")
                kept = html()
            with ui.element("section").classes("card") as beside:
                html("The shadow", tag="h2")
                shadow = html()

    def look() -> None:
        metrics = view.metrics
        figures.set_content(_figures(view, metrics))
        hour.set_content(_hour(metrics))
        reasons.set_content(_reasons(metrics))
        schedule.set_content(_schedule(view, metrics))
        kept.set_content(_kept(metrics))
        beside.set_visibility(metrics.shadow is not None)
        shadow.set_content(shadow_card(metrics.shadow))
        bands()

    return look


def _figures(view: View, metrics: Metrics) -> str:
    share = share_kept(metrics)
    online = view.record.online is True
    bridges = (bridge_row(name, bridge) for name, bridge in metrics.bridges.items())
    chips = "".join(
        f'<span class="chip {one["level"]}" title="{escape(one["said"])}">{escape(one["name"])}</span>'
        for one in bridges
    )
    outbox = f"{words.count(metrics.outbox.samples)} <small>{words.size(metrics.outbox.bytes)}</small>"
    parts = [
        ("Messages/s", words.rate(metrics.rates.get("messages", 0.0)) if online else "—", ""),
        ("Kept/s", words.rate(metrics.rates.get("accepted", 0.0)) if online else "—", ""),
        ("Share kept", "—" if share is None else words.share(share), ""),
        ("Streams", words.count(metrics.streams), ""),
        ("Outbox", outbox, "warning" if any(metrics.outbox.lost.values()) else ""),
        ("Filter", f"{metrics.filter_revision or '—'} <small>revision</small>", ""),
        ("Model", _model(view, metrics), ""),
        ("Bridges", f'<span class="chips">{chips or "none"}</span>', ""),
    ]
    if metrics.version:
        up = words.span(metrics.uptime_seconds)
        parts.append(("Running for", f"{up} <small>version {escape(metrics.version)}</small>", ""))
    return tiles_of(parts)


def _model(view: View, metrics: Metrics) -> str:
    """Return which model judges; its SHA-256 for who looks closer."""
    state = view.record.model
    name, sha256 = metrics.model.name, metrics.model.sha256
    revision = f" <small>revision {state.revision}</small>" if state is not None else ""
    return f'<span title="SHA-256 {escape(sha256)}">{escape(name) or "—"}</span>{revision}'


def _hour(metrics: Metrics) -> str:
    minutes = metrics.last_hour.minutes
    rows = []
    local = words.moment(metrics.time, now().tzinfo) or now()  # it may be long ago that it was told
    for name, title in _SERIES:
        values = minutes.get(name, [])[-_MINUTES:]
        titles = [
            f"{local - timedelta(minutes=len(values) - 1 - at):%H:%M}: {words.count(value)}"
            for at, value in enumerate(values)
        ]
        most = f"{words.count(sum(values))} <small>at most {words.count(max(values, default=0))} a minute</small>"
        kind = {"messages": "received", "accepted": "kept"}.get(name, name)
        rows.append(f"<div>{title}<br>{most}</div>{drawing.bars(values, titles, _MINUTES, kind)}")
    begin = local - timedelta(minutes=_MINUTES - 1)
    rows.append(f'<div></div><div class="when"><span>{begin:%H:%M}</span><span>{local:%H:%M}</span></div>')
    return f'<div class="series">{"".join(rows)}</div>'


def _reasons(metrics: Metrics) -> str:
    total = sum(metrics.by_reason.values())
    found = sorted(metrics.by_reason.items(), key=lambda item: -item[1])
    parts = [
        (REASONS.get(reason, reason), count, f"{words.count(count)} · {words.share(count / total)}")
        for reason, count in found
        if count
    ]
    return drawing.shares(parts) if parts else '<p class="muted">Every window was kept, or none has come yet.</p>'


def _kept(metrics: Metrics) -> str:
    parts: Sequence[tuple[str, Mapping[str, int]]] = (
        ("By rule", metrics.by_rule),
        ("By predicted label", metrics.by_label),
    )
    drawn = []
    for title, counts in parts:
        total = sum(counts.values())
        found = sorted(((name, count) for name, count in counts.items() if count), key=lambda item: -item[1])[:10]
        rows = [
            (name or "none", count, f"{words.count(count)} · {words.share(count / total)}") for name, count in found
        ]
        if rows:
            drawn.append(f"<h3>{title}</h3>{drawing.shares(rows)}")
    return "".join(drawn) or '<p class="muted">Nothing yet.</p>'


def shadow_card(shadow: Shadow | None) -> str:
    """Return how a second model agrees with the model."""
    if shadow is None:
        return ""
    judged = f"{words.count(shadow.windows)} windows, {words.share(shadow.part)} of all"
    failed = f"; it failed on {words.count(shadow.failures)}" if shadow.failures else ""
    lead = f"{escape(shadow.name)} judged {judged}{failed}."
    if shadow.agreement is not None:
        lead += f" It agrees with the model on {words.share(shadow.agreement)}."
    elif shadow.disagreement is not None:
        lead += f" Its answers are {shadow.disagreement:.3g} from the model's on average."
    rows = [
        (label or "none", one.agreement, f"{words.share(one.agreement)} of {words.count(one.windows)}")
        for label, one in list(shadow.by_label.items())[:10]
        if one.agreement is not None
    ]
    drawn = f"<h3>Agreement by predicted label</h3>{drawing.shares(rows)}" if rows else ""
    return f'<p class="lead">{lead}</p>{drawn}'


def _schedule(view: View, metrics: Metrics) -> str:
    active: Mapping[str, Any] = view.record.active
    found = week.schedules(active)
    said = _now(active, metrics) if view.record.online else ""
    parts = []
    for name, documents in found.items():
        if documents:
            title = f"<h3>Rule {escape(name)}</h3>" if name else ""
            parts.append(title + week.drawing(documents, now()))
    return f'<p class="lead muted">{said}</p>{"".join(parts)}'


def _now(active: Mapping[str, Any], metrics: Metrics) -> str:
    if not active.get("schedule"):
        return "All the time: the filter has no schedule."
    change = metrics.schedule.next_change
    until = f" until {words.when(change, now())}" if change else ""
    return f"{'On' if metrics.schedule.active else 'Off'} now{until}."
