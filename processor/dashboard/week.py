"""A week of a schedule: when it is on, and what part of the time where a duty cycle switches often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from html import escape
from itertools import groupby
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import ValidationError

from processor.dashboard import words
from processor.schedule import Schedule
from processor.schedule_document import ScheduleDocument
from processor.types import NS, Flags, Times

DAYS: Final = 7
_CELL: Final = 10
"""Minutes that are told apart."""
_LOOKS: Final = 19
"""Times in each of them at which the schedule is asked."""
_CELLS: Final = 24 * 60 // _CELL


class Day(NamedTuple):
    """One day, on the wall clock of the schedule's zone.

    Attributes:
        day: the date.
        on: spans as (from, to, share of the time that it is on), in minutes since midnight.
    """

    day: date
    on: tuple[tuple[int, int, float], ...]


def schedules(plain: Mapping[str, Any]) -> dict[str, Sequence[ScheduleDocument]]:
    """Return what has a schedule in a filter, by name: the filter, `""`, and rules with their own, which come on top.

    What cannot be read as a schedule is left out: somebody is writing it.
    """
    of_filter = _read(plain.get("schedule"))
    found: dict[str, Sequence[ScheduleDocument]] = {"": [of_filter] if of_filter else []}
    rules = plain.get("rules")
    for rule in rules if isinstance(rules, list) else ():
        own = _read(rule.get("schedule")) if isinstance(rule, dict) else None
        if own is not None:
            found[str(rule.get("name"))] = [*found[""], own]
    return found


def _read(plain: object) -> ScheduleDocument | None:
    try:
        return ScheduleDocument.model_validate(plain)
    except ValidationError:
        return None


def week(documents: Sequence[ScheduleDocument], start: date) -> list[Day]:
    """Return the week from `start` on in which all of these schedules are on."""
    zone = ZoneInfo(documents[0].timezone if documents else "UTC")
    made = [Schedule(document) for document in documents]
    days = []
    for number in range(DAYS):
        day = start + timedelta(days=number)
        times = _times(day, zone)
        active: Flags = np.ones(times.size, np.bool_)
        for one in made:
            active &= one.active(times)
        shares = np.round(active.reshape(_CELLS, _LOOKS).mean(axis=1), 2).tolist()
        spans, at = [], 0
        for share, group in groupby(shares):
            length = len(list(group))
            if share:
                spans.append((at * _CELL, (at + length) * _CELL, share))
            at += length
        days.append(Day(day, tuple(spans)))
    return days


def _times(day: date, zone: ZoneInfo) -> Times:
    """Return the times of a day at which a schedule is asked, by the wall clock."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    starts = [(midnight + timedelta(minutes=cell * _CELL)).timestamp() for cell in range(_CELLS)]
    within = (np.arange(_LOOKS) + 0.5) / _LOOKS * _CELL * 60
    times: Times = ((np.array(starts)[:, np.newaxis] + within) * NS).astype(np.int64).ravel()
    return times


def drawing(documents: Sequence[ScheduleDocument], now: datetime) -> str:
    """Return a week as HTML, from today on."""
    zone = ZoneInfo(documents[0].timezone if documents else "UTC")
    local = now.astimezone(zone)
    rows = []
    for day in week(documents, local.date()):
        on = sum((end - start) * share for start, end, share in day.on) / 60
        bars = "".join(_span(*span) for span in day.on)
        here = 100 * (local.hour * 60 + local.minute) / 1440
        mark = f'<i style="left:{here:.2f}%"></i>' if day.day == local.date() else ""
        rows.append(
            f'<div class="day">{day.day:%a} <small>{day.day:%d %b}</small></div>'
            f'<div class="track">{bars}{mark}</div><div class="hours number">{_hours(on)}</div>'
        )
    hours = "".join(f"<span>{hour}</span>" for hour in ("0:00", "6:00", "12:00", "18:00", "24:00"))
    foot = f'<div class="day"></div><div class="clock">{hours}</div><div></div>'
    said = f'<p class="muted">Clock of {escape(zone.key)}.{_duty(documents)}</p>'
    return f'<div class="week">{"".join(rows)}{foot}</div>{said}'


def _span(start: int, end: int, share: float) -> str:
    part = "" if share == 1 else f", {words.share(share)} of it"
    place = f"left:{100 * start / 1440:.2f}%;width:{100 * (end - start) / 1440:.2f}%;opacity:{0.22 + 0.78 * share:.2f}"
    return f'<span style="{place}" title="{_clock(start)} to {_clock(end)}{part}"></span>'


def _hours(hours: float) -> str:
    return "all day" if hours >= 24 else "off" if hours == 0 else f"{hours:.1f} h"  # noqa: PLR2004


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"


def _duty(documents: Sequence[ScheduleDocument]) -> str:
    said = [
        f" On for {words.share(one.duty_cycle.fraction)} of every {words.span(one.duty_cycle.period / NS)}."
        for one in documents
        if one.duty_cycle is not None
    ]
    return escape("".join(said))
