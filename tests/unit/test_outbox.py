"""One bridge's view of the outbox: what it gives, what a claim fixes, and what an interruption leaves."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from processor import deadletters
from processor.admission import Bounds, Queue, WhenFull
from processor.database import FILE_NAME, WriteLock
from processor.errors import StateError
from processor.outbox import Outbox, Waiting
from processor.store import Changes, Store
from processor.types import NS, Sample

MANY = 3500
"""Samples that take several transactions to claim or to confirm."""
ALL = 1 << 40


def open_store(
    directory: Path, bridges: Sequence[str] = ("files",), max_bytes: int = 1 << 30, when_full: WhenFull = "drop_oldest"
) -> Store:
    """Open the state."""
    return Store(directory, durability="normal", bounds=Bounds(max_bytes, 10 * NS, when_full), bridges=bridges)


@contextmanager
def opened(directory: Path, bridges: Sequence[str] = ("files",)) -> Iterator[tuple[Store, Outbox]]:
    """Open the state, and the first bridge's view of it."""
    store = open_store(directory, bridges)
    outbox = store.outbox(bridges[0])
    outbox.open()
    try:
        yield store, outbox
    finally:
        outbox.close()
        store.close()


def samples(count: int, rule: str = "rule", priority: int = 0) -> list[Sample]:
    """Return samples that differ in nothing."""
    return [Sample("id", rule, "label", "stream", "model", 0, priority, b"{}")] * count


def numbers(waiting: Sequence[Waiting]) -> list[int]:
    """Return the samples' places in the outbox."""
    return [sample.seq for sample in waiting]


@contextmanager
def failing(directory: Path, statement: str) -> Iterator[None]:
    """Let the store fail in the middle of something, as a full disk or a power cut does."""
    with closing(sqlite3.connect(directory / FILE_NAME)) as db:
        db.execute(f"CREATE TRIGGER stuck BEFORE {statement} BEGIN SELECT RAISE(ABORT, 'stuck'); END")
        yield
        db.execute("DROP TRIGGER stuck")


def in_claims(directory: Path) -> tuple[int, int]:
    """Return how many claims there are, and how many samples are marked."""
    with closing(sqlite3.connect(directory / FILE_NAME)) as db:
        (claims,) = db.execute("SELECT count(*) FROM claims").fetchone()
        (marked,) = db.execute("SELECT count(*) FROM delivery WHERE claim IS NOT NULL").fetchone()
    return claims, marked


def test_a_claim_is_what_the_store_has_of_it(tmp_path: Path) -> None:
    """What was displaced or has aged out since it was looked at is in none; nothing is claimed empty."""
    with opened(tmp_path) as (store, outbox):
        store.commit(Changes(samples=samples(2)), 0)
        store.commit(Changes(samples=samples(2)), 5 * NS)
        waiting = outbox.peek(10, ALL)
        store.tidy(11 * NS)
        made = outbox.claim([("gone", waiting[:1]), ("half", waiting[1:3]), ("whole", waiting[3:])])
        assert [(claim.name, numbers(claim.samples)) for claim in made] == [("half", [3]), ("whole", [4])]
        assert outbox.claimed(10) == made
        assert in_claims(tmp_path) == (2, 2)


def test_what_is_gone_is_no_dead_letter(tmp_path: Path) -> None:
    """It was counted where it left."""
    with opened(tmp_path, ("files", "other")) as (store, outbox):
        store.commit(Changes(samples=samples(3)), 0)
        waiting = outbox.peek(10, ALL)
        outbox.confirm(waiting[:1])  # the other bridge still has to
        outbox.bury([(sample, "too large") for sample in waiting[:2]], 0)
        store.tidy(11 * NS)
        outbox.bury([(sample, "too large") for sample in waiting], 0)
        assert (store.totals.undeliverable, store.totals.expired) == (1, 3)
    assert len(list(deadletters.read(tmp_path))) == 1


@contextmanager
def steps(db: sqlite3.Connection) -> Iterator[list[int]]:
    """Count what a connection does, in hundreds of SQLite's own steps: the same on every machine."""
    count = [0]

    def step() -> int:
        count[0] += 1
        return 0

    db.set_progress_handler(step, 100)
    yield count
    db.set_progress_handler(None, 0)


