"""The state directory: one owner, all or nothing, and nobody's file overwritten."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor import deadletters
from processor.admission import ROW_OVERHEAD, Bounds
from processor.clock import AgeClock, ManualClock
from processor.database import FILE_NAME
from processor.errors import StateForeign, StateFull, StateLocked
from processor.outbox import Outbox, Waiting
from processor.reserve import Reserve
from processor.store import RECEIPT_BYTES, RECEIPTS_KEPT, Changes, Store
from processor.types import NS, DeadLetter, Sample

ROOMY = Bounds(1 << 30, 7 * 86400 * NS, "drop_oldest")
EVENT = b"x" * 100
SIZE = len(EVENT) + ROW_OVERHEAD


def sample(number: int, priority: int = 0) -> Sample:
    """Return a sample whose id is `number`."""
    return Sample(f"{number:032x}", "rule", "label", "stream", "model", number * NS, priority, EVENT)


def open_store(directory: Path, bounds: Bounds = ROOMY, bridges: tuple[str, ...] = ("files",)) -> Store:
    """Open a store."""
    return Store(directory, durability="normal", bounds=bounds, bridges=bridges)


def view(store: Store, bridge: str = "files") -> Outbox:
    """Return an open view of a bridge's queue."""
    outbox = store.outbox(bridge)
    outbox.open()
    return outbox


def numbers(samples: list[Waiting]) -> list[int]:
    """Return the samples' numbers."""
    return [int(one.id, 16) for one in samples]


def peek(store: Store, bridge: str = "files") -> list[int]:
    """Return the numbers of what waits for a bridge, in its order."""
    outbox = view(store, bridge)
    waiting = numbers(outbox.peek(1000, 1 << 30))
    outbox.close()
    return waiting


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """The state directory has one owner, and the other is told what to do."""
    store = open_store(tmp_path)
    code = (
        "from processor.store import Store; from processor.admission import Bounds\n"
        "from pathlib import Path; import sys\n"
        "from processor.errors import StateLocked\n"
        "try: Store(Path(sys.argv[1]), durability='normal', bounds=Bounds(1, 1, 'block'), bridges=[])\n"
        "except StateLocked as error: print(error); sys.exit(7)"
    )
    other = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert other.returncode == 7, other.stderr
    assert "another mlade uses the state directory" in other.stdout
    with pytest.raises(StateLocked):
        open_store(tmp_path)
    store.close()
    open_store(tmp_path).close()


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    """Samples, dead letters, receipts and values all come back."""
    store = open_store(tmp_path)
    letter = DeadLetter("t", 5, "decode", "not JSON", b"\x00")
    store.commit(
        Changes(samples=[sample(1), sample(2)], dead_letters=[letter], receipts=b"abcdef", meta={"a": [1]}),
        NS,
    )
    store.close()
    store = open_store(tmp_path)
    assert peek(store) == [1, 2]
    assert (store.totals.rows, store.totals.bytes) == (2, 2 * SIZE)
    assert store.receipts() == b"abcdef"
    assert store.meta("a") == [1]
    assert store.meta("b") is None
    store.close()


