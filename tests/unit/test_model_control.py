"""Which model is in force, whatever comes in whatever order, and whenever the process dies."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from processor import settings
from processor.document import parse
from processor.errors import ConfigurationError, Problem
from processor.exchange.beginning import _unfinished
from processor.exchange.control import ModelControl, digest_of_configuration
from processor.exchange.document import wanted
from processor.exchange.in_force import Change, InForce
from processor.exchange.loader import Arrival, Away, Failed, Loaded, Moved, Request, Result, Unchanged
from processor.exchange.opening import Opened
from processor.exchange.recent import Trial
from processor.registry import references
from processor.registry.fetched import Fetched
from processor.types import Floats, OutputKind, Predictions

BASE: dict[str, Any] = {
    "id": "p",
    "sources": [{"name": "s", "topics": ["t"], "fields": ["x"]}],
    "model": {"path": "file.onnx"},
    "filter": {},
}


def slot(base: dict[str, Any], directory: Path) -> settings.Slot:
    """Return the only slot of a configuration."""
    (found,) = settings.build(base, directory).slots
    return found


SLOT = slot(BASE, Path("/nowhere"))
KEYS = ["path", "input", "output", "temperature", "refresh", "shadow", "window", "labels", "kind", "mean", "sample"]
DOCUMENTS = {
    "a": b"path: a.onnx",
    "b": b'{"path": "b.onnx", "refresh": "5m"}',
    "same file": b'{"path": "a.onnx"}',
    "no path": b"input: {mean: 1}",
    "outside": b"path: ../a.onnx",
    "window": b"path: a.onnx\nwindow: {size: 5}",
    "no YAML": b"{",
    "nothing": b" ",
}
VALID = ("a", "b", "same file")


class FakeModel:
    """A model by its name."""

    kind: OutputKind = "probabilities"
    labels: tuple[str, ...] = ("a", "b")
    seconds_per_window = 1e-6

    def __init__(self, sha256: str) -> None:
        self.name = self.sha256 = sha256

    def infer(self, values: Floats) -> Predictions:
        """Return one half for each label."""
        return Predictions(self.kind, self.labels, np.full((len(values), 2), 0.5), None)


def opened(own: settings.Slot, version: int) -> Opened:
    """Return what is at a path, after it was changed `version` times."""
    path = own.model.path
    fetched = Fetched(references.parse(path), Path(path), f"sha256:{path}", f"{path}-{version}")
    return Opened(own, FakeModel(f"{path}-{version}"), fetched)


class Seen(NamedTuple):
    """What a processor can be seen to have: all that a crash must not change."""

    model: str
    source: str
    revision: int
    wanted: dict[str, Any] | None


class ModelChanges(RuleBasedStateMachine):
    """Offers, results, looks, and crashes before and after what is on disk, beside what should come of them."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 0  # how often the files were changed
        self.disk: dict[str, Any] | None = None
        self.requests: list[Request] = []
        self.swaps = 0

    @initialize()
    def start(self) -> None:
        """Start with nothing on disk."""
        in_force = InForce.of(opened(SLOT, 0), None, digest_of_configuration(SLOT))
        self.control = ModelControl(SLOT, in_force, None, 0, wanted=None)
        self.disk = json.loads(json.dumps(self.control.memory()))
        self.last: str | None = None
        self.newest = "nothing"

    def carry_out(self, change: Change, when: str) -> bool:
        """Commit and install, or die before or after the commit; whether it is on disk."""
        if when == "before":
            self.restart()
            return False
        if change.memory is not None:
            self.disk = json.loads(json.dumps(change.memory))
        self.swaps += change.swap is not None
        if when == "between":
            self.restart()
            return True
        change.install()
        return True

    def restart(self) -> None:
        """Begin again with what is on disk."""
        assert self.disk is not None
        before = self.disk["in_force"]
        own = wanted(before["document"], SLOT)
        version = int(before["model"].rpartition("-")[2])  # the copy that is kept
        in_force = InForce.of(opened(own, version), before["document"], before["sha256"])
        unfinished = _unfinished(self.disk, in_force)
        self.control = ModelControl(SLOT, in_force, self.disk, 0, wanted=unfinished)
        self.disk = json.loads(json.dumps(self.control.memory()))

    @property
    def is_deadly(self) -> bool:
        """Whether something was given up because the process ended too often meanwhile."""
        return any("the process ended 3 times" in error["message"] for error in self.control.answer["errors"])

    def seen(self) -> Seen:
        """Return what counts."""
        control = self.control
        return Seen(
            control.in_force.model.sha256, control.in_force.source, control.revision, control.memory()["wanted"]
        )

    times = st.sampled_from(["on time", "on time", "on time", "before", "between"])

    @rule(name=st.sampled_from(sorted(DOCUMENTS)), repeated=st.booleans(), when=times)
    def offer(self, name: str, when: str, *, repeated: bool) -> None:
        """A document arrives."""
        answer, pending = self.control.answer, self.control.pending
        change = self.control.offer(DOCUMENTS[name], repeated=repeated)
        digest = hashlib.sha256(DOCUMENTS[name]).hexdigest()
        was_rejected = (answer["status"], answer["sha256"]) == ("rejected", digest)
        assert (change.memory is None) == (name == self.last and (repeated or not was_rejected))
        if change.memory is None:
            change.install()
            assert (self.control.answer, self.control.pending) == (answer, pending)
            return
        assert change.swap is None
        assert change.rejected == (name not in (*VALID, "nothing"))
        if not self.carry_out(change, when):
            return
        self.newest = self.last = name
        answer = self.control.answer
        assert answer["sha256"] == digest
        if name in VALID:
            assert (answer["status"], answer["source"]) == ("loading", "topic")
        elif name == "nothing":
            assert answer["status"] in ("loading", "applied")
        else:
            assert answer["status"] == "rejected"
            assert self.control.pending is None

    @rule(kind=st.sampled_from(["refresh", "command"]))
    def look(self, kind: str) -> None:
        """Somebody looks again at the path in force, where nothing else is under way."""
        if self.control.pending is not None:
            return
        if kind == "command":
            self.control.look_again("command")
        else:
            path = self.control.in_force.slot.model.path
            known = (self.control.in_force.fetched.version, self.control.refused)
            moved = f"{path}-{self.version}"
            change = self.control.arrive(Arrival("default", None, 0, Moved(moved)), 0, lambda _: ())
            assert (change.memory is None) == (moved in known)
            assert self.carry_out(change, "on time")
            assert (self.control.pending is None) == (moved in known or self.is_deadly)

    @rule()
    def change_files(self) -> None:
        """Whatever is at the paths is another model."""
        self.version += 1

    @precondition(lambda self: self.control.pending is not None)
    @rule(result=st.sampled_from(["loaded", "loaded", "misfit", "failed", "away"]), when=times)
    def arrive(self, result: str, when: str) -> None:
        """The loader says what became of what is wanted."""
        request = self.control.pending
        assert request is not None
        before = self.seen()
        said: Result
        found = opened(request.slot, self.version)
        if request.known == found.fetched.version:
            said = Unchanged()
        elif result in ("loaded", "misfit"):
            said = Loaded(found, Trial())
        else:
            said = Failed((Problem("path", "broken"),)) if result == "failed" else Away("the registry is away")
        problems = [Problem("filter.rules[0].label", "unknown")] if result == "misfit" else []
        self.requests.append(request)
        change = self.control.arrive(Arrival("default", request, 0, said), 0, lambda _: problems)
        is_swap = isinstance(said, Loaded) and not problems
        is_same = not request.is_lasting and found.model.sha256 == self.control.in_force.model.sha256
        assert (change.swap is not None) == (is_swap and not is_same)
        if not self.carry_out(change, when):
            return
        after = self.seen()
        assert after.revision == before.revision + (change.swap is not None)
        if change.swap is not None:
            assert after.model == found.model.sha256
            assert after.source == ("file" if request.document is None else "topic")
            assert self.control.answer["status"] == "applied"
        else:
            assert (after.model, after.source) == (before.model, before.source)
        if isinstance(said, Away) and request.is_lasting:
            assert self.is_deadly or self.control.answer["status"] in ("waiting", "loading")
            assert self.is_deadly or after.wanted == before.wanted
        else:
            assert after.wanted is None

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def arrive_too_late(self, data: st.DataObject) -> None:
        """The loader says what became of something that is not wanted any more."""
        request = data.draw(st.sampled_from(self.requests))
        if request is self.control.pending:
            return
        before = self.control.memory()
        said = Loaded(opened(request.slot, self.version), Trial())
        change = self.control.arrive(Arrival("default", request, 0, said), 0, lambda _: ())
        assert (change.swap, change.memory) == (None, None)
        change.install()
        assert self.control.memory() == before

    @rule()
    def crash(self) -> None:
        """The process dies between two changes: nothing that counts is lost."""
        assert self.disk is not None
        before, (_, times) = self.seen(), self.disk["trying"]
        self.restart()
        assert self.is_deadly or times < 3 or before.wanted is None
        assert self.seen() == (before._replace(wanted=None) if self.is_deadly else before)

    @invariant()
    def what_is_said_is_so(self) -> None:
        """The answer, the revision and what is on disk belong together."""
        if self.disk is None:
            return
        control, answer = self.control, self.control.answer
        assert (answer["status"] in ("loading", "waiting")) == (control.pending is not None)
        assert answer["revision"] == control.revision == self.swaps + 1
        assert answer["active"]["sha256"] == control.in_force.model.sha256
        assert answer["active_source"] == control.in_force.source
        assert bool(answer["errors"]) == (answer["status"] in ("rejected", "waiting"))
        assert json.loads(json.dumps(control.memory()))["in_force"] == self.disk["in_force"]
        if control.pending is not None and control.pending.is_lasting:
            document = None if self.newest == "nothing" else parse(DOCUMENTS[self.newest])
            assert control.pending.document == document


