"""The bridge to IoT Hub, through the real SDK against tests/iothub: cuts, silence, rates, renewals."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.errors import BenchError
from bench.report import Check, Result
from processor import connection_string
from processor.admission import Bounds
from processor.bridges.iothub.bridge import IotHubBridge
from processor.bridges.iothub.connection import Options
from processor.bridges.iothub.identity import Credentials, WithConnectionString
from processor.bridges.iothub.rate import Rate
from processor.clock import SystemClock
from processor.delivery import Delivery
from processor.store import Changes, Store
from processor.types import NS, Sample
from tests.iothub import Device, Hub

_DAY: Final = 86_400 * NS
_EVENT: Final = 750
"""Bytes of a sample's event: about four readings of six channels."""
_ROUND_TRIP: Final = 0.05
_IN_FLIGHT: Final = 100
_BEFORE: Final = 1000
_MEANWHILE: Final = 1000
_UNDERWAY: Final = 300
"""Samples that have arrived when something happens."""
_CUT: Final = 5.0
_TIMEOUT: Final = 5.0
"""Seconds for an acknowledgement, instead of the usual 30."""
_SILENCE: Final = 8.0
_HANGS: Final = 60.0
"""Seconds after which what has not arrived is taken to hang."""
_ENDS: Final = 5.0
_PACK: Final = 16 << 10
_DRAIN_RATE: Final = 100.0
_TOKEN: Final = 125
"""Seconds of a token, which is renewed two minutes before its end."""
_RENEWAL_RATE: Final = 200.0


class Size(NamedTuple):
    """How long it takes."""

    runs: int
    messages: int
    """One sample each, as fast as they go."""
    packed: int
    """Samples, as fast as they go."""
    backlog: int
    """Samples, at a configured rate."""
    renewals: int


FULL: Final = Size(runs=20, messages=10_000, packed=100_000, backlog=200_000, renewals=3)
QUICK: Final = Size(runs=1, messages=2_000, packed=20_000, backlog=40_000, renewals=1)


class _Outcome(NamedTuple):
    """What became of the samples of one run."""

    missing: int
    repeats: int
    unequal: int
    """Messages with an id that another one had, and another body."""
    hangs: int
    recovery: float
    """Seconds from the fault's end until the last sample had arrived."""


@dataclass(slots=True)
class _Side:
    """A device, with an outbox whose samples go to the hub."""

    hub: Hub
    device: Device
    store: Store
    delivery: Delivery
    count: int = 0

    def put(self, count: int) -> None:
        """Let so many more samples wait."""
        for first in range(self.count, self.count + count, 1000):
            numbers = range(first, min(first + 1000, self.count + count))
            self.store.commit(Changes(samples=[_sample(number) for number in numbers]), 0)
        self.count += count
        self.delivery.notify()

    def arrived(self) -> int:
        """Return how many messages have arrived, repeats included."""
        return len(self.hub.received(self.device))

    def is_empty(self) -> bool:
        """Return whether nothing waits any more."""
        return self.store.totals.rows == 0

    def outcome(self, recovery: float, *, hangs: int) -> _Outcome:
        """Compare what has arrived with what was put in."""
        events = self.hub.received(self.device)
        numbers = Counter(one["n"] for event in events for one in _samples_in(event.body))
        bodies = {(event.id, event.body) for event in events}
        unequal = len(bodies) - len({identifier for identifier, _ in bodies})
        return _Outcome(self.count - len(numbers), sum(numbers.values()) - len(numbers), unequal, hangs, recovery)


