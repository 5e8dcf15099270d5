"""What the live filter says: the words of a filter document, checked, and checked against the model and the sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
)

from processor.document import (
    MAX_ENTRIES,
    Flaw,
    Many,
    Name,
    Section,
    describe,
    did_you_mean,
    not_too_many,
    parse,
    problems_of,
)
from processor.errors import ConfigurationError, FilterRejected, Problem
from processor.schedule_document import Period, ScheduleDocument, Weekly
from processor.topics import validate_filter as validate_topic_filter
from processor.types import OutputKind
from processor.units import PositiveDuration

MAX_BYTES: Final = 65_536
"""Longest filter document, in bytes."""

Measure = Literal["confidence", "margin", "entropy", "probability", "score", "value", "disagreement"]

MEASURES: Final[Mapping[OutputKind, tuple[Measure, ...]]] = {
    "probabilities": ("confidence", "margin", "entropy", "probability"),
    "score": ("score", "value", "confidence", "margin", "entropy", "probability"),
    "value": ("value", "score"),
}
"""The measures a model's output allows; `score` and `value` are two names of the raw number. Beside a shadow there is
`disagreement` as well."""


def _label(value: object) -> object:
    return str(value) if type(value) is int else value


def _topic_filter(text: str) -> str:
    if flaw := validate_topic_filter(text):
        raise ValueError(flaw)
    return text


Label = Annotated[str, BeforeValidator(_label), Field(min_length=1, max_length=256)]
"""A model's label; a class index may be written as a number."""
TopicFilter = Annotated[str, AfterValidator(_topic_filter)]


class Band(Section):
    """A closed interval; either end may be absent."""

    min: float | None = Field(default=None, description="the least score that lies in it")
    max: float | None = Field(default=None, description="the greatest score that lies in it")

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse an interval that nothing or everything lies in."""
        low, high = data.get("min"), data.get("max")
        if low is None and high is None:
            yield Flaw((), "a min, a max, or both are required")
        elif isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            yield Flaw((), f"min {low} is greater than max {high}")


class Where(Section):
    """Conditions on the window itself; all that are given hold."""

    labels: Many[Label] = Field(default=(), description="the predicted label is one of these")
    streams: Many[TopicFilter] = Field(default=(), description="the stream's key matches one of these topic filters")
    fields: Annotated[
        Mapping[Annotated[str, Field(min_length=1)], Band],
        Field(max_length=MAX_ENTRIES),
        BeforeValidator(not_too_many),
    ] = Field(default={}, description="the newest reading's values lie in these intervals")


class Keep(Section):
    """An adaptive band: the most extreme `share` of the last `over` scores."""

    share: Annotated[float, Field(gt=0, le=1)] = Field(description="of the windows that come so far")
    of: Literal["highest", "lowest"] = Field(default="highest", description="which scores are the most extreme")
    over: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=5000, description="how many of the last scores are compared"
    )


class Dedup(Section):
    """Not closer than `distance`, in scaled readings, to any of the last `memory` samples."""

    distance: Literal["auto"] | Annotated[float, Field(gt=0)] = Field(
        default="auto", description="below which two windows are the same, in standard deviations; auto: from the data"
    )
    memory: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=1000, description="how many of the last samples are compared"
    )


class Cooldown(Section):
    """Nothing for a while after a sample."""

    duration: PositiveDuration = Field(alias="for", description="how long nothing is kept after a sample")
    by: Literal["rule", "label", "stream"] = Field(default="stream", description="what has a pause of its own")


class Limit(Section):
    """At most `max` samples in any `per` nanoseconds, for each of `by`."""

    max: Annotated[int, Field(ge=1, le=1_000_000)] = Field(description="samples")
    per: PositiveDuration = Field(description="the interval, which slides")
    by: Literal["rule", "label", "stream"] = Field(default="rule", description="what has a limit of its own")


class Context(Section):
    """Neighbouring windows of the same stream to send along: how many `before` and `after`."""

    before: Annotated[int, Field(ge=0, le=1000)] = Field(default=0, description="windows before the sample")
    after: Annotated[int, Field(ge=0, le=1000)] = Field(default=0, description="windows after it")


class Rule(Section):
    """One way to be accepted. Its conditions are tested in the order in which they stand here."""

    name: Name = Field(description="in samples, topics and metrics")
    schedule: ScheduleDocument | None = Field(default=None, description="the rule's own, in addition to the filter's")
    where: Where = Field(default=Where(), description="conditions on the window itself")
    measure: Measure | None = Field(default=None, description="what makes the prediction one number, the score")
    label: Label | None = Field(default=None, description="whose probability, for measure: probability")
    band: Band | None = Field(default=None, description="the closed interval that the score lies in")
    outside: bool = Field(default=False, description="the score lies outside the band instead")
    keep: Keep | None = Field(default=None, description="an adaptive band: the most extreme share of the last scores")
    dedup: Dedup | None = Field(default=None, description="not too close to a sample that was kept lately")
    sample: Annotated[float, Field(ge=0, le=1)] = Field(default=1.0, description="this fraction, chosen by hash")
    cooldown: Cooldown | None = Field(default=None, description="nothing for a while after a sample")
    limit: Limit | None = Field(default=None, description="at most so many samples in a sliding interval")
    context: Context = Field(default=Context(), description="neighbouring windows that are sent along")
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = Field(
        default=0, description="higher leaves the outbox first and is dropped last"
    )
    tags: Annotated[Mapping[str, str], Field(max_length=MAX_ENTRIES), BeforeValidator(not_too_many)] = Field(
        default={}, description="text that goes into the rule's samples"
    )

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse conditions that need a key which is not there."""
        measure, label = data.get("measure"), data.get("label")
        if measure == "probability" and label is None:
            yield Flaw(("label",), "measure: probability needs the label whose probability is meant")
        if label is not None and (measure is None or measure in get_args(Measure)) and measure != "probability":
            yield Flaw(("label",), "goes only with measure: probability; the predicted label is where.labels")
        for key in ("band", "keep"):
            if data.get(key) is not None and measure is None:
                yield Flaw((key,), "needs a measure, such as measure: confidence")
        if data.get("outside") is True and (measure is None or data.get("band") is None):
            yield Flaw(("outside",), "needs a measure and a band")


