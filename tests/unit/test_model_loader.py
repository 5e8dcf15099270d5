"""The thread that loads models: one at a time, the newest, until it can be told whether the model is good."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from processor import settings
from processor.errors import ModelUnavailable
from processor.exchange.document import wanted
from processor.exchange.loader import Arrival, Away, Failed, Loaded, Loader, Moved, Request, Unchanged, Watch
from processor.exchange.opening import open_wanted
from processor.exchange.recent import RecentWindows
from processor.model import underway
from processor.model.onnx_model import load_model
from processor.obtaining import current_version
from processor.shadow.timing import Kept
from processor.types import Predictions
from tests import models, odd_models
from tests.exchanging import FIELDS, raising_above, tilted

PATIENCE = 20.0


def configuration(folder: Path, **model: object) -> settings.Slot:
    """Return a configuration of two fields in a folder."""
    (slot,) = settings.build(
        {
            "id": "p",
            "sources": [{"name": "s", "topics": ["t"], "fields": FIELDS}],
            "model": {"path": "first.onnx", **model},
            "filter": {},
        },
        folder,
    ).slots
    return slot


def request(own: settings.Slot, path: str, **more: object) -> Request:
    """Return what an operator wants."""
    document = {"path": path, **more}
    return Request("topic", wanted(document, own), "sha", document)


class Taking:
    """A running loader, and what it says."""

    def __init__(self, loader: Loader, woken: threading.Event) -> None:
        self.loader = loader
        self._woken = woken

    def next(self) -> Arrival:
        """Wait for what it says next."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            arrival = self.loader.take()
            if arrival is not None:
                return arrival
            self._woken.wait(0.05)
            self._woken.clear()
        pytest.fail("the loader says nothing")


@contextmanager
def running(recent: RecentWindows | None = None) -> Iterator[Taking]:
    """Run a loader."""
    woken = threading.Event()
    loader = Loader("default", recent or RecentWindows(), woken.set)
    thread = threading.Thread(target=loader.run)
    thread.start()
    try:
        yield Taking(loader, woken)
    finally:
        loader.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)  # between two looks


def test_a_model_is_loaded_for_the_windows_that_are_asked_for(tmp_path: Path) -> None:
    """And what comes says for which."""
    models.write(tilted(0.1), tmp_path, "second")
    with running() as taking:
        wish = request(configuration(tmp_path), "second.onnx")
        taking.loader.ask(wish, 1)
        arrival = taking.next()
        assert arrival.request is wish
        assert isinstance(arrival.result, Loaded)
        assert arrival.result.opened.model.name == "second"
        taking.loader.ask(wish, 7)
        arrival = taking.next()
        assert (arrival.window_size, type(arrival.result)) == (7, Failed)


def test_what_is_away_is_tried_again_until_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With growing pauses; what nobody keeps on disk is tried once."""
    for name in ("first", "second"):
        models.write(tilted(0.1), tmp_path, name)
    times = list[float]()

    def away(own: settings.Slot, measured: Sequence[Kept], *, or_last_good: bool) -> object:
        times.append(time.monotonic())
        if len(times) < 5:
            raise ModelUnavailable(f"registry {len(times)} is away")
        return open_wanted(own, measured, or_last_good=or_last_good)

    monkeypatch.setattr("processor.exchange.loader.open_wanted", away)
    monkeypatch.setattr("processor.exchange.loader._FIRST_PAUSE", 0.05)
    with running() as taking:
        own = configuration(tmp_path)
        taking.loader.ask(request(own, "second.onnx"), 1)
        said = []
        while not isinstance((result := taking.next().result), Loaded):
            said.append(result)
        assert all(isinstance(one, Away) for one in said)
        pauses = np.diff(times)
        assert (pauses >= 0.05 * 0.8 * 2.0 ** np.arange(4)).all(), pauses
        times.clear()
        taking.loader.ask(Request("command", own, "", None, known="another"), 1)
        assert taking.next().result == Away("registry 1 is away")
        assert len(times) == 1


def test_a_newer_wish_replaces_one_that_waits_or_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the older one nothing is heard any more."""
    models.write(tilted(0.1), tmp_path, "second")
    entered, go_on = threading.Event(), threading.Event()

    def slow(own: settings.Slot, measured: Sequence[Kept], *, or_last_good: bool) -> object:
        if own.model.path == "slow.onnx":
            entered.set()
            assert go_on.wait(PATIENCE)
        if own.model.path == "away.onnx":
            entered.set()
            raise ModelUnavailable("away")
        return open_wanted(own, measured, or_last_good=or_last_good)

    monkeypatch.setattr("processor.exchange.loader.open_wanted", slow)
    own = configuration(tmp_path)
    for path in ("slow.onnx", "away.onnx"):
        entered.clear()
        with running() as taking:
            taking.loader.ask(request(own, path), 1)
            assert entered.wait(PATIENCE)
            wish = request(own, "second.onnx")
            taking.loader.ask(wish, 1)
            go_on.set()
            arrival = taking.next()
            assert arrival.request is wish
            taking.loader.ask(None, 1)
            assert taking.loader.take() is None


