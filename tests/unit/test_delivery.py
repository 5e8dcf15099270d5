"""From the outbox to the other side: everything arrives, whatever fails on the way."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from processor.admission import Bounds
from processor.bridges.files import FilesBridge
from processor.clock import SystemClock
from processor.database import FILE_NAME
from processor.deadletters import read
from processor.delivery import Delivery
from processor.errors import BridgeError
from processor.outbox import Claim, Waiting
from processor.protocols import Bridge, Handover, Shipment
from processor.store import Changes, Store
from processor.types import NS, Sample
from tests.handover import Recorder

DAY = 86400 * NS


def samples(first: int, count: int, time: int = DAY, rule: str = "rule") -> list[Sample]:
    """Return numbered samples of one time."""
    return [
        Sample(f"{n:032x}", rule, "label", "stream", "model", time, 0, json.dumps({"n": n}).encode())
        for n in range(first, first + count)
    ]


@contextmanager
def delivering(directory: Path, bridge: Bridge) -> Iterator[tuple[Store, Delivery]]:
    """Run a delivery thread over a store."""
    store = Store(directory / "state", durability="normal", bounds=Bounds(1 << 30, DAY, "block"), bridges=["one"])
    delivery = Delivery("one", bridge, store.outbox("one"), SystemClock())
    thread = threading.Thread(target=delivery.run)
    thread.start()
    try:
        yield store, delivery
    finally:
        delivery.stop()
        thread.join()
        store.close()


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.005)


def lines(directory: Path) -> list[int]:
    """Return the numbers in finished files, file by file."""
    files = sorted(directory.glob("date=*/*.jsonl"), key=lambda path: path.name)
    return [json.loads(line)["n"] for file in files for line in file.read_text().splitlines()]


class Fake:
    """A bridge whose other side does as told.

    Attributes:
        failures: deliveries to fail from now on, each after a third of its samples.
        refuses: samples it never takes.
        holds: rules that it does not take now.
        arrived: what it took, in order.
        deliveries: the numbers in each claim it was given, with the claim's name.
        meanwhile: called when it has read the events of a claim.
    """

    def __init__(self, *, failures: int = 0, refuses: Collection[int] = (), claims: int = 0) -> None:
        self.shipment = Shipment(samples=10, max_bytes=1 << 20, linger=0.0, claims=claims)
        self.failures = failures
        self.refuses = refuses
        self.holds: set[str] = set()
        self.arrived: list[int] = []
        self.deliveries: list[list[tuple[str, list[int]]]] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def together(self, first: Waiting, other: Waiting) -> bool:
        """What is of one rule goes together, where it is claimed."""
        return not self.shipment.claims or first.rule == other.rule

    def name(self, first: Waiting) -> str:
        """Name it by its first sample."""
        return f"from {first.seq}"

    def deliver(self, claims: Sequence[Claim], handover: Handover) -> None:
        """Take all but what it refuses and holds, or the first of them and fail."""
        self.deliveries.append([])
        for claim in claims:
            events = {sample: json.loads(event)["n"] for sample, event in handover.events(claim.samples)}
            self.deliveries[-1].append((claim.name, list(events.values())))
            self.meanwhile()
            taken = []
            for sample, n in events.items():
                if n in self.refuses:
                    handover.refuse(sample, "too odd")
                elif sample.rule in self.holds:
                    handover.hold(sample, f"not allowed: {sample.rule}")
                else:
                    taken.append(sample)
            if self.failures:
                self.failures -= 1
                taken = taken[: len(taken) // 3]
                self.arrived += [events[sample] for sample in taken]
                handover.confirm(claim, taken)
                raise BridgeError("the other side is away")
            self.arrived += [events[sample] for sample in taken]
            if len(taken) == len(events):
                handover.confirm(claim)
            else:
                handover.confirm(claim, taken)

    def figures(self) -> Mapping[str, float]:
        """It counts nothing."""
        return {}

    def idle(self) -> None:
        """Nothing to keep alive."""

    def close(self) -> None:
        """Nothing is held."""


def test_files_hold_every_sample_once_in_order(tmp_path: Path) -> None:
    """Committed while delivery is underway."""
    bridge = FilesBridge(tmp_path / "out", "p", max_bytes=1 << 20, max_age=0.05)
    with delivering(tmp_path, bridge) as (store, delivery):
        for first in range(0, 500, 50):
            store.commit(Changes(samples=samples(first, 50)), 0)
            delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
    assert lines(tmp_path / "out") == list(range(500))


def test_files_are_finished_by_age_size_flush_and_stop(tmp_path: Path) -> None:
    """And not before."""
    bridge = FilesBridge(tmp_path / "out", "p", max_bytes=3000, max_age=3600)
    with delivering(tmp_path, bridge) as (store, delivery):
        store.commit(Changes(samples=samples(0, 5)), 0)
        delivery.notify()
        wait_until(lambda: delivery.state.waiting == 5)
        assert lines(tmp_path / "out") == []
        number = delivery.flush()
        wait_until(lambda: delivery.flushed(number))
        assert lines(tmp_path / "out") == list(range(5))
        store.commit(Changes(samples=samples(5, 20)), 0)
        delivery.notify()
        wait_until(lambda: len(lines(tmp_path / "out")) > 5)
    assert lines(tmp_path / "out") == list(range(25))


def test_files_are_kept_by_the_utc_date_of_their_samples(tmp_path: Path) -> None:
    """Whatever the order they came in."""
    bridge = FilesBridge(tmp_path / "out", "p", max_bytes=1 << 20, max_age=3600)
    with delivering(tmp_path, bridge) as (store, _):
        store.commit(Changes(samples=samples(0, 2) + samples(2, 2, 2 * DAY) + samples(4, 2, 2 * DAY - 1)), 0)
    found = {path.parent.name: path.read_text().count("\n") for path in (tmp_path / "out").glob("*/*.jsonl")}
    assert found == {"date=1970-01-02": 4, "date=1970-01-03": 2}


def test_a_file_that_was_renamed_but_not_confirmed_is_written_again_alike(tmp_path: Path) -> None:
    """The crash between rename and confirmation: one file, not two."""
    bridge = FilesBridge(tmp_path / "out", "p", max_bytes=1 << 20, max_age=3600)
    store = Store(tmp_path / "state", durability="normal", bounds=Bounds(1 << 30, DAY, "block"), bridges=["one"])
    store.commit(Changes(samples=samples(0, 3)), 0)
    outbox = store.outbox("one")
    outbox.open()
    waiting = outbox.peek(10, 1 << 20)
    claims = outbox.claim([(bridge.name(waiting[0]), waiting)])
    bridge.deliver(claims, Recorder(outbox))
    store.commit(Changes(samples=samples(3, 2)), 0)
    outbox.close()
    store.close()
    assert lines(tmp_path / "out") == [0, 1, 2]
    with delivering(tmp_path, bridge):
        pass
    assert lines(tmp_path / "out") == list(range(5))
    assert len(list((tmp_path / "out").rglob("*.jsonl"))) == 2


def test_a_directory_that_cannot_be_written_loses_nothing(tmp_path: Path) -> None:
    """The error is told, the samples wait, and go out when it is mended."""
    out = tmp_path / "out"
    out.write_text("a file where the directory should be")
    bridge = FilesBridge(out, "p", max_bytes=1 << 20, max_age=0.01)
    with delivering(tmp_path, bridge) as (store, delivery):
        store.commit(Changes(samples=samples(0, 3)), 0)
        delivery.notify()
        wait_until(lambda: delivery.state.failures)
        assert "cannot be written" in (delivery.state.error or "")
        assert store.totals.rows == 3
        out.unlink()
        wait_until(lambda: store.totals.rows == 0)
        wait_until(lambda: delivery.state.error is None)
    assert lines(out) == [0, 1, 2]


def test_what_was_confirmed_before_a_failure_does_not_come_again(tmp_path: Path) -> None:
    """The rest does, in order."""
    bridge = Fake(failures=2)
    with delivering(tmp_path, bridge) as (store, delivery):
        store.commit(Changes(samples=samples(0, 25)), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        assert delivery.state.failures == 2
    assert bridge.arrived == list(range(25))
    assert delivery.state.delivered == 25


def test_what_arrived_is_not_sent_again_while_the_store_cannot_take_note(tmp_path: Path) -> None:
    """Only the note is tried again, and then the rest goes on."""
    bridge = Fake()
    with (
        delivering(tmp_path, bridge) as (store, delivery),
        closing(sqlite3.connect(tmp_path / "state" / FILE_NAME)) as db,
    ):
        db.execute("CREATE TRIGGER stuck BEFORE DELETE ON delivery BEGIN SELECT RAISE(ABORT, 'stuck'); END")
        store.commit(Changes(samples=samples(0, 25)), 0)
        delivery.notify()
        wait_until(lambda: delivery.state.failures >= 2)
        assert bridge.arrived == list(range(10))
        assert (delivery.state.delivered, store.totals.rows) == (0, 25)
        db.execute("DROP TRIGGER stuck")
        wait_until(lambda: store.totals.rows == 0)
        wait_until(lambda: delivery.state.error is None)
    assert bridge.arrived == list(range(25))
    assert delivery.state.delivered == 25


def test_what_a_bridge_refuses_for_good_becomes_a_dead_letter(tmp_path: Path) -> None:
    """It is counted as lost, and nothing behind it waits for it; also when the delivery fails all the same."""
    bridge = Fake(failures=1, refuses={2, 13})
    with delivering(tmp_path, bridge) as (store, delivery):
        store.commit(Changes(samples=samples(0, 25)), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
        assert store.totals.undeliverable == 2
    assert bridge.arrived == [n for n in range(25) if n not in {2, 13}]
    assert delivery.state.delivered == 23
    letters = [(letter.reason, letter.topic, letter.detail, letter.payload) for letter in read(tmp_path / "state")]
    assert letters == [
        ("undeliverable", "stream", "too odd", b'{"n": 2}'),
        ("undeliverable", "stream", "too odd", b'{"n": 13}'),
    ]


def test_what_the_other_side_does_not_take_now_lets_the_rest_pass(tmp_path: Path) -> None:
    """More of it than fits into a delivery, and of one priority; it is tried again, and goes when that is mended."""
    bridge = Fake()
    bridge.holds = {"bad", "worse"}
    with delivering(tmp_path, bridge) as (store, delivery):
        store.commit(Changes(samples=samples(0, 30, rule="bad") + samples(30, 5, rule="worse")), 0)
        store.commit(Changes(samples=samples(35, 15, rule="good")), 0)
        delivery.notify()
        wait_until(lambda: bridge.arrived == list(range(35, 50)))
        assert delivery.state.error is not None
        assert set(delivery.state.error.split("; ")) == {"not allowed: bad", "not allowed: worse"}
        number = delivery.flush()
        wait_until(lambda: delivery.flushed(number))
        assert delivery.state.waiting == 35
        store.commit(Changes(samples=samples(50, 1, rule="good")), 0)
        delivery.notify()
        wait_until(lambda: bridge.arrived[-1] == 50)
        failures = delivery.state.failures
        wait_until(lambda: delivery.state.failures >= failures + 2)
        bridge.holds = {"worse"}
        wait_until(lambda: store.totals.rows == 5)
        wait_until(lambda: delivery.state.error == "not allowed: worse")
        assert bridge.arrived[16:] == list(range(30))
        bridge.holds = set()
        wait_until(lambda: store.totals.rows == 0)
        wait_until(lambda: delivery.state.error is None)
    assert sorted(bridge.arrived) == list(range(51))


def test_only_what_a_bridge_still_had_to_confirm_counts_as_delivered(tmp_path: Path) -> None:
    """What aged out while it was underway is counted there, and not twice."""
    bridge = Fake()
    with delivering(tmp_path, bridge) as (store, delivery):
        bridge.meanwhile = lambda: store.tidy(2 * DAY)
        store.commit(Changes(samples=samples(0, 4)), 0)
        store.commit(Changes(samples=samples(4, 6)), 2 * DAY)
        delivery.notify()
        wait_until(lambda: delivery.state.delivered)
        assert (delivery.state.delivered, store.totals.expired, store.totals.rows) == (6, 4, 0)
    assert bridge.arrived == list(range(10))


def test_what_is_claimed_together_stays_together(tmp_path: Path) -> None:
    """Several claims at once, each of what goes together; after failures and a restart they are the same ones."""
    bridge = Fake(failures=1_000_000, claims=3)
    mixed = [samples(n, 1, rule="ab"[n % 2])[0] for n in range(8)] + samples(8, 40, rule="c")
    with delivering(tmp_path, bridge) as (store, delivery):
        store.commit(Changes(samples=mixed), 0)
        delivery.notify()
        wait_until(lambda: delivery.state.failures >= 1)
        store.commit(Changes(samples=samples(48, 5, rule="a")), 0)
    assert bridge.arrived[:1] == [0]
    bridge = Fake(claims=3)
    with delivering(tmp_path, bridge) as (store, _):
        wait_until(lambda: store.totals.rows == 0)
    first, *others = bridge.deliveries
    assert [name for name, _ in first] == ["from 1", "from 2", "from 9"]
    assert first[0][1] in ([2, 4, 6], [4, 6], [6]), "less what was confirmed by itself, and nothing more"
    assert first[1:] == [("from 2", [1, 3, 5, 7]), ("from 9", list(range(8, 18)))]
    assert [n for delivery in others for _, numbers in delivery for n in numbers] == [*range(18, 53)]
    assert all(len(delivery) <= 3 for delivery in bridge.deliveries)


def test_what_was_confirmed_leaves_while_a_long_delivery_goes_on(tmp_path: Path) -> None:
    """A bridge that is slow, or limits its rate, takes its time; the outbox does not wait for it."""
    bridge = Fake()
    left: list[int] = []

    class Slow(Fake):
        """Confirms its first sample, and ends when that has left."""

        def deliver(self, claims: Sequence[Claim], handover: Handover) -> None:
            if not left:
                deadline = time.monotonic() + 10
                while store.totals.rows == 5 and time.monotonic() < deadline:
                    handover.confirm(claims[0], claims[0].samples[:1])
                    time.sleep(0.01)  # between two answers
                left.append(store.totals.rows)
            super().deliver(claims, handover)

    bridge = Slow()
    with delivering(tmp_path, bridge) as (store, delivery):
        store.commit(Changes(samples=samples(0, 5)), 0)
        delivery.notify()
        wait_until(lambda: store.totals.rows == 0)
    assert left == [4]
    assert delivery.state.delivered == 5


def test_what_cannot_be_delivered_at_the_end_stays(tmp_path: Path) -> None:
    """Stopping is prompt, and the outbox keeps the rest."""
    bridge = Fake(failures=1_000_000)
    with delivering(tmp_path, bridge) as (store, delivery):
        store.commit(Changes(samples=samples(0, 10)), 0)
        delivery.notify()
        wait_until(lambda: delivery.state.failures)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    store = Store(tmp_path / "state", durability="normal", bounds=Bounds(1 << 30, DAY, "block"), bridges=["one"])
    assert 0 < store.totals.rows <= 7
    store.close()


def test_a_stop_that_comes_as_the_thread_looks_around_is_not_slept_through(tmp_path: Path) -> None:
    """With nothing to deliver it would sleep for an hour."""
    store = Store(tmp_path / "state", durability="normal", bounds=Bounds(1 << 30, DAY, "block"), bridges=["one"])
    delivery = Delivery("one", Fake(), store.outbox("one"), SystemClock())

    class Interrupting(threading.Event):
        """Is cleared just after someone else has said stop."""

        def clear(self) -> None:
            delivery.stop()
            super().clear()

    delivery._wake = Interrupting()
    thread = threading.Thread(target=delivery.run, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    store.close()
