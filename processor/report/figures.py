"""The report's drawings. The only file that imports plotly.

What comes from outside, such as labels and streams, is escaped: plotly reads some HTML in its texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from processor.filter import Rule
from processor.report.collection import Half, Measured, Shown
from processor.schedule import Schedule
from processor.types import Floats, Reason, Times

_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31", "#6B5B95")
"""Told apart by those who see fewer colours, too (Okabe and Ito, 2008, "Color universal design")."""
_GREY: Final = "#B8BEC6"
_GREYS: Final = ("#D9DDE2", "#C3C9D1", "#ADB4BD", "#969EA9", "#7F8894", "#69727F", "#535C69", "#3E4754", "#2A323E")
_INK: Final = "#24292F"
_BAND: Final = "#E69F00"
_LABELS: Final = len(_COLOURS)
_BINS: Final = 60
_LOOKS: Final = 20
"""Times in each bin at which the schedule is asked."""
_STRIP: Final = 240
_ACROSS: Final = 3
"""Samples beside each other."""
_LONGEST: Final = 40
"""Characters of a name in a drawing."""

Figure = Any  # plotly comes without types


def script() -> str:
    """Return plotly.js."""
    text: str = get_plotlyjs()
    return text


def html(figure: Figure, name: str) -> str:
    """Return a figure as a part of a page that holds plotly.js already; `name` is its element's id."""
    config = {"displayModeBar": False, "responsive": True}
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config, div_id=name)
    return text