TestModelChanges = ModelChanges.TestCase


def test_everything_that_is_wrong_with_a_document_is_told() -> None:
    """Also keys that only a start can change, with their reason."""
    try:
        wanted({"path": "../x.onnx", "window": {"size": 3}, "threads": 2, "colour": 1, "temperature": -1}, SLOT)
    except ConfigurationError as error:
        found = {problem.path: problem.message for problem in error.problems}
    assert found.keys() == {"window", "threads", "colour", "temperature"}
    assert found["window"].startswith("windows keep their readings")


def test_what_a_document_leaves_out_is_the_configurations() -> None:
    """And the keys that it has count, also those within a section."""
    base = replace(SLOT, model=SLOT.model.model_copy(update={"temperature": 2.0, "refresh": 5}))
    found = wanted({"path": "deeper/a.onnx", "refresh": None, "output": {"labels": ["x", "y"]}}, base).model
    assert (found.path, found.temperature, found.refresh, found.output.labels) == (
        "deeper/a.onnx", 2.0, None, ["x", "y"],
    )  # fmt: skip
    assert found.window == SLOT.model.window


def registry_of(path: str, document: dict[str, Any]) -> str | None:
    """Return as whom a document's model is fetched, where the configuration names a user for its own."""
    model = {"path": path, "registry": {"username": "me", "password_file": "secret"}}
    own = slot({**BASE, "model": model}, Path("/nowhere"))
    return wanted(document, own).model.registry.username


