"""A filter being written on the dashboard: text and form are one document, checked as a processor will."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from processor.dashboard.draft import Draft
from processor.dashboard.form_fields import get, name, put, remove
from processor.told import FilterState, ModelFacts

MODEL = ModelFacts("m", "0", "probabilities", ["idle", "run"], ["x"], complete=True)
BAND = {"name": "r", "measure": "confidence", "band": {"min": 0.4, "max": 0.6}}


def state(revision: int, *rules: dict[str, Any]) -> FilterState:
    """Return a filter in force."""
    return FilterState("applied", revision, "0", "topic", {"enabled": True, "rules": list(rules)})


def problems(draft: Draft) -> list[str]:
    """Return the paths of what is wrong."""
    return [problem.path for problem in draft.problems]


def test_a_draft_follows_the_filter_in_force_until_somebody_writes() -> None:
    """Then it says that another has come, and keeps what was written."""
    draft = Draft()
    draft.follow(state(1, BAND), MODEL)
    assert not draft.changed
    draft.follow(state(2, {**BAND, "sample": 0.5}), MODEL)
    assert (draft.revision, draft.moved) == (2, False)
    draft.edit(lambda plain: put(plain, ("rules", 0, "band", "max"), 0.7), None)
    assert draft.changed
    assert yaml.safe_load(draft.text)["rules"][0]["band"] == {"min": 0.4, "max": 0.7}
    draft.follow(state(3, BAND), MODEL)
    assert (draft.revision, draft.moved) == (2, True)
    draft.begin(state(3, BAND))
    assert (draft.changed, draft.moved) == (False, False)


def test_writing_the_old_again_is_no_change() -> None:
    """By hand or by form."""
    draft = Draft()
    draft.follow(state(1, BAND), MODEL)
    text = draft.text
    draft.edit(lambda plain: put(plain, ("rules", 0, "sample"), 0.5), None)
    draft.edit(lambda plain: put(plain, ("rules", 0, "sample"), None), None)
    assert draft.text == text
    draft.write("rules: [", None)
    assert draft.plain is None
    draft.write(text, None)
    assert not draft.changed


def test_a_draft_is_checked_as_the_processor_will() -> None:
    """All at once: its words, and what the model and the sources have."""
    draft = Draft()
    draft.follow(state(1, BAND), MODEL)
    rules = [
        {**BAND, "band": {"min": 0.9, "max": 0.1}, "where": {"labels": ["walk"]}},
        {"name": "p", "measure": "value", "smaple": 1},
    ]
    draft.change({"rules": rules}, None)
    assert problems(draft) == ["rules[0].band", "rules[0].where.labels[0]", "rules[1].smaple", "rules[1].measure"]
    draft.follow(state(1, BAND), ModelFacts())
    assert problems(draft) == ["rules[0].band", "rules[1].smaple"]
    draft.write("rules: [", None)
    assert draft.problems[0].message.startswith("line 2")


def test_listeners_learn_who_wrote() -> None:
    """So that whoever wrote is not written to."""
    draft, authors = Draft(), list[object]()
    draft.listen(authors.append)
    draft.follow(state(1, BAND), MODEL)
    draft.write("rules: []", "text")
    assert authors == [None, "text"]


PATHS = st.sampled_from(
    [("enabled",), ("schedule", "duty_cycle", "period"), ("rules", 0, "band", "min"), ("rules", 0, "where", "labels")]
)


@given(st.lists(st.tuples(PATHS, st.none() | st.integers(1, 9))))
def test_a_key_that_was_written_can_be_read_and_one_that_was_removed_leaves_nothing(
    writes: list[tuple[tuple[str | int, ...], int | None]],
) -> None:
    """No empty mapping stays."""
    plain: dict[str, Any] = {"rules": [{"name": "a"}]}
    for path, value in writes:
        put(plain, path, value)
        assert get(plain, path) == value
    assert "{}" not in str(plain)
    for path, _ in writes:
        put(plain, path, None)
    assert plain == {"rules": [{"name": "a"}]}


def test_an_entry_that_is_removed_leaves_nothing_empty() -> None:
    """Of a list, or of a mapping; what else is there stays."""
    weekly = [{"from": "07:00", "to": "09:30"}, {"from": "16:00", "to": "18:30"}]
    rule = {"name": "a", "schedule": {"weekly": weekly}, "where": {"labels": ["run"], "fields": {"x": {"min": 1}}}}
    plain: dict[str, Any] = {"rules": [rule]}
    remove(plain, ("rules", 0, "schedule", "weekly", 0))
    remove(plain, ("rules", 0, "where", "fields", "x"))
    assert plain == {
        "rules": [{"name": "a", "schedule": {"weekly": [weekly[-1]]}, "where": {"labels": ["run"]}}],
    }
    remove(plain, ("rules", 0, "schedule", "weekly", 0))
    assert plain == {"rules": [{"name": "a", "where": {"labels": ["run"]}}]}


def test_paths_are_written_as_problems_have_them() -> None:
    """So that a field shows its own."""
    assert name(("rules", 0, "band", "min")) == "rules[0].band.min"


def test_a_draft_may_ask_the_shadow_where_there_is_one() -> None:
    """Disagreement is a measure then, and one that is refused else."""
    draft, rule = Draft(), {"name": "differ", "measure": "disagreement", "band": {"min": 0.3}}
    draft.follow(state(1, rule), MODEL)
    assert problems(draft) == ["rules[0].measure"]
    assert "disagreement" not in draft.measures
    draft.follow(state(1, rule), MODEL, shadow=True)
    assert problems(draft) == []
    assert "disagreement" in draft.measures