@pytest.mark.parametrize("restart", [False, True])
def test_a_claim_that_was_half_made_is_as_if_it_had_never_been(tmp_path: Path, restart: bool) -> None:
    """Whether the process went on or was started again: nothing is claimed, everything waits."""
    with opened(tmp_path) as (store, outbox):
        store.commit(Changes(samples=samples(MANY)), 0)
        waiting = outbox.peek(MANY, ALL)
        with failing(tmp_path, "UPDATE OF claim ON delivery WHEN OLD.seq > 2500"), pytest.raises(sqlite3.Error):
            outbox.claim([("one", waiting)])
        assert in_claims(tmp_path) == (1, 2500)
        if not restart:
            assert outbox.claimed() == []
            assert outbox.peek(MANY, ALL) == waiting
            assert in_claims(tmp_path) == (0, 0)
    with opened(tmp_path) as (_, outbox):
        assert outbox.claimed() == []
        assert outbox.peek(MANY, ALL) == waiting
        (claim,) = outbox.claim([("two", waiting)])
        assert outbox.claimed() == [claim]
    assert in_claims(tmp_path) == (1, MANY)


def test_a_claim_is_confirmed_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    """A crash half-way through the confirmation: none of it is given again, and all of it leaves."""
    with opened(tmp_path) as (store, outbox):
        store.commit(Changes(samples=samples(MANY + 1)), 0)
        first, second = outbox.claim([("one", outbox.peek(MANY, ALL)), ("two", outbox.peek(MANY + 1, ALL)[-1:])])
        with failing(tmp_path, "DELETE ON delivery WHEN OLD.seq > 2500"), pytest.raises(sqlite3.Error):
            outbox.confirm(first.samples, first.number)
        assert (outbox.confirmed, outbox.waiting, store.totals.rows) == (2500, 1001, 1001)
    with opened(tmp_path) as (store, outbox):
        assert outbox.claimed(10) == [second]
        assert (outbox.waiting, store.totals.rows, in_claims(tmp_path)) == (1, 1, (1, 1))


def test_the_number_of_a_claim_is_not_given_again_while_samples_carry_it(tmp_path: Path) -> None:
    """Of two bridges: one has half confirmed its claim, and the other makes one."""
    with opened(tmp_path, ("files", "other")) as (store, outbox):
        store.commit(Changes(samples=samples(MANY)), 0)
        (claim,) = outbox.claim([("one", outbox.peek(MANY, ALL))])
        with failing(tmp_path, "DELETE ON delivery WHEN OLD.seq > 2500"), pytest.raises(sqlite3.Error):
            outbox.confirm(claim.samples, claim.number)
        other = store.outbox("other")
        other.open()
        (others,) = other.claim([("others", other.peek(MANY, ALL))])
        outbox.confirm(claim.samples, claim.number)
        assert other.claimed() == [others]
        assert len(others.samples) == store.totals.rows == MANY
        other.close()


def test_who_waits_for_the_lock_is_next() -> None:
    """Not the one who has just given it back and wants it again, as with an ordinary lock."""
    lock = WriteLock()
    stop = threading.Event()
    turns = 0

    def keep_writing() -> None:
        nonlocal turns
        while not stop.is_set():
            with lock:
                turns += 1
                stop.wait(0.001)  # others run meanwhile, as while SQLite works

    thread = threading.Thread(target=keep_writing)
    thread.start()
    waited = []
    for _ in range(101):
        stop.wait(0.0025)
        before = turns
        with lock:
            waited.append(turns - before)
    stop.set()
    thread.join()
    assert sorted(waited)[50] == 0


def test_the_store_goes_on_while_many_samples_are_claimed_and_confirmed(tmp_path: Path) -> None:
    """They take the lock for a part of them at a time, eighty times, and who waits for it gets it in between."""
    with opened(tmp_path) as (store, outbox):
        store.commit(Changes(samples=samples(20_000)), 0)
        waiting = outbox.peek(20_000, ALL)
        stop = threading.Event()
        commits = 0

        def commit() -> None:
            nonlocal commits
            while not stop.is_set():
                store.commit(Changes(meta={"n": commits}), 0)
                commits += 1

        thread = threading.Thread(target=commit)
        thread.start()
        before = commits
        (claim,) = outbox.claim([("one", waiting)])
        between = commits
        outbox.confirm(claim.samples, claim.number)
        after = commits
        stop.set()
        thread.join()
    assert between - before > 40
    assert after - between > 40


