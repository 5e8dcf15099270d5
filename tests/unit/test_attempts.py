"""When the next attempt to connect is due, over hours of an outage."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

from processor.clock import ManualClock
from processor.mqtt.attempts import Attempts

LONGEST = 30.0


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """The jitter is the same each time."""
    state = random.getstate()
    random.seed(20_261_124)
    yield
    random.setstate(state)


def refuse() -> None:
    """Connect to a broker that is away."""
    raise ConnectionRefusedError


class Outage:
    """A broker that is away, and what is done meanwhile."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._ended = threading.Event()
        self.attempts = Attempts(refuse, self.clock, self._ended.set)

    def wait(self) -> float:
        """Attempt once, in vain, and return the seconds until the next attempt; then let them pass."""
        self.attempts.start()
        assert self._ended.wait(5)
        self._ended.clear()
        assert isinstance(self.attempts.take_result(), ConnectionRefusedError)
        self.attempts.schedule()
        seconds = self.attempts.seconds_until_due()
        self.clock.advance(seconds)
        assert not self.attempts.seconds_until_due()
        return seconds


def test_the_waits_grow_to_half_a_minute_at_most() -> None:
    """The longest is half a second for the first, doubled for each more, and 30 seconds for good."""
    outage = Outage()
    waits = [outage.wait() for _ in range(300)]
    for number, wait in enumerate(waits):
        assert 0 <= wait <= min(0.5 * 2**number, LONGEST)
    assert sum(waits) > 3600
    assert max(waits) > 0.95 * LONGEST


def test_the_waits_are_spread() -> None:
    """Processors that lost one broker together do not come back together: any wait up to the longest is as likely."""
    outage = Outage()
    for _ in range(10):
        outage.wait()
    waits = sorted(outage.wait() for _ in range(400))
    for part in range(1, 10):
        assert waits[40 * part] == pytest.approx(LONGEST * part / 10, abs=0.1 * LONGEST)


def test_a_good_connection_makes_the_waits_short_again() -> None:
    """And a refusal that needs an operator makes them long at once."""
    outage = Outage()
    for _ in range(20):
        outage.wait()
    outage.attempts.forget_failures()
    assert max(outage.wait() for _ in range(2)) <= 1.0
    outage.attempts.wait_longest()
    assert sum(outage.wait() for _ in range(20)) > 20 * LONGEST / 4


def test_an_attempt_is_due_at_once_at_the_start() -> None:
    """Whatever the clock says."""
    clock = ManualClock(monotonic=1e6)
    attempts = Attempts(refuse, clock, lambda: None)
    assert attempts.seconds_until_due() == 0
    assert (attempts.running, attempts.finished) == (False, False)
