"""Filter documents: every key of the contract, every problem at once, and back into the contract's words."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.document import Section
from processor.errors import FilterRejected
from processor.filter import MEASURES, FilterDocument, check_against, parse_filter, to_plain, validate_filter
from processor.schedule_document import WEEKDAYS
from processor.topics import validate_filter as validate_topic_filter
from processor.types import NS, OutputKind

CONTRACT = """
enabled: true
schedule:
  timezone: Europe/Berlin
  between: [{start: 2026-11-01T00:00:00Z, end: 2026-12-01T00:00:00Z}]
  weekly:  [{days: [mon, tue, wed, thu, fri], from: "07:00", to: "09:30"}]
  cron:    [{cron: "0 16 * * 1-5", duration: 2h}]
  duty_cycle: {period: 10m, fraction: 0.2}
rules:
  - name: ambiguous
    schedule: null
    where: {labels: [], streams: [], fields: {ax: {min: -5, max: 5}}}
    measure: confidence
    label: null
    band: {min: 0.4, max: 0.6}
    outside: false
    keep: {share: 0.1, of: highest, over: 5000}
    dedup: {distance: auto, memory: 1000}
    sample: 1.0
    cooldown: {for: 10s, by: stream}
    limit: {max: 100, per: 1h, by: rule}
    context: {before: 0, after: 0}
    priority: 0
    tags: {campaign: q4}
"""


def problems(data: object) -> list[str]:
    """Return every problem of a filter as a line."""
    with pytest.raises(FilterRejected) as caught:
        validate_filter(data)
    return [str(problem) for problem in caught.value.problems]


def rule_problems(**keys: object) -> list[str]:
    """Return every problem of a filter of one rule, without the path to the rule."""
    return [line.removeprefix("rules[0].") for line in problems({"rules": [{"name": "r"} | keys]})]


def schedule_problems(**keys: object) -> list[str]:
    """Return every problem of a filter's schedule, without the path to it."""
    return [line.removeprefix("schedule.") for line in problems({"schedule": keys})]


def test_the_contracts_filter_is_read() -> None:
    """All keys are modelled, in nanoseconds, minutes of the day and tuples."""
    document = parse_filter(CONTRACT)
    assert document.schedule is not None
    assert document.schedule.between[0].start_ns == 1_793_491_200 * NS
    assert document.schedule.between[0].end_ns == 1_796_083_200 * NS
    assert (document.schedule.weekly[0].start, document.schedule.weekly[0].end) == (420, 570)
    assert document.schedule.weekly[0].days == WEEKDAYS[:5]
    assert document.schedule.cron[0].duration == 7200 * NS
    assert document.schedule.duty_cycle is not None
    assert document.schedule.duty_cycle.period == 600 * NS
    (rule,) = document.rules
    assert rule.band is not None
    assert (rule.band.min, rule.band.max) == (0.4, 0.6)
    assert rule.keep is not None
    assert (rule.keep.share, rule.keep.of, rule.keep.over) == (0.1, "highest", 5000)
    assert rule.cooldown is not None
    assert (rule.cooldown.duration, rule.cooldown.by) == (10 * NS, "stream")
    assert rule.limit is not None
    assert (rule.limit.max, rule.limit.per, rule.limit.by) == (100, 3600 * NS, "rule")
    assert rule.tags == {"campaign": "q4"}


def test_defaults() -> None:
    """A filter is enabled and has no rules; a rule keeps all, always."""
    assert parse_filter("{}") == FilterDocument(enabled=True, schedule=None, rules=())
    rule = validate_filter({"rules": [{"name": "all"}]}).rules[0]
    assert (rule.sample, rule.outside, rule.priority, rule.measure, rule.schedule) == (1.0, False, 0, None, None)


def test_class_indices_are_labels() -> None:
    """A label written as a whole number is the text of it."""
    document = parse_filter("rules: [{name: r, where: {labels: [0, walking]}, measure: probability, label: 1}]")
    assert document.rules[0].where.labels == ("0", "walking")
    assert document.rules[0].label == "1"


