"""A file that is damaged is found out, said, and set aside: no traceback, no loop, no silent loss."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from processor import database
from processor.admission import Bounds
from processor.bridges.files import FilesBridge
from processor.clock import SystemClock
from processor.database import FILE_NAME
from processor.delivery import Delivery
from processor.errors import StateError
from processor.store import Changes, Store
from processor.types import NS, Sample

MARK = f"{FILE_NAME}.damaged"


def open_store(directory: Path) -> Store:
    """Open the state."""
    return Store(directory, durability="normal", bounds=Bounds(1 << 30, NS, "drop_oldest"), bridges=["one"])


def some(count: int) -> Changes:
    """Return samples."""
    return Changes(samples=[Sample("id", "rule", "label", "stream", "model", 0, 0, bytes(300))] * count)


def damage(file: Path) -> None:
    """Overwrite all but the first pages, as a dying disk does; the database must not be in its log."""
    size = file.stat().st_size
    with file.open("r+b") as database_file:
        database_file.seek(size // 20 // 4096 * 4096)
        database_file.write(b"\xff" * (size - database_file.tell()))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a state with samples in it; its file counts as too large to be checked at each start."""
    monkeypatch.setattr(database, "_CHECKED", 0)
    store = open_store(tmp_path)
    for _ in range(10):
        store.commit(some(1000), 0)
    outbox = store.outbox("one")
    outbox.open()
    outbox.confirm(outbox.peek(1, 1))  # another connection's write: the store's own has to read from the file again
    outbox.close()
    store.tidy(0)
    return store


def use(store: Store) -> None:
    """Do what the pipeline does."""
    store.commit(some(1), 0)
    store.tidy(2 * NS)


def deliver(store: Store) -> None:
    """Do what a delivery thread does; it ends by itself only over an error."""
    bridge = FilesBridge(store._directory / "out", "p", max_bytes=1 << 30, max_age=0.0)
    Delivery("one", bridge, store.outbox("one"), SystemClock()).run()


@pytest.mark.parametrize("work", [use, deliver])
def test_damage_found_in_use_ends_the_work_and_is_set_aside_at_the_next_start(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture, work: Callable[[Store], None]
) -> None:
    """However big the file is; what is set aside is as it was found, and the new file is used from then on."""
    damage(tmp_path / FILE_NAME)
    with pytest.raises(StateError, match=r"is damaged .* start mlade again"):
        work(store)
    store.close()
    store = open_store(tmp_path)
    assert store.totals.rows == 0
    store.commit(some(1), 0)
    store.close()
    assert "was set aside" in caplog.text
    assert (tmp_path / f"{FILE_NAME}.set-aside-1").stat().st_size > 1_000_000
    assert not (tmp_path / MARK).exists()
    with closing(open_store(tmp_path)) as again:
        assert again.totals.rows == 1


def test_damage_found_at_the_start_is_said_and_set_aside_at_the_next(tmp_path: Path, store: Store) -> None:
    """In a file that is too large to be checked as a whole each time."""
    store.close()
    damage(tmp_path / FILE_NAME)
    with pytest.raises(StateError, match=r"is damaged .* start mlade again"):
        open_store(tmp_path)
    with closing(open_store(tmp_path)) as again:
        assert again.totals.rows == 0


def test_a_file_that_was_found_damaged_but_is_sound_is_used(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory or a cable was at fault: nothing is lost, and the next start does not check it again."""
    store.close()
    (tmp_path / MARK).touch()
    with closing(open_store(tmp_path)) as again:
        assert again.totals.rows == 9999
    assert "is sound" in caplog.text
    assert not (tmp_path / MARK).exists()


def test_a_state_that_another_program_has_locked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence, also at the start."""
    open_store(tmp_path).close()
    monkeypatch.setattr(database, "_PATIENCE", 0.01)
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match=r"another program keeps .* locked"):
            open_store(tmp_path)
    open_store(tmp_path).close()


@pytest.mark.parametrize("moment", range(1, 5))
def test_a_transaction_that_was_interrupted_as_it_began_is_over(tmp_path: Path, moment: int) -> None:
    """At whichever of SQLite's own steps: else none could begin any more."""
    steps = itertools.count(1)
    with closing(database.open_database(tmp_path / FILE_NAME)) as db:
        db.set_progress_handler(lambda: next(steps) == moment, 1)
        with suppress(sqlite3.OperationalError), database.transaction(db):
            pass
        assert next(steps) > moment
        db.set_progress_handler(None, 0)
        with database.transaction(db):
            db.execute("DELETE FROM meta")
