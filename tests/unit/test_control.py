"""Which filter is in force, and what is answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest

from processor.control import FilterControl, FilterSource
from processor.errors import Problem
from processor.filter import FilterDocument, parse_filter
from processor.types import NS

FILE = b"rules: [{name: file}]"
UNCHANGED = (False, False)


def document(name: str) -> bytes:
    """Return a filter of one rule."""
    return json.dumps({"rules": [{"name": name}]}).encode()


def fits(active: FilterDocument) -> Sequence[Problem]:
    """Refuse rules called `misfit`, as a model might."""
    return [Problem("rules[0].label", "unknown") for rule in active.rules if rule.name == "misfit"]


def control(kept: dict[str, Any] | None = None, file: bytes = FILE) -> FilterControl:
    """Return a control at its start."""
    return FilterControl(parse_filter(file), file, fits, json.loads(json.dumps(kept)), NS)


def offer(
    one: FilterControl, payload: bytes, source: FilterSource, now: int, problems: Sequence[Problem] = ()
) -> tuple[bool, bool]:
    """Offer a document and install what comes of it; whether the filter changed, and whether disk has to know."""
    before = one.answer, one.revision, one.active
    offered = one.offer(payload, source, now, problems=problems)
    assert (one.answer, one.revision, one.active) == before, "nothing happens before it is installed"
    offered.install()
    if offered.memory is not None:
        assert offered.memory == one.memory()
    return offered.changed, offered.memory is not None


def rule(one: FilterControl) -> str:
    """Return the name of the rule in force."""
    return one.active.rules[0].name


def test_the_files_filter_is_revision_1() -> None:
    """At the first start."""
    one = control()
    assert (rule(one), one.revision) == ("file", 1)
    assert one.answer["status"] == "applied"
    assert one.answer["source"] == "file"
    assert one.answer["sha256"] == hashlib.sha256(FILE).hexdigest()
    assert one.answer["applied_at"] == "1970-01-01T00:00:01.000000Z"


def test_an_applied_filter_grows_the_revision_by_one() -> None:
    """And the answer names the document."""
    one = control()
    assert offer(one, document("a"), "topic", 2 * NS) == (True, True)
    assert (rule(one), one.revision, one.answer["revision"]) == ("a", 2, 2)
    assert one.answer["sha256"] == hashlib.sha256(document("a")).hexdigest()
    assert one.answer["active"]["rules"][0]["name"] == "a"


@pytest.mark.parametrize("wrong", [b"rules: [{name: a, sample: 2}]", document("misfit")])
def test_a_rejected_filter_changes_nothing(wrong: bytes) -> None:
    """Whether it is wrong in itself or does not fit the model."""
    one = control()
    offer(one, document("a"), "topic", 2 * NS)
    assert offer(one, wrong, "topic", 3 * NS) == (False, True)
    assert (rule(one), one.revision) == ("a", 2)
    assert one.answer["status"] == "rejected"
    assert one.answer["errors"]
    assert one.answer["applied_at"] == "1970-01-01T00:00:02.000000Z"
    assert one.answer["active"]["rules"][0]["name"] == "a"


def test_a_document_with_a_problem_of_its_own_is_rejected() -> None:
    """Such as one that was cut: its beginning alone might well be a filter, but another one."""
    one = control()
    assert not offer(one, document("a"), "topic", NS, [Problem("", "100000 bytes")])[0]
    assert one.answer["status"] == "rejected"
    assert one.answer["errors"] == [{"path": "", "message": "100000 bytes"}]


def test_the_same_document_again_changes_nothing() -> None:
    """Applied or rejected: a reconnect brings it again."""
    one = control()
    for text in (document("a"), b"nonsense: 1"):
        offer(one, text, "topic", 2 * NS)
        before = one.answer
        assert offer(one, text, "topic", 3 * NS) == UNCHANGED
        assert one.answer == before


def test_a_document_known_from_one_source_is_new_from_another() -> None:
    """The later change wins."""
    one = control()
    offer(one, document("a"), "topic", NS)
    offer(one, document("b"), "twin", NS)
    assert offer(one, document("a"), "topic", NS) == UNCHANGED, "what the topic brought before is not brought again"
    assert rule(one) == "b"
    offer(one, document("a"), "twin", NS)
    assert (rule(one), one.revision) == ("a", 4)


def test_an_empty_document_returns_to_the_file() -> None:
    """As a change, if another was in force; after it the former document is new again."""
    one = control()
    offer(one, document("a"), "topic", NS)
    assert offer(one, b"", "topic", NS)[0]
    assert (rule(one), one.revision, one.answer["source"]) == ("file", 3, "file")
    assert one.answer["sha256"] == hashlib.sha256(b"").hexdigest()
    offer(one, document("a"), "topic", NS)
    assert (rule(one), one.revision) == ("a", 4)


def test_an_empty_document_clears_a_rejection() -> None:
    """Nothing changes, but what is in force is answered for it."""
    one = control()
    offer(one, b"nonsense: 1", "topic", NS)
    assert not offer(one, b"", "topic", NS)[0]
    assert (one.answer["status"], one.answer["revision"], one.answer["errors"]) == ("applied", 1, [])


def test_a_live_filter_survives_a_restart() -> None:
    """Also when the file has changed meanwhile."""
    one = control()
    offer(one, document("a"), "topic", 2 * NS)
    two = control(one.memory(), file=b"rules: [{name: other}]")
    assert (rule(two), two.revision, two.answer) == ("a", 2, one.answer)
    assert offer(two, document("a"), "topic", NS) == UNCHANGED
    offer(two, b"", "topic", NS)
    assert (rule(two), two.revision) == ("other", 3)


def test_a_changed_file_is_a_new_revision() -> None:
    """And an unchanged one is not."""
    one = control()
    assert control(one.memory()).revision == 1
    two = control(one.memory(), file=b"rules: [{name: other}]")
    assert (rule(two), two.revision, two.answer["source"]) == ("other", 2, "file")


def test_a_live_filter_that_does_not_fit_any_more_gives_way_to_the_file(caplog: pytest.LogCaptureFixture) -> None:
    """The model was changed while we were away."""
    one = control()
    offer(one, document("a"), "topic", NS)
    kept = one.memory()
    kept["active"]["rules"][0]["name"] = "misfit"
    two = control(kept)
    assert (rule(two), two.revision) == ("file", 3)
    assert "does not fit" in caplog.text


def test_the_last_revisions_are_remembered_with_who_made_them() -> None:
    """Newest first, over restarts; a rejected one is none."""
    one = control()
    offer(one, document("a"), "twin", 2 * NS)
    one.offer(document("b"), "topic", 3 * NS, user="Ada").install()
    offer(one, b"rules: [", "topic", 4 * NS)
    told = [(entry["revision"], entry["source"], entry["user"]) for entry in one.revisions]
    assert told == [(3, "topic", "Ada"), (2, "twin", None), (1, "file", None)]
    assert one.revisions[0]["filter"]["rules"] == [{"name": "b"}]
    assert one.revisions[0]["applied_at"] == "1970-01-01T00:00:03.000000Z"
    again = control(one.memory())
    assert again.revisions == one.revisions
    offer(again, b"", "topic", 5 * NS)
    assert [entry["revision"] for entry in again.revisions] == [4, 3, 2, 1]


def test_fifty_revisions_and_a_quarter_of_a_megabyte_are_remembered() -> None:
    """Whichever is reached first; the filter in force is always one of them."""
    one = control()
    for number in range(60):
        offer(one, document(f"r{number}"), "topic", NS)
    assert [entry["revision"] for entry in one.revisions] == list(range(61, 11, -1))
    for number in range(12):
        tags = {"tags": {f"t{tag}": "x" * 50 for tag in range(800)}}
        offer(one, json.dumps({"rules": [{"name": f"r{number}", **tags}]}).encode(), "topic", NS)
    assert 2 <= len(one.revisions) < 12
    assert len(json.dumps(one.revisions)) < 1 << 18


def test_a_state_from_before_the_revisions_is_gone_on_with() -> None:
    """Its history begins with the next change."""
    kept = control().memory()
    del kept["revisions"]
    one = control(kept)
    assert one.revisions == []
    offer(one, document("a"), "topic", NS)
    assert [entry["revision"] for entry in one.revisions] == [2]
