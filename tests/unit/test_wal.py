"""SQLite's log stays short, whoever reads."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from processor import wal
from processor.database import FILE_NAME
from processor.errors import StateFull
from processor.store import Changes
from tests.unit.test_store import open_store, sample, view


def test_the_log_is_bounded_and_the_file_is_used_again(tmp_path: Path) -> None:
    """However often the outbox fills and empties, also beside a reader that takes its time."""
    store = open_store(tmp_path)
    outbox = view(store)
    reader = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    sizes, logs = [], []
    big = b"x" * 10_000
    for cycle in range(12):
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM outbox").fetchone()
        for _ in range(10):
            store.commit(Changes(samples=[sample(1)._replace(event=big) for _ in range(100)]), 0)
            outbox.confirm(outbox.peek(100, 1 << 30))
        reader.execute("COMMIT")
        store.tidy(0)
        sizes.append((tmp_path / FILE_NAME).stat().st_size)
        logs.append((tmp_path / f"{FILE_NAME}-wal").stat().st_size)
        assert store.totals.rows == 0, cycle
    assert max(sizes[2:]) == sizes[2]
    assert max(logs[2:]) <= 1.2 * max(logs[:2])
    reader.close()
    outbox.close()
    store.close()


def test_a_program_that_reads_for_long_does_not_let_the_log_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At a bound nothing more is taken in; what is there can be delivered; when the program ends, all goes on."""
    long, longest = 1 << 20, 4 << 20
    monkeypatch.setattr(wal, "_LONG", long)
    monkeypatch.setattr(wal, "_LONGEST", longest)
    monkeypatch.setattr(wal, "_PAUSE", 0.0)
    log = tmp_path / f"{FILE_NAME}-wal"
    batch = [sample(1)._replace(event=bytes(10_000))] * 20
    store = open_store(tmp_path)
    outbox = view(store)
    store.commit(Changes(samples=batch), 0)

    def commit() -> None:
        for _ in range(100):
            store.commit(Changes(samples=batch), 0)

    backup = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    backup.execute("BEGIN")
    backup.execute("SELECT count(*) FROM outbox").fetchone()
    with pytest.raises(StateFull, match=r"another program has been reading .* its log has grown to 4MiB; end it"):
        commit()
    assert longest < log.stat().st_size < longest + (1 << 20)
    assert caplog.text.count("Something reads") == 1
    outbox.confirm(outbox.peek(1000, 1 << 30))
    store.remember({"paused": True})
    assert store.totals.rows == 0
    with pytest.raises(StateFull):
        store.commit(Changes(samples=batch), 0)
    backup.execute("COMMIT")
    commit()
    assert log.stat().st_size < long + (1 << 20)
    backup.close()
    outbox.close()
    store.close()