def test_a_bridge_that_no_longer_claims_gets_what_it_had_claimed(tmp_path: Path) -> None:
    """A name may be given to a bridge of another type."""
    with opened(tmp_path) as (store, outbox):
        store.commit(Changes(samples=samples(3)), 0)
        outbox.claim([("one", outbox.peek(2, ALL))])
        other_type = store.outbox("files")
        other_type.open(claims=False)
        assert numbers(other_type.peek(10, ALL)) == [1, 2, 3]
        other_type.close()


def test_a_claim_of_which_each_sample_was_settled_is_gone(tmp_path: Path) -> None:
    """One confirmed, one a dead letter; it is not given again, empty."""
    with opened(tmp_path) as (store, outbox):
        store.commit(Changes(samples=samples(2)), 0)
        (claim,) = outbox.claim([("one", outbox.peek(2, ALL))])
        outbox.confirm(claim.samples[:1])
        (left,) = outbox.claimed()
        assert (left.name, numbers(left.samples)) == ("one", [2])
        outbox.bury([(claim.samples[1], "too large")], 0)
        assert outbox.claimed() == []
        assert in_claims(tmp_path) == (0, 0)


def test_a_claim_that_was_settled_does_not_hide_those_behind_it(tmp_path: Path) -> None:
    """It is as if it were not there, also to a bridge that asks for one claim."""
    with opened(tmp_path) as (store, outbox):
        store.commit(Changes(samples=samples(3)), 0)
        first, second, third = outbox.claim([(f"{one.seq}", [one]) for one in outbox.peek(3, ALL)])
        outbox.confirm(first.samples)
        assert outbox.claimed(1) == [second]
        outbox.confirm(second.samples)
        assert outbox.claimed(2) == [third]
        outbox.confirm(third.samples)
        assert outbox.claimed() == []
        assert in_claims(tmp_path) == (0, 0)


def test_samples_of_hidden_rules_are_left_out_until_they_are_hidden_no_more(tmp_path: Path) -> None:
    """Also newcomers of either priority; the order is otherwise as ever."""
    with opened(tmp_path) as (store, outbox):
        store.commit(Changes(samples=samples(3, "bad") + samples(2, "good") + samples(1, "bad", 5)), 0)
        assert numbers(outbox.peek(10, ALL)) == [6, 1, 2, 3, 4, 5]
        assert numbers(outbox.peek(10, ALL, ["bad"])) == [4, 5]
        assert outbox.peek(10, ALL, ["bad", "good"]) == []
        store.commit(Changes(samples=samples(1, "new", 5) + samples(1, "bad", 5) + samples(1, "good")), 0)
        assert numbers(outbox.peek(10, ALL, ["bad", "good"])) == [7]
        assert numbers(outbox.peek(10, ALL, ["bad"])) == [7, 4, 5, 9]
        assert numbers(outbox.peek(1, ALL, ["bad"])) == [7]
        assert numbers(outbox.peek(10, ALL)) == [6, 7, 8, 1, 2, 3, 4, 5, 9]


def test_what_is_hidden_is_not_looked_at_again(tmp_path: Path) -> None:
    """With a million samples of a topic without permission, the others still leave at once."""
    with opened(tmp_path) as (store, outbox):
        for _ in range(20):
            store.commit(Changes(samples=samples(1000, "bad")), 0)
        with steps(outbox._db) as count:  # its own connection is the one that counts
            assert outbox.peek(10, ALL, ["bad"]) == []
            first, count[0] = count[0], 0
            store.commit(Changes(samples=samples(1, "good")), 0)
            assert numbers(outbox.peek(10, ALL, ["bad"])) == [20_001]
            assert count[0] < first / 100