def test_the_receipts_are_bounded(tmp_path: Path) -> None:
    """As many are kept as there are packet identifiers, and not for ever more."""
    store = open_store(tmp_path)
    for number in range(60):
        store.commit(Changes(receipts=bytes([number]) * (4000 * RECEIPT_BYTES), meta={"n": number}), 0)
        if number == 30:
            store.close()
            store = open_store(tmp_path)
    kept = store.receipts()
    assert RECEIPTS_KEPT * RECEIPT_BYTES <= len(kept) <= 3 * RECEIPTS_KEPT * RECEIPT_BYTES
    assert (kept[-1], kept[-1] - kept[0]) == (59, len(kept) // (4000 * RECEIPT_BYTES) - 1)
    store.forget_session({"n": None})
    assert store.receipts() == b""
    assert store.meta("n") is None
    store.close()


def test_a_sample_leaves_when_every_bridge_has_confirmed_it(tmp_path: Path) -> None:
    """Two bridges, each at its own pace."""
    store = open_store(tmp_path, bridges=("files", "mqtt"))
    store.commit(Changes(samples=[sample(1), sample(2)]), 0)
    files, mqtt = view(store, "files"), view(store, "mqtt")
    files.confirm(files.peek(10, 1 << 20))
    assert peek(store, "files") == []
    assert peek(store, "mqtt") == [1, 2]
    assert store.totals.rows == 2
    mqtt.confirm(mqtt.peek(1, 1 << 20))
    assert (store.totals.rows, store.totals.bytes) == (1, SIZE)
    mqtt.confirm(mqtt.peek(1, 1 << 20))
    assert (store.totals.rows, store.totals.bytes) == (0, 0)
    store.close()


def test_confirming_twice_changes_nothing(tmp_path: Path) -> None:
    """A repeat of a confirmation is harmless to the other bridge."""
    store = open_store(tmp_path, bridges=("files", "mqtt"))
    store.commit(Changes(samples=[sample(1)]), 0)
    files = view(store, "files")
    waiting = files.peek(10, 1 << 20)
    files.confirm(waiting)
    files.confirm(waiting)
    assert peek(store, "mqtt") == [1]
    store.close()


def test_a_bridge_that_left_the_configuration_holds_nothing_up(tmp_path: Path) -> None:
    """What waited only for it goes; what waits for others stays."""
    store = open_store(tmp_path, bridges=("files", "mqtt"))
    store.commit(Changes(samples=[sample(1), sample(2)]), 0)
    mqtt = view(store, "mqtt")
    mqtt.confirm(mqtt.peek(1, 1 << 20))
    mqtt.close()
    store.close()
    store = open_store(tmp_path, bridges=("mqtt", "new"))
    assert peek(store, "mqtt") == [2]
    assert peek(store, "new") == []
    assert store.totals.rows == 1
    store.close()


def test_higher_priority_leaves_first_and_older_before_newer(tmp_path: Path) -> None:
    """The order of delivery."""
    store = open_store(tmp_path)
    store.commit(Changes(samples=[sample(1), sample(2, 5), sample(3), sample(4, 5)]), 0)
    assert peek(store) == [2, 4, 1, 3]
    store.close()


def test_drop_oldest_displaces_the_lowest_priority_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The bound holds, and what is lost is counted and logged."""
    store = open_store(tmp_path, Bounds(3 * SIZE, NS, "drop_oldest"))
    store.commit(Changes(samples=[sample(1, 9), sample(2), sample(3)]), 0)
    store.commit(Changes(samples=[sample(4), sample(5)]), 0)
    assert peek(store) == [1, 4, 5]
    assert store.totals.displaced == 2
    store.commit(Changes(samples=[sample(6, 9), sample(7, 9), sample(8)]), 0)
    assert peek(store) == [1, 6, 7], "a newcomer of low priority does not displace what is more important"
    assert store.totals.bytes == 3 * SIZE
    assert "displaced" in caplog.text
    store.close()


def test_drop_oldest_leaves_a_claim_alone(tmp_path: Path) -> None:
    """What a bridge is busy with is not taken from under it, so that a retry is identical."""
    store = open_store(tmp_path, Bounds(2 * SIZE, NS, "drop_oldest"))
    store.commit(Changes(samples=[sample(1), sample(2)]), 0)
    outbox = view(store)
    outbox.claim([("name", outbox.peek(1, 1 << 20))])
    store.commit(Changes(samples=[sample(3)]), 0)
    (claim,) = outbox.claimed()
    assert numbers(claim.samples) == [1]
    assert peek(store) == [3]
    store.close()


def test_drop_newest_refuses_the_least_important_newcomers(tmp_path: Path) -> None:
    """What is there stays; among the newcomers priority counts, then age."""
    store = open_store(tmp_path, Bounds(3 * SIZE, NS, "drop_newest"))
    store.commit(Changes(samples=[sample(1)]), 0)
    store.commit(Changes(samples=[sample(2), sample(3), sample(4, 1)]), 0)
    assert sorted(peek(store)) == [1, 2, 4]
    assert store.totals.refused == 1
    store.close()


def test_block_changes_nothing_until_there_is_room(tmp_path: Path) -> None:
    """The whole batch waits: nothing of it is on disk, and the same batch goes in later."""
    store = open_store(tmp_path, Bounds(2 * SIZE, NS, "block"))
    store.commit(Changes(samples=[sample(1), sample(2)]), 0)
    changes = Changes(samples=[sample(3)], meta={"seen": 3}, receipts=b"abcdef")
    with pytest.raises(StateFull):
        store.commit(changes, 0)
    assert store.meta("seen") is None
    assert store.receipts() == b""
    assert store.totals.rows == 2
    outbox = view(store)
    outbox.confirm(outbox.peek(1, 1 << 20))
    store.commit(changes, 0)
    assert peek(store) == [2, 3]
    assert store.meta("seen") == 3
    store.close()


def test_old_samples_expire(tmp_path: Path) -> None:
    """By the time they entered the outbox."""
    store = open_store(tmp_path, Bounds(1 << 20, 10 * NS, "drop_oldest"))
    store.commit(Changes(samples=[sample(1)]), 0)
    store.commit(Changes(samples=[sample(2)]), 5 * NS)
    store.tidy(10 * NS)
    assert peek(store) == [1, 2]
    store.tidy(10 * NS + 1)
    assert peek(store) == [2]
    assert (store.totals.expired, store.totals.rows) == (1, 1)
    store.close()


def test_a_claim_does_not_expire_under_its_bridge(tmp_path: Path) -> None:
    """The file it stands for may be written already; a retry has to hold the same."""
    store = open_store(tmp_path, Bounds(1 << 20, NS, "drop_oldest"))
    store.commit(Changes(samples=[sample(1), sample(2)]), 0)
    outbox = view(store)
    outbox.claim([("name", outbox.peek(1, 1 << 20))])
    store.tidy(100 * NS)
    (claim,) = outbox.claimed()
    assert numbers(claim.samples) == [1]
    assert store.totals.rows == 1
    store.close()


def test_a_claim_survives_a_restart_unchanged(tmp_path: Path) -> None:
    """Newer samples do not join it."""
    store = open_store(tmp_path)
    store.commit(Changes(samples=[sample(1), sample(2)]), 0)
    outbox = view(store)
    outbox.claim([("first", outbox.peek(10, 1 << 20))])
    outbox.close()
    store.close()
    store = open_store(tmp_path)
    store.commit(Changes(samples=[sample(3)]), 0)
    outbox = view(store)
    (claim,) = outbox.claimed()
    assert (claim.name, numbers(claim.samples)) == ("first", [1, 2])
    assert numbers(outbox.peek(10, 1 << 20)) == [3]
    outbox.confirm(claim.samples, claim.number)
    assert outbox.claimed() == []
    assert store.totals.rows == 1
    store.close()


def test_another_programs_database_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is neither used nor overwritten."""
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    open_store(tmp_path).close()
    aside = sqlite3.connect(tmp_path / f"{FILE_NAME}.set-aside-1")
    assert aside.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    aside.close()
    assert "set aside" in caplog.text


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    """And a second one does not replace the first."""
    for number in (1, 2):
        (tmp_path / FILE_NAME).write_bytes(b"no database at all, but longer than a header of SQLite's" * 40)
        open_store(tmp_path).close()
        assert (tmp_path / f"{FILE_NAME}.set-aside-{number}").read_bytes().startswith(b"no database")
        (tmp_path / FILE_NAME).unlink()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    """An older program must not touch what a newer one wrote."""
    open_store(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateForeign, match="newer mlade"):
        open_store(tmp_path)
    assert not list(tmp_path.glob("*.set-aside-*"))


def test_dead_letters_are_bounded_in_bytes_each(tmp_path: Path) -> None:
    """Of a huge payload the first 64 KiB are kept."""
    store = open_store(tmp_path)
    store.commit(Changes(dead_letters=[DeadLetter("t", 1, "too_large", "text", bytes(1 << 20))]), 0)
    store.close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    assert connection.execute("SELECT length(payload), reason FROM deadletters").fetchall() == [(64 << 10, "too_large")]
    connection.close()


def test_dead_letters_are_bounded_with_their_topics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic may have 64 KiB, too; the oldest letters give way."""
    monkeypatch.setattr(deadletters, "_MOST_BYTES", 10_000)
    store = open_store(tmp_path)
    for number in range(5):
        store.commit(Changes(dead_letters=[DeadLetter("é" * 1500, number, "json", "no", b"x" * 998)]), 0)
    store.close()
    assert [letter.arrival for letter in deadletters.read(tmp_path)] == [3, 4]  # of 4,000 bytes each


def test_letters_are_read_in_pieces_that_hold_nothing_up(tmp_path: Path) -> None:
    """While somebody pages through them, the log of the database can be emptied."""
    store = open_store(tmp_path)
    letters = [DeadLetter("t", number, "json", "no", b"x" * 1000) for number in range(250)]
    store.commit(Changes(dead_letters=letters), 0)
    paging = deadletters.read(tmp_path)
    assert next(paging).arrival == 0
    store.commit(Changes(dead_letters=letters), 0)
    other = sqlite3.connect(tmp_path / FILE_NAME)
    busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not busy
    assert (tmp_path / f"{FILE_NAME}-wal").stat().st_size == 0
    assert len(list(paging)) == 499
    assert [letter.arrival for letter in deadletters.read(tmp_path, newest=2)] == [248, 249]
    other.close()
    store.close()


def test_an_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """A dead letter counts for all that it takes, not for its payload alone; a new file has the same tables."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    script = Path(__file__).parents[1] / "integration" / "states" / "schema_1.sql"
    with closing(sqlite3.connect(old / FILE_NAME)) as connection:
        connection.executescript(script.read_text())
    tables = []
    for directory in (old, new):
        open_store(directory).close()
        with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
            named = connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
            tables.append([(name, connection.execute(f"PRAGMA table_info({name})").fetchall()) for (name,) in named])
    assert tables[0] == tables[1]
    (letter,) = deadletters.read(old)
    text = "the payload is not JSON: Expecting value at character 0"
    assert (letter.payload, letter.size) == (b"not JSON", 8 + len("older/imu") + len(text))


def test_room_for_emptying_is_kept_back(tmp_path: Path) -> None:
    """It is given up once, and taken again."""
    reserve = Reserve(tmp_path)
    assert reserve.hold()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= reserve.size > 0
    assert reserve.release()
    assert not reserve.release()
    assert not (tmp_path / "reserve").exists()
    assert reserve.hold()
    assert (tmp_path / "reserve").exists()


def test_what_is_in_the_place_of_the_reserve_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And left alone; there is no reserve then."""
    (tmp_path / "reserve").mkdir()
    assert Reserve(tmp_path).hold()
    assert "cannot be kept back" in caplog.text
    assert (tmp_path / "reserve").is_dir()


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("run"), st.integers(0, 5 * 86400)),
            st.tuples(st.just("jump"), st.integers(-(10**9), 10**9)),
            st.tuples(st.just("off"), st.integers(0, 30 * 86400)),
        ),
        max_size=30,
    )
)
def test_age_goes_on_evenly_whatever_the_wall_clock_does(steps: list[tuple[str, int]]) -> None:
    """Running adds what passed; jumps add nothing while running; off adds at most half of what ages something away."""
    longest = 7 * 86400 * NS
    clock = ManualClock(wall=10**18)
    age = AgeClock(clock, None, longest)
    for step, seconds in steps:
        before = age.now()
        if step == "run":
            clock.advance(seconds)
            assert age.now() - before == seconds * NS
        elif step == "jump":
            clock.set_wall(clock.wall() + seconds * NS)
            assert age.now() == before
        else:
            kept = age.memory()
            wall = clock.wall()
            clock.advance(seconds)
            age = AgeClock(clock, kept, longest)
            assert age.now() - before == min(clock.wall() - wall, longest // 2)