class FilterDocument(Section):
    """The filter: what is collected while `enabled` and in `schedule`, by the first of `rules` that matches."""

    enabled: bool = Field(default=True, description="false: nothing is kept")
    schedule: ScheduleDocument | None = Field(default=None, description="when anything is kept; absent: always")
    rules: Many[Rule] = Field(default=(), description="the first that matches a window keeps it; none keep nothing")

    @classmethod
    def flaws(cls, data: Mapping[str, Any]) -> Iterator[Flaw]:
        """Refuse two rules of one name."""
        first: dict[str, int] = {}
        for index, rule in _written_rules(data):
            name = rule.get("name")
            if isinstance(name, str) and first.setdefault(name, index) != index:
                yield Flaw(("rules", index, "name"), f"{describe(name)} is also the name of rules[{first[name]}]")


_OPTIONAL: Final = frozenset(
    field.alias or name
    for model in (FilterDocument, Rule, ScheduleDocument, Period, Weekly, Where, Band)
    for name, field in model.model_fields.items()
    if not field.is_required() and name != "rules"  # a list that was forgotten would keep nothing
)


def _written_rules(data: object) -> Iterator[tuple[int, Mapping[str, Any]]]:
    rules = data.get("rules") if isinstance(data, dict) else None
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        if isinstance(rule, dict):
            yield index, rule


def parse_filter(payload: bytes | str) -> FilterDocument:
    """Read a filter document, YAML or JSON.

    Raises:
        FilterRejected: with every problem found.
    """
    try:
        data = parse(payload, max_bytes=MAX_BYTES)
    except ConfigurationError as error:
        raise FilterRejected(error.problems) from None
    return validate_filter(data)


def validate_filter(data: object) -> FilterDocument:
    """Check a filter that was read already, such as the mapping inside the configuration.

    Raises:
        FilterRejected: with every problem found; paths start at the filter.
    """
    problems: list[Problem] = []
    document = None
    data = _without_nulls(data)
    try:
        document = FilterDocument.model_validate(data)
    except ValidationError as error:
        problems += problems_of(error)
    if document is None or problems:
        raise FilterRejected(sorted(problems, key=_rule_index), _what_is_sound(data, problems))
    return document


