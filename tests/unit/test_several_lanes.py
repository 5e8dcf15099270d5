"""A pipeline with two models, `default` and `b`: topics, metrics, commands and the twin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from processor.types import NS, Message
from tests.cloud import Hub
from tests.unit.test_pipeline import START, Line, steering

B_SOURCE = {"name": "b", "topics": ["b/+"], "fields": ["x"], "time": "t"}


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Return it."""
    line = Line(tmp_path, others={"b": B_SOURCE})
    yield line
    line.store.close()


def both(first: int) -> list[Message]:
    """Return two readings for each model."""
    found = []
    for number in (first, first + 1):
        payload = json.dumps({"t": START + number, "x": number}).encode()
        found += [Message(topic, payload, 0, 0, START * NS, connection=1) for topic in ("imu/1", "b/1")]
    return found


def published(line: Line, topic: str) -> list[dict[str, Any]]:
    """Return what was published on a topic."""
    return [body for own, body in line.source.published if own == f"mlade/line-1/{topic}"]


def test_a_filter_is_its_models_alone(line: Line) -> None:
    """Its topic, its answer, its revision; and in one batch each is judged by its own."""
    line.play(both(1), [steering("models/b/filter", {"rules": [{"name": "of b"}]})], [])
    (refused,) = published(line, "models/b/filter/state")
    assert (refused["status"], refused["revision"]) == ("rejected", 1)
    line.play([steering("models/b/filter", {"rules": []})], both(3), [])
    assert published(line, "models/b/filter/state")[-1]["revision"] == 2
    assert published(line, "filter/state") == []
    revisions = published(line, "models/b/filter/history")[-1]["revisions"]
    assert [one["filter"]["rules"] for one in revisions] == [[], [{"name": "all"}]]
    assert [lane.filters.revision for lane in line.lanes] == [1, 2]
    assert line.deliver() == [[1, 2], [1, 2], [3, 4]]
    assert line.metrics.by("accepted", "b") == {"all": 1}
    assert line.metrics.by("accepted") == {"all": 3}
    assert line.metrics.by("rejected", "b") == {"no_rule": 1}


def test_the_metrics_have_each(line: Line) -> None:
    """The sums, and what is of the model `default`, stand where they are of one model; each under its name."""
    line.play(both(1), [steering("models/b/filter", {"rules": []})], both(3))
    line.play([steering("command", {"command": "status"})], [])
    (told,) = published(line, "command/response")
    assert told["counters"]["windows"] == 4
    assert (told["by_rule"], told["by_reason"]) == ({"all": 3}, {"no_rule": 1})
    assert (told["filter_revision"], told["models"]["b"]["filter_revision"]) == (1, 2)
    assert told["streams"] == 2
    of_b = told["models"]["b"]
    assert of_b["counters"] == {"windows": 2, "accepted": 1, "context": 0, "forgotten_streams": 0}
    assert (of_b["by_rule"], of_b["by_reason"], of_b["streams"]) == ({"all": 1}, {"no_rule": 1}, 1)
    assert of_b["model"] == told["model"]
    assert told["models"].keys() == {"default", "b"}


def test_pause_is_for_all(line: Line) -> None:
    """And so is resume."""
    line.play([steering("command", {"command": "pause"})], both(1))
    line.play([steering("command", {"command": "resume"})], both(3), [])
    assert line.deliver() == [[3, 4], [3, 4]]
    assert line.metrics.by("rejected") == {"disabled": 2}


def desire(hub: Hub, *, complete: bool = True, **properties: Any) -> Callable[[], None]:  # noqa: ANN401 - JSON
    """Return a step of a script in which the twin changes."""
    return lambda: hub.desire(complete=complete, **properties)


def test_a_twin_has_a_filter_for_each(line: Line) -> None:
    """`filter` is that of `default`; a name that there is not is told, and forgotten when it is gone."""
    hub = Hub(line.link)
    wanted = {"rules": [{"name": "one"}]}
    filters = {"b": {"rules": [{"name": "two"}]}, "c": wanted, "default": wanted}
    line.play(desire(hub, filter=wanted, filters=filters), [], [])
    assert [lane.filters.active.rules[0].name for lane in line.lanes] == ["one", "two"]
    assert hub.reported["filter"]["revision"] == hub.reported["filters"]["b"]["revision"] == 2
    assert hub.reported["models"] == {"b": {"name": "even", "sha256": "0"}}
    for name, text in (("c", "no such model"), ("default", "is the desired property filter")):
        (error,) = hub.reported["filters"][name]["errors"]
        assert text in error["message"]
    line.play(desire(hub, filter=wanted, filters={"b": {"rules": 7}}), [], [])
    assert hub.reported["filters"]["b"]["status"] == "rejected"
    assert hub.reported["filters"].get("c") is None
    line.play(desire(hub, filter=wanted), [], [])
    assert [lane.filters.active.rules[0].name for lane in line.lanes] == ["one", "all"]


@pytest.mark.parametrize(
    "garbage", [7, [], "x", {"b": "["}, {"b": object()}, {"b": {"rules": 10**5000}, "x" * 3000: 1}]
)
def test_garbage_for_filters_is_rejected(line: Line, garbage: Any) -> None:  # noqa: ANN401 - JSON
    """The filters in force stay, and what is reported is small enough."""
    hub = Hub(line.link)
    line.play(desire(hub, filters={"b": {"rules": [{"name": "two"}]}}), [], desire(hub, filters=garbage), [], [])
    assert line.lanes[1].filters.active.rules[0].name == "two"
    assert hub.reported["filters"]["b"]["status"] == "rejected"
    assert hub.reported["filters"]["b"]["errors"]
    assert len(json.dumps(hub.reported)) < 16_000


def test_a_twins_filters_survive_a_restart(tmp_path: Path) -> None:
    """A removal while we were away counts, for each."""
    line = Line(tmp_path, others={"b": B_SOURCE})
    wanted = {"b": {"rules": [{"name": "two"}]}}
    line.play(desire(Hub(line.link), filters=wanted), [], [])
    line.store.close()
    line = Line(tmp_path, others={"b": B_SOURCE})
    assert line.lanes[1].filters.revision == 2
    hub = Hub(line.link)
    line.play(desire(hub, filters=wanted), [], [])
    assert line.lanes[1].filters.revision == 2
    line.play(desire(hub), [], [])
    assert line.lanes[1].filters.active.rules[0].name == "all"
    line.store.close()