def _style(figure: Figure, height: int) -> Figure:
    figure.update_layout(
        template="none",
        height=height,
        font={"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        margin={"l": 64, "r": 24, "t": 36, "b": 48},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0, "traceorder": "normal"},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
        bargap=0.02,
        barmode="stack",
    )
    figure.update_xaxes(showgrid=False, zeroline=False, linecolor=_GREY, ticks="outside", tickcolor=_GREY)
    figure.update_yaxes(gridcolor="#ECEFF2", zeroline=False, rangemode="tozero", nticks=5)
    return figure


def short(text: str) -> str:
    """Return a name for a drawing: not too long, and no HTML."""
    return escape(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _moments(times: Times) -> list[str]:
    """Return times as plotly reads them, in UTC."""
    return np.datetime_as_string(times.astype("datetime64[ns]"), unit="ms").tolist()  # type: ignore[no-any-return]


def over_time(half: Half) -> Figure:
    """Return kept windows by rule and rejected ones by reason over time, under when the schedules were active."""
    middles, counts = half.timeline.bins()
    rules = half.side.document.rules
    rows = _schedules(half)
    strip = 0.05 * len(rows)
    heights = [strip, 0.55 - strip / 2, 0.45 - strip / 2] if rows else [0.55, 0.45]
    figure = make_subplots(rows=len(heights), cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.05)
    if rows:
        _add_schedules(figure, half, rows, middles)
    kept, rejected = len(heights) - 1, len(heights)
    moments, width = _moments(middles), half.timeline.width / 1e6
    for index, rule in enumerate(rules):
        bar = go.Bar(
            x=moments,
            y=counts[:, index].tolist(),
            width=width,
            name=f"kept by {short(rule.name)}",
            marker_color=_COLOURS[index % len(_COLOURS)],
        )
        figure.add_trace(bar, row=kept, col=1)
    for reason in Reason:
        column = counts[:, len(rules) + reason]
        if column.any() and reason is not Reason.ACCEPTED:
            colour = _GREYS[int(reason) % len(_GREYS)]
            bar = go.Bar(x=moments, y=column.tolist(), width=width, name=f"not: {reason.label}", marker_color=colour)
            figure.add_trace(bar, row=rejected, col=1)
    _style(figure, 460)
    figure.update_yaxes(title_text="kept", row=kept, col=1)
    figure.update_yaxes(title_text="rejected", row=rejected, col=1)
    figure.update_xaxes(
        title_text=f"windows in each {_span(half.timeline.width)}, by their own time (UTC)", row=rejected, col=1
    )
    if rows:
        figure.update_yaxes(showgrid=False, tickfont={"size": 11}, row=1, col=1)
        figure.update_layout(margin={"l": 120})
        figure.update_xaxes(ticks="", showline=False, row=1, col=1)
    return figure


def _span(width: int) -> str:
    seconds = width // 10**9
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return "second" if seconds == 1 else f"{seconds} seconds"


def _schedules(half: Half) -> list[tuple[str, Schedule]]:
    document = half.side.document
    own = [(f"rule {short(rule.name)}", rule.schedule) for rule in document.rules if rule.schedule is not None]
    whole = [] if document.schedule is None else [("schedule", document.schedule)]
    return [(name, Schedule(schedule)) for name, schedule in (whole + own)[:4]]


def _add_schedules(figure: Figure, half: Half, rows: Sequence[tuple[str, Schedule]], middles: Times) -> None:
    """Draw for each schedule how much of the time it was active, as a strip."""
    if not len(middles):
        return
    first, last = int(middles[0]) - half.timeline.width // 2, int(middles[-1]) + half.timeline.width // 2
    edges = np.linspace(first, last, _STRIP * _LOOKS + 1).astype(np.int64)[:-1]
    shares = [schedule.active(edges).reshape(_STRIP, _LOOKS).mean(axis=1) for _, schedule in rows]
    strip = go.Heatmap(
        x=_moments(edges[_LOOKS // 2 :: _LOOKS]),
        y=[name for name, _ in rows],
        z=[share.round(2).tolist() for share in shares],
        zmin=0,
        zmax=1,
        colorscale=[[0, "#F1F3F5"], [1, "#009E73"]],
        showscale=False,
        hovertemplate="%{x}<br>%{y}: active %{z:.0%} of the time<extra></extra>",
    )
    figure.add_trace(strip, row=1, col=1)


def scores(half: Half, measure: Measured) -> Figure:
    """Return a measure's scores by predicted label, with the bands of the rules that use it, above what was kept."""
    labels, accepted, *columns = half.scores.columns()
    values = columns[half.measures.index(measure)].astype(np.float64)
    edges = _edges(values, bounded=measure.name not in ("score", "value", "disagreement"))
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.68, 0.32], vertical_spacing=0.06)
    names = list(half.by_label)
    common = [int(label) for label in np.argsort(-np.bincount(labels[labels >= 0], minlength=max(len(names), 1)))]
    chosen = common[: _LABELS if len(names) <= _LABELS else _LABELS - 1] if names else []
    groups = [(short(names[label]), labels == label) for label in sorted(chosen)]
    rest = ~np.isin(labels, chosen)
    if rest.any():
        groups.append(("other labels" if names else "all windows", rest))
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    for position, (name, rows) in enumerate(groups):
        for row, which in ((1, rows), (2, rows & accepted)):
            counts = np.histogram(values[which], edges)[0] * half.scores.stride
            bar = go.Bar(
                x=middles,
                y=counts.tolist(),
                width=float(edges[1] - edges[0]),
                name=name,
                legendgroup=name,
                showlegend=row == 1,
                marker_color=_COLOURS[position % len(_COLOURS)],
            )
            figure.add_trace(bar, row=row, col=1)
    for rule in half.side.document.rules:
        if Measured(str(rule.measure), rule.label) == measure and rule.band is not None:
            _add_band(figure, rule, values, (float(edges[0]), float(edges[-1])))
    _style(figure, 420)
    figure.update_yaxes(title_text="all windows", row=1, col=1)
    figure.update_yaxes(title_text="kept", row=2, col=1)
    title = measure.name if measure.label is None else f"{measure.name} of {short(measure.label)}"
    figure.update_xaxes(range=[float(edges[0]), float(edges[-1])])
    figure.update_xaxes(title_text=title, row=2, col=1)
    return figure


def _edges(values: Floats, *, bounded: bool) -> Floats:
    if bounded:
        return np.linspace(0, 1, _BINS + 1)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.linspace(0, 1, _BINS + 1)
    low, high = np.quantile(finite, [0.0005, 0.9995])
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, _BINS + 1)


def _add_band(figure: Figure, rule: Rule, values: Floats, limits: tuple[float, float]) -> None:
    """Draw a rule's band over both rows, or what is outside it where the rule wants that, and what share it holds."""
    band = rule.band
    if band is None:
        return
    low, high = limits
    start = low if band.min is None else band.min
    end = high if band.max is None else band.max
    for left, right in [(low, start), (end, high)] if rule.outside else [(start, end)]:
        if min(right, high) >= max(left, low):
            figure.add_vrect(
                x0=max(left, low), x1=min(right, high), fillcolor=_BAND, opacity=0.16, line_width=0, layer="below"
            )
    for edge in (band.min, band.max):
        if edge is not None and low <= edge <= high:
            figure.add_vline(x=edge, line={"color": _BAND, "width": 1.5})
    inside = (values >= (-np.inf if band.min is None else band.min)) & (
        values <= (np.inf if band.max is None else band.max)
    )
    share = float((~inside & ~np.isnan(values) if rule.outside else inside).mean())
    text = f"{short(rule.name)}: {share:.1%} of the windows lie {'outside' if rule.outside else 'in'} its band"
    right_half = start > (low + high) / 2
    figure.add_annotation(
        x=min(end, high) if right_half else max(start, low),
        xref="x",
        y=1.0,
        yref="y domain",
        text=text,
        showarrow=False,
        xanchor="right" if right_half else "left",
        yanchor="top",
        yshift=-18 * sum(annotation.yref == "y domain" for annotation in figure.layout.annotations),
        font={"color": "#7A4E00", "size": 12},
    )


def reasons(half: Half) -> Figure:
    """Return how many windows were rejected for each reason."""
    found = [(name, count) for name, count in half.side.reasons().items() if count][::-1]
    whole = max(int(half.side.by_reason.sum()), 1)
    figure = go.Figure(
        go.Bar(
            x=[count for _, count in found],
            y=[name for name, _ in found],
            orientation="h",
            marker_color=_GREYS[4],
            text=[f"{count:,} ({count / whole:.1%})" for _, count in found],
            textposition="auto",
            hovertemplate="%{y}: %{x:,}<extra></extra>",
        )
    )
    _style(figure, 90 + 34 * max(len(found), 1))
    figure.update_layout(bargap=0.25, margin={"l": 110, "r": 24, "t": 8, "b": 56})
    figure.update_yaxes(showgrid=False, nticks=0)
    figure.update_xaxes(title_text="windows")
    return figure


def samples(shown: Sequence[Shown], fields: dict[str, list[str]], word: str) -> Figure:
    """Return samples as small plots: lines over time, or a bar for each field where there is one reading.

    Args:
        shown: at least one.
        fields: of the sources, by their names.
        word: what the number over each is.
    """
    rows = -(-len(shown) // _ACROSS)
    titles = [f"{short(one.label) or short(one.stream)} · {word} {one.certainty:.3g}" for one in shown]
    figure = make_subplots(
        rows=rows, cols=_ACROSS, subplot_titles=titles, vertical_spacing=0.3 / rows, horizontal_spacing=0.06
    )
    for position, one in enumerate(shown):
        row, column = divmod(position, _ACROSS)
        names = fields.get(one.stream.partition(":")[0], [])
        known = [short(names[at]) if at < len(names) else str(at) for at in range(one.values.shape[1])]
        if len(one.values) == 1:
            traces = [go.Bar(x=known, y=one.values[0].tolist(), marker_color=_COLOURS[0], showlegend=False)]
        else:
            seconds = ((one.times - one.times[0]) / 1e9).tolist()
            traces = [
                go.Scatter(
                    x=seconds,
                    y=one.values[:, at].tolist(),
                    mode="lines",
                    line={"width": 1.4, "color": _COLOURS[at % len(_COLOURS)]},
                    name=name,
                    legendgroup=name,
                    showlegend=position == 0,
                )
                for at, name in enumerate(known)
            ]
        for trace in traces:
            figure.add_trace(trace, row=row + 1, col=column + 1)
    _style(figure, 190 * rows + 90)
    figure.update_yaxes(rangemode="normal", nticks=4)
    figure.update_layout(legend={"y": -0.18 / rows, "yanchor": "top"}, margin={"t": 40, "b": 60, "l": 48})
    for annotation, one in zip(figure.layout.annotations, shown, strict=True):
        annotation.font = {"size": 12}
        annotation.hovertext = f"{short(one.stream)}, kept by {short(one.rule)}"
    return figure


def overlap(names: Sequence[str], only: Sequence[int], both: int) -> Figure:
    """Return what two filters keep: the first alone, both, the second alone."""
    figure = go.Figure()
    parts = ((f"only {short(names[0])}", only[0], _COLOURS[0]), ("both", both, _COLOURS[2]))
    for name, count, colour in (*parts, (f"only {short(names[1])}", only[1], _COLOURS[1])):
        bar = go.Bar(
            x=[count], y=[""], orientation="h", name=name, marker_color=colour, text=f"{count:,}", textposition="auto"
        )
        figure.add_trace(bar)
    _style(figure, 130)
    figure.update_layout(margin={"l": 16, "r": 24, "t": 40, "b": 40}, bargap=0.1)
    figure.update_xaxes(title_text="windows kept")
    return figure