def test_one_mistake_does_not_hide_another() -> None:
    """A wrong type in one rule hides neither what is wrong between keys nor what is wrong between rules."""
    data = {
        "enabeld": True,
        "rules": [
            {"name": "a", "sample": "half", "band": {"min": 0.9, "max": 0.1}, "measure": "confidence"},
            {"name": "b", "measure": "probability"},
            {"name": "a", "band": {"min": 0.5}, "priority": 1.5},
            7,
        ],
    }
    assert problems(data) == [
        'enabeld: unknown key; did you mean "enabled"? known keys: enabled, schedule, rules',
        'rules[0].sample: found "half", expected a number',
        "rules[0].band: min 0.9 is greater than max 0.1",
        "rules[1].label: measure: probability needs the label whose probability is meant",
        "rules[2].band: needs a measure, such as measure: confidence",
        "rules[2].priority: found 1.5, expected a whole number",
        'rules[2].name: "a" is also the name of rules[0]',
        "rules[3]: found 7, expected a mapping",
    ]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"name": "a b"}, 'name: found "a b", expected 1 to 64 of the letters A-Z and a-z, digits, _ and -'),
        ({"name": 1}, "name: found 1, expected text (put it in quotes)"),
        ({"sample": 1.1}, "sample: found 1.1, expected a number of at most 1.0"),
        ({"sample": -0.1}, "sample: found -0.1, expected a number of at least 0.0"),
        ({"sample": float("nan")}, "sample: found nan, expected a finite number"),
        ({"sample": True}, "sample: found true, expected a number"),
        ({"label": "x"}, "label: goes only with measure: probability; the predicted label is where.labels"),
        ({"label": 1.5, "measure": "probability"}, "label: found 1.5, expected text (put it in quotes)"),
        (
            {"measure": "certainty"},
            'measure: found "certainty", expected confidence, margin, entropy, probability, score, value or disagreement',  # noqa: E501
        ),
        ({"outside": True}, "outside: needs a measure and a band"),
        ({"measure": "score", "outside": True}, "outside: needs a measure and a band"),
        ({"band": {"min": 1}}, "band: needs a measure, such as measure: confidence"),
        ({"measure": "score", "band": {}}, "band: a min, a max, or both are required"),
        ({"measure": "score", "band": {"min": float("inf")}}, "band.min: found inf, expected a finite number"),
        (
            {"where": {"streams": ["a/#/b"]}},
            "where.streams[0]: 'a/#/b' has a # that is not its whole last level; # stands alone, at the end.",
        ),
        (
            {"where": {"streams": ["a/b+"]}},
            "where.streams[0]: 'a/b+' has a + that is not a whole level; + stands alone between slashes.",
        ),
        ({"where": {"streams": "a"}}, 'where.streams: found "a", expected a list'),
        ({"where": {"fields": {"x.y": {"min": 2, "max": 1}}}}, "where.fields.x.y: min 2 is greater than max 1"),
        ({"where": {"fields": {"x": {}}}}, "where.fields.x: a min, a max, or both are required"),
        ({"where": {"labels": ["x"] * 1001}}, "where.labels: found 1001 entries, expected at most 1000"),
        ({"tags": {"a": 1}}, "tags.a: found 1, expected text (put it in quotes)"),
    ],
)
def test_a_rules_mistake_is_told_in_words(keys: dict[str, object], problem: str) -> None:
    """Each problem says what was found and what was expected, at its path, and is the only one."""
    assert rule_problems(**keys) == [problem]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            {"keep": {"share": 0, "of": "highest"}, "measure": "score"},
            "keep.share: found 0, expected a number greater than 0.0",
        ),
        (
            {"keep": {"share": 1.1, "of": "highest"}, "measure": "score"},
            "keep.share: found 1.1, expected a number of at most 1.0",
        ),
        (
            {"keep": {"share": 0.1, "of": "most"}, "measure": "score"},
            'keep.of: found "most", expected highest or lowest',
        ),
        ({"keep": {"share": 0.1, "of": "lowest"}}, "keep: needs a measure, such as measure: confidence"),
        ({"dedup": {"distance": "near"}}, 'dedup.distance: found "near", expected auto or a number'),
        ({"dedup": {"memory": 0}}, "dedup.memory: found 0, expected a number of at least 1"),
        ({"cooldown": {"for": "0s"}}, "cooldown.for: found a duration of 0, expected a longer one, such as 10s"),
        ({"cooldown": {"by": "rule"}}, "cooldown.for: this key is required"),
        ({"limit": {"max": 0, "per": "1h"}}, "limit.max: found 0, expected a number of at least 1"),
        ({"limit": {"max": 1, "per": "1h", "by": "day"}}, 'limit.by: found "day", expected rule, label or stream'),
        ({"context": {"before": -1}}, "context.before: found -1, expected a number of at least 0"),
    ],
)
def test_a_remembering_conditions_mistake_is_told_in_words(keys: dict[str, object], problem: str) -> None:
    """As any other's."""
    assert rule_problems(**keys) == [problem]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"between": [{}]}, "between[0]: a period needs a start, an end, or both"),
        (
            {"between": [{"start": "2026-12-01", "end": "2026-12-01T00:00:00Z"}]},
            "between[0]: start 2026-12-01 is not before end 2026-12-01T00:00:00Z",
        ),
        ({"between": [{"start": "2026-13-01"}]}, 'between[0].start: found "2026-13-01": month must be in 1..12'),
        (
            {"between": [{"start": 20261101}]},
            "between[0].start: found 20261101, expected a time such as 2026-11-01T00:00:00Z",
        ),
        (
            {"between": [{"end": "9999-12-31"}]},
            "between[0].end: found the year 9999, expected 1700 to 2200; leave the key out for no bound",
        ),
        (
            {"weekly": [{"from": "25:00", "to": "24:00"}]},
            'weekly[0].from: found "25:00", expected a time of day "00:00" to "23:59", in quotes',
        ),
        (
            {"weekly": [{"from": "22:00", "to": "24:01"}]},
            'weekly[0].to: found "24:01", expected a time of day "00:00" to "24:00", in quotes',
        ),
        (
            {"weekly": [{"from": 7, "to": "08:00"}]},
            'weekly[0].from: found 7, expected a time of day "00:00" to "23:59", in quotes',
        ),
        (
            {"weekly": [{"from": "07:00", "to": "07:00"}]},
            'weekly[0]: from and to are both "07:00"; the whole day is from "00:00" to "24:00"',
        ),
        (
            {"weekly": [{"days": ["Tue"], "from": "07:00", "to": "08:00"}]},
            'weekly[0].days[0]: found "Tue", expected mon, tue, wed, thu, fri, sat or sun',
        ),
        (
            {"weekly": [{"days": [], "from": "07:00", "to": "08:00"}]},
            "weekly[0].days: found 0, expected 1 or more entries",
        ),
        ({"cron": [{"cron": "0 16 * * 1-9", "duration": "2h"}]}, 'cron[0].cron: found "0 16 * * 1-9": bad day-of-week'),
        (
            {"cron": [{"cron": "0 0 16 * * *", "duration": "2h"}]},
            'cron[0].cron: found "0 0 16 * * *", expected five fields: minute hour day month weekday',
        ),
        (
            {"cron": [{"cron": "0 16 * * *", "duration": "0s"}]},
            "cron[0].duration: found a duration of 0, expected a longer one, such as 10s",
        ),
        (
            {"cron": [{"cron": "0 16 * * *", "duration": "400d"}]},
            "cron[0].duration: expected a duration of at most 366d; use between or weekly for longer ones",
        ),
        (
            {"duty_cycle": {"period": "10m", "fraction": 1.2}},
            "duty_cycle.fraction: found 1.2, expected a number of at most 1.0",
        ),
        (
            {"duty_cycle": {"period": 0, "fraction": 0.5}},
            "duty_cycle.period: found a duration of 0, expected a longer one, such as 10s",
        ),
    ],
)
def test_a_schedules_mistake_is_told_in_words(keys: dict[str, object], problem: str) -> None:
    """Each problem says what was found and what was expected, at its path, and is the only one."""
    assert schedule_problems(**keys) == [problem]


