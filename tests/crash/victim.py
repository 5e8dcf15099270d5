"""`mlade run` in a process that can be told to end itself with SIGKILL at a point of its work."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from processor import database, journal, outbox, store
from processor.bridges import files
from processor.control import FilterControl
from processor.ledger import Ledger
from processor.metrics import Metrics
from processor.mqtt.connection import Connection
from processor.outbox import Outbox
from processor.slot_state import SlotState
from processor.store import Changes, Store
from processor.windows import WindowBuffer
from tests.forks import become_mlade

_SMALL_JOURNAL: Final = 16 << 10
_SMALL_TRANSACTION: Final = 20


class Call(NamedTuple):
    """A call of a function or method."""

    owner: object
    name: str
    before: bool
    """Whether to die before it, or after."""
    counts: Callable[[tuple[Any, ...]], bool] = lambda _: True
    """Whether a call with these arguments counts."""


class Statement(NamedTuple):
    """An SQL statement that begins so, about to run."""

    text: str


def _of_a_batch(arguments: tuple[Any, ...]) -> bool:
    changes: Changes = arguments[1]
    return bool(changes.samples) or any(own.journal for own in changes.slots.values())


def _of_a_filter(arguments: tuple[Any, ...]) -> bool:
    changes: Changes = arguments[1]
    return any("filter" in own.meta for own in changes.slots.values()) and "age" not in changes.meta


def _of_a_file(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments[1].number)


def _of_a_publication(arguments: tuple[Any, ...]) -> bool:
    return not arguments[1].number


FIRST_START: Final[dict[str, Call | Statement]] = {
    "before the store is opened": Call(store, "open_database", before=True),
    "before the store's tables are made": Call(database, "_bring_up_to_date", before=True),
    "while the store's tables are made": Statement("CREATE TABLE deadletters"),
    "between CONNACK and SUBSCRIBE": Call(Connection, "_begin", before=True),
    "between SUBSCRIBE and the first message": Call(Connection, "_begin", before=False),
}
"""In the order in which they have to come, at the very first starts."""
START: Final[dict[str, Call | Statement]] = {
    "between the lock and the store": Call(store, "open_database", before=True),
    "between the store and the filter": Call(FilterControl, "__init__", before=True),
    "before windows are restored": Call(SlotState, "windows", before=True),
    "while windows are restored": Call(WindowBuffer, "replay", before=False),
    "after windows were restored": Call(journal.Journal, "__init__", before=False),
    "between restoring and the first read": Call(Connection, "read", before=True),
    "between CONNACK and SUBSCRIBE, again": Call(Connection, "_begin", before=True),
}
WORK: Final[dict[str, Call | Statement]] = {
    "before the commit": Call(Store, "commit", before=True, counts=_of_a_batch),
    "in mid-commit": Statement("INSERT INTO receipts"),
    "between commit and PUBACK": Call(Store, "commit", before=False, counts=_of_a_batch),
    "after the PUBACK": Call(Connection, "acknowledge", before=False),
    "while the journal is pruned": Statement("DELETE FROM journal"),
    "before a filter's commit": Call(Store, "commit", before=True, counts=_of_a_filter),
    "between a filter's commit and its being in force": Call(Store, "commit", before=False, counts=_of_a_filter),
    "between filter applied and answered": Call(Metrics, "forget_scores", before=False),
    "while a claim is made": Statement("UPDATE claims SET name"),
    "between claim and file": Call(Outbox, "claim", before=False),
    "between a file's writing and its rename": Call(files, "_write", before=False),
    "between a file's rename and its confirmation": Call(Ledger, "confirm", before=True, counts=_of_a_file),
    "between two parts of a confirmation": Call(Outbox, "_let_go", before=True),
    "between a sample's PUBACK and its confirmation": Call(Ledger, "confirm", before=True, counts=_of_a_publication),
}
MENDING: Final[dict[str, Call | Statement]] = {
    "while claims are mended": Statement("UPDATE delivery SET claim = NULL"),
}
"""Reached where the life before it has ended at `BROKEN_CLAIM`."""
POINTS_OF_WINDOWS: Final = ("while windows are restored", "while the journal is pruned")
"""Reached only where a window looks back."""
BROKEN_CLAIM: Final = "while a claim is made"
POINTS: Final = FIRST_START | START | WORK | MENDING
ANY_STATEMENT: Final = Statement("")


def live(file: Path, log: Path, point: Call | Statement | str | None, nth: int) -> None:
    """Be a processor; called in a process of its own.

    Args:
        file: the configuration.
        log: where its log goes.
        point: where to die, one of `POINTS` if it is a name; None: nowhere.
        nth: at which of the calls or statements there.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # In seconds what takes hours or a flood in a plant: the journal is pruned, claims and confirmations come in parts.
    journal._LEAST_BYTES = _SMALL_JOURNAL  # type: ignore[misc]
    outbox._ROWS_AT_ONCE = _SMALL_TRANSACTION
    if isinstance(point, str):
        point = POINTS[point]
    if isinstance(point, Call):
        _die_at_call(point, nth)
    elif isinstance(point, Statement):
        _die_at_statement(point, nth)
    become_mlade(file, log)


def _end_with_parent() -> None:
    """Whoever started us may have been killed, too."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_call(point: Call, nth: int) -> None:
    original: Callable[..., Any] = getattr(point.owner, point.name)
    calls = itertools.count(1)

    def fatal(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever it takes
        last = point.counts(arguments) and next(calls) == nth
        if last and point.before:
            _die()
        result = original(*arguments, **options)
        if last:
            _die()
        return result

    setattr(point.owner, point.name, fatal)


def _die_at_statement(point: Statement, nth: int) -> None:
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    statements = itertools.count(1)

    def look(statement: str) -> None:
        if statement.lstrip().startswith(point.text) and next(statements) == nth:
            _die()

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:  # noqa: ANN401 - whatever it takes
        connection = connect(*arguments, **options)
        connection.set_trace_callback(look)
        return connection

    setattr(sqlite3, "connect", traced)  # noqa: B010 - it has overloads, which this has not
