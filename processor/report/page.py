"""The report: one HTML page that opens offline, with everything it needs inside."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np

from processor.errors import RecordingError
from processor.events import timestamp
from processor.filter import to_plain
from processor.forecast import DAY
from processor.printing import agreement_lines, as_yaml, size
from processor.replay import Replay
from processor.replay_printing import length, rounded
from processor.report import figures
from processor.report.collection import Collection, Count, Half, Shown

_ROWS: Final = 20
"""Streams and labels in a table."""
_HALF_A_MEGABYTE: Final = 500_000

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #24292f; background: #fff; margin: 0 auto; max-width: 1080px;
       padding: 24px 32px 64px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 44px 0 8px; overflow-wrap: anywhere; }
h2.filter { border-top: 3px solid #24292f; padding-top: 12px; }
h3 { font-size: 15px; margin: 28px 0 4px; } p { margin: 4px 0 10px; color: #57606a; max-width: 80ch; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 16px 0; }
.card { border: 1px solid #d0d7de; border-radius: 8px; padding: 10px 16px; min-width: 118px; }
.card b { display: block; font-size: 22px; line-height: 1.3; } .card span { color: #57606a; font-size: 13px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 8px 0; }
th, td { text-align: right; padding: 4px 14px 4px 0; border-bottom: 1px solid #eaeef2; vertical-align: top; }
th { color: #57606a; font-weight: 600; } th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
tr.sum td { font-weight: 600; } td.bar { width: 90px; } td.bar i { display: block; height: 12px; margin-top: 5px;
       background: #0072b2; border-radius: 2px; }
.pictures { display: flex; flex-wrap: wrap; gap: 16px; } figure { margin: 0; width: 200px; font-size: 13px; }
figure img { display: block; margin-bottom: 4px; } figcaption { color: #57606a; overflow-wrap: anywhere; }
.beside { display: flex; flex-wrap: wrap; gap: 8px 56px; align-items: flex-start; }
details { margin: 8px 0; } summary { cursor: pointer; color: #57606a; }
pre { background: #f6f8fa; padding: 12px 16px; border-radius: 8px; overflow-x: auto; font-size: 13px; }
"""


@dataclass(frozen=True, slots=True)
class Titles:
    """What the page says of its origin.

    Attributes:
        recording: the recording's name.
        model: the model's.
    """

    recording: str
    model: str


def write(path: Path, replay: Replay, found: Collection, titles: Titles) -> None:
    """Write the page.

    Args:
        path: where; an older file gives way.
        replay: a finished one.
        found: what was collected of it.
        titles: what it is about.

    Raises:
        RecordingError: the file cannot be written.
    """
    body = "\n".join(_body(replay, found, titles))
    title = escape(f"{titles.recording}: what mlade would keep")
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n<script>{figures.script()}</script>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise RecordingError(f"{path} cannot be written: {error.strerror}.") from error


def _body(replay: Replay, found: Collection, titles: Titles) -> Iterator[str]:
    yield f"<h1>{escape(titles.recording)}</h1>"
    origin = f"replayed with the model {escape(titles.model)}"
    if replay.seconds > 0:
        origin = (
            f"{timestamp(replay.first)[:19]}Z to {timestamp(replay.last)[:19]}Z, {length(replay.seconds)}, {origin}"
        )
    yield f"<p>{origin}</p>"
    per_day = DAY / replay.seconds if replay.seconds > 0 else np.inf
    yield _cards(
        (f"{replay.messages:,}", "messages"),
        (_of_day(replay.messages * per_day), "messages a day"),
        (f"{replay.readings:,}", "readings"),
        (f"{replay.windows:,}", "windows"),
        (f"{len(found.halves[0].by_stream):,}", "streams"),
        (f"{replay.dead_letters.total():,}", "dead letters"),
    )
    if replay.dead_letters:
        why = ", ".join(f"{escape(reason)} {count:,}" for reason, count in replay.dead_letters.most_common())
        yield f"<p>Dead letters, messages that could not be processed: {why}.</p>"
    yield from _agreement(replay.agreement.told(replay.shadow))
    if len(found.halves) > 1:
        yield from _comparison(replay)
    for number, half in enumerate(found.halves):
        yield from _half(replay, found, half, number)


