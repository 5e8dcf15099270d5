"""What the broker keeps for us, and what it tells of having lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from processor.metrics import Metrics
from processor.session import DROPPED_TOPIC, BrokerSession
from processor.types import Message


class Run:
    """One run of a processor, as far as its session goes."""

    def __init__(self, before: Run | None = None, filters: Sequence[str] = ("a",), *, wanted: bool = True) -> None:
        kept: dict[str, Any] | None = None if before is None else json.loads(json.dumps(before.session.memory()))
        self.metrics = Metrics()
        self.session: BrokerSession = BrokerSession(kept, filters, wanted=wanted, metrics=self.metrics)

    def held(self) -> tuple[str, ...]:
        """Return the filters in the order in which their copies count."""
        return self.session.held

    def dropped(self, *totals: object) -> int:
        """Let the broker say how many it has dropped; return how many were counted in all."""
        for total in totals:
            self.session.take(Message(DROPPED_TOPIC, str(total).encode()))
        return self.metrics.total("broker_dropped_messages")

    def lost(self, *, session_present: bool) -> int:
        """Connect; return how many sessions were counted lost."""
        self.session.connected(session_present=session_present)
        return self.metrics.total("lost_sessions")


def test_filters_that_left_count_until_all_from_before_has_come_and_are_dropped_then() -> None:
    """Also when the process that should have dropped them was killed."""
    first = Run(filters=["a", "b"])
    first.lost(session_present=False)
    first.session.settle()
    killed = Run(first, ["b", "c"])
    assert (killed.session.left, killed.session.leaving) == (["a"], [])
    second = Run(killed, ["b", "c"])
    assert second.held() == ("a", "b", "c")
    assert second.session.to_subscribe() == ["b", "c"]
    assert second.session.settle()
    assert (second.session.left, second.session.leaving) == ([], ["a"])
    assert second.held() == ("b", "c", "a")
    third = Run(second, ["b", "c"])
    assert third.session.settle()
    assert third.session.leaving == ["a"]
    third.session.unsubscribed()
    last = Run(third, ["b", "c"])
    assert last.held() == ("b", "c", "a")
    last.session.settle()
    assert last.held() == ("b", "c")
    assert last.session.all_settled


def test_what_was_retained_is_settled_by_filter_and_session() -> None:
    """A filter that is new to the configuration has retained messages of its own; so has a new session."""
    first = Run(filters=["a", "b"])
    first.lost(session_present=False)
    assert not first.session.is_settled("a")
    assert first.session.settle()
    assert not first.session.settle()
    second = Run(first, ["a", "c/#"])
    second.lost(session_present=True)
    assert second.session.is_settled("a")
    assert not second.session.is_settled("b")
    assert not second.session.is_settled("c/1")
    assert second.session.settle()
    assert second.session.is_settled("c/1")
    second.lost(session_present=False)
    assert not second.session.is_settled("a")


def test_a_filter_that_came_back_is_kept() -> None:
    """Between two changes of the configuration nothing had been dropped yet."""
    killed = Run(Run(filters=["a", "b"]), ["b"])
    assert Run(killed, ["a", "b"]).session.left == []


def test_a_new_session_has_no_old_filters() -> None:
    """The broker made it for us just now."""
    run = Run(Run(filters=["a"]), ["b"])
    run.lost(session_present=False)
    assert Run(run, ["b"]).session.left == []


def test_a_session_that_was_not_kept_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """But not at the first start, when there was none."""
    first = Run()
    assert first.lost(session_present=False) == 0
    assert first.lost(session_present=True) == 0
    assert not caplog.text
    assert Run(first).lost(session_present=False) == 1
    assert "lost" in caplog.text


def test_without_a_session_none_is_missed() -> None:
    """`session_expiry: 0` asks for none."""
    first = Run(wanted=False)
    first.lost(session_present=False)
    assert Run(first, wanted=False).lost(session_present=False) == 0


def test_what_the_broker_dropped_is_counted_from_when_we_first_looked(caplog: pytest.LogCaptureFixture) -> None:
    """Over restarts of ours, and of the broker, which begins again at 0."""
    first = Run()
    assert first.dropped(7) == 0
    assert not caplog.text
    assert first.dropped(7, 10) == 3
    assert "dropped 3 messages" in caplog.text
    assert Run(first).dropped(15) == 5
    assert Run(first).dropped(4) == 4


@pytest.mark.parametrize("nonsense", ["", "-1", "1.5", "many", "9" * 30, "٣"])
def test_what_is_no_number_is_passed_over(nonsense: str) -> None:
    """A broker may write what it likes there."""
    run = Run()
    assert run.dropped(1, nonsense, 2) == 1