@pytest.mark.parametrize("name", ["Europe/Berlim", "Europe", "", "../etc/passwd", "/etc/localtime", "a" * 5000, "a\0"])
def test_an_unknown_timezone_is_told(name: str) -> None:
    """Whatever stands there, the nearest known name is offered, or none."""
    (problem,) = schedule_problems(timezone=name)
    assert problem.startswith('timezone: found "')
    assert "expected an IANA time zone such as Europe/Berlin" in problem
    assert problem.endswith('; did you mean "Europe/Berlin"?') == (name == "Europe/Berlim")
    assert schedule_problems(timezone=5) == ["timezone: found 5, expected text (put it in quotes)"]


def test_a_rules_schedule_is_checked_as_the_filters() -> None:
    """The same words, the same checks, under the rule's path."""
    assert rule_problems(schedule={"between": [{"start": "2027-01-01", "end": "2026-01-01"}, {}]}) == [
        "schedule.between[1]: a period needs a start, an end, or both",
        "schedule.between[0]: start 2027-01-01 is not before end 2026-01-01",
    ]


def test_too_many_rules_are_refused_without_reading_them() -> None:
    """A thousand rules are read; of more only their number is told, quickly."""
    assert len(validate_filter({"rules": [{"name": f"r{n}"} for n in range(1000)]}).rules) == 1000
    assert problems({"rules": [{}] * 1001}) == ["rules: found 1001 entries, expected at most 1000"]


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ("", "found null, expected a mapping"),
        ("[]", "found a list, expected a mapping"),
        ("off", 'found "off", expected a mapping'),
        ("rules:", "rules: found null, expected a list"),
        ("enabled: off", 'enabled: found "off", expected true or false'),
        (b"\xff", "line 1, column 1: byte 0xff is not UTF-8"),
        ("#" * 65_537, "the document has 65537 bytes; at most 65536 are allowed"),
    ],
)
def test_a_payload_that_is_no_filter_is_rejected(payload: bytes | str, problem: str) -> None:
    """What comes over the topic is a filter or FilterRejected, nothing else."""
    with pytest.raises(FilterRejected) as caught:
        parse_filter(payload)
    assert [str(each) for each in caught.value.problems] == [problem]