def measure(size: Size, folder: Path, tell: Callable[[str], None]) -> Result:
    """Make each thing happen, and see what arrives."""
    result = Result(
        "IoT Hub: the SDK against a double of the service, 50 ms round trip",
        ("what", "runs", "samples", "missing", "repeats", "hangs", "until all was there"),
        notes=(
            f"Events of {_EVENT} bytes; {_IN_FLIGHT} sends in flight at cuts and silences, {_TIMEOUT:g} s for each.",
            "The hub runs in this process, too. A repeat has the id and the body of the first.",
        ),
    )
    with Hub(folder / "hub") as hub:
        _faults(hub, folder, size.runs, result, tell)
        tell("messages as fast as they go")
        _speed(hub, folder, size, result)
        tell(f"a backlog of {size.backlog:,} samples at {_DRAIN_RATE:g} messages a second")
        _drain(hub, folder, size.backlog, result)
        tell(f"{size.renewals} renewals of the token")
        _renewals(hub, folder, size.renewals, result)
    return result


def _faults(hub: Hub, folder: Path, runs: int, result: Result, tell: Callable[[str], None]) -> None:
    for name, fault in (("cut for 5 s", _cut), ("silent for 8 s", _silence)):
        outcomes = []
        for run in range(runs):
            tell(f"{name}, run {run + 1} of {runs}")
            outcomes.append(_with_fault(hub, folder / f"{fault.__name__}{run}", fault))
        _add(result, name, outcomes, runs * (_BEFORE + _MEANWHILE))


def _with_fault(hub: Hub, folder: Path, fault: Callable[[Hub, Callable[[], None]], None]) -> _Outcome:
    options: dict[str, Any] = {"options": Options(window=_IN_FLIGHT), "timeout": _TIMEOUT}
    with _delivering(hub, folder, **options) as side:
        side.put(_BEFORE)
        _wait(lambda: side.arrived() >= _UNDERWAY, "the first samples have arrived")
        fault(hub, lambda: side.put(_MEANWHILE))
        hub.faults.slow_link(_ROUND_TRIP)
        healed = time.monotonic()
        hangs = 0
        while not side.is_empty() and not hangs:
            hangs = int(time.monotonic() > healed + _HANGS)
            time.sleep(0.01)
        return side.outcome(time.monotonic() - healed, hangs=hangs)


def _cut(hub: Hub, meanwhile: Callable[[], None]) -> None:
    hub.take_down()
    meanwhile()
    time.sleep(_CUT)
    hub.bring_up()


def _silence(hub: Hub, meanwhile: Callable[[], None]) -> None:
    hub.faults.go_silent()
    meanwhile()
    time.sleep(_SILENCE)
    hub.faults.heal()


def _speed(hub: Hub, folder: Path, size: Size, result: Result) -> None:
    for name, count, pack, target, unit in (
        ("messages", size.messages, 0, 200.0, "messages/s"),
        (f"samples, packed to {_PACK >> 10} KiB", size.packed, _PACK, 5000.0, "samples/s"),
    ):
        with _delivering(hub, folder / f"speed{pack}", backlog=count, pack=pack) as side:
            _wait(lambda side=side: side.arrived() > 0, "the first message has arrived")  # type: ignore[misc] # mypy knows no defaults of lambdas
            started = time.monotonic()
            _wait(side.is_empty, f"{count} samples have left", timeout=600)
            seconds = time.monotonic() - started
            _add(result, f"{name}, as fast as they go", [side.outcome(seconds, hangs=0)], count)
        result.checks.append(Check(f"{name} a second", count / seconds, ">=", target, unit))
        result.figures[f"{unit} {pack}"] = count / seconds


def _drain(hub: Hub, folder: Path, backlog: int, result: Result) -> None:
    rate = Rate(SystemClock(), per_second=_DRAIN_RATE, per_day=None)
    with _delivering(hub, folder / "drain", backlog=backlog, pack=_PACK, rate=rate, per_second=_DRAIN_RATE) as side:
        _wait(side.is_empty, "the backlog has left", timeout=3600)
        events = hub.received(side.device)
        seconds = events[-1].at - events[0].at
        off = abs((len(events) - 1) / seconds / _DRAIN_RATE - 1) * 100
        _add(result, f"backlog, {_DRAIN_RATE:g} messages/s", [side.outcome(seconds, hangs=0)], backlog)
    result.checks.append(Check("backlog: off the configured rate", off, "<=", 2.0, "%"))
    result.figures["drain"] = {"messages": len(events), "seconds": seconds, "off_percent": off}


