"""The form shows whatever a filter's text says, sound or not: the text is what counts, and has to stay editable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nicegui import Client, ui

from processor.dashboard.access import Access
from processor.dashboard.form import Form
from processor.dashboard.shell import Desk, Visitor
from processor.dashboard.view import View
from processor.dashboard.watching import Watcher
from processor.filter import Rule, parse_filter
from processor.schedule_document import ScheduleDocument

EXAMPLES = sorted((Path(__file__).parents[2] / "config/examples").glob("*.yaml"))
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats()
    | st.sampled_from(["", "a", "1h", "mon", "UTC", "07:00"])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["min", "max", "by", "labels", "a"]), inner)
    ),
    max_leaves=6,
)


def like(keys: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Return mappings with some of a section's keys and anything under them."""
    return st.dictionaries(st.sampled_from(keys), JSON, max_size=4)


RULES = like([field.alias or name for name, field in Rule.model_fields.items()])
SCHEDULES = like(list(ScheduleDocument.model_fields))
FILTERS = st.fixed_dictionaries(
    {}, optional={"enabled": JSON, "schedule": SCHEDULES | JSON, "rules": st.lists(RULES | JSON, max_size=2) | JSON}
)


@pytest.fixture(scope="module")
def view() -> Iterator[View]:
    """Return a processor's page without its processor, and without a browser; a form is in it."""
    watcher = Watcher({"url": "mqtt://127.0.0.1:1"}, ["mlade"], changes=True)
    access = Access(password=None, read_only=False)
    with Client(ui.page("")) as client:
        made = View(Desk(watcher, access, ""), Visitor(access, None), "mlade/a")
        Form(made)
        yield made
        client.delete()


@settings(max_examples=25, deadline=None)
@given(FILTERS)
def test_any_text_has_a_form(view: View, written: dict[str, Any]) -> None:
    """However wrong, while somebody is writing it."""
    view.draft.write(json.dumps(written), None)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_showing_a_filter_changes_nothing(view: View, path: Path) -> None:
    """Of the examples, each."""
    text = path.read_text()
    view.draft.write(text, None)
    assert view.draft.text == text
    assert parse_filter(view.draft.text).rules
