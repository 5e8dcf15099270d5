"""A process's real state directory, to which a kill, a failing statement or a full disk comes at any moment."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal, NamedTuple

import pytest
from hypothesis.stateful import RuleBasedStateMachine

from processor import deadletters
from processor.admission import Bounds, Queue
from processor.database import FILE_NAME
from processor.errors import StateError
from processor.journal import Journal
from processor.outbox import Claim, Outbox, Waiting
from processor.store import Changes, Store
from processor.types import MODEL_SLOT, DeadLetter
from processor.windows import Shape, WindowBuffer
from tests.unit.store_model import LEAVING, MAKING, RECEIPTS_KEPT, Content, Marks, StoreModel, numbers_of
from tests.unit.test_windows import Found, Naive, Reading, feed

_STEPS: Final = 5
"""SQLite's own steps between two moments at which something can come."""
_MOST_PAGES: Final = 1 << 30
MAX_STREAMS: Final = 3


class Fault(NamedTuple):
    """What comes, and when.

    `killed`: the files stay as they are at that moment. `failed`: a statement fails. `full`: the file cannot grow.
    """

    kind: Literal["killed", "failed", "full"]
    moment: int


class Life:
    """One process's life, from opening the state to its end or to a kill.

    Attributes:
        directory: the state.
        store: the store in it.
        views: each bridge's outbox.
        windows: as restored.
    """

    def __init__(
        self, directory: Path, bridges: dict[str, bool], *, bounds: Bounds, shape: Shape, max_streams: int
    ) -> None:
        """Start with bridges by name; True where one claims."""
        self.directory = directory
        self.store = Store(directory, durability="normal", bounds=bounds, bridges=list(bridges))
        self.views: dict[str, Outbox] = {name: self.store.outbox(name) for name in bridges}
        for name, claims in bridges.items():
            self.views[name].open(claims=claims)
        self.windows = WindowBuffer(shape, max_streams)
        self._journal = Journal(self.windows, "the same", self.store.slot(MODEL_SLOT))
        self._reader = sqlite3.connect(directory / FILE_NAME)

    def end(self) -> None:
        """Close everything."""
        self._reader.close()
        for view in self.views.values():
            view.close()
        self.store.close()

    def append(self, changes: Changes, readings: Sequence[Reading]) -> list[Found]:
        """Take a batch of readings, add to `changes` what the journal makes of them, and return the windows."""
        fed = feed(self.windows, readings)
        self._journal.record(changes.of(MODEL_SLOT), fed.slots, fed.past)
        return fed.windows

    def disturbed(self, bridge: str | None, fault: Fault, act: Callable[[], object]) -> bool:
        """Do something over a bridge's connection, or the pipeline's, while a fault comes.

        Returns:
            Whether it was done to the end. A kill leaves the files behind in `remains`, as they were at its moment.
        """
        # The connections are private; there is no other way to stop one of them in the middle of a statement.
        db = self.store._connection if bridge is None else self.views[bridge]._db
        moments, writing = 0, False

        def pass_by() -> bool:
            nonlocal moments, writing
            was_writing, writing = writing, db.in_transaction
            if was_writing and not writing and fault.kind == "failed":
                return False  # within a COMMIT that is done: to interrupt it there is a fault that only a test has
            moments += 1
            if moments != fault.moment:
                return False
            if fault.kind == "killed":
                self._leave_behind()
            return True  # SQLite gives up what it does

        if fault.kind == "full":
            db.execute("PRAGMA max_page_count = 1")  # SQLite makes that as many as there are
        else:
            db.set_progress_handler(pass_by, _STEPS)
        try:
            act()
        except (sqlite3.Error, StateError):
            if fault.kind != "full" and moments < fault.moment:
                raise  # by itself
            return False
        finally:
            db.set_progress_handler(None, 0)
            db.execute(f"PRAGMA max_page_count = {_MOST_PAGES}")
        came = fault.kind != "full" and moments >= fault.moment
        if fault.kind == "killed" and not came:
            self._leave_behind()
        return not came

    @property
    def remains(self) -> Path:
        """What a kill has left: another directory, in which the next life begins."""
        return self.directory.with_name(f"{self.directory.name}+")

    def _leave_behind(self) -> None:
        self.remains.mkdir()
        for suffix in ("", "-wal"):
            file = self.directory / f"{FILE_NAME}{suffix}"
            if file.exists():
                shutil.copyfile(file, self.remains / file.name)

    def content(self) -> Content:
        """Return what the state holds, as SQL tells it."""
        letters = [
            DeadLetter(letter.topic, letter.arrival, letter.reason, letter.detail, letter.payload)
            for letter in deadletters.read(self.directory)
        ]
        packed = b"".join(row[0] for row in self._reader.execute("SELECT packets FROM receipts ORDER BY first"))
        meta = {key: json.loads(value) for key, value in self._reader.execute("SELECT key, value FROM meta")}
        return Content(self._marks(), letters, numbers_of(packed), meta)

    def _marks(self) -> Marks:
        marks: Marks = {}
        query = (
            "SELECT o.id, o.waiting, b.name, d.claim, c.name FROM outbox o LEFT JOIN delivery d ON d.seq = o.seq "
            "AND d.rank = -o.priority LEFT JOIN bridges b USING (bridge) "
            "LEFT JOIN claims c ON c.claim = d.claim AND c.bridge = d.bridge ORDER BY o.seq"
        )
        rows = self._reader.execute(query).fetchall()
        for number, waiting, bridge, claim, name in rows:
            waits = marks.setdefault(int(number), {})
            waits[bridge] = None if claim is None else LEAVING if name is None else name or MAKING
            assert waiting == sum(row[0] == number for row in rows)
        assert self._reader.execute("SELECT count(*) FROM delivery").fetchone() == (len(rows),)
        return marks

    def counted(self) -> tuple[int, int, dict[str, Queue]]:
        """Count samples and bytes in the outbox, and what waits for each bridge."""
        rows, size = self._reader.execute("SELECT count(*), total(size) FROM outbox").fetchone()
        query = (
            "SELECT b.name, count(o.seq), total(o.size) FROM bridges b LEFT JOIN delivery d USING (bridge) "
            "LEFT JOIN outbox o ON o.seq = d.seq GROUP BY b.bridge"
        )
        queues = {name: Queue(waiting, int(total)) for name, waiting, total in self._reader.execute(query)}
        return rows, int(size), queues


