"""The adaptive band: the share is met on any scores, evenly, and by the most extreme of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.conditions.keep import AdaptiveBand
from processor.types import Flags, Floats
from tests.unit.naive_filter import Band
from tests.unit.test_limit import Disk

COUNT = 30_000
RANDOM = np.random.default_rng(1)
PLACES = np.arange(COUNT)
SCORES: dict[str, Floats] = {
    "random": RANDOM.random(COUNT),
    "constant": np.full(COUNT, 0.5),
    "few values": RANDOM.integers(0, 3, COUNT).astype(float),
    "mostly saturated": np.where(RANDOM.random(COUNT) < 0.7, 1.0, RANDOM.random(COUNT)),
    "ramp up": PLACES / COUNT,
    "ramp down": -PLACES / COUNT,
    "step up": (PLACES > COUNT // 2).astype(float),
    "step down": (PLACES < COUNT // 2) + RANDOM.random(COUNT) / 10,
    "steps": (PLACES % 8000 < 4000) + RANDOM.random(COUNT) / 10,
    "bursts": np.repeat(RANDOM.random(COUNT // 50), 50),
    "slow wave": np.sin(PLACES / 777),
    "walk": RANDOM.normal(size=COUNT).cumsum(),
}


def judge(band: AdaptiveBand, scores: Floats) -> Flags:
    """Judge scores, with ties broken by a seed."""
    return band.judge(scores, np.random.default_rng(len(scores)).random(len(scores)).__getitem__)


@pytest.mark.parametrize("share", [0.001, 0.004, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", SCORES)
def test_the_share_is_met_from_a_cold_start(name: str, share: float) -> None:
    """From 20,000 windows on within 2 % or 2 samples, and never more than three times the share in 200 windows."""
    kept = judge(AdaptiveBand(share, "highest", 5000), SCORES[name])
    so_far = np.concatenate([[0], kept.cumsum()])
    wanted = share * np.arange(COUNT + 1)
    assert (np.abs(so_far - wanted) <= np.maximum(0.02 * wanted, 2))[20_000:].all()
    assert (so_far[200:] - so_far[:-200]).max() <= max(3 * share * 200, 1)


@pytest.mark.parametrize("of", ["highest", "lowest"])
def test_the_most_extreme_are_kept(of: str) -> None:
    """Of random scores hardly any that is not among the share's own, and nearly all that are far within."""
    scores = SCORES["random"]
    kept = judge(AdaptiveBand(0.1, "highest" if of == "highest" else "lowest", 5000), scores)[5000:]
    rank = (1 - scores if of == "highest" else scores)[5000:]
    assert kept[rank < 0.05].mean() > 0.98
    assert kept[rank > 0.15].mean() < 0.01


def test_after_a_step_the_share_moves_with_the_scores() -> None:
    """Once the old scores are forgotten, the most extreme of the new ones are kept."""
    kept = judge(AdaptiveBand(0.1, "highest", 1000), SCORES["step down"])
    after = slice(COUNT // 2 + 2000, None)
    rank = 1 - 10 * SCORES["step down"][after]
    assert kept[after][rank < 0.05].mean() > 0.95
    assert kept[after][rank > 0.2].mean() < 0.01


scores_of = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, float("nan"), float("inf")]) | st.floats(0, 1), max_size=150)


@settings(max_examples=100, deadline=None)
@given(
    scores_of,
    st.sampled_from([0.001, 0.01, 0.1, 0.4, 1.0]),
    st.sampled_from(["highest", "lowest"]),
    st.integers(1, 100),
    st.lists(st.integers(0, 150), max_size=4),
    st.booleans(),
)
def test_it_is_the_rule_of_the_design_in_any_batches(
    scores: list[float], share: float, of: str, over: int, cuts: Sequence[int], restarts: bool
) -> None:
    """Score by score, with restarts between batches or without; scores that are no numbers do not count."""
    uniforms = np.random.default_rng(len(scores)).random(len(scores)).tolist()
    naive = Band(share, of, over)
    expected = [naive.keeps(*each) for each in zip(scores, uniforms, strict=True)]

    def make() -> AdaptiveBand:
        return AdaptiveBand(share, "highest" if of == "highest" else "lowest", over)

    subject, disk, found, start = make(), Disk(), list[bool](), 0
    for end in sorted({*(cut for cut in cuts if cut < len(scores)), len(scores)}):
        breaks_ties: Callable[[int], float] = uniforms[start:end].__getitem__
        found += subject.judge(np.array(scores[start:end], np.float64), breaks_ties).tolist()
        disk.write(subject.changes())
        if restarts:
            subject = make()
            subject.restore(disk.read())
        start = end
    assert found == expected


def test_little_is_written_for_a_batch() -> None:
    """Not the whole memory: of 5,000 scores those that are new, and a few before them."""
    band = AdaptiveBand(0.1, "highest", 5000)
    judge(band, SCORES["random"])
    assert sum(len(row.value or b"") for row in band.changes()) > 8 * 5000
    assert band.changes() == []
    judge(band, SCORES["random"][:100])
    assert sum(len(row.value or b"") for row in band.changes()) < 8 * 400
