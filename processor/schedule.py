"""Is a time in the schedule, and when does that change next.

A schedule is turned into intervals of absolute time one UTC day at a time, so that daylight saving is dealt with once
a day and a batch of times costs one binary search each. All arithmetic is in integer nanoseconds.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from cronsim import CronSim

from processor.schedule_document import WEEKDAYS, Cron, DutyCycle, ScheduleDocument, Weekly
from processor.types import NS, Flags, Ints, Times

_DAY: Final = 86_400  # seconds
_DAY_NS: Final = _DAY * NS
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_EPOCH_WEEKDAY: Final = 3  # a Thursday
_FIRST: Final = -(2**63)
_LAST: Final = 2**63 - 1
_HORIZON_DAYS: Final = 5 * 366
_CACHED_DAYS: Final = 64

Span = tuple[int, int]
"""A half-open interval `[start, end)`."""


class Schedule:
    """A schedule document made ready to be asked. Owned by one thread: it remembers the days it was asked about."""

    def __init__(self, document: ScheduleDocument | None = None) -> None:
        """Prepare `document`; None is always active."""
        document = document or ScheduleDocument()
        self._calendar = _Calendar(document) if document.between or document.weekly or document.cron else None
        self._duty = _Duty(document.duty_cycle) if document.duty_cycle else None
        self._edges: OrderedDict[int, Times] = OrderedDict()
        self._asked = 0
        self._answered_until = 0
        self._answer: int | None = None

    def active(self, times: Times) -> Flags:
        """Tell for each of N times whether the schedule is active.

        Args:
            times: (N,) nanoseconds since the Unix epoch, in any order; any 64-bit number is a time.

        Returns:
            (N,) flags.
        """
        active = np.ones(len(times), np.bool_) if self._calendar is None else self._in_calendar(times)
        if self._duty is not None:
            active &= times % self._duty.period < self._duty.on
        return active

    def _in_calendar(self, times: Times) -> Flags:
        if len(times) == 0:
            return np.zeros(0, np.bool_)
        first, last = int(times.min()) // _DAY_NS, int(times.max()) // _DAY_NS
        if first == last:
            return self._in_day(first, times)
        active = np.empty(len(times), np.bool_)
        days = times // _DAY_NS
        for day in np.unique(days):
            here = days == day
            active[here] = self._in_day(int(day), times[here])
        return active

    def _in_day(self, day: int, times: Times) -> Flags:
        edges = self._edges.get(day)
        if edges is None:
            spans = self._calendar.spans(day) if self._calendar else ()
            flat = [max(edge, _FIRST) for span in spans for edge in span if edge <= _LAST]
            edges = self._edges[day] = np.array(flat, np.int64)
            if len(self._edges) > _CACHED_DAYS:
                self._edges.popitem(last=False)
        return (edges.searchsorted(times, side="right") & 1).astype(np.bool_)  # edges turn on, off, on …

    def next_change(self, time: int, days: int = _HORIZON_DAYS) -> int | None:
        """Return the first instant after `time` at which the schedule turns on or off.

        Args:
            time: nanoseconds since the Unix epoch.
            days: how far to look; by default five years. The same in each call.

        Returns:
            Nanoseconds since the Unix epoch; None when nothing changes within `days`.

        Looks at every day up to the answer: milliseconds for a month, up to a second when nothing changes in all that
        time. The answer is remembered and given again at once until it is reached (None: for a day).
        """
        if not self._asked <= time < self._answered_until:
            self._answer = self._find_change(time, days)
            self._asked = time
            self._answered_until = time + _DAY_NS if self._answer is None else self._answer
        return self._answer

    def _find_change(self, time: int, days: int) -> int | None:
        horizon = min((time // _DAY_NS + days) * _DAY_NS, _LAST)
        if self.active(np.array([time], np.int64))[0]:
            end = horizon if self._duty is None else min(horizon, self._duty.turns_off(time))
            if self._calendar is not None:
                end = min(end, _end_of_first(self._calendar.spans_from(time, end)))
            return end if end < horizon else None
        spans: Iterable[Span] = [(_FIRST, horizon)]
        if self._calendar is not None:
            spans = self._calendar.spans_from(time, horizon)
        for start, end in spans:
            on = max(start, time)
            if self._duty is not None:
                on = self._duty.turns_on(on)
            if on < min(end, horizon):
                return on
        return None


def _end_of_first(spans: Iterator[Span]) -> int:
    """Return where the first span and those that go on from it without a gap end."""
    _, end = next(spans)
    for following, following_end in spans:
        if following > end:
            break
        end = following_end
    return end


class _Duty:
    """On in the first `fraction` of each `period` since the Unix epoch: while `t mod period < fraction * period`.

    The fraction is the decimal number that was written, so that 0.2 of ten minutes is two minutes to the nanosecond;
    for the integer remainder r, r < x is r < ceil(x).
    """

    def __init__(self, document: DutyCycle) -> None:
        self.period = document.period
        self.on = math.ceil(Fraction(repr(document.fraction)) * document.period)

    def turns_off(self, time: int) -> int:
        """Return the end of the on phase that `time` lies in."""
        return time - time % self.period + self.on if self.on < self.period else _LAST

    def turns_on(self, time: int) -> int:
        """Return the first instant of an on phase that is not before `time`."""
        if self.on == 0:
            return _LAST
        return time if time % self.period < self.on else time - time % self.period + self.period


class _Zone:
    """UTC offsets, in seconds, by UTC day."""

    def __init__(self, name: str) -> None:
        self.info = ZoneInfo(name)
        self.segments = lru_cache(maxsize=_CACHED_DAYS)(self._find_segments)

    def _offset(self, second: int) -> int:
        offset = (_EPOCH + timedelta(seconds=second)).astimezone(self.info).utcoffset()
        return 0 if offset is None else offset.days * _DAY + offset.seconds

    def _find_segments(self, day: int) -> tuple[tuple[int, int, int], ...]:
        """Return (first second, end second, offset) of each part of the day that has one offset.

        A change at the day's very start counts as inside it: two segments, the first of them empty. No zone has ever
        changed its offset twice within four days.
        """
        start, end = day * _DAY, (day + 1) * _DAY
        before, after = self._offset(start - 1), self._offset(end - 1)
        if before == after:
            return ((start, end, after),)
        low, high = start - 1, end - 1
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == before:
                low = middle
            else:
                high = middle
        return ((start, high, before), (high, end, after))


class _Calendar:
    """The union of `between`, `weekly` and `cron`, a UTC day at a time."""

    def __init__(self, document: ScheduleDocument) -> None:
        zone = _Zone(document.timezone)
        self._zone = zone
        bounds = [(period.start_ns, period.end_ns) for period in document.between]
        far = 2**70  # beyond every time
        self._between = _merged((-far if s is None else s, far if e is None else e) for s, e in bounds)
        self._weekly = _week(document.weekly)
        self._crons = [_CronStarts(cron, zone) for cron in document.cron]

    def spans(self, day: int) -> list[Span]:
        """Return the active spans of a UTC day, in nanoseconds, in order, apart from each other, cut to the day."""
        low, high = day * _DAY_NS, (day + 1) * _DAY_NS
        found = [*self._between, *self._weekly_spans(day)]
        for cron in self._crons:
            found += cron.spans(day)
        return _merged((max(start, low), min(end, high)) for start, end in found if start < high and end > low)

    def spans_from(self, time: int, horizon: int) -> Iterator[Span]:
        """Yield the active spans that end after `time` and start before `horizon`, in order, cut at midnight UTC."""
        for day in range(time // _DAY_NS, -(-horizon // _DAY_NS)):
            yield from (span for span in self.spans(day) if span[1] > time)

    def _weekly_spans(self, day: int) -> Iterator[Span]:
        if not any(self._weekly):
            return
        for start, end, offset in self._zone.segments(day):
            first, last = start + offset, end + offset  # wall clock as seconds since 1970-01-01 00:00 wall clock
            for local_day in range(first // _DAY - 1, -(-last // _DAY)):
                for begin, finish in self._weekly[(local_day + _EPOCH_WEEKDAY) % 7]:
                    low = max(first, local_day * _DAY + begin)
                    high = min(last, local_day * _DAY + finish)
                    if low < high:
                        yield (low - offset) * NS, (high - offset) * NS


def _week(windows: Iterable[Weekly]) -> tuple[list[Span], ...]:
    """Return for Monday to Sunday the windows that start there, in seconds since its midnight."""
    week: tuple[list[Span], ...] = tuple([] for _ in WEEKDAYS)
    for window in windows:
        length = (window.end - window.start) % (24 * 60) or 24 * 60  # past midnight; "00:00" to "24:00" is a day
        for weekday in window.days:
            week[WEEKDAYS.index(weekday)].append((window.start * 60, (window.start + length) * 60))
    return week


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


class _CronStarts:
    """What one cron entry makes active.

    As in Debian's cron, an entry whose minute or hour begins with `*` follows the wall clock: nothing in an hour that
    is skipped, twice in one that happens twice. Any other is a time of day and comes once each day: cronsim is asked
    where it goes on the day of a change and the one after. (For the first kind cronsim itself walks hour by hour, and
    is half an hour off for the rest of the day after a change by half an hour.)
    """

    def __init__(self, document: Cron, zone: _Zone) -> None:
        self._expression = document.cron
        self._duration = document.duration
        self._zone = zone
        self._parsed = CronSim(document.cron, _EPOCH)
        self._is_time_of_day = not any(field.startswith("*") for field in document.cron.split()[:2])
        hours, minutes = (np.array(sorted(part), np.int64) for part in (self._parsed.hours, self._parsed.minutes))
        self._seconds: Ints = np.add.outer(hours * 3600, minutes * 60).ravel()
        self._days_back = -(-document.duration // _DAY_NS)
        self._starts = lru_cache(maxsize=2)(self._find_starts)
        self._last_start = lru_cache(maxsize=self._days_back + _CACHED_DAYS)(self._find_last_start)

    def spans(self, day: int) -> Iterator[Span]:
        """Yield the spans that reach into a UTC day, in nanoseconds; those that overlap are one."""
        starts = self._starts(day)
        if len(starts):
            apart = np.flatnonzero(np.diff(starts) * NS > self._duration)
            firsts = starts[np.concatenate(([0], apart + 1))].tolist()
            lasts = starts[np.concatenate((apart, [-1]))].tolist()
            for first, last in zip(firsts, lasts, strict=True):
                yield first * NS, last * NS + self._duration
        for earlier in range(day - 1, day - 1 - self._days_back, -1):
            start = self._last_start(earlier)
            if start is not None:  # of all earlier spans the one that started last ends last
                yield start * NS, start * NS + self._duration
                return

    def _find_last_start(self, day: int) -> int | None:
        starts = self._starts(day)
        return int(starts[-1]) if len(starts) else None

    def _find_starts(self, day: int) -> Ints:
        """Return the starts in a UTC day, in order, in seconds since the Unix epoch."""
        segments = self._zone.segments(day)
        if self._is_time_of_day and (len(segments) > 1 or len(self._zone.segments(day - 1)) > 1):
            return np.fromiter(self._starts_one_by_one(day), np.int64)
        return np.concatenate([self._starts_in(*segment) for segment in segments])

    def _starts_in(self, start: int, end: int, offset: int) -> Ints:
        local_days = range((start + offset) // _DAY, -(-(end + offset) // _DAY))
        matching = [local for local in local_days if self._matches(date.fromordinal(_EPOCH_ORDINAL + local))]
        starts: Ints = (np.array(matching, np.int64)[:, np.newaxis] * _DAY + self._seconds - offset).ravel()
        return starts[(starts >= start) & (starts < end)]

    def _matches(self, day: date) -> bool:
        return day.month in self._parsed.months and self._parsed.match_day(day)

    def _starts_one_by_one(self, day: int) -> Iterator[int]:
        before = (_EPOCH + timedelta(seconds=day * _DAY - 1)).astimezone(self._zone.info)
        for start in CronSim(self._expression, before):
            second = (start - _EPOCH) // timedelta(seconds=1)
            if second >= (day + 1) * _DAY:
                return
            if second >= day * _DAY:
                yield second
