"""The twin: its filter beside the topic's, what is reported, and what comes again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from processor import __version__
from processor.cloud import Desired
from processor.types import Message
from tests.cloud import Hub
from tests.unit.test_pipeline import Line, steering

A = {"rules": [{"name": "a"}]}
B = {"rules": [{"name": "b"}]}


def in_force(line: Line) -> tuple[str, int]:
    """Return the name of the rule in force, and the revision."""
    return line.control.active.rules[0].name, line.control.revision


def states(line: Line) -> list[dict[str, Any]]:
    """Return what was published on filter/state."""
    return [body for topic, body in line.source.published if topic.endswith("/filter/state")]


def topic(document: dict[str, Any]) -> list[Message]:
    """Return a filter as it comes over the broker."""
    return [steering("filter", document)]


def desire(hub: Hub, *, complete: bool = True, **properties: Any) -> Callable[[], None]:  # noqa: ANN401 - JSON
    """Return a step of a script in which the twin changes."""
    return lambda: hub.desire(complete=complete, **properties)


def test_a_desired_filter_is_applied_and_answered_on_both_sides(tmp_path: Path) -> None:
    """The digest is that of its canonical JSON, whatever the order of its keys."""
    line = Line(tmp_path)
    hub = Hub(line.link)
    wanted = {"rules": [{"name": "a", "sample": 0.5}], "enabled": True}
    line.play(desire(hub, filter=wanted), [])
    assert in_force(line) == ("a", 2)
    canonical = json.dumps(wanted, sort_keys=True, separators=(",", ":")).encode()
    (state,) = states(line)
    reported = hub.reported
    for side in (state, reported["filter"]):
        assert (side["status"], side["revision"], side["source"], side["active_source"]) == (
            "applied",
            2,
            "twin",
            "twin",
        )
        assert side["sha256"] == hashlib.sha256(canonical).hexdigest()
        assert side["errors"] == []
    assert reported["version"] == __version__
    assert reported["model"] == {"name": "even", "sha256": "0"}


@pytest.mark.parametrize("text", [json.dumps(A), "rules:\n- name: a\n"])
def test_a_filter_may_be_text(tmp_path: Path, text: str) -> None:
    """JSON or YAML: a twin's keys may not have dots, a field's name may."""
    line = Line(tmp_path)
    line.play(desire(Hub(line.link), filter=text), [])
    assert in_force(line) == ("a", 2)


def test_a_rejected_filter_is_reported_with_all_its_errors(tmp_path: Path) -> None:
    """And the one in force stays."""
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play(desire(hub, filter=A), [], desire(hub, filter={"rules": [{"name": "x", "sample": 2}], "enable": 1}), [])
    assert in_force(line) == ("a", 2)
    answer = hub.reported["filter"]
    assert (answer["status"], answer["revision"], answer["active_source"]) == ("rejected", 2, "twin")
    assert {error["path"] for error in answer["errors"]} == {"rules[0].sample", "enable"}
    assert states(line)[-1]["errors"] == answer["errors"]


def deep(depth: int) -> Any:  # noqa: ANN401 - JSON
    """Return lists in one another."""
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "garbage",
    [
        1, True, [], "[", "\ud800", "x: " + "y" * 70_000, deep(40), deep(100_000), {"rules": deep(100_000)},
        {"rules": [{"name": "n", "band": {"min": float("nan")}}]}, {"rules": 10**5000}, {"rules": object()},
        {"rules": [{"name": f"bad name {number}"} for number in range(900)]}, {"rules": [{"name": "x" * 30_000}]},
    ],
)  # fmt: skip
def test_garbage_is_rejected_and_breaks_nothing(tmp_path: Path, garbage: object) -> None:
    """What is reported of it is small enough for a twin."""
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play(desire(hub, filter=garbage), [], [])
    assert hub.reported["filter"]["status"] == "rejected"
    assert hub.reported["filter"]["errors"]
    assert len(json.dumps(hub.reported)) < 16_000
    assert in_force(line) == ("all", 1)
    line.play(desire(hub, filter=A), [])
    assert in_force(line) == ("a", 2)


def test_properties_of_others_say_nothing(tmp_path: Path) -> None:
    """Nor does a twin that never had a filter: the topic's stays in force at each connect."""
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play(topic(A), desire(hub, interval=3), [], desire(hub), [], desire(hub, complete=False, other=None), [])
    assert in_force(line) == ("a", 2)
    assert hub.reported["filter"]["source"] == "topic"


