"""The long form: `python -m tests.crash`, or `make chaos`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.crash.expectation import Shape
from tests.crash.plan import Life, Plan
from tests.crash.report import Memory, beginning, end, line
from tests.crash.storm import Storm
from tests.crash.trial import Kind
from tests.crash.victim import POINTS_OF_WINDOWS
from tests.mosquitto import MosquittoFactory, choose_engine

KINDS: Final = (
    Kind("chaos-5", 5, Shape(10, 3, max_streams=12), wide=True, remembers=True),
    Kind("chaos-3-1-1", "3.1.1", Shape(4, 1), opening=True, sparse=True),
    Kind("chaos-points", 5, Shape(1, 1), receive_maximum=20, batch=7),
)
_RATE: Final = 200.0
_LONGEST: Final = 4.0
_FAULT_LASTS: Final = 3.0
_EVERY: Final = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit code: 0 when all sets are equal."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Kills and faults, and what came of it.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to kill and disturb (10)")
    parser.add_argument("--seed", type=int, default=None, help="of recordings, kills and faults (a random one)")
    given = parser.parse_args(arguments)
    seed = random.randrange(1_000_000) if given.seed is None else given.seed  # noqa: S311 - a plan, not a secret
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="mlade-chaos-")))
        try:
            make_broker = MosquittoFactory(*choose_engine(), cleanup)
        except pytest.fail.Exception as error:
            _say([str(error)])
            return 1
        _say(beginning(KINDS, minutes=given.minutes, seed=seed, rate=_RATE))
        with Storm(KINDS, make_broker, directory, seed, rate=_RATE) as storm:
            return _run(storm, given.minutes, seed)


def _run(storm: Storm, minutes: float, seed: int) -> int:
    begun = time.monotonic()
    memory = Memory([kind.name for kind in KINDS])

    def lives(number: int) -> Iterator[Life]:
        without = () if KINDS[number].shape.remembers else POINTS_OF_WINDOWS
        for life in Plan(seed + number, longest=_LONGEST, fault_lasts=_FAULT_LASTS, without=without):
            if time.monotonic() - begun > 60 * minutes:
                return
            yield life

    storm.start(lives)
    while not storm.wait(_EVERY):
        _say([line(storm, time.monotonic() - begun, memory)])
    _say(["", "No more kills and faults: the processors finish their work."])
    violations = storm.finish()
    _say(end(storm, memory, violations, seed))
    return 1 if violations else 0


def _say(lines: Iterable[str]) -> None:
    for text in lines:
        sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
