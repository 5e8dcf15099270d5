"""How many windows a call of the model is worth, and what runs it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.errors import ModelError, ModelMisfit
from processor.model.invariance import Execution
from processor.model.onnx_model import load_model
from processor.model.speed import fastest, measure, smallest_as_fast
from processor.types import Array, Floats
from tests import models

WINDOWS = np.zeros((6, 1, 1))


def taking(seconds: Callable[[int], float]) -> Callable[[Array], Floats]:
    """Return a model that takes so long for a call of so many windows."""

    def call(values: Array) -> Floats:
        end = time.perf_counter() + seconds(len(values))
        while time.perf_counter() < end:
            continue
        return np.zeros((len(values), 1))

    return call


def execution(most: int = 64, least: int = 1) -> Execution:
    """Return the usual way to run a model."""
    return Execution("batched", f"windows are run together, up to {most} in a call", most, least, 1.0)


def test_calls_grow_as_long_as_that_is_worth_it() -> None:
    """With a cost for each call they do; with a cost for each window only they do not."""
    by_call = fastest(execution(), taking(lambda _: 0.001), WINDOWS)
    assert by_call.most == 64
    by_window = fastest(execution(), taking(lambda count: 0.0005 * count), WINDOWS)
    assert by_window.most == 1
    assert "up to 1 in a call; measured, in µs a window by the size of a call: 1: 5" in by_window.sentence
    beyond = fastest(execution(), taking(lambda count: 0.0005 * count * (1 + count / 8)), WINDOWS)
    assert beyond.most == 1


def test_what_cannot_be_chosen_stays() -> None:
    """Calls of a fixed size, and those that are padded to several rows at least."""
    fixed = execution(8, 8)
    assert fastest(fixed, taking(lambda _: 0), WINDOWS) is fixed
    assert fastest(execution(64, 2), taking(lambda count: 0.0002 * count), WINDOWS).most == 2


def test_a_size_that_takes_too_long_is_the_last() -> None:
    """No call is longer than keep-alive and shutdown can wait."""
    assert list(measure(taking(lambda count: 0.1 * count), WINDOWS, [1, 4, 8])) == [1, 4]


def test_windows_that_a_model_raises_on_are_not_measured() -> None:
    """The others are."""

    def call(values: Array) -> Floats:
        if (values > 2).any():
            raise ModelError("no")
        return np.zeros((len(values), 1))

    assert list(measure(call, np.arange(6.0).reshape(6, 1, 1), [1, 8])) == [1, 8]
    assert measure(call, np.full((2, 1, 1), 9.0), [1, 8]) == {}


@given(st.dictionaries(st.integers(1, 512), st.floats(1e-9, 1), min_size=1))
def test_the_smallest_of_the_fast_ones_is_chosen(speeds: dict[int, float]) -> None:
    """Within a twentieth of the fastest, and nothing smaller is."""
    chosen = smallest_as_fast(speeds)
    best = min(speeds.values())
    assert speeds[chosen] <= 1.05 * best
    assert all(seconds > 1.05 * best for size, seconds in speeds.items() if size < chosen)


def test_a_model_is_loaded_with_calls_of_the_size_it_is_worth(tmp_path: Path) -> None:
    """And answers the same."""
    path = models.write(models.dense(), tmp_path)
    auto, fixed = (load_model(path, window_size=1, channels=6, max_batch=most) for most in ("auto", 512))
    assert 1 <= auto.execution.most <= 512
    assert "measured, in µs a window by the size of a call: 1: " in auto.describe()["execution"]
    values = np.random.default_rng(3).normal(size=(700, 1, 6))
    wanted, found = fixed.infer(values).probabilities, auto.infer(values).probabilities
    assert wanted is not None
    assert found is not None
    assert (wanted == found).all()


def test_what_is_not_there_is_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One, that says what is missing; the model runs on the next."""
    caplog.set_level(logging.WARNING)
    path = models.write(models.dense(), tmp_path)
    model = load_model(path, window_size=1, channels=6, providers=["cuda", "openvino", "cpu"])
    assert model.provider.name == "cpu"
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "The model runs on cpu: cuda is not in this ONNX Runtime, it needs onnxruntime-gpu"
    )
    assert "openvino is not in this ONNX Runtime, it needs onnxruntime-openvino" in record.getMessage()
    assert model.describe()["runs on"].startswith("cpu; cuda is not in this ONNX Runtime")
    with pytest.raises(ModelMisfit, match=r"model\.providers: cuda is not in .*; add cpu to run it all the same"):
        load_model(path, window_size=1, channels=6, providers=["cuda"])


def test_what_does_not_start_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether ONNX Runtime raises, or goes on without a word; the CPU's own errors are the model's."""
    path = models.write(models.dense(), tmp_path)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        model = load_model(path, window_size=1, channels=6, providers=["cuda", "cpu"])
    assert model.describe()["runs on"].startswith("cpu; cuda does not start, it needs onnxruntime-gpu")
    real = onnxruntime.InferenceSession

    def session(name: str, options: object, *, providers: list[str], **more: object) -> object:
        if providers[0].startswith("CUDA"):
            raise RuntimeError("libcudnn.so.9 is not there")
        return real(name, options, providers=providers, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    model = load_model(path, window_size=1, channels=6, providers=["cuda", "cpu"])
    assert model.describe()["runs on"].startswith("cpu; cuda does not start (libcudnn.so.9 is not there), it needs")


def test_a_call_that_fails_is_never_run_elsewhere(tmp_path: Path) -> None:
    """ONNX Runtime would go on with another provider, and with other answers."""
    path = models.write(models.raising(), tmp_path)
    model = load_model(path, window_size=1, channels=1)
    assert model._runner._session._enable_fallback is False
