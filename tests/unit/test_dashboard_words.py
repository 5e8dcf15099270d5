"""What the dashboard says: of problems, of what a band would keep, of changes, of weeks."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.clock import ManualClock
from processor.dashboard import overview, week, words
from processor.dashboard.changes import differences, origin, summary
from processor.dashboard.estimate import estimate
from processor.dashboard.fleet import Processor
from processor.dashboard.problems import Level, problems
from processor.filter import validate_filter
from processor.last_hour import LastHour
from processor.told import (
    Bridge,
    FilterState,
    Metrics,
    ModelInForce,
    ModelState,
    Outbox,
    RuleScores,
    ScheduleNow,
    Shadow,
    ShadowLabel,
)
from processor.told import LastHour as Told
from processor.types import Predictions

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=ZoneInfo("Europe/Berlin"))
TIME = "2026-11-25T10:30:00.000000Z"


def metrics(**changes: Any) -> Metrics:  # noqa: ANN401 - of the struct
    """Return figures of a processor that is well."""
    minutes = {"messages": [60] * 60, "windows": [60] * 60, "accepted": [3] * 60, "dead_letters": [0] * 60}
    return Metrics(**{"time": TIME, "last_hour": Told(minutes=minutes), **changes})


def processor(*, online: bool | None = True, **changes: Any) -> Processor:  # noqa: ANN401 - of the record
    """Return a processor that is well, with changes."""
    return Processor(
        "mlade/line-1", **{"online": online, "metrics": metrics(), "heard": 100.0, "every": 1.0, **changes}
    )


def state(**active: Any) -> FilterState:  # noqa: ANN401 - JSON
    """Return the state of a filter."""
    return FilterState("applied", 4, "0", "topic", active)


@pytest.mark.parametrize(
    ("one", "level", "sentence"),
    [
        (processor(online=False), Level.BROKEN, "Offline, last heard 11:30:00."),
        (
            processor(online=False, metrics=metrics(outbox=Outbox(samples=1204))),
            Level.BROKEN,
            "1,204 samples wait on its disk.",
        ),
        (processor(online=None), Level.NOTICE, "says neither that it is online nor offline"),
        (processor(heard=60.0), Level.BROKEN, "has told nothing for 40 s"),
        (
            processor(metrics=metrics(blocked="the disk is full.")),
            Level.BROKEN,
            "Takes nothing in: the disk is full. It",
        ),
        (
            processor(metrics=metrics(bridges={"iothub": Bridge(error="no route", waiting=7)})),
            Level.BROKEN,
            "The bridge iothub delivers nothing: no route. 7 samples wait for it.",
        ),
        (
            processor(metrics=metrics(bridges={"iothub": Bridge(connected=0)})),
            Level.WARNING,
            "The bridge iothub has no connection.",
        ),
        (
            processor(metrics=metrics(outbox=Outbox(lost={"expired": 1}))),
            Level.WARNING,
            "1 sample was lost since its start: they were older than the outbox keeps them.",
        ),
        (
            processor(metrics=metrics(last_hour=Told(minutes={"messages": [100], "dead_letters": [7]}))),
            Level.WARNING,
            "7 of 100 messages of the last minutes could not be used",
        ),
        (
            processor(metrics=metrics(last_hour=Told(minutes={"messages": [1000], "dead_letters": [7]}))),
            Level.NOTICE,
            "7 of 1,000 messages",
        ),
        (processor(metrics=metrics(paused=True)), Level.NOTICE, "Paused: it reads everything and keeps nothing"),
        (processor(filter=state(enabled=False, rules=[{}])), Level.NOTICE, "Its filter is switched off"),
        (processor(filter=state(rules=[])), Level.NOTICE, "Its filter has no rules"),
        (
            processor(metrics=metrics(last_hour=Told(minutes={"messages": [1] * 9, "windows": [200] * 9}))),
            Level.NOTICE,
            "None of 1,800 windows of the last hour was kept",
        ),
        (
            processor(metrics=metrics(last_hour=Told(minutes={"messages": [9] + [0] * 6}))),
            Level.NOTICE,
            "No message for 5 minutes",
        ),
        (
            processor(
                filter=FilterState(
                    "rejected",
                    *(4, "0", "twin", {"rules": [{}]}),
                    errors=[{"path": "rules[0].band", "message": "too wide"}, {}],
                )
            ),
            Level.WARNING,
            "The last filter, from the twin, was rejected: rules[0].band: too wide; and 1 more. Revision 4 stays in",
        ),
        (
            processor(
                model=ModelState(
                    "rejected",
                    *(2, "0", "refresh", ModelInForce("motions")),
                    errors=[{"path": "path", "message": "no ONNX model"}],
                )
            ),
            Level.WARNING,
            "The last model, from the refresh, was rejected: path: no ONNX model. Revision 2 stays in force.",
        ),
        (
            processor(model=ModelState("waiting", *(2, "0", "topic", ModelInForce()), errors=[{"message": "away"}])),
            Level.NOTICE,
            "The last model, from the topic, cannot be had now, and is tried again: away. Revision 2 stays in force.",
        ),
        (
            Processor("mlade/nobody"),
            Level.NOTICE,
            "Nothing on this broker, as far as this page may read it, is of such a processor.",
        ),
        (
            processor(metrics=metrics(counters={"lost_sessions": 1, "dropped_messages": 5})),
            Level.WARNING,
            "5 messages of QoS 0 were dropped",
        ),
    ],
)
def test_each_problem_is_a_sentence(one: Processor, level: Level, sentence: str) -> None:
    """The worst first."""
    found = problems(one, 100.0, NOW)
    assert found[0].level == level
    assert sentence in found[0].sentence


def test_a_processor_that_is_well_has_none() -> None:
    """Also outside of its schedule, where nothing is kept, and while it speaks seldom."""
    minutes = {"messages": [60] * 60, "windows": [60] * 60, "accepted": [0] * 60}
    off = metrics(schedule=ScheduleNow(active=False), last_hour=Told(minutes=minutes))
    assert problems(processor(filter=state(rules=[{"name": "a"}])), 100.0, NOW) == []
    assert problems(processor(metrics=off), 100.0, NOW) == []
    assert problems(processor(every=60.0), 300.0, NOW) == []


HUNDREDTHS = st.integers(0, 100).map(lambda number: number / 100)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=50),
    st.none() | HUNDREDTHS,
    st.none() | HUNDREDTHS,
    st.booleans(),
)
def test_what_a_band_would_have_kept_is_what_lies_in_it(
    scores: list[float], low: float | None, high: float | None, outside: bool
) -> None:
    """To a bin's width at its ends."""
    document = validate_filter({"rules": [{"name": "r", "measure": "confidence"}]})
    hour = LastHour(ManualClock())
    values = np.array(scores)
    chances = np.stack([values, 1 - values], axis=1)
    hour.count(
        document, Predictions("probabilities", ("a", "b"), chances, None), [values], [np.ones(len(values), bool)]
    )
    told = hour.told()["scores"][0]
    band = {key: value for key, value in (("min", low), ("max", high)) if value is not None}
    would = estimate(RuleScores(**told), {"band": band, "outside": outside, "sample": 0.5})

    def inside(slack: float) -> int:
        within = (values >= (low or -9) - slack) & (values <= (9 if high is None else high) + slack)
        return int((~within if outside else within).sum())

    least, most = sorted((inside(-0.0101), inside(0.0101)))
    assert least / 2 - 1e-9 <= would.kept <= most / 2 + 1e-9
    assert would.windows == len(scores)


