"""Small drawings as SVG, drawn here and coloured by the style sheet, so that they follow light and dark.

They hold no text: what they stretch over is the page's business, and so are their labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

COLOURS: Final = 8
"""Different ones in the style sheet, `c0` to `c7`; what comes after them is grey."""


def colour(position: int) -> str:
    """Return the class of the colour for the label, or channel, at a position."""
    return f"c{position}" if position < COLOURS else "cx"


def spark(values: Sequence[float], width: int = 100, height: int = 20) -> str:
    """Return the path of a small line over time; empty where there are no values."""
    if len(values) < 2:  # noqa: PLR2004 - a line has two ends
        return ""
    most = max(values) or 1.0
    step = width / (len(values) - 1)
    return "M" + "L".join(
        f"{step * at:.1f},{height - 1 - (height - 2) * value / most:.1f}" for at, value in enumerate(values)
    )


def bars(values: Sequence[float], titles: Sequence[str], slots: int, kind: str) -> str:
    """Return bars over time, the newest at the right.

    Args:
        values: oldest first.
        titles: what is said of each when pointed at.
        slots: places for bars; the first stay empty where there are fewer values.
        kind: class of the drawing.
    """
    most = max(values, default=0) or 1.0
    begin = slots - len(values)
    drawn = "".join(
        f'<rect x="{begin + at + 0.1:.1f}" y="{40 - height:.2f}" width="0.8" height="{height:.2f}">'
        f"<title>{escape(title)}</title></rect>"
        for at, (value, title) in enumerate(zip(values, titles, strict=True))
        if (height := 40 * value / most)
    )
    return (
        f'<svg class="bars {kind}" viewBox="0 0 {slots} 40" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'
    )


def lines(channels: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Return a sample's channels over each other, on one scale; bars where each has a single value."""
    values = [value for _, channel in channels for value in channel]
    if not values:
        return ""
    low, high = min(values), max(values)
    extent = (high - low) or 1.0
    if max(len(channel) for _, channel in channels) == 1:
        return _columns(channels)
    drawn = []
    for position, (_, channel) in enumerate(channels):
        step = 100 / max(len(channel) - 1, 1)
        points = " ".join(f"{step * at:.1f},{38 - 36 * (value - low) / extent:.1f}" for at, value in enumerate(channel))
        drawn.append(f'<polyline class="{colour(position)}" points="{points}"/>')
    return (
        f'<svg class="lines" viewBox="0 0 100 40" preserveAspectRatio="none" aria-hidden="true">{"".join(drawn)}</svg>'
    )


def _columns(channels: Sequence[tuple[str, Sequence[float]]]) -> str:
    values = [channel[0] for _, channel in channels if channel]
    low, high = min(0.0, *values), max(0.0, *values)
    extent = (high - low) or 1.0
    width = 100 / len(values)
    drawn = "".join(
        f'<rect class="{colour(at)}" x="{width * (at + 0.2):.1f}" width="{width * 0.6:.1f}" '
        f'y="{38 - 36 * (max(value, 0.0) - low) / extent:.1f}" height="{36 * abs(value) / extent:.1f}"/>'
        for at, value in enumerate(values)
    )
    return f'<svg class="lines" viewBox="0 0 100 40" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'


def shares(parts: Sequence[tuple[str, float, str]]) -> str:
    """Return horizontal bars in a table: a name, a part of the largest, and what to say of it."""
    most = max((part for _, part, _ in parts), default=0) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f'<td class="bar"><span style="width:{100 * part / most:.1f}%"></span></td>'
        f"<td>{escape(said)}</td></tr>"
        for name, part, said in parts
    )
    return f'<table class="shares"><tbody>{rows}</tbody></table>'
