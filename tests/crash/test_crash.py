"""The short form: every named point, thirty kills at random of each kind of processor, and some faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import chaos
from tests.crash.expectation import Shape
from tests.crash.plan import Plan
from tests.crash.storm import Storm
from tests.crash.trial import Kind
from tests.crash.victim import POINTS, POINTS_OF_WINDOWS
from tests.mosquitto import MosquittoFactory

pytestmark = pytest.mark.xdist_group("load")  # beside a flood, lives would end before they have begun

SEED = 20_261_124
KILLS = 30
LONGEST = 0.3
KINDS = (
    Kind("crash-5", 5, Shape(10, 3, max_streams=12), wide=True, remembers=True),
    Kind("crash-3-1-1", "3.1.1", Shape(3, 7), opening=True, remembers=True, sparse=True),
    # What the filter does not keep of single readings leaves no trace on the disk, only a receipt, and that late.
    Kind("crash-points", 5, Shape(1, 1), receive_maximum=20, batch=7),
)


def test_kills_at_every_point_and_at_random_change_nothing(mosquitto_factory: MosquittoFactory, tmp_path: Path) -> None:
    """The samples are those of an undisturbed run and those computed, to the byte; so are dead letters and filters."""

    def plan(number: int) -> Plan:
        without = () if KINDS[number].shape.remembers else POINTS_OF_WINDOWS
        return Plan(SEED + number, longest=LONGEST, fault_lasts=LONGEST, without=without)

    with Storm(KINDS, mosquitto_factory, tmp_path, SEED, rate=400) as storm:
        storm.start(lambda number: plan(number).lives(KILLS))
        violations = storm.finish()
    assert not violations, "\n".join([f"seed {SEED}", *violations])
    for trial in storm.trials:
        assert trial.kills >= KILLS + len(POINTS) - 10  # some lives end in order
        assert trial.compared > 200


def test_the_long_form_prints_counts_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    """For a few seconds of it."""
    assert chaos.main(["--minutes", "0.03", "--seed", "7"]) == 0
    printed = capsys.readouterr().out
    assert "seed 7" in printed
    assert "Equal: nothing is missing, nothing is more, nothing is different." in printed