def test_an_estimate_says_how_sure_it_is() -> None:
    """Of how long, and what may keep less; and where nothing came as far as the band."""
    counts = [0] * 100
    counts[50] = 30
    scores = RuleScores("r", windows=60, seconds=3600, by_label={"a": counts}, reached=counts)
    rule = {"band": {"min": 0.4, "max": 0.6}}
    assert estimate(scores, rule).sentence() == "About 50 % of the last hour: 30 of 60 windows."
    limited = estimate(scores, {**rule, "limit": None, "dedup": {}}).sentence()
    assert limited == "At most 50 % of the last hour: 30 of 60 windows. Dedup may keep less."
    minute = RuleScores("r", windows=60, seconds=70, by_label={"a": counts}, reached=counts)
    assert estimate(minute, rule).sentence() == "About 50 % of the last minute: 30 of 60 windows."
    off = RuleScores("r", windows=60, seconds=600, by_label={"a": counts}, reached=[0] * 100)
    expected = "None of 60 windows of the last 10 minutes came as far as this band. Of all scores, 100 % lie in it."
    assert estimate(off, rule).sentence() == expected
    assert estimate(RuleScores("r", seconds=5), rule).sentence() == "No windows in the last 5 s to try it on."


def test_changes_are_told_in_the_words_of_the_document() -> None:
    """Rules by their names."""
    before = {"enabled": True, "rules": [{"name": "a", "sample": 0.1, "limit": {"max": 1, "per": "1h"}}, {"name": "b"}]}
    after = {"enabled": True, "rules": [{"name": "b"}, {"name": "a", "sample": 0.2}], "schedule": {"timezone": "UTC"}}
    assert differences(before, after) == [
        "rules.a.sample: 0.1 → 0.2",
        "rules.a.limit removed",
        "rules: another order",
        "schedule added",
    ]
    assert summary(before, after, 1) == "rules.a.sample: 0.1 → 0.2; and 3 more"
    assert differences(before, before) == []
    assert differences({"rules": []}, {"rules": [{"name": "a"}]}) == ['rules: [] → [{"name": "a"}]']