KEYS = sorted(
    {field.alias or name for section in Section.__subclasses__() for name, field in section.model_fields.items()}
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1h", "07:00", "r"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=30,
)


@settings(max_examples=300)
@given(st.fixed_dictionaries({}, optional={"rules": st.lists(anything, max_size=3), "schedule": anything}) | anything)
def test_no_data_gives_another_error(data: object) -> None:
    """Whatever the values' types, the answer is a filter or problems with words."""
    try:
        validate_filter(data)
    except FilterRejected as error:
        assert error.problems  # noqa: PT017
        assert all(problem.message for problem in error.problems)  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("#", True), ("+", True), ("+/a/#", True), ("/", True), ("a//b", True), ("$share/g/a", True),
        ("", False), ("a#", False), ("#/a", False), ("a/+b", False), ("a\0", False), ("a" * 65_536, False),
    ],
)  # fmt: skip
def test_topic_filters_follow_mqtt(text: str, valid: bool) -> None:
    """Wildcards stand alone in their level, # in the last one."""
    assert (validate_topic_filter(text) is None) == valid


def rule_of(**keys: object) -> FilterDocument:
    """Return a filter of one rule."""
    return validate_filter({"rules": [{"name": "r"} | keys]})


@pytest.mark.parametrize("kind", ["probabilities", "score", "value"])
def test_a_measure_must_be_possible_for_the_model(kind: OutputKind) -> None:
    """A regression has no confidence, a classifier no raw number; a score is also a case of two labels."""
    possible: set[str] = {
        "probabilities": {"confidence", "margin", "entropy", "probability"},
        "score": {"confidence", "margin", "entropy", "probability", "score", "value"},
        "value": {"score", "value"},
    }[kind]
    for measure in MEASURES["score"]:
        label = {"label": "0"} if measure == "probability" else {}
        found = check_against(rule_of(measure=measure, **label), kind=kind, labels=["0", "1"], fields=[])
        assert (found == ()) == (measure in possible)
        if found:
            (problem,) = found
            assert problem.path == "rules[0].measure"
            assert f"({kind}) has no {measure}" in problem.message


