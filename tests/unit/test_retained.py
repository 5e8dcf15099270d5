"""Which retained messages were read before."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from processor.metrics import Metrics
from processor.receipts import Receipts, pack
from processor.retained import RetainedCopies
from processor.session import BrokerSession
from processor.types import Message

IDENTIFIED = b"\x0b\x01"
"""Properties with a subscription identifier."""


class Bench:
    """A session on one filter, and what was taken in during it."""

    def __init__(self, *, mqtt_5: bool = False) -> None:
        self.session = BrokerSession(None, ["plant/+"], wanted=True, metrics=Metrics())
        self.receipts = Receipts()
        self.copies = RetainedCopies(self.session, self.receipts, mqtt_5=mqtt_5)


def retained(payload: bytes = b"1", mid: int = 1, *, dup: bool = False, properties: bytes = b"") -> Message:
    """Return a retained message."""
    return Message("plant/1", payload, 1, mid, retain=True, dup=dup, properties=properties)


@pytest.mark.parametrize("dup", [False, True])
def test_what_a_kept_session_still_holds_of_its_first_subscribe_is_new(dup: bool) -> None:
    """Whether it was sent before or not: the processor was killed before it could take it in."""
    assert not Bench().copies.came_before(retained(dup=dup), [])


@pytest.mark.parametrize("dup", [False, True])
def test_a_copy_of_what_was_taken_in_is_known(dup: bool) -> None:
    """The processor was killed, and subscribed again; the copies have other identifiers."""
    bench = Bench()
    bench.receipts.committed(pack([retained(mid=1)]))
    assert bench.copies.came_before(retained(mid=2, dup=dup), [])
    assert not bench.copies.came_before(retained(b"2", mid=2, dup=dup), [])


def test_a_copy_of_what_is_in_the_same_batch_is_known() -> None:
    """Be that a live one, without the flag."""
    live = replace(retained(), retain=False)
    assert Bench().copies.came_before(retained(mid=2), [live])
    assert not Bench().copies.came_before(retained(mid=2), [replace(live, topic="plant/2")])


def test_once_the_first_are_on_disk_nothing_retained_is_new() -> None:
    """However long ago it was taken in."""
    bench = Bench()
    bench.session.settle()
    assert bench.copies.came_before(retained(dup=True), [])
    bench.session.connected(session_present=False)
    assert not bench.copies.came_before(retained(), [])


def test_mqtt_5_sends_them_with_new_subscriptions_only() -> None:
    """Where several match, their identifiers tell the copies; without those, the content does."""
    copies = Bench(mqtt_5=True).copies
    assert not copies.can_come(retained(), overlapping=False)
    assert not copies.can_come(retained(properties=IDENTIFIED), overlapping=True)
    assert copies.can_come(retained(), overlapping=True)
    assert Bench().copies.can_come(retained(), overlapping=False)