def test_claims_in_the_way_cost_little(tmp_path: Path) -> None:
    """The outbox is full, and a bridge that gets nowhere claims all of the oldest."""
    with opened(tmp_path) as (store, outbox):
        store.commit(Changes(samples=samples(4000)), 0)
        full = store.totals.bytes
    claimed = 3900
    store = open_store(tmp_path, max_bytes=full)
    outbox = store.outbox("files")
    outbox.open()
    outbox.claim([("one", outbox.peek(claimed, ALL))])
    with steps(store._connection) as count:  # its own connection is the one that counts
        store.commit(Changes(samples=samples(10)), 0)
        assert count[0] < claimed
        store.tidy(20 * NS)
        assert count[0] < 2 * claimed
    assert store.totals.displaced == 10
    outbox.close()
    store.close()


def test_what_is_behind_a_claim_expires(tmp_path: Path) -> None:
    """Some at a time; what is claimed expires when it is claimed no more."""
    with opened(tmp_path) as (store, outbox):
        store.commit(Changes(samples=samples(2 * MANY)), 0)
        store.commit(Changes(samples=samples(1)), 15 * NS)
        (claim,) = outbox.claim([("one", outbox.peek(MANY, ALL))])
        rounds = 0
        while store.tidy(20 * NS):
            rounds += 1
        assert (store.totals.expired, store.totals.rows) == (MANY, MANY + 1)
        assert rounds > 2
        outbox.confirm(claim.samples[: MANY - 10])
        outbox._undo(claim.number)  # as for a bridge that claims no more
        while store.tidy(20 * NS):
            pass
        assert (store.totals.expired, store.totals.rows) == (MANY + 10, 1)


def test_what_could_not_expire_does_so_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, for instance: where it is looked at in pieces, none is passed over."""
    monkeypatch.setattr("processor.admission._EXPIRED_AT_ONCE", 2)
    with opened(tmp_path) as (store, _):
        store.commit(Changes(samples=samples(5)), 0)
        with failing(tmp_path, "DELETE ON outbox WHEN OLD.seq > 2"):
            assert store.tidy(11 * NS)
            with pytest.raises(StateError):
                store.tidy(11 * NS)
        assert (store.totals.expired, store.totals.rows) == (2, 3)
        while store.tidy(11 * NS):
            pass
        assert (store.totals.expired, store.totals.rows) == (5, 0)


def test_refusing_many_newcomers_is_quick(tmp_path: Path) -> None:
    """A batch can hold a hundred thousand; the least important are refused, of equals the newest."""
    store = open_store(tmp_path, max_bytes=202 * 4, when_full="drop_newest")
    batch = [Sample(str(n), "r", "l", "s", "m", 0, n % 2, b"{}") for n in range(100_000)]
    started = time.process_time()
    store.commit(Changes(samples=batch), 0)
    assert time.process_time() - started < 5
    outbox = store.outbox("files")
    outbox.open()
    assert [sample.id for sample in outbox.peek(10, ALL)] == ["1", "3", "5", "7"]
    assert store.totals.refused == 99_996
    outbox.close()
    store.close()


def log_size(directory: Path) -> int:
    """Return how large SQLite's log is."""
    return (directory / f"{FILE_NAME}-wal").stat().st_size


def test_the_log_stays_small_while_much_is_delivered_and_nothing_else_happens(tmp_path: Path) -> None:
    """The pipeline, which may wait for a message, commits nothing meanwhile."""
    with opened(tmp_path) as (store, outbox):
        for _ in range(20):
            store.commit(Changes(samples=[sample._replace(event=bytes(1500)) for sample in samples(1000)]), 0)
        store.tidy(0)
        largest = 0
        while waiting := outbox.peek(5000, ALL):
            (claim,) = outbox.claim([("some", waiting)])
            outbox.confirm(claim.samples, claim.number)
            largest = max(largest, log_size(tmp_path))
        assert 0 < largest < 8 << 20


def test_to_let_a_sample_go_is_not_to_write_it_once_more(tmp_path: Path) -> None:
    """However large it is."""
    with opened(tmp_path) as (store, outbox):
        store.commit(Changes(samples=[sample._replace(event=bytes(64 << 10)) for sample in samples(50)]), 0)
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            outbox.confirm(outbox.peek(50, ALL))
            assert 0 < log_size(tmp_path) < 1 << 20


def counted(directory: Path, bridge: int) -> Queue:
    """Count what waits for a bridge."""
    with closing(sqlite3.connect(directory / FILE_NAME)) as db:
        query = "SELECT count(*), total(o.size) FROM delivery d JOIN outbox o ON o.seq = d.seq WHERE d.bridge = ?"
        rows, size = db.execute(query, (bridge,)).fetchone()
    return Queue(rows, int(size))