def test_the_later_change_wins_and_both_sides_say_which_is_in_force(tmp_path: Path) -> None:
    """Whatever each says again when it connects anew."""
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play(desire(hub, filter=A), [], topic(B), [], desire(hub, filter=A), [], topic(B))
    assert in_force(line) == ("b", 3)
    assert hub.reported["filter"]["active_source"] == states(line)[-1]["active_source"] == "topic"
    line.play(desire(hub, filter=A | {"enabled": False}), [], topic(B), topic({"nonsense": 1}))
    assert in_force(line) == ("a", 4)
    reported = hub.reported["filter"]
    assert (reported["status"], reported["source"], reported["active_source"]) == ("rejected", "topic", "twin")


def test_a_topics_change_is_reported_and_what_comes_again_is_not(tmp_path: Path) -> None:
    """Reports cost messages."""
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play(topic(A))
    assert hub.reported["filter"]["source"] == "topic"
    line.play(topic(A))
    assert line.link.take_reported() is None


def test_the_same_twin_after_a_reconnect_changes_nothing_and_is_reported_again(tmp_path: Path) -> None:
    """The hub may have lost what was reported."""
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play(desire(hub, filter=A), [])
    before = hub.reported
    line.play(desire(hub, filter={"rules": [{"name": "a"}]}), [])
    assert in_force(line) == ("a", 2)
    assert len(states(line)) == 1
    assert line.link.take_reported() == before | {"legacy": None}


def test_the_same_twin_after_a_restart_changes_nothing(tmp_path: Path) -> None:
    """Also where the topic's filter was the later one."""
    line = Line(tmp_path)
    line.play(desire(Hub(line.link), filter=A), [], topic(B))
    line.store.close()
    line = Line(tmp_path)
    line.play(desire(Hub(line.link), filter=A), [], topic(B))
    assert in_force(line) == ("b", 3)


@pytest.mark.parametrize("removal", [{"complete": True}, {"complete": False, "filter": None}])
def test_a_removed_filter_returns_to_the_files(tmp_path: Path, removal: dict[str, Any]) -> None:
    """Also when it was removed while we were away; the same filter is then new again."""
    line = Line(tmp_path)
    line.play(desire(Hub(line.link), filter=A), [])
    line.store.close()
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play(desire(hub, **removal), [])
    assert in_force(line) == ("all", 3)
    assert hub.reported["filter"]["active_source"] == "file"
    line.play(desire(hub, filter=A), [])
    assert in_force(line) == ("a", 4)


def test_a_patch_is_laid_over_what_was_desired_before(tmp_path: Path) -> None:
    """As the hub does it, so that the whole twin at the next connect is nothing new; also after a restart."""
    line = Line(tmp_path)
    line.play(desire(Hub(line.link), filter=A | {"schedule": {"weekly": [{"from": "07:00", "to": "09:00"}]}}), [])
    line.store.close()
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play(desire(hub, complete=False, filter={"enabled": False, "schedule": None}), [])
    assert in_force(line) == ("a", 3)
    assert not line.control.active.enabled
    assert line.control.active.schedule is None
    line.play(desire(hub, filter=A | {"enabled": False}), [])
    assert line.control.revision == 3


def test_a_patch_that_overtakes_the_whole_twin_counts_and_an_older_one_does_not(tmp_path: Path) -> None:
    """The whole was read at the connect, and the SDK hands the two over on different threads."""
    line = Line(tmp_path)
    hub = Hub(line.link)

    def ask(version: int, *, complete: bool, **properties: object) -> None:
        hub.link.ask(Desired(properties | {"$version": version}, complete))

    ask(11, complete=False, filter={"enabled": False})
    ask(12, complete=False, filter={"rules": B["rules"]})
    ask(10, complete=True, filter=A)
    line.play([], [])
    assert (line.control.active.enabled, line.control.active.rules[0].name) == (False, "b")
    ask(12, complete=True, filter=B | {"enabled": False})
    ask(11, complete=False, filter={"enabled": True})
    revision = line.control.revision
    line.play([], [])
    assert (line.control.revision, line.control.active.enabled) == (revision, False)
    ask(1, complete=True, filter=A)  # the identity was made anew
    line.play([], [])
    assert line.control.active.rules[0].name == "a"


def test_desired_properties_are_kept_only_within_bounds(tmp_path: Path) -> None:
    """A twin has 32 KiB; something else that says it is one must not fill the disk."""
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play(desire(hub, filter="x" * 1_000_000), [])
    assert line.store.meta("twin")["desired"] == {}
    assert hub.reported["filter"]["status"] == "rejected"
