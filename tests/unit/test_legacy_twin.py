"""MLADE's desired properties in a twin: what comes into force, and what is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from processor.settings import HubLegacy
from processor.types import MODEL_SLOT
from tests.cloud import Hub
from tests.unit.test_pipeline import Line, reading
from tests.unit.test_twin import A, B, desire, in_force, topic

FIELD = HubLegacy(field="x")


def band(line: Line) -> tuple[float | None, float | None]:
    """Return the interval in force."""
    interval = line.control.active.rules[0].where.fields["x"]
    return interval.min, interval.max


def test_any_subset_in_a_patch_joins_what_was_set_before(tmp_path: Path) -> None:
    """Also over a restart; null returns a key to its default, and without any the file's filter is in force."""
    line = Line(tmp_path, legacy=FIELD)
    hub = Hub(line.link)
    line.play(desire(hub, TemperatureThresholdLow=1), [])
    assert in_force(line) == ("mlade", 2)
    assert band(line) == (1.0000000000000002, 99.99999999999999)
    assert hub.reported["legacy"] == {"status": "applied", "errors": []}
    assert hub.reported["filter"]["active_source"] == "twin"
    line.store.close()
    line = Line(tmp_path, legacy=FIELD)
    hub = Hub(line.link)
    line.play(desire(hub, complete=False, TemperatureThresholdHigh=2), [])
    assert band(line) == (1.0000000000000002, 1.9999999999999998)
    line.play(desire(hub, TemperatureThresholdHigh=2, TemperatureThresholdLow=1), [])
    assert line.control.revision == 3
    line.play(desire(hub, complete=False, TemperatureThresholdLow=None, DutyCycle=None), [])
    assert hub.reported["filter"]["status"] == "rejected", "25 is the default again, and above 2"
    assert band(line) == (1.0000000000000002, 1.9999999999999998)
    line.play(desire(hub, complete=False, TemperatureThresholdHigh=None), [])
    assert in_force(line) == ("all", 4)
    assert "legacy" not in hub.reported


def test_what_is_wrong_is_told_under_the_keys_and_changes_nothing(tmp_path: Path) -> None:
    """Also when the same twin comes again."""
    line = Line(tmp_path, legacy=FIELD)
    hub = Hub(line.link)
    for _ in range(2):
        line.play(desire(hub, DutyCycle=1.5, TemperatureThresholdLow="hot", ADInputLength=5), [])
        told = hub.reported
        assert in_force(line) == ("all", 1)
        assert told["legacy"]["status"] == told["filter"]["status"] == "rejected"
        assert [error["path"] for error in told["legacy"]["errors"]] == [
            "TemperatureThresholdLow", "DutyCycle", "ADInputLength",
        ]  # fmt: skip
        assert [error["path"] for error in told["filter"]["errors"]] == ["TemperatureThresholdLow", "DutyCycle"]
    line.play(desire(hub, DutyCycle=0.5), [])
    assert hub.reported["legacy"] == {"status": "applied", "errors": []}
    assert in_force(line) == ("mlade", 2)


def test_a_whole_filter_wins_over_mlades_keys(tmp_path: Path) -> None:
    """And that is said."""
    line = Line(tmp_path, legacy=FIELD)
    hub = Hub(line.link)
    line.play(desire(hub, filter=A, DutyCycle=0.5), [])
    assert in_force(line) == ("a", 2)
    assert hub.reported["legacy"]["status"] == "ignored"
    (error,) = hub.reported["legacy"]["errors"]
    assert error["path"] == "DutyCycle"
    assert "filter" in error["message"]
    line.play(desire(hub, complete=False, filter=None), [])
    assert in_force(line) == ("mlade", 3)
    assert hub.reported["legacy"] == {"status": "applied", "errors": []}