def test_labels_and_fields_must_be_known() -> None:
    """Unknown names are told with the nearest known one and all that are known."""
    document = rule_of(
        where={"labels": ["walking", "runing"], "fields": {"az": {"min": 0}, "speed": {"max": 1}}},
        measure="probability",
        label=7,
    )
    found = check_against(document, kind="probabilities", labels=["walking", "running"], fields=["ax", "az"])
    assert [str(problem) for problem in found] == [
        'rules[0].where.labels[1]: unknown label "runing"; did you mean "running"? known labels: walking, running',
        'rules[0].where.fields.speed: unknown field "speed"; known fields: ax, az',
        'rules[0].label: unknown label "7"; known labels: walking, running',
    ]
    (problem,) = check_against(rule_of(where={"labels": ["a"]}), kind="value", labels=[], fields=[])
    assert problem.message == 'unknown label "a"; known labels: none'


def test_a_filter_is_shown_in_the_contracts_words() -> None:
    """Units are written, times are UTC with a Z, and defaults that say nothing are left out."""
    document = parse_filter("""
schedule:
  timezone: Europe/Berlin
  between: [{start: 2026-07-01, end: 2026-12-01T01:00:00.5+01:00}]
  weekly: [{from: 22:00, to: 06:00}, {days: [sat], from: 00:00, to: 24:00}]
  cron: [{cron: 0 16 * * 1-5, duration: 90m}]
  duty_cycle: {period: 600s, fraction: 0.2}
rules:
- {name: a, measure: confidence, band: {max: 1}, sample: 1, context: {before: 0}, where: {labels: [3]}, outside: false}
""")
    assert to_plain(document) == {
        "enabled": True,
        "schedule": {
            "timezone": "Europe/Berlin",
            "between": [{"start": "2026-06-30T22:00:00Z", "end": "2026-12-01T00:00:00.500000Z"}],
            "weekly": [{"from": "22:00", "to": "06:00"}, {"days": ["sat"], "from": "00:00", "to": "24:00"}],
            "cron": [{"cron": "0 16 * * 1-5", "duration": "90m"}],
            "duty_cycle": {"period": "10m", "fraction": 0.2},
        },
        "rules": [{"name": "a", "where": {"labels": ["3"]}, "measure": "confidence", "band": {"max": 1.0}}],
    }
    assert to_plain(parse_filter("{}")) == {"enabled": True, "rules": []}