def test_what_goes_wrong_as_nobody_expects_ends_neither_loader_nor_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, and the next wish is carried out."""
    models.write(tilted(0.1), tmp_path, "second")

    def strange(own: settings.Slot, measured: Sequence[Kept], *, or_last_good: bool) -> object:
        if own.model.path == "strange.onnx":
            raise KeyError("layers")
        return open_wanted(own, measured, or_last_good=or_last_good)

    monkeypatch.setattr("processor.exchange.loader.open_wanted", strange)
    own = configuration(tmp_path)
    with running() as taking:
        taking.loader.ask(request(own, "strange.onnx"), 1)
        result = taking.next().result
        assert isinstance(result, Failed)
        assert str(result.problems[0]).startswith("path: it cannot be used (KeyError: 'layers')")
        taking.loader.ask(request(own, "second.onnx"), 1)
        assert isinstance(taking.next().result, Loaded)


def test_only_another_model_is_loaded_for_who_looks_again(tmp_path: Path) -> None:
    """A file that is as it was is not opened."""
    models.write(tilted(0.1), tmp_path, "first")
    own = configuration(tmp_path)
    known = current_version(own)
    with running() as taking:
        taking.loader.ask(Request("command", own, "", None, known=known), 1)
        assert taking.next().result == Unchanged()
        models.write(tilted(0.2), tmp_path, "first")
        taking.loader.ask(Request("command", own, "", None, known=known), 1)
        assert isinstance(taking.next().result, Loaded)


def test_a_path_that_moves_is_noticed_and_one_that_cannot_be_looked_at_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And counted each time."""
    path = models.write(tilted(0.1), tmp_path, "first")
    own = configuration(tmp_path, refresh="1s")
    known = current_version(own)
    monkeypatch.setattr("processor.exchange.loader.NS", 100_000_000_000)  # a second takes 10 ms
    with running() as taking, caplog.at_level(logging.INFO):
        taking.loader.watch(Watch(own, frozenset({known})))
        path.unlink()
        until(lambda: taking.loader.failures >= 3)
        models.write(tilted(0.2), tmp_path, "first")
        moved = taking.next().result
        assert moved == Moved(current_version(own))
        assert isinstance(moved, Moved)
        assert moved.version != known
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("The model's path could not be looked at, the model in force stays: the model ")
    assert told[1] == "The model's path can be looked at again."


