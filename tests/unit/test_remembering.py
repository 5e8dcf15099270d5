"""What a filter remembers: windows are judged one after another, whatever their batches, restarts and other rules."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.admission import Bounds
from processor.memories import Memories
from processor.selection import Selection
from processor.slot_state import SlotChanges
from processor.store import Store
from processor.types import MODEL_SLOT, NS, OutputKind, Reason
from tests.unit.naive_filter import NAMES, PART, START, Case, Naive, Verdict
from tests.unit.situations import identifier, judge_with, lines, selection_of, verdicts_of

Line = tuple[dict[str, Any], list[Case], OutputKind, list[str]]
LABELS = ["x", "y"]


class Processor:
    """A filter and its store, as far as memories are concerned."""

    def __init__(self, directory: Path, filter_: Mapping[str, Any]) -> None:
        """Start with the filter."""
        self._directory = directory
        self._judged = 0
        self.start(filter_)

    def start(self, filter_: Mapping[str, Any]) -> None:
        """Open the store and go on."""
        self.store = Store(self._directory, durability="normal", bounds=Bounds(1 << 20, NS, "drop_oldest"), bridges=[])
        self.state = state = self.store.slot(MODEL_SLOT)
        memories = Memories.kept(state.meta("memories"), state.remembered())
        self._use(selection_of(filter_, LABELS, memories))

    def _use(self, selection: Selection) -> None:
        self.selection = selection
        self.state.commit(SlotChanges(meta={"memories": selection.memories.meta()}))

    def change(self, filter_: Mapping[str, Any]) -> None:
        """Put another filter in force."""
        self._use(selection_of(filter_, LABELS, self.selection.memories.successor()))

    def take(self, cases: Sequence[Case]) -> list[Verdict]:
        """Judge a batch and commit what changed."""
        judgement = judge_with(self.selection, cases, "probabilities", LABELS, first=self._judged)
        self._judged += len(cases)
        self.state.commit(SlotChanges(remembered=self.selection.memories.changes()))
        return verdicts_of(judgement)


def cut(cases: Sequence[Case], cuts: Sequence[int]) -> Iterator[Sequence[Case]]:
    """Yield cases in batches that end at `cuts`."""
    bounds = sorted({0, len(cases), *(at for at in cuts if at < len(cases))})
    return (cases[a:b] for a, b in itertools.pairwise(bounds))


def same(found: Sequence[Verdict], expected: Sequence[Verdict]) -> bool:
    """Whether verdicts are equal, to the rounding of scores and chances."""
    return [(v.reason, v.rule) for v in found] == [(v.reason, v.rule) for v in expected] and [
        v.probability for v in found
    ] == pytest.approx([v.probability for v in expected], abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(lines(), st.lists(st.integers(0, 60), max_size=6), st.sets(st.integers(0, 6)))
def test_any_batches_and_restarts_give_what_the_contract_says(
    line: Line, cuts: Sequence[int], restarts: set[int]
) -> None:
    """The rule, the reason and the chance of each window, as if they came one at a time and nothing ever stopped."""
    filter_, cases, _, labels = line
    naive = Naive(filter_, labels)
    expected = [naive.judge(case, identifier(number)) for number, case in enumerate(cases)]
    found = []
    with TemporaryDirectory() as directory:
        processor = Processor(Path(directory), filter_)
        for number, batch in enumerate(cut(cases, cuts)):
            if number in restarts:
                processor.store.close()
                processor.start(filter_)
            found += processor.take(batch)
        processor.store.close()
    assert same(found, expected)


@settings(max_examples=30, deadline=None)
@given(lines(), st.integers(0, 2**32), st.booleans())
def test_the_chance_is_the_frequency_with_which_such_a_window_is_kept(line: Line, seed: int, shadowed: bool) -> None:
    """In the state that it met: judged again and again with other hashes, it is kept as often as was said.

    Where all rules ask the shadow, the chance that this judges it is in it, and here it does.
    """
    filter_, cases, kind, labels = line
    random = Random(seed)  # noqa: S311 - it draws test data
    # What keep decides is no chance: it breaks ties by a number of the window's own.
    chosen = [rule | {"keep": None} for rule in filter_["rules"] if (rule.get("measure") == "disagreement") == shadowed]
    filter_ = {"rules": chosen}
    selection = selection_of(filter_, labels)
    if cases:
        judge_with(selection, cases[:-1], kind, labels)
    draws = 150
    kept, chances = 0, set()
    for _ in range(draws if cases else 0):
        verdicts = judge_with(deepcopy(selection), cases[-1:], kind, labels, first=random.getrandbits(60)).verdicts
        if verdicts.rule[0] >= 0:
            kept += 1
            chances.add(float(verdicts.probability[0]) / (PART if shadowed else 1))
    assert len(chances) <= 1
    for chance in chances:
        assert abs(kept / draws - chance) <= 5 * (chance * (1 - chance) / draws) ** 0.5


def windows(*seconds: float, stream: int = 0, confidence: float = 0.5) -> list[Case]:
    """Return windows of one stream at these seconds."""
    return [
        Case(NAMES[stream], START + round(second * NS), (0, 0), (confidence, 1 - confidence), None)
        for second in seconds
    ]


def kept_by(found: Sequence[Verdict]) -> list[int]:
    """Return the rule of each window, -1 where it was rejected."""
    return [verdict.rule for verdict in found]


def test_a_change_of_another_rule_or_condition_leaves_a_memory_alone(tmp_path: Path) -> None:
    """While the rule's name and the condition stay; also over restarts and where the order of the rules changes."""
    limit = {"limit": {"max": 2, "per": "1h"}}
    processor = Processor(tmp_path, {"rules": [{"name": "a", **limit}]})
    assert kept_by(processor.take(windows(0))) == [0]
    processor.change({"rules": [{"name": "b", "where": {"labels": ["y"]}}, {"name": "a", "tags": {"x": "y"}, **limit}]})
    processor.store.close()
    processor.start({"rules": [{"name": "a", "priority": 3, **limit}]})
    assert kept_by(processor.take(windows(1, 2, 3))) == [0, -1, -1]
    processor.store.close()


