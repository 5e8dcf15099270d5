"""Looking at something at even intervals while something else goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

import numpy as np

Value = TypeVar("Value")


class Seen(NamedTuple, Generic[Value]):
    """What was seen at one look."""

    at: float
    """Seconds since the watching began."""
    value: Value


@contextmanager
def watching(look: Callable[[], Value], every: float) -> Iterator[list[Seen[Value]]]:
    """Call `look` every so many seconds on a thread of its own; the list grows until the block ends.

    Raises:
        Exception: what `look` raised, when the block ends.
    """
    seen: list[Seen[Value]] = []
    failures: list[Exception] = []
    ended = threading.Event()
    started = time.perf_counter()

    def watch() -> None:
        number = 0
        while not ended.wait(max(0.0, started + number * every - time.perf_counter())):
            number += 1
            try:
                value = look()
            except Exception as error:  # noqa: BLE001 - it is raised where the block ends
                failures.append(error)
                return
            seen.append(Seen(time.perf_counter() - started, value))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
    if failures:
        raise failures[0]


def slope(seen: Sequence[Seen[float]]) -> float:
    """Return how much the values grow in a second: the least squares' line through them."""
    times = np.array([one.at for one in seen])
    return float(np.polyfit(times - times.mean(), [one.value for one in seen], 1)[0])