def test_a_model_is_tried_on_the_newest_windows(tmp_path: Path) -> None:
    """How many it fails on, and how often it gives the label that was given before."""
    recent = RecentWindows()
    first = load_model(models.write(tilted(0.5), tmp_path, "first"), window_size=1, channels=2)
    picky = load_model(models.write(raising_above(30), tmp_path, "picky"), window_size=1, channels=2)
    for number in range(400):
        values = np.array([[[float(number), 0.5]]])
        recent.add(values, first.infer(values), first.sha256)
    same = recent.attempt(first, first.sha256)
    assert (same.windows, same.raised, same.not_finite, same.agreement) == (256, 0, 0, 1.0)
    assert recent.attempt(first, "another").agreement is None
    trial = recent.attempt(picky, first.sha256)
    assert (trial.windows, trial.raised, trial.is_hopeless) == (256, 256, True)
    values = np.arange(400.0)[::-1].reshape(-1, 1, 1) * [1.0, 0.0]
    recent.add(values, first.infer(values), first.sha256)
    trial = recent.attempt(picky, first.sha256)
    assert (trial.windows, trial.raised, trial.is_hopeless) == (256, 256 - 31, False)
    assert "failed on 1 window" in trial.first_error
    recent.clear()
    assert recent.attempt(picky, "").windows == 0
    nothing = np.full((3, 2), np.nan)
    recent.add(np.zeros((3, 1, 2)), Predictions("probabilities", ("a", "b"), nothing, None), first.sha256)
    assert recent.attempt(first, first.sha256).agreement == 0.0


def test_the_newest_windows_take_a_bounded_room() -> None:
    """However many there are, and however large."""
    recent = RecentWindows()
    for count in (1, 1000, 3, 300, 5):
        values = np.zeros((count, 64, 1024))  # 512 KiB each
        recent.add(values, Predictions("value", (), None, np.zeros(count)), "")
        held = sum(
            batch.seen.nbytes if batch.seen.base is None else batch.seen.base.nbytes for batch in recent._batches
        )
        assert held <= 2 * (8 << 20) + 5 * (512 << 10)


def test_whatever_a_model_brings_about_it_is_rejected_and_the_next_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nobody thought of would end the processor, and every start after it."""
    models.write(tilted(0.1), tmp_path, "first")
    own = configuration(tmp_path)

    def upset(*_: object, **__: object) -> None:
        raise RuntimeError("strange")

    with running() as taking:
        with monkeypatch.context() as patch:
            patch.setattr("processor.assembly.load_model", upset)
            taking.loader.ask(request(own, "first.onnx"), 1)
            result = taking.next().result
        assert isinstance(result, Failed)
        assert "RuntimeError: strange" in result.problems[0].message
        assert "Traceback" in caplog.text
        with monkeypatch.context() as patch:
            patch.setattr("processor.exchange.recent.RecentWindows.attempt", upset)
            taking.loader.ask(request(own, "first.onnx"), 1)
            assert isinstance(taking.next().result, Failed)
        with monkeypatch.context() as patch:
            patch.setattr("processor.exchange.loader.current_version", upset)
            taking.loader.watch(Watch(own, frozenset()), now=True)
            until(lambda: taking.loader.failures)
        taking.loader.ask(request(own, "first.onnx"), 1)
        assert isinstance(taking.next().result, Loaded)


def test_a_shadow_that_cannot_be_read_as_its_keys_say_is_rejected(tmp_path: Path) -> None:
    """With the keys that say so."""
    models.write(tilted(0.1), tmp_path, "first")
    own = configuration(tmp_path)
    with running() as taking:
        taking.loader.ask(request(own, "first.onnx", shadow={"path": "first.onnx", "input": {"mean": [1, 2, 3]}}), 1)
        result = taking.next().result
    assert isinstance(result, Failed)
    assert [problem.path for problem in result.problems] == ["shadow.input.mean"]


def test_a_model_that_never_answers_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one is loaded."""
    monkeypatch.setattr(underway, "LONGEST", 0.2)
    models.write(odd_models.endless(), tmp_path, "endless")
    models.write(tilted(0.1), tmp_path, "first")
    own = configuration(tmp_path)
    with running() as taking:
        taking.loader.ask(request(own, "endless.onnx"), 1)
        while (arrival := taking.loader.take()) is None:
            underway.end_long_ones()
        assert isinstance(arrival.result, Failed)
        assert "gave no answer within" in arrival.result.problems[0].message
        taking.loader.ask(request(own, "first.onnx"), 1)
        assert isinstance(taking.next().result, Loaded)