@pytest.mark.parametrize(
    "other",
    [
        {"name": "a", "limit": {"max": 1, "per": "2h"}},
        {"name": "a", "limit": {"max": 1, "per": "1h", "by": "stream"}},
        {"name": "b", "limit": {"max": 1, "per": "1h"}},
        {"name": "a"},
    ],
)
def test_a_change_of_the_condition_or_the_name_begins_anew(tmp_path: Path, other: dict[str, Any]) -> None:
    """What was remembered does not come back with the earlier filter, and takes no room any more."""
    first = {"rules": [{"name": "a", "limit": {"max": 1, "per": "1h"}}]}
    processor = Processor(tmp_path, first)
    assert kept_by(processor.take(windows(0, 1))) == [0, -1]
    assert len(processor.store.slot(MODEL_SLOT).remembered()) == 2
    processor.change({"rules": [other]})
    assert processor.store.slot(MODEL_SLOT).remembered() == []
    assert kept_by(processor.take(windows(2))) == [0]
    processor.change(first)
    assert kept_by(processor.take(windows(3, 4))) == [0, -1]
    processor.store.close()


def test_only_what_is_kept_is_spent() -> None:
    """Not what an earlier rule takes, is sampled out, or is stopped by a later condition."""
    filter_ = {
        "rules": [
            {"name": "first", "where": {"streams": ["a"]}},
            {"name": "second", "cooldown": {"for": "10s", "by": "rule"}, "limit": {"max": 2, "per": "1h"}},
        ]
    }
    cases = [*windows(0, 1, stream=1), *windows(2, 3, 12, 22, 32)]
    found = verdicts_of(judge_with(selection_of(filter_, LABELS), cases, "probabilities", LABELS))
    assert kept_by(found) == [0, 0, 1, -1, 1, -1, -1]
    assert [verdict.reason for verdict in found[3:]] == [Reason.COOLDOWN, Reason.ACCEPTED, Reason.LIMIT, Reason.LIMIT]


def test_a_later_rule_counts_in_the_chance_only_while_it_would_accept() -> None:
    """An audit slice beside a rule that is full: the chance falls back to the slice's."""
    filter_ = {"rules": [{"name": "audit", "sample": 0.5}, {"name": "few", "limit": {"max": 1, "per": "1h"}}]}
    found = verdicts_of(judge_with(selection_of(filter_, LABELS), windows(*range(100)), "probabilities", LABELS))
    full_from = kept_by(found).index(1)
    assert {verdict.probability for verdict in found[: full_from + 1]} == {1.0}
    assert {verdict.probability for verdict in found[full_from + 1 :]} == {0.0, 0.5}


def test_what_is_remembered_is_json(tmp_path: Path) -> None:
    """So that it stands with the filter in the store."""
    processor = Processor(tmp_path, {"rules": [{"name": "a", "cooldown": {"for": "1s"}}]})
    meta = processor.selection.memories.meta()
    assert json.loads(json.dumps(meta)) == meta
    assert meta["known"][0][:3] == [1, "a", "cooldown"]
    processor.store.close()
