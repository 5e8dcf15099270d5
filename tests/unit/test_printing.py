"""What the commands print: filters that can be read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from processor.errors import FilterRejected
from processor.filter import parse_filter, to_plain
from processor.printing import agreement_lines, filter_line, filter_yaml
from processor.told import FilterState


def state(active: dict[str, Any], **changes: Any) -> FilterState:  # noqa: ANN401 - JSON
    """Return the state of an applied filter, with changes."""
    said: dict[str, Any] = {
        "status": "applied",
        "revision": 4,
        "sha256": "0",
        "source": "topic",
        "applied_at": "2026-11-22T10:00:00Z",
    }
    return FilterState(**said | {"active": active} | changes)


TEXTS = st.text(min_size=1, max_size=12) | st.sampled_from(
    [
        "1e3",
        "0o17",
        "22:00",
        "off",
        "yes",
        "~",
        "null",
        "true",
        "1_000",
        "0x1F",
        ".5",
        "=",
        "<<",
        "2026-11-01",
        "a: b",
        "#",
    ]
)


@given(TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=3), st.floats(0, 1), st.floats(-1e300, 1e300))
def test_a_printed_filter_is_read_back_as_it_was(label: str, tags: dict[str, str], sample: float, low: float) -> None:
    """YAML 1.1, which PyYAML writes, and 1.2, which a filter is, read some texts differently."""
    rule = {
        "name": "1e3",
        "measure": "probability",
        "label": label,
        "band": {"min": low},
        "sample": sample,
        "tags": tags,
    }
    try:
        document = parse_filter(json.dumps({"rules": [rule]}))
    except FilterRejected:
        reject()  # half a character, NUL: what no document can hold
    assert parse_filter(filter_yaml(state(to_plain(document)))) == document


def test_a_rejection_shows_what_stays_and_why() -> None:
    """Each error as a comment; a message from outside cannot end the comment."""
    errors = [{"path": "rules[0].band", "message": "min\nrules: []"}, {"path": "", "message": "whole"}]
    rejected = state({"enabled": True, "rules": []}, status="rejected", errors=errors)
    lines = filter_yaml(rejected).splitlines()
    assert lines[2:4] == ["#   rules[0].band: min rules: []", "#   whole"]
    assert [line for line in lines if not line.startswith("#")] == ["enabled: true", "rules: []"]
    assert filter_line(rejected) == (
        "rejected, from the topic: rules[0].band: min rules: []; whole; revision 4 stays in force"
    )


@pytest.mark.parametrize(
    ("active", "expected"),
    [
        ({"enabled": True, "rules": [{"name": "a"}, {"name": "b"}]}, "rules a, b"),
        ({"enabled": False, "rules": [{"name": "a"}]}, "rules a, not enabled"),
        ({"rules": []}, "no rules"),
        ({"rules": "what a stranger has published"}, "no rules"),
    ],
)
def test_a_filter_in_a_line(active: dict[str, Any], expected: str) -> None:
    """Its rules by name, and whether it does anything at all."""
    assert filter_line(state(active)) == f"applied, revision 4 from the topic: {expected}"


def test_a_rejection_says_where_the_filter_in_force_came_from() -> None:
    """It is another source's, perhaps."""
    errors = [{"path": "rules[0].sample", "message": "found 2"}]
    rejected = state(
        {"enabled": True, "rules": []}, status="rejected", source="twin", active_source="topic", errors=errors
    )
    first, second, *_ = filter_yaml(rejected).splitlines()
    assert first == "# revision 4, from the topic, in force since 2026-11-22T10:00:00Z"
    assert second == "# The last document, from the twin, was rejected:"


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        (
            {
                "windows": 1200,
                "agreement": 0.9,
                "disagreement": 0.125,
                "by_label": {"jam": {"windows": 7, "agreement": 0}},
            },
            ["new judged 1,200 windows, 23.4 % of all; it agrees with the model on 90.0%", "  jam: 0.0% of 7"],
        ),
        (
            {"windows": 9, "failures": 2, "disagreement": 1.5},
            ["new judged 9 windows, 23.4 % of all; its answers are 1.5 from the model's on average; it failed on 2"],
        ),
        ({}, ["new judged 0 windows, 23.4 % of all; it is not known yet whether it agrees with the model"]),
    ],
)
def test_a_shadow_s_agreement_in_lines(counted: dict[str, Any], expected: list[str]) -> None:
    """By label where there are labels; for values how far apart they are."""
    nothing: dict[str, Any] = {"windows": 0, "failures": 0, "agreement": None, "disagreement": None, "by_label": {}}
    assert list(agreement_lines({"name": "new", "part": 0.234, **nothing, **counted})) == expected
    assert list(agreement_lines(None)) == []
