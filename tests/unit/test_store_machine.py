"""The store under any interleaving of what the pipeline and the bridges do, with faults and kills in the middle of it.

After every step the state is what plain lists and dictionaries say (store_model.py). A kill may fall between two
transactions, or into one; what it leaves then has to be what was before, or after, and nothing in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from processor.admission import LOSSES, Bounds, Queue, WhenFull
from processor.errors import StateFull
from processor.outbox import Claim, Waiting
from processor.store import Changes
from processor.types import NS, DeadLetter, Sample
from processor.windows import Shape
from tests.unit.store_life import Batch, Fault, Lives
from tests.unit.store_model import RECEIPTS_KEPT, Full, receipts
from tests.unit.test_windows import NAMES, Reading

MAX_BYTES = 12_000
MAX_AGE = 10 * NS
ALL = 1 << 40
moments = st.integers(1, 30) | st.integers(1, 200)
interruptions = st.none() | st.none() | st.builds(Fault, st.sampled_from(["killed", "failed"]), moments)
faults = interruptions | st.builds(Fault, st.just("full"), st.just(1))
bridges = st.integers(0, 2)  # of those that are configured
configured = st.sampled_from(
    [
        *[{"files": True, "mqtt": False}] * 5,
        {"files": True, "mqtt": False, "hub": True},
        {"mqtt": False, "hub": True},
        {"files": False},
        {},
    ]
)


class StoreMachine(Lives):
    """The rules."""

    @initialize(
        when_full=st.sampled_from(["drop_oldest", "drop_newest", "block"]),
        size=st.integers(1, 4),
        step=st.integers(1, 3),
        max_gap=st.none() | st.integers(0, 2),
    )
    def start_with_nothing(self, when_full: WhenFull, size: int, step: int, max_gap: int | None) -> None:
        """Start with nothing."""
        self.begin(Bounds(MAX_BYTES, MAX_AGE, when_full), Shape(size, step, 1, max_gap), {"files": True, "mqtt": False})

    @precondition(lambda self: self.batch is None)
    @rule(
        kept=st.integers(0, 7),
        lost=st.integers(0, 3),
        heard=st.integers(0, 7),
        messages=st.integers(0, 6),
        seed=st.integers(0, 1 << 32),
        fault=faults,
    )
    def commit(self, kept: int, lost: int, heard: int, messages: int, seed: int, fault: Fault | None) -> None:
        """A batch of so many samples, dead letters and readings; its windows are those of what was committed before."""
        dice = Random(seed)  # noqa: S311 - drawn one by one, most batches would be small and alike
        changes = Changes(
            samples=[self.sample(dice) for _ in range(kept)],
            dead_letters=[
                DeadLetter("topic", self.number(), "json", "no", bytes(dice.randint(1, 300))) for _ in range(lost)
            ],
            receipts=receipts(self.number() for _ in range(messages)),
            meta={"batch": self.number()},
        )
        batch = [Reading(name, dice.randint(0, 3), float(self.number())) for name in dice.choices(NAMES[:4], k=heard)]
        expected = list(self.model.windows.copy().feed(batch))
        assert self.life.append(changes, batch) == expected
        self.batch = Batch(changes, batch)
        self.commit_again(fault)

    def sample(self, dice: Random) -> Sample:
        """Return a new sample."""
        rule, priority, event = dice.choice("ab"), dice.choice((0, 0, 1, 2)), bytes(dice.randint(1, 3000))
        return Sample(str(self.number()), rule, "label", "stream", "model", 0, priority, event)

    @precondition(lambda self: self.batch is not None)
    @rule(fault=faults)
    def commit_again(self, fault: Fault | None) -> None:
        """The same batch, until it goes in; one that does not has changed nothing."""
        assert self.batch is not None
        changes, batch = self.batch
        before, after = self.model, self.model.copy()
        try:
            after.commit(changes, batch, self.now)
        except Full:
            with pytest.raises(StateFull):
                self.life.store.commit(changes, self.now)
            return
        lives = fault is None or fault.kind != "killed"
        if self.attempt(None, lambda: self.life.store.commit(changes, self.now), [before, after], fault):
            self.batch = None
        elif lives:
            assert self.model is before

    @precondition(lambda self: self.model.samples)
    @rule(seconds=st.integers(0, 8), fault=interruptions)
    def tidy(self, seconds: int, fault: Fault | None) -> None:
        """Time goes by, and what is too old goes."""

        def tidy_all() -> None:
            while self.life.store.tidy(self.now):
                pass

        self.now += seconds * NS
        old = self.model.too_old(self.now)
        outcomes = [self.model.copy() for _ in range(len(old) + 1)]
        for count, outcome in enumerate(outcomes):
            outcome.expire(old[:count])
        self.attempt(None, tidy_all, outcomes, fault)

    @precondition(lambda self: len(self.model.receipts) > RECEIPTS_KEPT)
    @rule(fault=faults)
    def forget_session(self, fault: Fault | None) -> None:
        """The broker has begun a new one."""
        meta = {"session": self.number()}
        after = self.model.copy()
        after.receipts.clear()
        after.meta |= meta
        self.attempt(None, lambda: self.life.store.forget_session(meta), [self.model, after], fault)

    @precondition(lambda self: self.steps > 3)
    @rule(configuration=configured, killed=st.booleans())
    def restart(self, configuration: dict[str, bool], killed: bool) -> None:
        """Another life, perhaps with other bridges."""
        directory = self.life.directory
        if killed:
            self.attempt(None, lambda: None, [self.model], Fault("killed", 1))
            directory = self.life.directory
        self.life.end()
        self.start(directory, configuration)

    def teardown(self) -> None:
        """End for good, with all the windows that are still under way."""
        try:
            if hasattr(self, "life"):  # not where nothing could be drawn
                self.restart({"files": True}, killed=True)
                self.commit(0, 0, 6 * self.life.windows.shape.size, 0, 0, None)
                self.life.end()
        finally:
            super().teardown()

    def busy(self) -> list[str]:
        """Return the bridges that have something to do."""
        return [name for name in self.model.bridges if any(name in waits for waits in self.model.marks.values())]

    def claimants(self) -> list[str]:
        """Return the bridges that have something to claim."""
        return [name for name in self.busy() if self.model.bridges[name] and self.model.waiting(name)]

    def having_claims(self) -> list[str]:
        """Return the bridges that have claims."""
        return [name for name in self.busy() if self.model.claimed(name)]

    def one_of(self, names: list[str], number: int) -> str:
        """Return one of these bridges, when it owes nothing any more."""
        name = names[number % len(names)]
        claim = self.owed.pop(name, None)
        if claim is not None:
            self.confirm(name, claim.samples, claim.number, None)
        return name

    @precondition(lambda self: self.busy())
    @rule(
        which=bridges,
        limit=st.integers(1, 9),
        max_bytes=st.sampled_from([1, 5000, ALL]),
        hidden=st.sampled_from(["", "", "a", "b", "ab"]),
        fault=faults,
    )
    def peek(self, which: int, limit: int, max_bytes: int, hidden: str, fault: Fault | None) -> None:
        """A bridge looks at what is next: by priority, then by age."""
        self.look(self.one_of(self.busy(), which), limit, max_bytes, hidden, fault)

    def look(self, bridge: str, limit: int, max_bytes: int, hidden: str, fault: Fault | None) -> None:
        """Look at what is next for a bridge."""
        view = self.life.views[bridge]
        looked: list[Waiting] = []
        mended = self.model.copy()
        mended.mend(bridge)
        if not self.attempt(
            bridge, lambda: looked.extend(view.peek(limit, max_bytes, hidden)), [self.model, mended], fault
        ):
            return
        expected = self.model.waiting(bridge, hidden)[:limit]
        while len(expected) > 1 and sum(kept.size for kept in expected) > max_bytes:
            expected.pop()
        assert [int(waiting.id) for waiting in looked] == [kept.number for kept in expected]
        assert [event for _, event in view.events(looked)] == [kept.sample.event for kept in expected]
        self.hands[bridge] = looked

    @precondition(lambda self: self.claimants())
    @rule(which=bridges, parts=st.integers(1, 3), fault=faults)
    def claim(self, which: int, parts: int, fault: Fault | None) -> None:
        """A bridge fixes what leaves together, of what it has looked at; some of it may be gone."""
        bridge = self.one_of(self.claimants(), which)
        if not self.hands.get(bridge):
            self.look(bridge, 9, ALL, "", None)
        hand = self.hands.pop(bridge)
        parcels = [(f"claim {self.number()}", part) for start in range(parts) if (part := hand[start::parts])]
        after = self.model.copy()
        after.claim(bridge, [(name, [int(one.id) for one in part]) for name, part in parcels])
        made: list[Claim] = []
        view = self.life.views[bridge]
        if self.attempt(bridge, lambda: made.extend(view.claim(parcels)), [self.model, after], fault):
            names = [name for name, _ in parcels]
            assert _told(made) == [claim for claim in self.model.claimed(bridge) if claim[0] in names]

    def claims(self, bridge: str, limit: int) -> list[Claim]:
        """Return a bridge's claims, which are as they were made, whatever came since."""
        claims = self.life.views[bridge].claimed(limit)
        self.model.mend(bridge)
        assert _told(claims) == self.model.claimed(bridge)[:limit]
        return claims

    def confirm(self, bridge: str, samples: Sequence[Waiting], claim: int | None, fault: Fault | None) -> bool:
        """Confirm samples; those of a claim together."""
        numbers = [int(one.id) for one in samples]
        ends = range(len(numbers) + 1) if claim is None else (0, len(numbers))
        outcomes = [self.model.copy() for _ in ends]
        for end, outcome in zip(ends, outcomes, strict=True):
            outcome.confirm(bridge, numbers[:end])
        view = self.life.views[bridge]
        return self.attempt(bridge, lambda: view.confirm(samples, claim), outcomes, fault)

    @precondition(lambda self: self.having_claims())
    @rule(which=bridges, limit=st.integers(1, 3), fault=faults)
    def confirm_a_claim(self, which: int, limit: int, fault: Fault | None) -> None:
        """All of it, or as if nothing of it."""
        bridge = self.one_of(self.having_claims(), which)
        claims = self.claims(bridge, limit)
        if not claims:  # it claims no more, or owed the confirmation
            return
        claim = claims[-1]
        finished = self.confirm(bridge, claim.samples, claim.number, fault)
        if not finished and fault is not None and fault.kind != "killed":
            self.owed[bridge] = claim

    @precondition(lambda self: self.busy())
    @rule(which=bridges, chosen=st.sets(st.integers(0, 8)), claimed=st.booleans(), refused=st.booleans(), fault=faults)
    def settle_some(self, which: int, chosen: set[int], claimed: bool, refused: bool, fault: Fault | None) -> None:
        """Confirm or refuse some of a claim, or of what was looked at; some of it may be gone."""
        bridge = self.one_of(self.busy(), which)
        hand = self.hands.get(bridge, [])
        if claimed or not hand:
            hand = [one for claim in self.claims(bridge, 1) for one in claim.samples]
        some = [one for at, one in enumerate(hand) if at in chosen]
        if not refused:
            self.confirm(bridge, some, None, fault)
            return
        after = self.model.copy()
        after.bury(bridge, [int(one.id) for one in some], "too large", self.now)
        refusals = [(one, "too large") for one in some]
        view = self.life.views[bridge]
        self.attempt(bridge, lambda: view.bury(refusals, self.now), [self.model, after], fault)

    @invariant()
    def the_state_is_as_it_should_be(self) -> None:
        """Nothing more, nothing less: a sample is there until every bridge has confirmed it, or it was lost."""
        content = self.life.content()
        assert content.marks == self.model.marks
        assert self.model.explains(content)

    @invariant()
    def the_counts_are_those_that_counting_gives(self) -> None:
        """Of what waits, for each bridge; and every loss was counted."""
        totals, views = self.life.store.totals, self.life.views
        rows, size, queues = self.life.counted()
        assert (totals.rows, totals.bytes) == (rows, size)
        assert size == self.model.bytes
        assert {name: Queue(view.waiting, view.waiting_bytes) for name, view in views.items()} == queues
        assert {reason: getattr(totals, reason) for reason in LOSSES} == {
            reason: self.model.lost[reason] for reason in LOSSES
        }
        assert {name: view.confirmed for name, view in views.items()} == {
            name: self.model.confirmed[name] for name in views
        }


def _told(claims: Sequence[Claim]) -> list[tuple[str, list[int]]]:
    return [(claim.name, [int(one.id) for one in claim.samples]) for claim in claims]


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    phases=set(Phase) - {Phase.explain},
    report_multiple_bugs=False,
)