def test_a_time_in_a_repeated_hour_reads_back_as_itself() -> None:
    """Python calls such a time unequal to the same time in UTC; the filter shown must equal the one in force."""
    document = parse_filter("schedule: {timezone: Europe/Berlin, between: [{start: 2026-10-25T02:30}]}")
    assert to_plain(document)["schedule"]["between"] == [{"start": "2026-10-25T00:30:00Z"}]
    assert parse_filter(json.dumps(to_plain(document))) == document


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5)
numbers = st.floats(-1e6, 1e6)
lengths = st.integers(1, 500).map("{}m".format) | st.sampled_from(["1ms", "90s", "36h", "366d"])
clock = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
by = st.sampled_from(["rule", "label", "stream"])
bands = st.lists(numbers, min_size=2, max_size=2).map(lambda ends: {"min": min(ends), "max": max(ends)}) | numbers.map(
    lambda end: {"max": end}
)
moments = st.datetimes(datetime(1701, 1, 1), datetime(2199, 12, 30))  # noqa: DTZ001 - with and without an offset
periods = st.builds(
    lambda ends, offset: {"start": min(ends).isoformat() + offset, "end": max(ends).isoformat() + offset},
    st.lists(moments, min_size=2, max_size=2, unique_by=lambda moment: moment.date()),
    st.sampled_from(["", "Z", "-05:30"]),
)
schedules = st.fixed_dictionaries(
    {},
    optional={
        "timezone": st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia"]),
        "between": st.lists(periods, max_size=2),
        "weekly": st.lists(
            st.fixed_dictionaries(
                {"from": clock, "to": clock | st.just("24:00")},
                optional={"days": st.lists(st.sampled_from(WEEKDAYS), min_size=1)},
            ).filter(lambda window: window["from"] != window["to"]),
            max_size=2,
        ),
        "cron": st.lists(
            st.fixed_dictionaries({"cron": st.sampled_from(["* * * * *", "0 16 * * 1-5"]), "duration": lengths}),
            max_size=2,
        ),
        "duty_cycle": st.fixed_dictionaries({"period": lengths, "fraction": st.floats(0, 1)}),
    },
)
rules = st.fixed_dictionaries(
    {"name": st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)},
    optional={
        "schedule": st.none() | schedules,
        "where": st.fixed_dictionaries(
            {},
            optional={
                "labels": st.lists(text | st.integers(0, 9), max_size=3),
                "streams": st.lists(st.sampled_from(["a/+", "#", "line 1/é"])),
                "fields": st.dictionaries(text, bands, max_size=2),
            },
        ),
        "dedup": st.fixed_dictionaries({}, optional={"distance": st.just("auto") | st.floats(0.1, 9)}),
        "sample": st.floats(0, 1) | st.sampled_from([0, 1]),
        "cooldown": st.fixed_dictionaries({"for": lengths}, optional={"by": by}),
        "limit": st.fixed_dictionaries({"max": st.integers(1, 9), "per": lengths}, optional={"by": by}),
        "context": st.fixed_dictionaries({}, optional={"before": st.integers(0, 3), "after": st.integers(0, 3)}),
        "priority": st.integers(-3, 3),
        "tags": st.dictionaries(text, text, max_size=2),
    },
)
measured: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"measure": st.sampled_from(["confidence", "margin", "score"]), "band": bands},
        optional={
            "outside": st.booleans(),
            "keep": st.fixed_dictionaries({"share": st.floats(0.001, 1), "of": st.sampled_from(["highest", "lowest"])}),
        },
    ),
    st.fixed_dictionaries({"measure": st.just("probability"), "label": text | st.integers(0, 9)}),
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "enabled": st.booleans(),
        "schedule": st.none() | schedules,
        "rules": st.lists(
            st.builds(lambda rule, measure: rule | measure, rules, measured), max_size=3, unique_by=lambda r: r["name"]
        ),
    },
)


@settings(max_examples=150)
@given(documents)
def test_every_filter_reads_back_as_itself(data: dict[str, Any]) -> None:
    """What is shown of a filter in force is a filter, and the same one."""
    document = validate_filter(data)
    plain = to_plain(document)
    assert parse_filter(json.dumps(plain)) == document
    assert to_plain(parse_filter(json.dumps(plain))) == plain


def test_editors_get_a_json_schema() -> None:
    """The models give a JSON schema in the document's words."""
    schema = FilterDocument.model_json_schema(by_alias=True)
    assert set(schema["properties"]) == {"enabled", "schedule", "rules"}
    assert set(schema["$defs"]["Weekly"]["properties"]) == {"days", "from", "to"}
    assert schema["$defs"]["Limit"]["properties"]["per"]["anyOf"][0]["type"] == "string"
    assert schema["$defs"]["Rule"]["additionalProperties"] is False