class Life:
    """An outbox with two bridges to which things happen."""

    names = ("one", "two")

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.now = 0
        self.dice = random.Random(seed)  # noqa: S311 - a plan, not a secret
        self.start()

    def start(self) -> None:
        """Open it."""
        self.store = open_store(self.directory, self.names, max_bytes=20_000)
        self.views = [self.store.outbox(name) for name in self.names]
        for view in self.views:
            view.open()

    def stop(self) -> None:
        """Close it."""
        for view in self.views:
            view.close()
        self.store.close()

    def some(self) -> tuple[Outbox, list[Waiting]]:
        """Return a bridge's view and some of what waits there."""
        outbox = self.dice.choice(self.views)
        waiting = outbox.peek(40, ALL)
        return outbox, self.dice.sample(waiting, self.dice.randint(0, len(waiting)))

    def commit(self) -> None:
        """Let samples in; the oldest may give way."""
        priority, size = self.dice.randint(0, 1), self.dice.randint(1, 300)
        new = [Sample("id", "r", "l", "s", "m", 0, priority, bytes(size))] * self.dice.randint(1, 20)
        self.store.commit(Changes(samples=new), self.now)

    def confirm(self) -> None:
        """Confirm some."""
        outbox, waiting = self.some()
        outbox.confirm(waiting)

    def claim(self) -> None:
        """Claim some, and mostly confirm them."""
        outbox, waiting = self.some()
        if waiting:
            (claim,) = outbox.claim([("name", waiting)])
            if self.dice.random() < 0.8:
                outbox.confirm(claim.samples, claim.number)

    def refuse(self) -> None:
        """Make dead letters of some."""
        outbox, waiting = self.some()
        outbox.bury([(sample, "too large") for sample in waiting[:3]], 0)

    def expire(self) -> None:
        """Let age take some."""
        self.store.tidy(self.now)

    def fail(self) -> None:
        """Fail to confirm, where a sample would leave."""
        outbox, waiting = self.some()
        with failing(self.directory, "DELETE ON outbox"), suppress(sqlite3.IntegrityError):
            outbox.confirm(waiting)

    def restart(self) -> None:
        """Go down and come up."""
        self.stop()
        self.start()


@pytest.mark.parametrize("seed", range(5))
def test_the_running_counts_are_those_that_counting_gives(tmp_path: Path, seed: int) -> None:
    """Whatever happens: commits, confirmations, claims, refusals, displacement, age, failures, restarts."""
    life = Life(tmp_path, seed)
    steps = [life.commit] * 3 + [life.confirm, life.claim, life.refuse, life.expire, life.fail, life.restart]
    for _ in range(150):
        life.now += NS
        life.dice.choice(steps)()
        assert {number: counted(tmp_path, number) for number in (1, 2)} == life.store.totals.queues
        assert [view.waiting for view in life.views] == [counted(tmp_path, number).rows for number in (1, 2)]
    lost = life.store.totals
    assert lost.expired or lost.displaced or lost.undeliverable
    life.stop()


def test_what_a_bridge_remembers_is_written_with_what_it_confirms(tmp_path: Path) -> None:
    """Both or neither; by itself where nothing is confirmed; and it goes with the bridge."""
    with opened(tmp_path) as (store, outbox):
        assert store.bridge_memory("files") is None
        store.commit(Changes(samples=samples(2)), 0)
        first, second = outbox.peek(2, ALL)
        outbox.remember({"used": 1})
        with failing(tmp_path, "INSERT ON meta"), pytest.raises(sqlite3.Error):
            outbox.confirm([first])
        assert (store.totals.rows, store.bridge_memory("files")) == (2, None)
        outbox.confirm([first])
        assert (store.totals.rows, store.bridge_memory("files")) == (1, {"used": 1})
        outbox.remember({"used": 2})
        outbox.write_memory()
        with failing(tmp_path, "INSERT ON meta"):
            outbox.confirm([second])
    with opened(tmp_path) as (store, _):
        assert store.bridge_memory("files") == {"used": 2}
    with opened(tmp_path, ("other",)) as (store, _):
        assert store.bridge_memory("files") is None