def test_credentials_are_shown_to_the_configurations_hosts_alone() -> None:
    """Whoever may write a document could have them sent elsewhere."""
    ours, theirs = "oci://registry.example:5000/a:1", "oci://elsewhere.example/a:1"
    assert registry_of(ours, {"path": "oci://registry.example:5000/b:2"}) == "me"
    assert registry_of(ours, {"path": theirs}) is None
    assert registry_of(ours, {"path": "https://registry.example:5001/a.onnx"}) is None
    assert registry_of(ours, {"path": ours, "shadow": {"path": theirs}}) is None
    assert registry_of(ours, {"path": "a.onnx"}) == "me"
    assert registry_of("a.onnx", {"path": theirs}) is None


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner),
    max_leaves=12,
)


@given(
    st.binary(max_size=60) | st.dictionaries(st.sampled_from(KEYS), PLAIN).map(lambda value: json.dumps(value).encode())
)
@example(b'{"path": "' + b"a/" * 3000 + b'"}')
@example(b'{"path": "~nobody/../../etc/passwd"}')
@example(json.dumps({f"k{number}": 1 for number in range(5000)}).encode())
def test_no_document_upsets_it(payload: bytes) -> None:
    """It is loaded, rejected with a reason, or empty; and the answer stays small."""
    in_force = InForce.of(opened(SLOT, 0), None, "")
    control = ModelControl(SLOT, in_force, None, 0, wanted=None)
    control.offer(payload, repeated=False).install()
    answer = control.answer
    assert answer["status"] in ("loading", "rejected", "applied")
    assert (answer["status"] == "rejected") == bool(answer["errors"])
    assert len(json.dumps(answer)) < 100_000


def test_a_path_that_leads_out_of_the_folder_meanwhile_is_rejected_for_who_looks_again(tmp_path: Path) -> None:
    """And the model in force stays."""
    own = slot(BASE, tmp_path)
    control = ModelControl(own, InForce.of(opened(own, 0), {"path": "a.onnx"}, "sha"), None, 0, wanted=None)
    (tmp_path / "a.onnx").symlink_to("/elsewhere/a.onnx")
    control.look_again("command")
    assert (control.answer["status"], control.pending, control.revision) == ("rejected", None, 1)
    assert control.answer["errors"][0]["path"] == "path"


def test_links_in_a_circle_are_a_path_like_any_other(tmp_path: Path) -> None:
    """They do not end the process; the loader says that there is no model."""
    (tmp_path / "a.onnx").symlink_to(tmp_path / "b.onnx")
    (tmp_path / "b.onnx").symlink_to(tmp_path / "a.onnx")
    own = slot(BASE, tmp_path)
    assert own.path("a.onnx") == tmp_path / "a.onnx"
    assert wanted({"path": "a.onnx"}, own).model.path == "a.onnx"
