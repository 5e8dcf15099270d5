"""The schedule against an oracle that asks the wall clock about every instant by itself."""

from __future__ import annotations

import timeit
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import takewhile
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.schedule import Schedule
from processor.schedule_document import WEEKDAYS, ScheduleDocument
from processor.types import NS
from processor.units import duration_text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = 3600 * NS
DAY = 24 * HOUR
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Jerusalem", "Pacific/Apia"]
CRONS = ["0 16 * * 1-5", "30 2 * * *", "15 0-23/6 * * *", "0 0 29 2 *", "59 23 L * *", "0-59/20 1-3 * * 0"]


def schedule_of(**keys: object) -> Schedule:
    """Return the schedule of a document as users write it."""
    return Schedule(ScheduleDocument.model_validate(keys))


def at(text: str, zone: str = "UTC") -> int:
    """Return nanoseconds since the epoch of an ISO time; without offset it is wall clock in `zone`."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


def is_active(schedule: Schedule, time: int) -> bool:
    """Ask about one instant."""
    return bool(schedule.active(np.array([time], np.int64))[0])


def spans(schedule: Schedule, start: int, end: int, step: int = 60 * NS) -> list[tuple[int, int]]:
    """Return the active spans between two instants, on a grid of `step`."""
    times = np.arange(start, end, step, dtype=np.int64)
    active = np.concatenate(([False], schedule.active(times), [False]))
    edges = np.flatnonzero(np.diff(active)) * step + start
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def oracle(document: dict[str, Any], time: int) -> bool:
    """Say by itself, instant by instant, what the contract says."""
    zone = ZoneInfo(document.get("timezone", "UTC"))
    moment = EPOCH + timedelta(microseconds=time // 1000)
    local = moment.astimezone(zone)
    always = {"start": "1600-01-01T00:00:00Z", "end": "2400-01-01T00:00:00Z"}
    calendar = [
        datetime.fromisoformat(period["start"]) <= moment < datetime.fromisoformat(period["end"])
        for period in (always | period for period in document.get("between", []))
    ]
    clock = f"{local:%H:%M}"
    today, yesterday = WEEKDAYS[local.weekday()], WEEKDAYS[local.weekday() - 1]
    for window in document.get("weekly", []):
        if window["from"] < window["to"]:
            calendar.append(today in window["days"] and window["from"] <= clock < window["to"])
        else:
            calendar.append(today in window["days"] and clock >= window["from"])
            calendar.append(yesterday in window["days"] and clock < window["to"])
    for entry in document.get("cron", []):
        length = timedelta(hours=int(entry["duration"][:-1]))
        hit = False
        for start in CronSim(entry["cron"], (moment - length - timedelta(days=3)).astimezone(zone)):
            if start - EPOCH > moment - EPOCH:
                break
            hit |= moment - EPOCH < start - EPOCH + length
        calendar.append(hit)
    duty = document.get("duty_cycle")
    on = True
    if duty:
        seconds = int(duty["period"][:-1])
        on = Fraction(time, NS) % seconds < Fraction(str(duty["fraction"])) * seconds
    return on and (any(calendar) if calendar else True)


def offset_changes(zone: str) -> list[int]:
    """Return some instants, in ns, at which the offset of a zone changes."""
    info = ZoneInfo(zone)

    def changed(start: datetime, length: timedelta) -> bool:
        return start.astimezone(info).utcoffset() != (start + length).astimezone(info).utcoffset()

    firsts = [datetime(year, 6, 1, tzinfo=UTC) for year in (2011, 2024, 2060)]
    days = [first + timedelta(days=day) for first in firsts for day in range(365)]
    quarter = timedelta(minutes=15)
    return [
        at((start + quarter).isoformat())
        for day in days
        if changed(day, timedelta(days=1))
        for start in (day + quarter * number for number in range(96))
        if changed(start, quarter)
    ]


CHANGES = {zone: offset_changes(zone) for zone in ZONES}
clocks = st.builds(lambda hour, minute: f"{hour:02}:{minute:02}", st.integers(0, 23), st.sampled_from([0, 15, 30, 59]))


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Schedules of every kind, alone and together."""
    document: dict[str, Any] = {"timezone": draw(st.sampled_from(ZONES))}
    if draw(st.booleans()):
        days = st.lists(st.sampled_from(WEEKDAYS), min_size=1, unique=True)
        window = st.fixed_dictionaries({"days": days, "from": clocks, "to": clocks | st.just("24:00")})
        document["weekly"] = draw(st.lists(window.filter(lambda each: each["from"] != each["to"]), max_size=3))
    if draw(st.booleans()):
        hours = st.integers(1, 80).map("{}h".format)
        entry = st.fixed_dictionaries({"cron": st.sampled_from(CRONS), "duration": hours})
        document["cron"] = draw(st.lists(entry, max_size=2))
    if draw(st.booleans()):
        ends = st.datetimes(datetime(2010, 1, 1), datetime(2070, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
            lambda moment: moment.isoformat().replace("+00:00", "Z")
        )
        pair = st.lists(ends, min_size=2, max_size=2, unique=True).map(lambda p: sorted(p, key=datetime.fromisoformat))
        document["between"] = draw(st.lists(pair.map(lambda p: {"start": p[0], "end": p[1]}), max_size=3))
    if draw(st.booleans()):
        document["duty_cycle"] = {
            "period": f"{draw(st.integers(1, 100_000))}s",
            "fraction": draw(st.sampled_from([0, 0.0001, 0.1, 0.2, 0.3, 0.5, 0.7, 1]) | st.floats(0, 1)),
        }
    return document


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], list[int]]:
    """A schedule and instants, many of them near a change of the zone's offset."""
    document = draw(documents())
    anywhere = st.integers(-3_000_000_000_000_000, 7_000_000_000_000_000)  # microseconds: 1875 to 2191
    near = st.just(0)
    if changes := CHANGES[document["timezone"]]:
        away = st.integers(-30 * 3600 * 10**6, 30 * 3600 * 10**6)
        near = st.builds(lambda change, by: change // 1000 + by, st.sampled_from(changes), away)
        minutes = st.integers(-30 * 60, 30 * 60).map(lambda minute: minute * 60_000_000)
        near |= st.builds(lambda change, by: change // 1000 + by, st.sampled_from(changes), minutes)
    times = draw(st.lists(near | anywhere, min_size=1, max_size=20))
    return document, [time * 1000 for time in times]


@settings(max_examples=150, deadline=None)
@given(cases())
def test_active_is_membership_of_every_instant(case: tuple[dict[str, Any], list[int]]) -> None:
    """A batch gets the answers that the contract gives for each of its times alone."""
    document, times = case
    assert schedule_of(**document).active(np.array(times, np.int64)).tolist() == [oracle(document, t) for t in times]


@settings(max_examples=40, deadline=None)
@given(cases(), st.data())
def test_next_change_is_the_first_change(case: tuple[dict[str, Any], list[int]], data: st.DataObject) -> None:
    """Up to the instant given nothing changes, and at it something does."""
    document, times = case
    schedule = schedule_of(**document)
    time = times[0]
    change = schedule.next_change(time)
    until = time + 365 * DAY if change is None else change
    between = data.draw(st.lists(st.integers(time, until - 1), max_size=30))
    assert {is_active(schedule, each) for each in (time, until - 1, *between)} == {is_active(schedule, time)}
    if change is not None:
        assert is_active(schedule, change) != is_active(schedule, time)
        assert schedule.next_change(time) == change
        assert schedule.next_change(change - 1) == change
        assert schedule_of(**document).next_change(change - 1) == change
        later = schedule.next_change(change)
        assert later is None or later > change
        assert schedule.next_change(time) == change


@pytest.mark.parametrize(
    ("zone", "night", "spring", "autumn"),
    [
        ("Europe/Berlin", ("02:00", "03:00"), ("2026-03-29T00:00:00Z", 0), ("2026-10-25T00:00:00Z", 2 * HOUR)),
        (
            "America/New_York",
            ("01:30", "02:30"),
            ("2026-03-08T05:00:00Z", HOUR // 2),
            ("2026-11-01T04:00:00Z", 90 * 60 * NS),
        ),
        (
            "Australia/Lord_Howe",
            ("01:30", "02:30"),
            ("2026-10-03T14:00:00Z", HOUR // 2),
            ("2026-04-04T14:00:00Z", 90 * 60 * NS),
        ),
    ],
)
def test_weekly_follows_the_wall_clock(
    zone: str, night: tuple[str, str], spring: tuple[str, int], autumn: tuple[str, int]
) -> None:
    """Wall-clock time that is skipped is not active, what happens twice is active twice, elsewhere it is an hour."""
    schedule = schedule_of(timezone=zone, weekly=[{"from": night[0], "to": night[1]}])

    def active_within(start: str) -> int:
        return sum(end - begin for begin, end in spans(schedule, at(start) - 6 * HOUR, at(start) + 12 * HOUR))

    assert active_within(spring[0]) == spring[1]
    assert active_within(autumn[0]) == autumn[1]
    assert active_within("2026-06-15T00:00:00Z" if zone != "Australia/Lord_Howe" else "2026-06-14T15:00:00Z") == HOUR


def test_a_window_across_midnight_belongs_to_the_day_it_starts() -> None:
    """Friday night goes on into Saturday, and nothing is left over from Thursday."""
    schedule = schedule_of(timezone="Europe/Berlin", weekly=[{"days": ["fri"], "from": "22:00", "to": "06:00"}])
    start = at("2026-11-16T00:00", "Europe/Berlin")
    assert spans(schedule, start, start + 7 * DAY) == [
        (at("2026-11-20T22:00", "Europe/Berlin"), at("2026-11-21T06:00", "Europe/Berlin"))
    ]


def test_weekly_windows_end_with_the_day() -> None:
    """`24:00` and `00:00` as an end are the same midnight; neighbours join without a change between them."""
    for end in ("24:00", "00:00"):
        schedule = schedule_of(
            weekly=[{"days": ["sun"], "from": "20:00", "to": end}, {"days": ["mon"], "from": "00:00", "to": "01:00"}]
        )
        assert schedule.next_change(at("2026-11-22T20:00:00Z")) == at("2026-11-23T01:00:00Z")
    assert schedule_of(weekly=[{"from": "00:00", "to": "24:00"}]).next_change(at("2026-11-22T20:00:00Z")) is None


def test_intervals_are_half_open() -> None:
    """The first nanosecond is in, the end is out."""
    schedule = schedule_of(between=[{"start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"}])
    start, end = at("2026-11-01T00:00:00Z"), at("2026-12-01T00:00:00Z")
    asked = np.array([start - 1, start, end - 1, end], np.int64)
    assert schedule.active(asked).tolist() == [False, True, True, False]
    assert [schedule.next_change(int(each)) for each in asked] == [start, end, end, None]


def test_open_periods_reach_to_the_ends_of_time() -> None:
    """An absent start or end is no bound, up to the last nanosecond that 64 bits hold."""
    extremes = np.array([-(2**63), 0, 2**63 - 1], np.int64)
    assert schedule_of(between=[{"start": "2000-01-01"}]).active(extremes).tolist() == [False, False, True]
    assert schedule_of(between=[{"end": "2000-01-01"}]).active(extremes).tolist() == [True, True, False]
    assert Schedule().active(extremes).tolist() == [True] * 3


def test_a_time_without_offset_is_read_in_the_schedules_timezone() -> None:
    """`between` follows the zone; of two equal wall-clock times it means the first."""
    schedule = schedule_of(timezone="Europe/Berlin", between=[{"start": "2026-07-01", "end": "2026-10-25T02:30"}])
    assert schedule.next_change(0 + at("2026-06-29T00:00:00Z")) == at("2026-06-30T22:00:00Z")
    assert schedule.next_change(at("2026-10-20T00:00:00Z")) == at("2026-10-25T00:30:00Z")


def test_cron_lasts_in_elapsed_time_and_may_overlap_itself() -> None:
    """Two starts 12 hours apart that last 13 are one span; across a change of the offset 13 hours stay 13."""
    schedule = schedule_of(timezone="Europe/Berlin", cron=[{"cron": "0 18 28 3 *", "duration": "13h"}])
    start = at("2026-03-28T18:00", "Europe/Berlin")
    assert spans(schedule, start - DAY, start + 2 * DAY) == [(start, start + 13 * HOUR)]
    twice = schedule_of(cron=[{"cron": "0 6,18 * * *", "duration": "13h"}])
    assert twice.next_change(at("2026-11-22T00:00:00Z")) is None
    assert is_active(twice, at("2026-11-22T00:00:00Z"))


def test_cron_on_days_of_change_is_what_debians_cron_does() -> None:
    """A start that is skipped happens right after the gap, one that would happen twice happens once."""
    schedule = schedule_of(timezone="Europe/Berlin", cron=[{"cron": "30 2 * * *", "duration": "10m"}])
    spring, autumn = at("2026-03-29T00:00:00Z"), at("2026-10-25T00:00:00Z")
    assert spans(schedule, spring, spring + 12 * HOUR) == [(spring + HOUR, spring + HOUR + 600 * NS)]
    assert spans(schedule, autumn, autumn + 12 * HOUR) == [(autumn + HOUR // 2, autumn + HOUR // 2 + 600 * NS)]


def test_a_change_at_midnight_utc_belongs_to_the_day_it_begins() -> None:
    """Jerusalem skips 02:00 to 03:00 at 00:00 UTC; what was due at 02:30 starts at that very instant."""
    schedule = schedule_of(timezone="Asia/Jerusalem", cron=[{"cron": "30 2 * * *", "duration": "10m"}])
    change = at("2024-03-29T00:00:00Z")
    assert spans(schedule, change - 12 * HOUR, change + 12 * HOUR) == [(change, change + 600 * NS)]


def test_cron_with_wildcards_follows_the_wall_clock() -> None:
    """Twice in an hour that happens twice, and whole hours stay whole after a change by half an hour."""
    schedule = schedule_of(timezone="Europe/Berlin", cron=[{"cron": "30 */2 * * *", "duration": "10m"}])
    autumn = at("2026-10-25T00:00:00Z")
    starts = [start for start, _ in spans(schedule, autumn, autumn + 4 * HOUR)]
    assert starts == [autumn + HOUR // 2, autumn + HOUR + HOUR // 2, autumn + 3 * HOUR + HOUR // 2]
    schedule = schedule_of(timezone="Australia/Lord_Howe", cron=[{"cron": "* 0,6 * * *", "duration": "1m"}])
    midnight = at("2011-10-02T00:00", "Australia/Lord_Howe")
    morning = at("2011-10-02T06:00", "Australia/Lord_Howe")
    assert spans(schedule, midnight, midnight + 20 * HOUR) == [(midnight, midnight + HOUR), (morning, morning + HOUR)]


def test_a_time_of_day_comes_once_even_where_most_of_a_day_was_repeated() -> None:
    """Kwajalein set its clocks back by 23 hours in 1969, so that the second 20:30 fell on the next UTC day."""
    schedule = schedule_of(timezone="Pacific/Kwajalein", cron=[{"cron": "30 20 * * *", "duration": "10m"}])
    starts = [start for start, _ in spans(schedule, at("1969-09-29T12:00:00Z"), at("1969-10-03T00:00:00Z"))]
    assert starts == [at(f"{start}:00Z") for start in ("1969-09-30T09:30", "1969-10-02T08:30")]


def test_a_leap_day_comes_every_four_years() -> None:
    """A start on 29 February is found years ahead; beyond five years the answer is that nothing changes."""
    schedule = schedule_of(cron=[{"cron": "0 12 29 2 *", "duration": "1h"}])
    assert schedule.next_change(at("2025-01-01T00:00:00Z")) == at("2028-02-29T12:00:00Z")
    assert schedule.next_change(at("2028-02-29T12:00:00Z")) == at("2028-02-29T13:00:00Z")
    assert schedule.next_change(at("2097-01-01T00:00:00Z")) is None  # 2100 is no leap year


expressions = st.tuples(
    st.sampled_from(["*", "0", "*/7", "30", "0,1,59", "10-20/3"]),
    st.sampled_from(["*", "2", "*/2", "1-3", "0,23"]),
    st.sampled_from(["* * *", "1 * *", "L * *", "* * 0", "13 * 5", "* * SUN#1", "* 3,10 *", "LW * *"]),
).map(" ".join)
changes = st.sampled_from([(zone, change) for zone in ZONES for change in CHANGES[zone] or [0]])


@settings(max_examples=25, deadline=None)
@given(expressions, changes, st.integers(1, 200))
def test_cron_starts_are_debians_around_a_change_of_the_offset(
    expression: str, change: tuple[str, int], minutes: int
) -> None:
    """A time of day starts where cronsim says; an entry with wildcards whenever the wall clock matches."""
    zone, first = ZoneInfo(change[0]), change[1] // DAY * DAY - 2 * DAY
    grid = [EPOCH + timedelta(seconds=first // NS, minutes=minute) for minute in range(5 * 24 * 60)]
    begin, end = grid[0] - timedelta(days=3), grid[-1] + timedelta(days=2)
    starts: set[datetime] = set()
    if any(field.startswith("*") for field in expression.split()[:2]):
        walls = set(
            takewhile(lambda wall: wall < end.replace(tzinfo=None), CronSim(expression, begin.replace(tzinfo=None)))
        )
        all_minutes = (begin + timedelta(minutes=minute) for minute in range(8 * 24 * 60))
        starts = {each for each in all_minutes if each.astimezone(zone).replace(tzinfo=None) in walls}
    else:
        found = CronSim(expression, begin.astimezone(zone))
        starts = {each.astimezone(UTC) for each in takewhile(lambda each: each.astimezone(UTC) < end, found)}
    left, expected = 0, []
    for each in (begin + timedelta(minutes=minute) for minute in range(8 * 24 * 60)):
        left = minutes if each in starts else left - 1
        expected.append(left > 0)
    schedule = schedule_of(timezone=change[0], cron=[{"cron": expression, "duration": f"{minutes}m"}])
    active = schedule.active(first + np.arange(len(grid), dtype=np.int64) * 60 * NS)
    assert active.tolist() == expected[3 * 24 * 60 :]


@given(st.integers(1, 10**9), st.floats(0, 1), st.integers(-(10**9), 10**9), st.integers(-1, 1))
def test_the_duty_cycle_is_exact(milliseconds: int, fraction: float, cycle: int, beside: int) -> None:
    """On while t mod period < fraction * period, to the nanosecond on both sides of the edge, before 1970 too."""
    period = milliseconds * 1_000_000
    length = Fraction(repr(fraction)) * period
    time = (cycle * period + int(length) + beside) % (2**64) - 2**63
    schedule = schedule_of(duty_cycle={"period": duration_text(period), "fraction": fraction})
    assert is_active(schedule, time) == (time % period < length)
    time = int(length) + beside
    assert is_active(schedule, time) == (time % period < length)


def test_a_fifth_of_ten_minutes_is_two_minutes_to_the_nanosecond() -> None:
    """The fraction is the decimal number that was written, not its binary neighbour."""
    schedule = schedule_of(duty_cycle={"period": "10m", "fraction": 0.2})
    assert [is_active(schedule, each) for each in (0, 120 * NS - 1, 120 * NS, 600 * NS - 1)] == [
        True,
        True,
        False,
        False,
    ]
    assert schedule.next_change(0) == 120 * NS
    assert schedule.next_change(-1) == 0
    assert schedule_of(duty_cycle={"period": "10m", "fraction": 0}).next_change(0) is None
    assert schedule_of(duty_cycle={"period": "10m", "fraction": 1}).next_change(0) is None


def test_times_far_away_follow_the_zones_rule() -> None:
    """Summer time in 2150 is computed from the zone's rule, in 1900 from its history."""
    schedule = schedule_of(timezone="Europe/Berlin", weekly=[{"from": "12:00", "to": "13:00"}])
    for day in ("2150-07-01", "2150-01-01", "1900-07-01", "1969-12-31"):
        noon = at(f"{day}T12:00", "Europe/Berlin")
        assert spans(schedule, noon - 2 * HOUR, noon + 2 * HOUR) == [(noon, noon + HOUR)]


@settings(max_examples=50, deadline=None)
@given(documents(), st.lists(st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1]), max_size=5))
def test_no_time_is_refused(document: dict[str, Any], times: list[int]) -> None:
    """Every 64-bit number gets an answer, in any company, and none at all is fine."""
    schedule = schedule_of(**document)
    together = schedule.active(np.array(times, np.int64)).tolist()
    assert together == [is_active(schedule, each) for each in times]
    for each in times:
        change = schedule.next_change(each)
        assert change is None or each < change < 2**63


def test_a_batch_within_one_day_is_cheap() -> None:
    """256 times of a day that was asked about before cost some microseconds; far more would stall the path."""
    schedule = schedule_of(
        timezone="Europe/Berlin",
        weekly=[{"from": "07:00", "to": "09:30"}],
        cron=[{"cron": "0 16 * * 1-5", "duration": "2h"}],
        duty_cycle={"period": "10m", "fraction": 0.2},
    )
    times = at("2026-11-20T00:00:00Z") + np.arange(256, dtype=np.int64) * 300 * NS
    assert schedule.active(times).any()
    assert min(timeit.repeat(lambda: schedule.active(times), number=100, repeat=20)) / 100 < 100e-6


def test_memory_stays_bounded_over_many_days() -> None:
    """A long replay does not keep every day it went through."""
    schedule = schedule_of(weekly=[{"from": "07:00", "to": "09:30"}])
    schedule.active(np.arange(400, dtype=np.int64) * DAY)
    assert len(schedule._edges) <= 64
