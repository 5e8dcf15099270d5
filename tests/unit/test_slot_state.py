"""What the state holds of each model slot: apart from the others', and from an older version's."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from processor.admission import Bounds
from processor.database import FILE_NAME
from processor.memories import Remembered
from processor.slot_state import SlotChanges, StreamSnapshot
from processor.store import Changes, Store
from processor.types import NS, Sample, StreamName
from processor.windows import Shape
from tests.unit.test_context import Processor, Reading

OLD = Path(__file__).parents[1] / "integration" / "states" / "schema_3.sql"
FILTER = {"rules": [{"name": "few", "cooldown": {"for": "8s", "by": "stream"}, "context": {"before": 1, "after": 1}}]}
"""Of that state: windows of three, `slow` heard once, `a` and `b` once a second up to 29."""


def opened(directory: Path, *slots: str) -> Store:
    """Open a state with slots."""
    bounds = Bounds(1 << 20, NS, "drop_oldest")
    return Store(directory, durability="normal", bounds=bounds, bridges=[], slots=slots)


def changes(number: int) -> SlotChanges:
    """Return changes of everything that there is of a slot; slots have the same numbers and names, and other values."""
    return SlotChanges(
        journal=(0, bytes([number])),
        snapshots=[StreamSnapshot(1, number, b"past", b"")],
        opened=[(1, StreamName("source", f"key {number}"))],
        remembered=[Remembered(0, "source", 0, bytes([number])), Remembered(1, "key", 0, bytes([number]))],
        meta={"filter": number, "memories": {"next": 2, "known": [[1, "rule", "keep", ""]]}},
    )


def content(store: Store, slot: str) -> tuple[object, ...]:
    """Return all that is kept of a slot."""
    state = store.slot(slot)
    streams, snapshots, rows = state.windows()
    return streams, snapshots, list(rows), state.remembered(), state.meta("filter"), state.meta("memories")


def test_slots_are_kept_apart(tmp_path: Path) -> None:
    """In one transaction, in one file; and whatever one of them forgets, the other has still."""
    with closing(opened(tmp_path, "a", "b")) as store:
        store.commit(Changes(slots={"a": changes(1), "b": changes(2)}), 0)
    with closing(opened(tmp_path, "a", "b")) as store:
        of_a, of_b = content(store, "a"), content(store, "b")
        assert of_a[:3] == ([(1, ("source", "key 1"))], [(1, 1, b"past", b"")], [(0, b"\1")])
        assert of_b[3:] == (
            [(0, "source", 0, b"\2"), (1, "key", 0, b"\2")],
            2,
            {"next": 2, "known": [[1, "rule", "keep", ""]]},
        )
        gone = SlotChanges(pruned=1, forgotten=[1], meta={"memories": {"next": 2, "known": []}})
        store.slot("a").commit(gone)
        assert content(store, "a")[:4] == ([], [], [], [(0, "source", 0, b"\1")])
        assert content(store, "b") == of_b
        store.slot("b").commit(SlotChanges(windows_anew=True))
        assert content(store, "b") == ([], [], [], *of_b[3:])


def test_what_left_the_configuration_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With everything, and said; a slot whose name begins alike stays. It begins anew when it comes back."""
    with closing(opened(tmp_path, "a", "ab", "default")) as store:
        store.remember({"age": 5})
        store.commit(Changes(slots={name: changes(number) for number, name in enumerate(("a", "ab", "default"))}), 0)
        kept = content(store, "ab")
    with closing(opened(tmp_path, "ab")) as store:
        assert caplog.text == "", "a start that does not come to its end must not cost anything"
        store.drop_other_slots()
        assert content(store, "ab") == kept
        assert store.meta("age") == 5
    assert "The model 'a' is no longer configured" in caplog.text
    assert "The model 'default' is no longer configured" in caplog.text
    with closing(opened(tmp_path, "ab", "a", "default")) as store:
        assert content(store, "ab") == kept
        assert content(store, "a") == content(store, "default") == ([], [], [], [], None, None)


def run(processor: Processor, batches: Sequence[Sequence[Reading]]) -> list[Sample]:
    """Carry batches through; return what was sent."""
    return [sample for batch in batches for sample in processor.take(batch)]


def test_a_state_with_one_nameless_slot_goes_on(tmp_path: Path) -> None:
    """Of schema 3: windows under way, cooldowns, what is to be sent beside the last samples."""
    old, undisturbed = tmp_path / "old", tmp_path / "undisturbed"
    old.mkdir()
    with closing(sqlite3.connect(old / FILE_NAME)) as connection:
        connection.executescript(OLD.read_text())
    before = [[Reading("slow", 0, 0.5)]]
    before += [[Reading("a", second, second), Reading("b", second, -second)] for second in range(1, 30)]
    after = [[Reading(name, second, float(second)) for name in ("a", "b", "slow")] for second in range(30, 50)]
    shape = Shape(3, 1, 1, None)
    whole = Processor(undisturbed, shape, 10, FILTER)
    run(whole, before)
    expected = run(whole, after)
    assert len(expected) > 10
    assert run(Processor(old, shape, 10, FILTER), after) == expected