def _agreement(told: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield how a shadow agrees with the model."""
    lines = [escape(line.strip()) for line in agreement_lines(told)]
    if lines:
        yield f"<h2>The shadow</h2><p>{lines[0]}.</p>"
    if lines[1:]:
        yield f"<p>By the model's label: {'; '.join(lines[1:])}.</p>"


def _of_day(count: float) -> str:
    return rounded(count) if np.isfinite(count) else "?"


def _cards(*cards: tuple[str, str]) -> str:
    inner = "".join(f'<div class="card"><b>{figure}</b><span>{word}</span></div>' for figure, word in cards)
    return f'<div class="cards">{inner}</div>'


def _comparison(replay: Replay) -> Iterator[str]:
    yield "<h2>Side by side</h2>"
    sides = replay.sides
    rows = [
        ["kept", *(f"{side.accepted:,}" for side in sides)],
        ["of all windows", *(_percent(side.accepted, replay.windows) for side in sides)],
        ["a day, about", *(_of_day(float(replay.daily(side).sum())) for side in sides)],
    ]
    rows += [
        [f"not kept: {reason}", *(f"{side.reasons()[reason]:,}" for side in sides)]
        for reason in sides[0].reasons()
        if any(side.reasons()[reason] for side in sides)
    ]
    yield _table(["", *(escape(side.name) for side in sides)], rows)
    for one, other in itertools.combinations(range(len(sides)), 2):
        both = int(replay.overlap[one, other])
        only = [sides[one].accepted - both, sides[other].accepted - both]
        names = [sides[one].name, sides[other].name]
        yield f"<h3>Overlap of {escape(names[0])} and {escape(names[1])}</h3>"
        either = both + sum(only)
        yield f"<p>Both keep {both:,} windows, {_percent(both, either)} of what either keeps.</p>"
        yield figures.html(figures.overlap(names, only, both), f"overlap-{one}-{other}")


def _half(replay: Replay, found: Collection, half: Half, number: int) -> Iterator[str]:
    side = half.side
    yield f'<h2 class="filter">Filter: {escape(side.name)}</h2>'
    daily = replay.daily(side)
    total = float(daily.sum())
    share = total / side.accepted if side.accepted else 0.0
    yield _cards(
        (f"{side.accepted:,}", "windows kept"),
        (_percent(side.accepted, replay.windows), "of all windows"),
        (_of_day(total), "samples a day"),
        (_of_day(half.messages * share), "messages of 4 KiB a day"),
        (_megabytes(side.bytes * share), "a day"),
    )
    yield f"<details><summary>the filter</summary><pre>{escape(as_yaml(to_plain(side.document)))}</pre></details>"
    yield _rules(replay, half)
    yield (
        "<p>A day is the recording's rate, over as much of a day as the schedules are active on average. "
        "IoT Hub meters a message in blocks of 4 KiB.</p>"
    )
    yield "<h3>Over time</h3>"
    yield figures.html(figures.over_time(half), f"time-{number}")
    if half.scores.seen:
        for at, measure in enumerate(half.measures):
            yield f"<h3>Scores: {escape(measure.name)}{escape(f' of {measure.label}') if measure.label else ''}</h3>"
            yield f"<p>By predicted label; the bands of the rules are shaded.{_thinned(half)}</p>"
            yield figures.html(figures.scores(half, measure), f"scores-{number}-{at}")
    yield "<h3>Why the rest was not kept</h3>"
    yield "<p>Each rejected window counts once, under the furthest that any rule came.</p>"
    yield figures.html(figures.reasons(half), f"reasons-{number}")
    yield '<div class="beside">'
    yield _counts("Streams", "stream", half.by_stream)
    if half.by_label:
        yield _counts("Predicted labels", "label", half.by_label)
    yield "</div>"
    word = "value" if found.kind == "value" else "confidence"
    for title, shown, name in (
        ("Samples that the model is least certain of" if word == "confidence" else "Lowest", half.least, "least"),
        ("Samples that the model is most certain of" if word == "confidence" else "Highest", half.most, "most"),
    ):
        if shown:
            yield f"<h3>{title}</h3>"
            if shown[0].picture:
                yield _pictures(shown, word)
                continue
            if any(len(one.values) > 1 for one in shown):
                yield "<p>Each from its first reading on, in seconds.</p>"
            yield figures.html(figures.samples(shown, found.fields, word), f"{name}-{number}")


def _pictures(shown: Sequence[Shown], word: str) -> str:
    """Return samples that are images, beside one another."""
    pictures = "".join(
        f'<figure><img src="{one.picture}" alt=""><figcaption>{escape(one.label or one.stream)} · {word} '
        f"{one.certainty:.3g}<br>{escape(one.stream)}, kept by {escape(one.rule)}</figcaption></figure>"
        for one in shown
    )
    return f'<div class="pictures">{pictures}</div>'


def _thinned(half: Half) -> str:
    return f" One window in {half.scores.stride} is looked at." if half.scores.stride > 1 else ""


def _rules(replay: Replay, half: Half) -> str:
    """Return what each rule keeps of the recording, and would in a day."""
    side = half.side
    daily = replay.daily(side)
    rows = [
        [escape(name), f"{count:,}", _percent(count, replay.windows), _of_day(float(of_day))]
        for (name, count), of_day in zip(side.rules().items(), daily, strict=True)
    ]
    rows.append(["all", f"{side.accepted:,}", _percent(side.accepted, replay.windows), _of_day(float(daily.sum()))])
    return _table(["rule", "kept", "of all windows", "a day"], rows, sum_last=True)


def _counts(title: str, word: str, counts: Mapping[str, Count]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1].kept, -item[1].windows))
    most = max((count.kept for _, count in ordered), default=0)
    rows = [
        [
            escape(name),
            f"{count.windows:,}",
            f"{count.kept:,}",
            _percent(count.kept, count.windows),
            f'<i style="width:{100 * count.kept / most if most else 0:.0f}%"></i>',
        ]
        for name, count in ordered[:_ROWS]
    ]
    rest = [count for _, count in ordered[_ROWS:]]
    if rest:
        windows, kept = sum(count.windows for count in rest), sum(count.kept for count in rest)
        rows.append([f"{len(rest):,} more", f"{windows:,}", f"{kept:,}", _percent(kept, windows), ""])
    table = _table([word, "windows", "kept", "share", ""], rows)
    return f"<div><h3>{title}</h3>{table}</div>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, sum_last: bool = False) -> str:
    """Return a table; its cells are HTML already."""
    lines = list(rows)
    text = "".join(f"<th>{cell}</th>" for cell in head)
    inner = []
    for number, row in enumerate(lines):
        cells = "".join(f'<td class="bar">{cell}</td>' if "<i" in cell[:2] else f"<td>{cell}</td>" for cell in row)
        inner.append(f'<tr class="sum">{cells}</tr>' if sum_last and number == len(lines) - 1 else f"<tr>{cells}</tr>")
    return f"<table><tr>{text}</tr>{''.join(inner)}</table>"


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _megabytes(count: float) -> str:
    if not np.isfinite(count):
        return "?"
    return f"{count / 1e6:,.3g} MB" if count >= _HALF_A_MEGABYTE else size(round(count))