def _what_is_sound(data: object, problems: Sequence[Problem]) -> Iterator[tuple[int, FilterDocument]]:
    """Yield the rules, by their index and each in a filter of its own, without the keys that are wrong."""
    for index, written in _written_rules(data):
        rule = dict(written)
        for problem in problems:
            path = problem.path.removeprefix(f"rules[{index}].")
            key, _, rest = path.partition(".")
            if path == problem.path:
                continue
            if key == "where" and rest and isinstance(rule.get("where"), dict):
                inner = re.split(r"[.\[]", rest)[0]
                rule["where"] = {name: value for name, value in rule["where"].items() if name != inner}
            else:
                rule.pop(re.split(r"\[", key)[0], None)
        try:
            yield index, FilterDocument(rules=(Rule.model_validate(rule | {"name": "rule"}),))
        except ValidationError:
            continue


def all_problems(rejected: FilterRejected, check: Callable[[FilterDocument], Sequence[Problem]]) -> list[Problem]:
    """Return what is wrong with a rejected filter, and what `check` finds in those of its rules that are sound."""
    found = [
        Problem(problem.path.replace("rules[0]", f"rules[{index}]", 1), problem.message)
        for index, alone in rejected.sound
        for problem in check(alone)
    ]
    return sorted(dict.fromkeys([*rejected.problems, *found]), key=_rule_index)


def _without_nulls(data: object) -> object:
    """Return a document in which a known key without a value is a key that is not there."""
    if isinstance(data, list):
        return [_without_nulls(entry) for entry in data]
    if not isinstance(data, dict):
        return data
    return {key: _without_nulls(value) for key, value in data.items() if value is not None or key not in _OPTIONAL}


def _rule_index(problem: Problem) -> int:
    rule = re.match(r"rules\[([0-9]+)\]", problem.path)
    return int(rule[1]) if rule else -1


def check_against(
    document: FilterDocument, *, kind: OutputKind, labels: Sequence[str], fields: Sequence[str], shadow: bool = False
) -> tuple[Problem, ...]:
    """Check a filter against the model and the sources.

    Args:
        document: the filter.
        kind: the model's output.
        labels: the model's labels; empty for `value`.
        fields: the fields of all sources.
        shadow: whether a second model judges windows beside it.
    """
    allowed = measures_of(kind, shadow=shadow)
    return tuple(
        problem
        for index, rule in enumerate(document.rules)
        for problem in (
            *_check_where(rule, f"rules[{index}]", labels, fields),
            *_check_measure(rule, f"rules[{index}]", kind, allowed, labels),
        )
    )


def measures_of(kind: OutputKind, *, shadow: bool) -> Sequence[Measure]:
    """Return the measures that a model's output allows, with a shadow beside it or without."""
    return (*MEASURES[kind], "disagreement") if shadow else MEASURES[kind]


def _check_where(rule: Rule, path: str, labels: Sequence[str], fields: Sequence[str]) -> Iterator[Problem]:
    for position, label in enumerate(rule.where.labels):
        if label not in labels:
            yield Problem(f"{path}.where.labels[{position}]", _unknown("label", label, labels))
    for field in rule.where.fields:
        if not fields:
            yield Problem(f"{path}.where.fields.{field}", "images have no fields; leave this key out")
        elif field not in fields:
            yield Problem(f"{path}.where.fields.{field}", _unknown("field", field, fields))


def _check_measure(
    rule: Rule, path: str, kind: OutputKind, allowed: Sequence[str], labels: Sequence[str]
) -> Iterator[Problem]:
    if rule.measure == "disagreement" and rule.measure not in allowed:
        text = "there is no second model to disagree with; configure one, as model.shadow: {path: candidate.onnx}"
        yield Problem(f"{path}.measure", text)
    elif rule.measure is not None and rule.measure not in allowed:
        possible = ", ".join(allowed)
        yield Problem(f"{path}.measure", f"the model's output ({kind}) has no {rule.measure}; it has {possible}")
    elif rule.label is not None and rule.label not in labels:
        yield Problem(f"{path}.label", _unknown("label", rule.label, labels))


def _unknown(title: str, name: str, known: Sequence[str]) -> str:
    return f"unknown {title} {describe(name)}" + did_you_mean(name, known, f"known {title}s")


def to_plain(document: FilterDocument) -> dict[str, Any]:
    """Return the filter in the contract's words, ready for JSON, without defaults that say nothing.

    `parse_filter` of its JSON gives an equal filter.
    """
    plain = document.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {"enabled": document.enabled, **plain, "rules": plain.get("rules", [])}
