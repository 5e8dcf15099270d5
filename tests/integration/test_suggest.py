"""`mlade suggest`: what it prints is a filter, and that filter keeps about as many as were asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from processor.demo.data import FIELDS
from processor.recording import Writer
from processor.suggest import Target, _between, _place, _rounded_down, parse_target
from processor.types import Message
from tests import models, recordings
from tests.commands import Done, mlade_here

COUNT = 6000
UNSURE = {"name": "unsure", "measure": "confidence", "band": {"max": 0.5}}
AUDIT = {"name": "audit", "sample": 0.05}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three watches, 200 s, near 600 windows."""
    return recordings.write(tmp_path_factory.mktemp("recording") / "rec.jsonl", COUNT)


class Suggest:
    """The command, on one recording."""

    def __init__(self, recording: Path, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.recording = recording
        self._directory = directory
        self._capsys = capsys

    def __call__(self, target: str, *rules: dict[str, Any], options: tuple[str, ...] = (), **more: Any) -> Done:  # noqa: ANN401 - JSON
        """Run it for a filter of these rules."""
        self._config = recordings.configuration(self._directory, *rules, **more)
        arguments = (str(self.recording), "-c", str(self._config), "--target", target, *options)
        return mlade_here(self._capsys, "suggest", *arguments)

    def rules(self, done: Done) -> list[dict[str, Any]]:
        """Return the rules of the filter that was printed."""
        assert done.code == 0, done.err
        found: list[dict[str, Any]] = yaml.safe_load(done.out)["rules"]
        return found

    def kept(self, done: Done) -> dict[str, int]:
        """Return what the filter that was printed keeps, by rule."""
        assert done.code == 0, done.err
        file = self._directory / "suggested.yaml"
        file.write_text(done.out)
        arguments = (str(self.recording), "-c", str(self._config), "--filter", str(file), "--json")
        found: dict[str, int] = json.loads(mlade_here(self._capsys, "replay", *arguments).out)["by_rule"]
        return found


@pytest.fixture
def suggest(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Suggest:
    """Return the command."""
    return Suggest(recording, tmp_path, capsys)


@pytest.mark.parametrize(
    ("rule", "keys"),
    [
        (UNSURE, {"max"}),
        ({"name": "unsure", "measure": "confidence"}, {"max"}),
        ({"name": "unsure", "measure": "margin"}, {"max"}),
        ({"name": "unsure", "measure": "entropy"}, {"min"}),
        ({"name": "unsure", "measure": "probability", "label": "running"}, {"min", "max"}),
        ({"name": "unsure", "measure": "confidence", "band": {"min": 0.4, "max": 0.6}}, {"min", "max"}),
        ({"name": "sure", "measure": "confidence", "band": {"min": 0.9}}, {"min"}),
        ({"name": "far", "measure": "margin", "band": {"min": 0.1, "max": 0.9}, "outside": True}, {"min", "max"}),
        ({"name": "low", "measure": "margin", "band": {"min": 0.5}, "outside": True}, {"min"}),
    ],
)
def test_the_band_holds_what_was_asked_for(suggest: Suggest, rule: dict[str, Any], keys: set[str]) -> None:
    """To the window, where scores differ; it grows from where the model cannot decide, or from where the band was."""
    done = suggest("60", rule)
    (suggested,) = suggest.rules(done)
    assert suggested["band"].keys() == keys
    assert {key: value for key, value in suggested.items() if key != "band"} == {
        key: value for key, value in rule.items() if key != "band"
    }
    assert suggest.kept(done) == {rule["name"]: 60}
    assert "# Replayed, it keeps 60 of " in done.out
    if "max" in keys and "min" in keys:
        assert suggested["band"]["min"] + suggested["band"]["max"] == pytest.approx(1), "around a half"


def test_the_other_rules_count(suggest: Suggest) -> None:
    """The whole filter keeps about so many, in whichever order its rules are."""
    for rules in ((UNSURE, AUDIT), (AUDIT, UNSURE)):
        kept = suggest.kept(suggest("80", *rules))
        assert kept["audit"] > 10
        assert sum(kept.values()) == pytest.approx(80, abs=2)


def test_a_day_and_an_hour_are_those_of_the_forecast(suggest: Suggest) -> None:
    """200 s were recorded; of an hour that is an eighteenth, and the schedule rules out half of it."""
    seconds = (COUNT - 1) / 30
    done = suggest("1000/hour", UNSURE)
    assert sum(suggest.kept(done).values()) == pytest.approx(1000 * seconds / 3600, abs=1)
    assert "1,000 an hour" in done.out
    half = {"duty_cycle": {"period": "100s", "fraction": 0.5}}
    done = suggest("12000/day", UNSURE, filter={"rules": [UNSURE], "schedule": half})
    assert sum(suggest.kept(done).values()) == pytest.approx(12_000 * seconds / 86_400, abs=1)


@pytest.mark.parametrize(("measure", "of"), [("confidence", "lowest"), ("margin", "lowest"), ("entropy", "highest")])
def test_a_share_can_be_had_instead(suggest: Suggest, measure: str, of: str) -> None:
    """It keeps up with a stream that changes."""
    done = suggest("60", {"name": "unsure", "measure": measure}, options=("--share",))
    (suggested,) = suggest.rules(done)
    assert suggested["keep"]["of"] == of
    assert "band" not in suggested
    assert suggest.kept(done)["unsure"] == pytest.approx(60, abs=3)


def test_a_rule_with_a_share_keeps_its_form(suggest: Suggest) -> None:
    """And whatever else it says."""
    keep = {"share": 0.5, "of": "highest", "over": 100}
    done = suggest("40", {"name": "top", "measure": "entropy", "band": {"min": 0.1}, "keep": keep})
    (suggested,) = suggest.rules(done)
    assert suggested["keep"] == {"share": suggested["keep"]["share"], "of": "highest", "over": 100}
    assert suggested["band"] == {"min": 0.1}
    assert suggest.kept(done)["top"] == pytest.approx(40, abs=3)


def test_where_scores_are_tied_a_share_is_suggested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A band would hold all or nothing."""
    path = tmp_path / "tied.jsonl"
    writer = Writer(path)
    body = json.dumps(dict.fromkeys(FIELDS, 0.25)).encode()
    times = [recordings.START * recordings.NS + number * recordings.NS // 10 for number in range(3000)]
    writer.write([Message("wearable/1/imu", body[:-1] + b', "ts": %.1f}' % (time / 1e9), 1, 0, time) for time in times])
    writer.close()
    suggest = Suggest(path, tmp_path, capsys)
    done = suggest("30", UNSURE | {"band": {"max": 1}})
    assert "the same score" in done.out
    assert suggest.rules(done)[0]["keep"]["of"] == "lowest"
    assert suggest.kept(done)["unsure"] == pytest.approx(30, abs=3)


def test_a_rule_without_a_measure_is_sampled(suggest: Suggest) -> None:
    """It has nothing else; and with a measure beside it, it can be asked for by name."""
    done = suggest("60", {"name": "audit", "sample": 0.5})
    assert suggest.kept(done)["audit"] == pytest.approx(60, abs=3)
    done = suggest("80", UNSURE, AUDIT, options=("--rule", "audit"))
    assert suggest.rules(done)[0] == UNSURE
    assert sum(suggest.kept(done).values()) == pytest.approx(80, abs=3)


def test_a_filter_without_rules_gets_one(suggest: Suggest) -> None:
    """So that one can begin with nothing."""
    done = suggest("50")
    assert suggest.rules(done) == [
        {"name": "ambiguous", "measure": "confidence", "band": suggest.rules(done)[0]["band"]}
    ]
    assert suggest.kept(done) == {"ambiguous": 50}


def test_conditions_that_remember_are_made_up_for(suggest: Suggest) -> None:
    """A cooldown takes some: the band reaches further, until what is kept is right, as far as that can be had."""
    cooled = UNSURE | {"sample": 0.8, "cooldown": {"for": "2s", "by": "stream"}}
    assert suggest.kept(suggest("50", cooled))["unsure"] == pytest.approx(50, abs=3)
    deduplicated = UNSURE | {"dedup": {"memory": 30}}
    assert suggest.kept(suggest("50", deduplicated))["unsure"] == pytest.approx(50, abs=3)
    done = suggest("50", UNSURE | {"limit": {"max": 2, "per": "1m"}})
    assert suggest.kept(done)["unsure"] < 20
    assert "# NOTE: " in done.out
    assert "look at its other conditions" in done.out


def test_more_than_there_are_is_said(suggest: Suggest) -> None:
    """The band holds all, and no more can be had."""
    done = suggest("100000", UNSURE)
    kept = suggest.kept(done)["unsure"]
    assert kept > 500
    assert f"No more than {kept} of the recording can be had" in done.out


@given(st.floats(1, 1e9))
def test_what_can_be_had_is_never_said_to_be_more_than_there_is(count: float) -> None:
    """It is told in three digits, rounded down: of 3,548 windows, 3,540."""
    assert count * 0.99 < _rounded_down(count) <= count
    assert _rounded_down(3548.0) == 3540


def test_a_short_recording_is_said(suggest: Suggest) -> None:
    """A single window of it stands for more than was asked for."""
    done = suggest("100/day", UNSURE)
    assert suggest.kept(done) == {"unsure": 1}
    assert "a longer recording tells more" in done.out


def test_a_filter_of_a_file_can_be_changed(suggest: Suggest, tmp_path: Path) -> None:
    """Instead of the configuration's."""
    file = tmp_path / "filter.yaml"
    file.write_text("rules: [{name: other, measure: margin}]\n")
    done = suggest("30", UNSURE, options=("--filter", str(file)))
    assert suggest.kept(done) == {"other": 30}


@pytest.mark.parametrize(
    ("rules", "options", "said"),
    [
        ([UNSURE], ("--rule", "none"), "no rule 'none'; it has unsure"),
        ([UNSURE, {"name": "all"}], (), "No window of the recording is for rule unsure alone"),
        ([UNSURE, AUDIT | {"sample": 0.5}], (), "The other rules keep"),
        ([AUDIT], ("--share",), "has no measure"),
        ([UNSURE | {"schedule": {"between": [{"end": "2020-01-01T00:00:00Z"}]}}], (), "look at its schedule"),
    ],
)
def test_what_is_not_possible_is_said(
    suggest: Suggest, rules: list[dict[str, Any]], options: tuple[str, ...], said: str
) -> None:
    """Exit code 1, and no filter."""
    done = suggest("50", *rules, options=options)
    assert (done.code, done.out) == (1, "")
    assert said in done.err


def test_a_target_is_a_number_with_a_unit(suggest: Suggest) -> None:
    """Else it is a usage error."""
    assert parse_target("10") == Target(10, "")
    assert parse_target("2.5/hour") == Target(2.5, "hour")
    for wrong in ("0", "-1", "many", "10/week", "1e3", ""):
        done = suggest(wrong, UNSURE)
        assert done.code == 2
        assert "such as 500, 100/day or 10/hour" in " ".join(done.err.split())


def test_a_regression_is_asked_for_its_highest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A value has no point at which a model cannot decide."""
    path = tmp_path / "values.jsonl"
    writer = Writer(path)
    writer.write(
        [Message("t", b'{"x": %.3f}' % (number % 400 / 100 - 2), 1, 0, number * 10**9) for number in range(1000)]
    )
    writer.close()
    suggest = Suggest(path, tmp_path, capsys)
    more: dict[str, Any] = {
        "sources": [{"name": "s", "topics": ["t"], "fields": ["x"]}],
        "model": {"path": str(models.write(models.identity(1), tmp_path)), "output": {"kind": "value"}},
    }
    done = suggest("100", **more)
    (suggested,) = suggest.rules(done)
    assert suggested["measure"] == "value"
    assert suggested["band"].keys() == {"min"}
    assert suggest.kept(done)["ambiguous"] == pytest.approx(100, abs=4)


numbers = st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=40).map(sorted).map(np.array)


@given(numbers, st.floats(0, 50))
def test_equal_scores_are_held_together(ordered: np.ndarray[Any, np.dtype[np.float64]], need: float) -> None:
    """The band ends between two scores that differ, in few digits, and no other such place is nearer to the need."""
    count = _place(ordered, need)
    end = _between(ordered, count)
    assert (ordered <= end).sum() == count
    possible = [int((ordered <= score).sum()) for score in ordered]
    assert abs(count - need) == min(abs(other - need) for other in possible)