SMALL = {  # so that what takes many samples takes a few
    "processor.outbox._ROWS_AT_ONCE": 2,
    "processor.admission._EXPIRED_AT_ONCE": 3,
    "processor.store.RECEIPTS_KEPT": RECEIPTS_KEPT,
    "processor.deadletters._MOST": 5,
    "processor.deadletters._MOST_BYTES": 800,
    "processor.journal._LEAST_BYTES": 200,
    "processor.journal._SLACK": 1,
    "processor.database._WAL_PAGES": 8,
    "processor.reserve._MOST": 4096,
}


class Batch(NamedTuple):
    """What the pipeline commits; when it cannot, the same again."""

    changes: Changes
    readings: Sequence[Reading]


class Lives(RuleBasedStateMachine):
    """One state directory over several lives, and what it has to hold.

    Attributes:
        model: what the state has to hold.
        life: the present one.
        steps: things done in it.
        now: on the clock that samples age by, in ns.
        batch: what could not be committed yet.
        hands: what each bridge looked at last.
        owed: claims whose confirmation has failed; a bridge tries that again before all else.
    """

    model: StoreModel
    life: Life

    def __init__(self) -> None:
        super().__init__()
        self._cleanup = ExitStack()
        patch = self._cleanup.enter_context(pytest.MonkeyPatch.context())
        for name, value in SMALL.items():
            patch.setattr(name, value)
        self._root = Path(self._cleanup.enter_context(TemporaryDirectory()))
        self._drawn = 0
        self.now = 0
        self.steps = 0
        self.batch: Batch | None = None
        self.hands: dict[str, list[Waiting]] = {}
        self.owed: dict[str, Claim] = {}

    def begin(self, bounds: Bounds, shape: Shape, bridges: dict[str, bool]) -> None:
        """Begin with an empty directory."""
        self._make = partial(Life, bounds=bounds, shape=shape, max_streams=MAX_STREAMS)
        self.model = StoreModel(bounds, Naive(shape, MAX_STREAMS), meta={"model default windows": "the same"})
        self.start(self._root / "state", bridges)

    def start(self, directory: Path, bridges: dict[str, bool]) -> None:
        """Begin a life."""
        self.life = self._make(directory, bridges)
        self.model.start(bridges)
        self.steps = 0
        self.batch = None
        self.hands.clear()
        self.owed.clear()

    def teardown(self) -> None:
        """Remove everything."""
        self._cleanup.close()

    def number(self) -> int:
        """Return a number not used before."""
        self._drawn += 1
        return self._drawn

    def attempt(
        self, bridge: str | None, act: Callable[[], object], outcomes: Sequence[StoreModel], fault: Fault | None
    ) -> bool:
        """Do something, and go on with the model that tells what the state holds then.

        Args:
            bridge: over whose connection it is done; None for the pipeline's.
            act: what is done.
            outcomes: what the state may hold when it was interrupted; the last of them when it was not.
            fault: what interrupts it.

        Returns:
            Whether it was done to the end, and the process lives.
        """
        finished = True
        if fault is None:
            act()
        else:
            finished = self.life.disturbed(bridge, fault, act)
        self.steps += 1
        killed = fault is not None and fault.kind == "killed"
        if killed:
            self.life.end()
            shutil.rmtree(self.life.directory)
            self.start(self.life.remains, self.model.bridges)
        if finished:
            self.model = outcomes[-1]  # the invariants tell whether it is so
        else:
            content = self.life.content()
            explaining = [outcome for outcome in outcomes if outcome.explains(content)]
            assert explaining, f"{content.marks} and what goes with it is none of {[each.marks for each in outcomes]}"
            self.model = explaining[-1]
            self.model.adopt(content.marks, outcomes[0])
        if killed:
            self.model.start(self.model.bridges)
        return finished and not killed