def test_a_topics_filter_after_it_stays(tmp_path: Path) -> None:
    """The later change wins."""
    line = Line(tmp_path, legacy=FIELD)
    hub = Hub(line.link)
    line.play(desire(hub, DutyCycle=0.5), [], topic(B), desire(hub, DutyCycle=0.5), [])
    assert in_force(line) == ("b", 3)
    assert hub.reported["filter"]["active_source"] == "topic"
    assert hub.reported["legacy"]["status"] == "applied"


def test_without_a_field_the_keys_are_ignored(tmp_path: Path) -> None:
    """And what is missing is said."""
    line = Line(tmp_path)
    hub = Hub(line.link)
    line.play(desire(hub, DutyCycle=0.5, ADInputLength=20), [])
    assert in_force(line) == ("all", 1)
    assert hub.reported["legacy"]["status"] == "ignored"
    assert all("legacy: {field: …}" in error["message"] for error in hub.reported["legacy"]["errors"])
    assert line.opened == []


def test_a_field_that_leaves_the_configuration_takes_its_filter_with_it(tmp_path: Path) -> None:
    """At the next connect."""
    line = Line(tmp_path, legacy=FIELD)
    line.play(desire(Hub(line.link), DutyCycle=0.5), [])
    line.store.close()
    line = Line(tmp_path)
    line.play(desire(Hub(line.link), DutyCycle=0.5), [])
    assert in_force(line) == ("all", 3)


def test_another_window_size_begins_the_windows_anew(tmp_path: Path) -> None:
    """In one transaction with what else the twin desires; null returns to the configured size."""
    line = Line(tmp_path, legacy=FIELD)
    hub = Hub(line.link)
    line.play([reading(n) for n in range(1, 4)], desire(hub, ADInputLength=12, filter=A), [])
    assert hub.reported["window"] == {"size": 12}
    assert hub.reported["legacy"] == {"status": "applied", "errors": []}
    assert line.store.slot(MODEL_SLOT).windows()[0] == []
    line.play([reading(n) for n in range(4, 40)])
    line.play(desire(hub, complete=False, ADInputLength=None), [], [reading(n) for n in range(40, 43)])
    # Of size 2 and step 2; then of size 12, every second reading; then of size 2 again.
    windows = line.deliver()
    assert windows[0] == [1, 2]
    assert windows[1] == list(range(4, 16))
    assert windows[-2] == list(range(28, 40))
    assert windows[-1] == [40, 41]
    assert line.opened == [12, 2]


def test_a_window_size_survives_a_restart(tmp_path: Path) -> None:
    """Written down with its journal."""
    line = Line(tmp_path, legacy=FIELD)
    line.play(desire(Hub(line.link), ADInputLength=12), [], [reading(n) for n in range(1, 9)])
    assert line.store.meta("twin")["window_size"] == 12
    assert line.store.slot(MODEL_SLOT).meta("windows") == "windows of 12"
    assert sum(1 for _ in line.store.slot(MODEL_SLOT).windows()[2]) == 1


def test_a_window_size_that_the_model_does_not_take_is_refused(tmp_path: Path) -> None:
    """With the model's reason; it is not asked again with every connect, and the rest of the twin is heeded."""
    line = Line(tmp_path, legacy=FIELD)
    hub = Hub(line.link)
    for _ in range(3):
        line.play(desire(hub, ADInputLength=13, DutyCycle=0.5), [])
        assert hub.reported["legacy"]["status"] == "rejected"
        (error,) = hub.reported["legacy"]["errors"]
        assert error == {"path": "ADInputLength", "message": "set model.window.size to 2"}
    assert in_force(line) == ("mlade", 2)
    assert line.opened == [13]
    assert line.computation.windows.shape.size == 2


@pytest.mark.parametrize("desired", [{"desired": {"DutyCycle": 0.5}}, {"DutyCycle": 0.5, "desired": 7}])
def test_keys_under_desired_and_beside_it(tmp_path: Path, desired: dict[str, Any]) -> None:
    """As MLADE found them."""
    line = Line(tmp_path, legacy=FIELD)
    line.play(desire(Hub(line.link), **desired), [])
    assert in_force(line) == ("mlade", 2)