def test_where_a_filter_came_from_is_told_honestly() -> None:
    """A name only where the sender gave one."""
    assert origin("topic", "Ada") == "by Ada, over MQTT"
    assert origin("file", None) == "from its own file"
    assert origin("", None) == "nobody knows from where"


def test_a_week_shows_when_it_is_on() -> None:
    """On the clock of the schedule's zone, also on the day that has an hour twice; often switched: in part."""
    weekly = {"timezone": "Europe/Berlin", "weekly": [{"days": ["sat", "sun"], "from": "07:00", "to": "09:30"}]}
    found = week.schedules(
        {
            "schedule": weekly,
            "rules": [
                {"name": "a", "schedule": {"duty_cycle": {"period": "5m", "fraction": 0.2}}},
                {"name": "b", "schedule": {"cron": [{"cron": "0 6 25 10 *", "duration": "2h"}]}},
                {"name": "c", "schedule": {"cron": "wrong"}},
                {"name": "d"},
            ],
        }
    )
    assert list(found) == ["", "a", "b"]
    days = week.week(found[""], date(2026, 10, 19))
    assert [day.on for day in days] == [()] * 5 + [((420, 570, 1.0),)] * 2
    parts = week.week(found["a"], date(2026, 10, 24))[0].on
    assert {(start, end) for start, end, _ in parts} == {(420, 570)} or all(0 < share < 1 for *_, share in parts)
    assert sum((end - start) * share for start, end, share in parts) == pytest.approx(30, abs=3)
    assert week.week(found["b"], date(2026, 10, 25))[0].on == ((420, 540, 1.0),)
    drawn = week.drawing(found["a"], datetime(2026, 10, 24, 6, tzinfo=UTC))
    assert "Clock of Europe/Berlin. On for 20 % of every 5 minutes." in drawn


def test_times_are_told_as_people_at_the_page_would() -> None:
    """Today's without a day."""
    assert words.when("2026-11-25T10:30:00.1234567Z", NOW) == "11:30:00"
    assert words.when("2026-11-23T10:30:00Z", NOW) == "Mon 11:30:00"
    assert words.when("2026-10-23T10:30:00Z", NOW) == "2026-10-23 12:30:00"
    for none in ("soon", "2026-11-25", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z"):
        assert words.when(none, NOW) == none
    assert words.span(90_000) == "1 day"
    assert words.size(1536) == "1.5 KiB"


def test_a_shadow_is_told_with_its_agreement_by_label() -> None:
    """And with what it failed on; a model of values by how far apart they are; no shadow, nothing."""
    labels = {"<jam>": ShadowLabel(windows=200, agreement=0.5), "idle": ShadowLabel(windows=0)}
    told = overview.shadow_card(Shadow("new & shiny", "", 0.25, 4000, 3, agreement=0.9, by_label=labels))
    assert (
        "new &amp; shiny judged 4,000 windows, 25 % of all; it failed on 3. It agrees with the model on 90 %." in told
    )
    assert "&lt;jam&gt;" in told
    assert "50 % of 200" in told
    assert "idle" not in told
    assert "Its answers are 0.5 from the model's on average." in overview.shadow_card(Shadow(disagreement=0.5))
    assert overview.shadow_card(None) == ""