def _renewals(hub: Hub, folder: Path, renewals: int, result: Result) -> None:
    clock = SystemClock()
    rate = Rate(clock, per_second=_RENEWAL_RATE, per_day=None)
    options: dict[str, Any] = {"options": Options(token_ttl=_TOKEN), "rate": rate, "per_second": _RENEWAL_RATE}
    with _delivering(hub, folder / "renewals", **options) as side:

        def connections() -> int:
            return sum(note.kind == "connected" and note.client == side.device.id for note in hub.notes)

        deadline = time.monotonic() + _HANGS
        while connections() <= renewals:
            if time.monotonic() > deadline:
                raise BenchError(f"the SDK did not renew its token {renewals} times within {_HANGS:g} s")
            if side.store.totals.rows < _RENEWAL_RATE:
                side.put(int(_RENEWAL_RATE))
            time.sleep(0.05)
        _wait(side.is_empty, "the last samples have left")
        _add(result, f"renewals of the token, {_RENEWAL_RATE:g} messages/s", [side.outcome(0, hangs=0)], side.count)
        failures = side.delivery.state.failures
    result.checks.append(Check("renewals: deliveries that failed", failures, "<=", 0))


def _add(result: Result, name: str, outcomes: list[_Outcome], samples: int) -> None:
    missing, repeats, hangs = (sum(getattr(one, what) for one in outcomes) for what in ("missing", "repeats", "hangs"))
    slowest = max(one.recovery for one in outcomes)
    until = f"{slowest:.1f} s" if len(outcomes) == 1 else f"at most {slowest:.1f} s"
    result.rows.append((name, f"{len(outcomes)}", f"{samples:,}", f"{missing}", f"{repeats}", f"{hangs}", until))
    result.checks += [
        Check(f"{name}: missing", missing, "<=", 0),
        Check(f"{name}: hangs", hangs, "<=", 0),
        Check(f"{name}: repeats that differ", sum(one.unequal for one in outcomes), "<=", 0),
    ]
    result.figures[name] = [one._asdict() for one in outcomes]


@contextmanager
def _delivering(hub: Hub, folder: Path, *, backlog: int = 0, **options: Any) -> Iterator[_Side]:  # noqa: ANN401 - of several types
    """Deliver an outbox to a device of its own."""
    hub.faults.heal()
    hub.faults.slow_link(_ROUND_TRIP)
    device = hub.add_device(folder.name)
    credentials = Credentials(
        WithConnectionString(connection_string.parse(device.connection_string)), hub.ca.read_text(encoding="ascii")
    )
    store = Store(folder, durability="full", bounds=Bounds(8 << 30, _DAY, "block"), bridges=["hub"])
    bridge = IotHubBridge(lambda: credentials, SystemClock(), **options)
    delivery = Delivery("hub", bridge, store.outbox("hub"), SystemClock())
    side = _Side(hub, device, store, delivery)
    side.put(backlog)
    thread = threading.Thread(target=delivery.run, name="bridge-hub", daemon=True)
    thread.start()
    try:
        yield side
    finally:
        delivery.stop()
        thread.join(_ENDS)
        if thread.is_alive():
            raise BenchError(f"the delivery did not end within {_ENDS:g} s")
        store.close()


def _wait(true: Callable[[], bool], what: str, *, timeout: float = _HANGS) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise BenchError(f"it took longer than {timeout:g} s until {what}")
        time.sleep(0.01)


def _sample(number: int) -> Sample:
    head = f'{{"id":"{number:032x}","n":{number},"pad":"'
    event = head + "x" * (_EVENT - len(head) - 2) + '"}'
    return Sample(f"{number:032x}", "unsure", "0", "imu/1", "dense", _DAY, 0, event.encode())


def _samples_in(body: bytes) -> list[dict[str, Any]]:
    found = json.loads(body)
    return found if isinstance(found, list) else [found]
