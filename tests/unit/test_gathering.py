"""What leaves when: full parcels at once, others after their linger, and none because of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from processor.admission import ROW_OVERHEAD
from processor.gathering import Gathering
from processor.outbox import Waiting
from processor.protocols import Shipment
from tests.unit.test_delivery import Fake

SIZE = 100
"""Bytes of an event."""
ROOM = 10 * SIZE


def gathering(*, claims: int = 8, max_bytes: int = ROOM, samples: int = 1000, linger: float = 1.0) -> Gathering:
    """Return what gathers parcels of ten samples of a rule."""
    bridge = Fake(claims=claims)
    bridge.shipment = Shipment(samples=samples, max_bytes=max_bytes, linger=linger, claims=claims, overhead=0)
    return Gathering(bridge)


def waiting(rules: Sequence[str], first: int = 0) -> list[Waiting]:
    """Return numbered samples of these rules."""
    return [
        Waiting(first + n, f"{n}", rule, "label", "stream", "model", 0, 0, SIZE + ROW_OVERHEAD)
        for n, rule in enumerate(rules)
    ]


def sizes(parcels: Sequence[Sequence[Waiting]]) -> list[tuple[str, int]]:
    """Return the rule and the number of samples of each parcel."""
    return [(parcel[0].rule, len(parcel)) for parcel in parcels]


def test_full_parcels_leave_at_once_and_others_when_their_oldest_has_lingered() -> None:
    """A rule with few samples holds no other up, nor does it make another's parcel leave half full."""
    one = gathering()
    samples = waiting(["slow", *["fast"] * 25])
    assert sizes(one.choose(samples, 8, 0.0, more=False, at_once=False)) == [("fast", 10), ("fast", 10)]
    left = [samples[0], *samples[21:]]
    assert one.choose(left, 8, 0.9, more=False, at_once=False) == []
    more = [*left, *waiting(["fast"] * 5, 100)]
    assert sizes(one.choose(more, 8, 0.95, more=False, at_once=False)) == [("fast", 10)]
    assert sizes(one.choose([samples[0]], 8, 1.0, more=False, at_once=False)) == [("slow", 1)]


def test_all_leave_when_told_to_or_without_linger() -> None:
    """A flush, the end, and a bridge that does not wait."""
    samples = waiting(["a", "b", "a"])
    assert sizes(gathering().choose(samples, 8, 0.0, more=False, at_once=True)) == [("a", 2), ("b", 1)]
    assert sizes(gathering(linger=0.0).choose(samples, 8, 0.0, more=False, at_once=False)) == [("a", 2), ("b", 1)]


def test_no_more_parcels_leave_than_there_is_room_for() -> None:
    """The next look finds the rest, at once."""
    one = gathering()
    samples = waiting(["a"] * 40)
    assert len(one.choose(samples, 3, 0.0, more=False, at_once=False)) == 3
    assert one.seconds_until_due(10 * (SIZE + ROW_OVERHEAD), 0.0) == 0


def test_it_is_not_looked_at_what_waits_until_that_can_change_something() -> None:
    """Each look reads what waits from the store."""
    one = gathering()
    one.choose(waiting(["a"] * 4), 8, 0.0, more=False, at_once=False)
    seen = one.bytes
    assert one.seconds_until_due(seen, 0.0) == 1.0
    assert 0 < one.seconds_until_due(seen + 1, 0.0) < 1.0, "it may be of another rule"
    assert one.seconds_until_due(seen + 6 * (SIZE + ROW_OVERHEAD), 0.0) == 0, "the parcel may be full"
    assert one.seconds_until_due(seen, 1.0) == 0
    one.forget()
    assert one.seconds_until_due(1, 0.0) == 0


def test_where_more_waits_than_is_looked_at_something_leaves() -> None:
    """Even if none of it is full: more rules than parcels."""
    samples = waiting([f"rule-{n}" for n in range(50)])
    assert len(gathering().choose(samples, 8, 0.0, more=True, at_once=False)) == 1


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=300),
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 30), st.floats(0.0, 0.5)), max_size=30),
)
def test_every_sample_leaves_once_and_in_order(rules: list[str], free: int, arrivals: list[tuple[int, float]]) -> None:
    """Whenever it comes; a parcel holds one rule and is no larger than it may be."""
    one = gathering(claims=free)
    samples = waiting(rules)
    there: list[Waiting] = []
    left: list[Waiting] = []
    now = 0.0
    steps = [*arrivals, (len(samples), 0.0), *[(0, 0.5)] * (10 + len(samples))]
    for count, passed in steps:
        now += passed
        there += samples[len(there) + len(left) :][:count]
        if not there:
            continue
        for parcel in one.choose(there, free, now, more=False, at_once=False):
            assert len({sample.rule for sample in parcel}) == 1
            assert len(parcel) <= 10
            left += parcel
        gone = {sample.seq for sample in left}
        there = [sample for sample in there if sample.seq not in gone]
    assert Counter(sample.seq for sample in left) == Counter(range(len(samples)))
    for rule in "abc":
        order = [sample.seq for sample in left if sample.rule == rule]
        assert order == sorted(order)
