"""The filters under config/examples/: they say what they do in their first lines, and do it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from processor.events import uniform
from processor.filter import parse_filter
from processor.selection import Selection
from processor.types import NS, Floats, Predictions, ShadowAnswers, StreamName, Times, Verdicts, Windows
from tests.models import ACTIVITIES

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
BERLIN = ZoneInfo("Europe/Berlin")


def judge(
    example: str, times: Times, confidences: Floats, values: Floats | None = None, disagreement: Floats | None = None
) -> Verdicts:
    """Judge windows, of one reading where `values` (count, size) are not given, at these times.

    What the confidence leaves goes to the second label. Where there is a `disagreement`, a shadow judged all.
    """
    document = parse_filter((EXAMPLES / f"{example}.yaml").read_text())
    selection = Selection(document, ACTIVITIES, [("imu", ["x"])])
    count = len(times)
    if values is None:
        values = np.arange(count, dtype=np.float64)[:, None]
    times = np.repeat(times[:, None], values.shape[1], axis=1)
    windows = Windows(np.zeros(count, np.int64), times, values[:, :, None])
    chances = np.zeros((count, len(ACTIVITIES)))
    chances[:, 0], chances[:, 1] = confidences, 1 - confidences
    predictions = Predictions("probabilities", ACTIVITIES, chances, None)
    if disagreement is not None:
        rows = np.arange(count)
        shadow = ShadowAnswers("candidate", "", "", 1.0, rows, predictions, disagreement, 0, "", 0.0)
        predictions = replace(predictions, shadow=shadow)
    names = {0: StreamName("imu", "a")}
    return selection.judge(windows, predictions, names, lambda row, text: uniform(f"{row:032x}", text)).verdicts


def kept(example: str, moments: list[str], confidence: float) -> list[bool]:
    """Return whether windows at these times in Berlin are kept."""
    times = [int(datetime.fromisoformat(moment).replace(tzinfo=BERLIN).timestamp()) * NS for moment in moments]
    return [rule >= 0 for rule in judge(example, np.array(times), np.full(len(times), confidence)).rule.tolist()]


def test_all_have_a_sentence_on_when_to_use_them_and_are_tested() -> None:
    """An example without either is no example."""
    names = {path.stem for path in EXAMPLES.iterdir()}
    assert names == {"ambiguous", "disagreement", "peak-hours", "recommended"}
    assert all("\n# When " in (EXAMPLES / f"{name}.yaml").read_text() for name in names)


@pytest.mark.parametrize(("confidence", "inside"), [(0.5, True), (0.6, True), (0.61, False), (0.9, False)])
def test_ambiguous_keeps_a_period_and_a_band(confidence: float, inside: bool) -> None:
    """November in Berlin, confidence 0.4 to 0.6."""
    moments = ["2026-10-31T23:59:59", "2026-11-01T00:00:00", "2026-11-30T23:59:59", "2026-12-01T00:00:00"]
    assert kept("ambiguous", moments, confidence) == [False, inside, inside, False]


def test_peak_hours_keep_a_fifth_of_the_peaks() -> None:
    """Of working days, whatever the confidence."""
    moments = [
        "2026-11-23T06:59", "2026-11-23T07:00", "2026-11-23T07:01:59", "2026-11-23T07:02", "2026-11-23T07:10",
        "2026-11-23T09:30", "2026-11-23T18:20", "2026-11-23T18:30", "2026-11-21T07:00", "2026-11-22T16:00",
    ]  # fmt: skip
    assert kept("peak-hours", moments, 0.9) == [False, True, True, False, True, False, True, False, False, False]


def test_recommended_keeps_an_audit_and_the_least_sure_once() -> None:
    """The shares; that it is the least sure ones; and one of each burst."""
    random = np.random.default_rng(1)
    count = 30_000
    confidences = np.repeat(0.5 + random.random(count // 10) / 2, 10)
    values = np.repeat(random.normal(size=(count // 10, 8)), 10, axis=0) + 0.01 * random.normal(size=(count, 8))
    times = np.arange(count) * NS
    verdicts = judge("recommended", times, confidences, values)
    audit, unsure = verdicts.rule == 0, verdicts.rule == 1
    assert 0.008 * count < audit.sum() < 0.012 * count
    assert 0.001 * count < unsure.sum() < 0.05 * count
    assert np.median(confidences[5000:][unsure[5000:]]) < 0.6 < np.median(confidences)
    assert unsure.reshape(-1, 10)[300:].sum(axis=1).max() <= 1
    assert verdicts.probability[audit].min() == pytest.approx(0.01)
    assert set(verdicts.probability[unsure].tolist()) == {1.0}


def test_disagreement_keeps_what_the_shadow_says_otherwise() -> None:
    """Of the windows that it judged, two hundred a day; the audit keeps of all."""
    count = 3000
    apart = np.where(np.arange(count) % 2, 0.6, 0.1)
    verdicts = judge("disagreement", np.arange(count) * NS, np.full(count, 0.9), disagreement=apart)
    kept = np.flatnonzero(verdicts.rule == 1)
    assert len(kept) == 200
    assert (kept % 2 == 1).all()
    assert 10 < (verdicts.rule == 0).sum() < 60
