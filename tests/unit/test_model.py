"""The model: how windows go in, how answers come out, what does not fit, and that batches do not change answers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.errors import ModelError, ModelMisfit
from processor.model.onnx_model import OnnxModel, fit_problems, load_model
from processor.model.outputs import Interpreter, labels_in
from processor.sections import Layout
from processor.types import Floats
from tests import models, odd_models

Load = Callable[..., OnnxModel]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Return a function that writes a model and loads it; single readings unless told otherwise."""

    def write_and_load(model: onnx.ModelProto, channels: int, **settings: Any) -> OnnxModel:  # noqa: ANN401  load_model's
        path = models.write(model, tmp_path, "motions")
        return load_model(path, **{"window_size": 1, "channels": channels, **settings})

    return write_and_load


@pytest.fixture
def problems(load: Load) -> Callable[..., dict[str, str]]:
    """Return a function that gives what does not fit: messages by path."""

    def find(model: onnx.ModelProto, channels: int, **settings: Any) -> dict[str, str]:  # noqa: ANN401  load_model's
        found = fit_problems(lambda: load(model, channels, **settings))
        assert len({problem.path for problem in found}) == len(found)
        return {problem.path: problem.message for problem in found}

    return find


def windows(count: int, size: int, channels: int, scale: float = 1.0) -> Floats:
    """Return the same `count` windows each time."""
    return np.random.default_rng(7).normal(size=(count, size, channels)) * scale


def reference(model: onnx.ModelProto, arranged: np.ndarray[Any, Any]) -> Floats:
    """Return what ONNX Runtime itself gives as the model's first output, a row at a time."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: arranged[row : row + 1]})[0] for row in range(len(arranged))]
    return np.concatenate(rows).astype(np.float64)


# Input


@pytest.mark.parametrize("dtype", ["float", "double", "float16"])
def test_single_readings_go_in_as_nc(load: Load, dtype: str) -> None:
    """Windows of one reading become rows of the model's type, and come back as its probabilities."""
    model, values = models.dense(dtype=dtype), windows(9, 1, 6)
    kind = {"float": np.float32, "double": np.float64, "float16": np.float16}[dtype]
    predictions = load(model, 6).infer(values)
    assert predictions.kind == "probabilities"
    assert predictions.probabilities is not None
    assert predictions.probabilities.dtype == np.float64
    assert predictions.probabilities == pytest.approx(reference(model, values[:, 0].astype(kind)), abs=1e-6)


def test_three_dimensions_are_channels_then_time(load: Load) -> None:
    """Without a layout a model of three dimensions is NCT: each window is turned."""
    model, values = models.cnn(), windows(5, 100, 6)
    loaded = load(model, 6, window_size=100)
    assert loaded.input.layout == "NCT"
    turned = np.ascontiguousarray(values.swapaxes(1, 2), np.float32)
    assert loaded.infer(values).probabilities == pytest.approx(reference(model, turned), abs=1e-6)


def test_layout_ntc_goes_in_as_it_is(load: Load) -> None:
    """NTC is the windows' own order."""
    model, values = models.lstm(), windows(5, 20, 6)
    loaded = load(model, 6, window_size=20, layout="NTC")
    assert loaded.infer(values).probabilities == pytest.approx(reference(model, values.astype(np.float32)), abs=1e-6)


def test_two_dimensions_are_time_when_there_is_one_channel(load: Load) -> None:
    """A window of several readings of one field is NT, oldest first."""
    loaded = load(models.identity(5), 1, window_size=5)
    assert loaded.input.layout == "NT"
    powers = np.exp(np.arange(5.0))
    predictions = loaded.infer(np.arange(5.0).reshape(1, 5, 1))
    assert predictions.probabilities == pytest.approx((powers / powers.sum())[None], abs=1e-6)


@pytest.mark.parametrize(("mean", "std"), [(10.0, 4.0), ([10.0, 20.0], [4.0, 0.5]), ([10.0], None), (None, [2.0, 4.0])])
def test_values_are_normalised(load: Load, mean: float | list[float] | None, std: float | list[float] | None) -> None:
    """(x - mean) / std, each one number or one a channel, before the model sees them."""
    values = np.array([[[11.0, 22.0]], [[9.0, 18.5]]])
    expected = (values[:, 0] - (0 if mean is None else mean)) / (1 if std is None else std)
    predictions = load(models.identity(2), 2, mean=mean, std=std).infer(values)
    powers = np.exp(expected)
    assert predictions.probabilities == pytest.approx(powers / powers.sum(axis=1, keepdims=True), abs=1e-6)


def test_whole_number_inputs_are_rounded_and_held_in_range(load: Load) -> None:
    """For an int64 input 2.6 is 3, -1.4 is -1; a number no int64 holds is its largest, on which the model raises."""
    loaded = load(models.int64_input(), 3)
    near, exact = loaded.infer(np.array([[[2.6, -1.4, 0.0]]])), loaded.infer(np.array([[[3.0, -1.0, 0.0]]]))
    assert near.probabilities is not None
    assert near.probabilities.tolist() == exact.probabilities.tolist()  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="9223372036854774784"):
        loaded.infer(np.array([[[1e300, 0.0, 0.0]]]))


@pytest.mark.parametrize("channels_last", [False, True])
def test_images_go_in_as_the_layout_says(load: Load, *, channels_last: bool) -> None:
    """Images come as bytes, colours last, and are turned for NCHW; each colour's brightness comes out."""
    colours = np.array([0, 3, 1])
    values = np.broadcast_to(colours, (2, 8, 12, 3)).astype(np.uint8)
    values[1, :, :6] = 2 * colours  # the mean is the same only when pixels stay where they are
    values[1, :, 6:] = 0
    loaded = load(models.image(channels_last=channels_last), 3, image=(8, 12), layout="NHWC" if channels_last else None)
    powers = np.exp(colours)
    assert loaded.infer(values).probabilities == pytest.approx(np.tile(powers / powers.sum(), (2, 1)), abs=1e-6)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float", "double", "float16"])
@pytest.mark.parametrize("mean", [None, 127.5, [123.675, 116.28, 103.53]])
@pytest.mark.parametrize("std", [None, 255.0, [58.395, 57.12, 57.375]])
def test_images_are_normalised_colour_by_colour(load: Load, layout: Layout, dtype: str, mean: Any, std: Any) -> None:  # noqa: ANN401  one, or one a colour
    """(x - mean) / std of every pixel, in the order of the layout, as torchvision's Normalize and Keras have it."""
    pixels = np.random.default_rng(3).integers(0, 256, (4, 5, 7, 3), np.uint8)
    loaded = load(models.mean_image(dtype, layout, (5, 7)), 3, image=(5, 7), layout=layout, mean=mean, std=std)
    arranged = loaded.input.arrange(pixels)
    expected = (pixels.astype(np.float64) - (0 if mean is None else mean)) / (1 if std is None else std)
    expected = expected if layout == "NHWC" else expected.transpose(0, 3, 1, 2)
    assert arranged.dtype == {"float": np.float32, "double": np.float64, "float16": np.float16}[dtype]
    assert arranged.flags.c_contiguous
    assert arranged == pytest.approx(expected, rel=2e-3 if dtype == "float16" else 1e-5, abs=1e-5)
    assert pixels.tolist() == np.random.default_rng(3).integers(0, 256, (4, 5, 7, 3), np.uint8).tolist()  # untouched


def test_no_windows_give_no_predictions(load: Load) -> None:
    """Zero windows come back as zero rows of the right width."""
    predictions = load(models.dense(), 6).infer(np.empty((0, 1, 6)))
    assert len(predictions) == 0
    assert predictions.probabilities is not None
    assert predictions.probabilities.shape == (0, 4)


# Output


def test_logits_become_probabilities(load: Load) -> None:
    """Several columns that are no probabilities are logits; softmax over T makes them so."""
    model, values = models.logits(), windows(6, 1, 6)
    raw = reference(model, values[:, 0].astype(np.float32))
    for temperature in (1.0, 2.5):
        powers = np.exp(raw / temperature)
        predictions = load(model, 6, temperature=temperature).infer(values)
        assert predictions.probabilities == pytest.approx(powers / powers.sum(axis=1, keepdims=True), abs=1e-6)


def test_probabilities_are_the_models_own_numbers(load: Load) -> None:
    """At temperature 1 nothing is done to a model's probabilities: bit for bit its float32."""
    model, values = models.dense(), windows(6, 1, 6)
    predictions = load(model, 6).infer(values)
    assert predictions.probabilities is not None
    assert predictions.probabilities.tolist() == reference(model, values[:, 0].astype(np.float32)).tolist()


def test_temperature_softens_probabilities_as_it_would_their_logits(load: Load) -> None:
    """p^(1/T), normalised, is the softmax of logits over T."""
    values = windows(6, 1, 6)
    of_logits = load(models.logits(), 6, temperature=3.0).infer(values)
    of_probabilities = load(models.dense(), 6, temperature=3.0).infer(values)
    assert of_probabilities.probabilities == pytest.approx(of_logits.probabilities, abs=1e-6)


@pytest.mark.parametrize("flat", [False, True])
def test_one_column_between_0_and_1_is_a_score(load: Load, *, flat: bool) -> None:
    """A sigmoid's single output, (N, 1) or (N,), is a score s and the two labels [1 - s, s]."""
    model, values = models.sigmoid(flat=flat), windows(6, 1, 6)
    predictions = load(model, 6).infer(values)
    expected = reference(model, values[:, 0].astype(np.float32)).reshape(-1)
    assert (predictions.kind, predictions.labels) == ("score", ("0", "1"))
    assert predictions.value == pytest.approx(expected)
    assert predictions.probabilities == pytest.approx(np.stack((1 - expected, expected), axis=1))


def test_one_column_of_logits_is_a_score_by_sigmoid(load: Load) -> None:
    """`kind: logits` on one column gives sigmoid(x / T), without overflow."""
    loaded = load(models.identity(1), 1, output_kind="logits", temperature=2.0)
    predictions = loaded.infer(np.array([[[0.0]], [[2.0]], [[-1e5]], [[1e5]]]))
    assert predictions.value == pytest.approx([0.5, 1 / (1 + np.exp(-1)), 0, 1])


def test_temperature_pulls_a_score_towards_the_middle(load: Load) -> None:
    """sigmoid(logit(s) / T) strictly between 0 and 1; the ends and what is beyond stay."""
    loaded = load(models.identity(1), 1, output_kind="score", temperature=2.0)
    predictions = loaded.infer(np.array([[[0.9]], [[0.0]], [[1.0]], [[-0.3]], [[1.7]]]))
    assert predictions.value == pytest.approx([0.75, 0, 1, -0.3, 1.7], abs=1e-6)
    assert predictions.probabilities is not None
    assert predictions.probabilities[3:].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("names", [False, True])
def test_maps_of_a_zipmap_are_columns(load: Load, *, names: bool) -> None:
    """scikit-learn's sequence of maps: the keys are the labels, and the numbers are those of the plain output."""
    values = windows(7, 1, 3)
    predictions = load(models.sklearn_classifier(zipmap=True, names=names), 3).infer(values)
    plain = load(models.sklearn_classifier(zipmap=False, names=names), 3).infer(values)
    assert predictions.labels == (("high", "low", "mid") if names else ("0", "1", "2"))
    assert predictions.probabilities == pytest.approx(plain.probabilities, abs=1e-6)


def test_probabilities_are_read_beside_a_label(load: Load) -> None:
    """Of a label and probabilities the probabilities are read; nothing else could be meant."""
    loaded = load(models.sklearn_classifier(zipmap=False), 3)
    assert (loaded.output.tensor.name, loaded.output.remark) == ("probabilities", "")


def test_an_anomaly_score_beside_a_label_is_a_score(load: Load) -> None:
    """IsolationForest's decision function is a score though it goes below 0; s is clipped for the labels only."""
    predictions = load(models.isolation_forest(), 3).infer(np.array([[[0.0, 0.0, 0.0]], [[9.0, -9.0, 9.0]]]))
    assert predictions.kind == "score"
    assert predictions.value is not None
    assert predictions.value[0] > 0 > predictions.value[1]
    assert predictions.probabilities is not None
    assert predictions.probabilities[1].tolist() == [1, 0]


def test_one_column_beyond_0_and_1_is_a_value(load: Load) -> None:
    """A regression gives a value, without labels or probabilities."""
    model, values = models.regression(), windows(6, 1, 3)
    predictions = load(model, 3).infer(values)
    assert (predictions.kind, predictions.labels, predictions.probabilities) == ("value", (), None)
    assert predictions.value == pytest.approx(reference(model, values[:, 0].astype(np.float32))[:, 0], rel=1e-5)


def test_the_likeliest_of_several_outputs_is_read_and_said(load: Load) -> None:
    """Logits come before an embedding; the choice is told, and `output_name` overrules it."""
    chosen = load(models.two_outputs(), 6)
    assert chosen.output.tensor.name == "logits"
    assert chosen.describe()["output"] == (
        '"logits" float32 [N, 4]; chosen over "embedding"; model.output.name picks another'
    )
    assert len(load(models.two_outputs(), 6, output_name="embedding").labels) == 16


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["logits", "probabilities", "score", "value"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_an_answer_that_is_not_finite_is_nan_in_its_row_only(kind: Any, bad: float, temperature: float) -> None:  # noqa: ANN401  parametrised
    """One number that is not finite makes its whole row NaN and leaves the others as they are."""
    columns = np.array([[0.25, 0.75], [bad, 0.5], [0.5, 0.5]])[:, : 1 if kind in ("score", "value") else 2]
    output: Any = "probabilities" if columns.shape[1] == 2 else kind
    interpreter = Interpreter(kind, output, ("a", "b"), temperature)
    spoilt, sound = interpreter.predictions(columns), interpreter.predictions(columns[[0, 2]])
    for with_bad, without in ((spoilt.probabilities, sound.probabilities), (spoilt.value, sound.value)):
        if with_bad is not None and without is not None:
            assert np.isnan(with_bad[1]).all()
            assert with_bad[[0, 2]].tolist() == without.tolist()


def test_readings_too_large_for_the_model_are_nan(load: Load) -> None:
    """1e300 is infinite to a float32 model; its row is NaN, and its neighbour's answer stands."""
    loaded = load(models.logits(), 6)
    values = windows(2, 1, 6)
    alone = loaded.infer(values[:1]).probabilities
    values[1] = 1e300
    predictions = loaded.infer(values)
    assert predictions.probabilities is not None
    assert alone is not None
    assert np.isnan(predictions.probabilities[1]).all()
    assert predictions.probabilities[0].tolist() == alone[0].tolist()


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=5), st.floats(0.01, 100))
def test_softmax_never_overflows(logits: list[float], temperature: float) -> None:
    """Any finite logits at any temperature give probabilities that sum to 1."""
    interpreter = Interpreter("logits", "probabilities", tuple("abcde"[: len(logits)]), temperature)
    predictions = interpreter.predictions(np.array([logits]))
    assert predictions.probabilities is not None
    assert predictions.probabilities.sum() == pytest.approx(1)
    assert predictions.probabilities[0, np.argmax(logits)] == predictions.probabilities.max()


# Labels


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("labels", '["a", "b", "c", "d"]'),
        ("classes", "a, b,c ,d"),
        ("class_labels", '{"2": "c", "0": "a", "1": "b", "3": "d"}'),
        ("names", "{0: 'a', 1: 'b', 2: 'c', 3: 'd'}"),
        ("labels", '{"d": 3, "a": 0, "b": 1, "c": 2}'),
        ("names", "['a', 'b', 'c', 'd']"),
    ],
)
def test_labels_come_from_the_metadata(load: Load, key: str, text: str) -> None:
    """JSON lists and objects, Python's way of writing them, and names between commas are all read."""
    assert load(models.dense(metadata={key: text}), 6).labels == ("a", "b", "c", "d")


@settings(max_examples=200)
@given(st.text() | st.text("[]{}()'\",:0123456789ab \\-"))
def test_no_metadata_can_stop_the_reading_of_labels(text: str) -> None:
    """Whatever the metadata says, labels are texts or there are none."""
    found = labels_in({"labels": text})
    assert found is None or all(isinstance(label, str) for label in found)


def test_configured_labels_come_first(load: Load) -> None:
    """The settings' labels win over the metadata's and over a map's keys."""
    own = ["p", "q", "r", "s"]
    assert load(models.dense(metadata={"labels": "a,b,c,d"}), 6, labels=own).labels == tuple(own)
    assert load(models.sklearn_classifier(zipmap=True), 3, labels=own[:3]).labels == tuple(own[:3])


def test_labels_are_indices_where_nobody_names_them(load: Load) -> None:
    """Without configuration and metadata the columns' numbers are the labels."""
    assert load(models.dense(), 6).labels == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("model", "channels", "labels", "expected"),
    [
        (
            models.dense,
            6,
            ["a", "b", "c"],
            "3 labels given (a, b, c); the output of motions.onnx has 4 columns: give 4",
        ),
        (models.sigmoid, 6, ["odd"], "1 labels given (odd); a score has two, for 1 - s and s: give 2"),
        (models.dense, 6, ["a", "b", "c", "a"], "expected each to be there once and not empty"),
        (models.regression, 3, ["a"], "motions.onnx gives a value, which has none: leave them out"),
    ],
)
def test_labels_that_do_not_fit_are_a_problem(
    problems: Callable[..., dict[str, str]],
    model: Callable[[], onnx.ModelProto],
    channels: int,
    labels: list[str],
    expected: str,
) -> None:
    """The number of labels is that of the columns; the message says both."""
    assert expected in problems(model(), channels, labels=labels)["model.output.labels"]


def test_metadata_with_another_number_of_labels_is_a_problem(problems: Callable[..., dict[str, str]]) -> None:
    """Wrong metadata is told, for labels by accident are worse than none."""
    found = problems(models.dense(metadata={"labels": "a,b"}), 6)
    assert found["model.output.labels"].startswith("2 labels in the metadata of motions.onnx (a, b)")


# Fit


def test_every_dimension_that_differs_is_told(problems: Callable[..., dict[str, str]]) -> None:
    """Window size and channels are checked one by one; each sentence says what is wanted, given and to be done."""
    found = problems(models.cnn(), 3, window_size=50, fields=["ax", "ay", "az"])
    wants = (
        'the model motions.onnx wants input "x" float32 [N, 6, 100] (batch, channels, time); '
        "the sources give 3 channels (ax, ay, az) in windows of 50 readings"
    )
    assert found == {
        "sources[0].fields": f"{wants}: give 6 fields",
        "model.window.size": f"{wants}: set model.window.size to 100",
    }


def test_turned_axes_are_recognised(problems: Callable[..., dict[str, str]]) -> None:
    """Where another layout of the same axes fits, the message says so."""
    found = problems(models.lstm(), 6, window_size=20)
    assert all(message.endswith("or set model.input.layout to NTC") for message in found.values())
    assert len(found) == 2


def test_a_layout_of_another_rank_is_a_problem(problems: Callable[..., dict[str, str]]) -> None:
    """The layout has as many axes as the input."""
    found = problems(models.dense(), 6, layout="NCT")
    assert found["model.input.layout"].endswith("layout NCT has 3 dimensions, the input 2; set NC or NT")


def test_windows_of_several_channels_do_not_go_into_two_dimensions(problems: Callable[..., dict[str, str]]) -> None:
    """Two dimensions are for single readings, or for one field over time."""
    found = problems(models.dense(), 6, window_size=10)
    assert found["model.window.size"].endswith("set model.window.size to 1, or give one field only")


def test_inputs_and_outputs_that_are_not_there_are_told_together(problems: Callable[..., dict[str, str]]) -> None:
    """One run of `check` names both, with the names the model has."""
    assert problems(models.dense(), 6, input_name="z", output_name="w") == {
        "model.input.name": 'motions.onnx has no input "z"; its inputs: "x"',
        "model.output.name": 'motions.onnx has no output "w"; its outputs: "probabilities"',
    }


def test_a_second_input_is_a_problem(problems: Callable[..., dict[str, str]]) -> None:
    """A model with two inputs would starve on one of them, named or not."""
    for name in (None, "x"):
        found = problems(models.two_inputs(), 6, input_name=name)
        assert found["model.path"].startswith('motions.onnx has 2 inputs ("x", "mask") and mlade feeds one')


def test_a_score_of_several_columns_is_a_problem(problems: Callable[..., dict[str, str]]) -> None:
    """Four columns are no score and no value."""
    for kind in ("score", "value"):
        assert "has 4: set probabilities" in problems(models.dense(), 6, output_kind=kind)["model.output.kind"]


def test_a_configured_kind_is_believed_with_a_doubt(load: Load) -> None:
    """Whoever says probabilities gets them, held within 0 and 1; what the trial runs gave is told."""
    loaded = load(models.identity(2), 2, output_kind="probabilities")
    predictions = loaded.infer(np.array([[[0.25, 0.75]], [[-1.0, 2.0]]]))
    assert predictions.probabilities is not None
    assert predictions.probabilities.tolist() == [[0.25, 0.75], [0, 1]]
    assert "is it logits?" in loaded.describe()["kind"]


def test_sigmoids_side_by_side_are_doubted(load: Load) -> None:
    """Several columns between 0 and 1 that do not sum to 1 are read as logits, and the doubt is told."""
    several = models.graph("several (float[N, 3] x) => (float[N, 3] y) { y = Sigmoid (x) }")
    assert "if each label has its own sigmoid" in load(several, 3).describe()["kind"]


def test_means_that_are_not_one_a_channel_are_a_problem(problems: Callable[..., dict[str, str]]) -> None:
    """One number, or one a channel."""
    found = problems(models.dense(), 6, mean=[1.0, 2.0])
    assert found == {"model.input.mean": "2 numbers for 6 channels; expected one, or one a channel"}


def test_free_dimensions_take_what_comes(load: Load) -> None:
    """A model that leaves channels and time open fits any."""
    free = models.graph("free (float[N, C, T] x) => (float[N, C] y) { y = ReduceMean <axes = [2], keepdims = 0> (x) }")
    predictions = load(free, 3, window_size=8).infer(windows(4, 8, 3))
    assert predictions.probabilities is not None
    assert predictions.probabilities.shape == (4, 3)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "there is no model at"),
        (b"", "is empty: give the path of an ONNX file"),
        (b"not a model at all", "is no ONNX model: no field at byte 1"),
    ],
)
def test_what_is_no_model_is_said(tmp_path: Path, content: bytes | None, expected: str) -> None:
    """A missing, empty or foreign file gives one sentence without ONNX Runtime's codes, as a problem of the path."""
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as raised:
        load_model(path, window_size=1, channels=1)
    assert expected in str(raised.value)
    assert str(path) in str(raised.value)
    assert "ONNXRuntimeError" not in str(raised.value)
    (problem,) = fit_problems(lambda: load_model(path, window_size=1, channels=1))
    assert (problem.path, problem.message) == ("model.path", str(raised.value))


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    """A directory in place of a file is told as such."""
    with pytest.raises(ModelError, match="is a directory"):
        load_model(tmp_path, window_size=1, channels=1)


def test_unknown_operators_are_said(load: Load) -> None:
    """An operator this ONNX Runtime does not have is named."""
    model = models.dense()
    model.opset_import.append(onnx.helper.make_opsetid("own.domain", 1))
    model.graph.node[0].domain, model.graph.node[0].op_type = "own.domain", "Mystery"
    with pytest.raises(ModelError, match=r"operators of own\.domain:Mystery, which are not ONNX's"):
        load(model, 6)


# Running


def test_a_model_that_raises_is_a_sentence_and_goes_on(load: Load) -> None:
    """A reading the model raises on is a ModelError with ONNX Runtime's reason; the next call is not affected."""
    loaded = load(models.raising(), 1)
    with pytest.raises(ModelError, match=r"^the model failed on 2 windows: indices element out of data bounds, idx=9"):
        loaded.infer(np.array([[[1.0]], [[9.0]]]))
    assert loaded.infer(np.array([[[1.0]], [[2.0]]])).value == pytest.approx([1.5, 2.5])


def test_a_model_that_always_raises_does_not_load(load: Load) -> None:
    """When no trial window passes, the model's own reason is the error."""
    model = models.graph(
        "never (float[N, 1] x) => (float[7] y) <int64[1] seven = {7}> { y = Reshape (x, seven) }",
    )
    with pytest.raises(
        ModelError,
        match=r"^the model failed on 1 window: input_shape_size == requested_shape_size was false.*\{1,1\}.*\{7\}",
    ):
        load(model, 1)


WAYS: dict[str, tuple[Callable[[], onnx.ModelProto], int, int, dict[str, Any], str | None]] = {
    "dense": (models.dense, 1, 6, {}, "batched"),
    "cnn": (models.cnn, 100, 6, {}, "batched"),
    "alone": (models.alone_differs, 1, 1, {}, "padded to 2"),
    "rows": (models.rows_differ, 1, 1, {}, "padded to 8"),
    "company": (models.company_differs, 1, 1, {}, "one by one"),
    "quantised": (models.quantised, 1, 6, {}, "one by one"),
    "single": (models.one_row_only, 1, 4, {}, "one by one"),
    "fixed": (models.fixed_batch, 1, 6, {}, "padded to 4"),
    "fixed at 1": (lambda: models.fixed_batch(1), 1, 6, {}, "one by one"),
    "above 40": (models.many_differ, 1, 1, {}, "batched"),
    "lstm": (models.lstm, 20, 6, {"layout": "NTC"}, None),
    "attention": (models.attention, 20, 6, {"layout": "NTC"}, None),
    "trees": (models.isolation_forest, 1, 3, {}, None),
    "two threads": (models.cnn, 100, 6, {"threads": 2}, None),
    "calls of 3": (models.alone_differs, 1, 1, {"max_batch": 3}, "padded to 2"),
}
"""Model, window size, channels, settings, and the way it is to be run; None where that is the runtime's affair."""


@pytest.mark.parametrize("way", WAYS)
def test_batches_do_not_change_answers(load: Load, way: str) -> None:
    """Whatever the model, a window's answer is the same to the last bit alone and in any number, company and order."""
    make, size, channels, extra, name = WAYS[way]
    loaded = load(make(), channels, window_size=size, **extra)
    assert name is None or loaded.execution.name == name
    values = windows(130, size, channels)
    values *= np.geomspace(0.01, 30, 130)[:, None, None]

    def answers(chosen: Floats) -> Floats:
        predictions = loaded.infer(chosen)
        return predictions.probabilities if predictions.value is None else predictions.value  # type: ignore[return-value]

    together = answers(values)
    assert (np.concatenate([answers(values[row : row + 1]) for row in range(130)]) == together).all()
    order = np.random.default_rng(2).permutation(130)
    for count in (2, 3, 5, 8, 13, 17, 40, 65):
        assert (answers(values[order[:count]]) == together[order[:count]]).all()


def test_a_quantised_model_would_answer_otherwise_in_company(load: Load) -> None:
    """The model the promise is hard for: run as it comes, company changes its answer. So the test above can fail."""
    loaded = load(models.quantised(), 6)
    values = windows(2, 1, 6) * np.array([1, 50])[:, None, None]
    assert (loaded._runner(values)[0] != loaded._runner(values[:1])[0]).any()


def test_a_size_that_changes_answers_is_never_reached(load: Load) -> None:
    """A model that answers otherwise above 40 rows is run in calls of at most 40."""
    assert 16 <= load(models.many_differ(40), 1).execution.most <= 40


def test_a_call_is_as_large_as_allowed(load: Load) -> None:
    """`max_batch` bounds a call, below and above the sizes of the trials, also where it is none of them."""
    for most in (1, 5, 16, 100, 512):
        assert load(models.dense(), 6, max_batch=most).execution.most == most


def test_a_slow_model_is_called_in_small_pieces(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call takes longer than the bound; the way of running, and so the answers, stay the same."""
    free = load(models.lstm(), 6, window_size=20, layout="NTC")
    monkeypatch.setattr("processor.model.invariance.LONGEST_CALL", free.seconds_per_window * 20)
    bound = load(models.lstm(), 6, window_size=20, layout="NTC")
    assert 1 <= bound.execution.most < free.execution.most
    assert bound.execution.name == free.execution.name
    values = windows(100, 20, 6)
    assert (bound.infer(values).probabilities == free.infer(values).probabilities).all()  # type: ignore[union-attr]


def test_a_model_that_answers_at_random_is_said(load: Load) -> None:
    """Nothing makes it repeatable, so the operator is told."""
    assert "answers otherwise each time" in load(models.random_answers(), 1).execution.sentence


def test_a_model_describes_itself(load: Load, tmp_path: Path) -> None:
    """What `check` prints: signature, kind, labels, way of running, size and digest of the file."""
    loaded = load(models.cnn(), 6, window_size=100, temperature=1.5)
    content = (tmp_path / "motions.onnx").read_bytes()
    lines = loaded.describe()
    assert loaded.name == "motions"
    assert lines["sha256"] == loaded.sha256 == hashlib.sha256(content).hexdigest()
    assert lines["model"] == f"motions, {len(content) / 1024:.1f} KiB"
    assert lines["input"] == '"x" float32 [N, 6, 100] as NCT (batch, channels, time)'
    assert lines["output"] == '"probabilities" float32 [N, 4]'
    assert lines["labels"] == "standing, walking, running, badminton"
    assert lines["execution"].startswith("batched: windows are run together, up to 512 in a call")
    assert lines["temperature"] == "1.5"


def test_problems_are_the_text_of_the_error(load: Load) -> None:
    """Whoever only prints the error still says everything."""
    with pytest.raises(ModelMisfit) as raised:
        load(models.cnn(), 3, window_size=50)
    assert str(raised.value).splitlines() == [str(problem) for problem in raised.value.problems]


def test_nothing_calls_home(tmp_path: Path) -> None:
    """ONNX Runtime collects usage data unless told otherwise, and keeps it in the home directory first."""
    path = models.write(models.dense(), tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from pathlib import Path; from processor.model.onnx_model import load_model\n"
        "load_model(Path(sys.argv[1]), window_size=1, channels=6)"
    )
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name and "XDG" not in name}
    subprocess.run([sys.executable, "-c", code, str(path)], env=environment | {"HOME": str(home)}, check=True)
    assert list(home.rglob("*")) == []


def test_a_model_that_gives_more_numbers_for_some_windows_has_failed_on_those(load: Load) -> None:
    """As if it had raised: what comes after it is judged."""
    loaded = load(odd_models.widening(), 2)
    with pytest.raises(ModelError, match="the model gave 3 numbers for a window, where it had given 2"):
        loaded.infer(np.array([[[2e9, 1.0]]]))
    assert loaded.infer(np.array([[[1.0, 0.0]]])).labels == ("0", "1")


@pytest.mark.parametrize(
    ("name", "damaged"), [(b"labels", b"\xffabels"), (b"a,b", b"\xff,b"), (b"reading", b"r\xffading")]
)
def test_names_that_are_no_text_are_a_sentence(tmp_path: Path, name: bytes, damaged: bytes) -> None:
    """ONNX Runtime takes them, and Python does not."""
    model = models.graph(
        "named (float[N, 2] reading) => (float[N, 2] y) { y = Softmax <axis = 1> (reading) }",
        metadata={"labels": "a,b"},
    )
    path = tmp_path / "named.onnx"
    path.write_bytes(model.SerializeToString().replace(name, damaged))
    with pytest.raises(ModelError, match=r"named.onnx is no ONNX model"):
        load_model(path, window_size=1, channels=2)


def test_a_model_without_a_number_for_a_window_does_not_load(load: Load) -> None:
    """Nothing could be made of its answers."""
    with pytest.raises(ModelError, match="no number"):
        load(odd_models.empty(), 2)


def test_a_model_fixed_to_more_rows_than_fit_into_memory_is_a_problem(problems: Callable[..., dict[str, str]]) -> None:
    """A single call would take it."""
    model = models.dense()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 62
    assert "is fixed to 4611686018427387904, which takes too much memory" in problems(model, 6)["model.path"]


@pytest.mark.parametrize("label", ["\ud800", "\x00", "a\nb", "x" * 1001], ids=ascii)
def test_labels_that_no_message_can_hold_are_a_problem(problems: Callable[..., dict[str, str]], label: str) -> None:
    """They stand in JSON, in metrics and in the properties of MQTT messages."""
    model = models.dense(metadata={"labels": json.dumps([label, "b", "c", "d"])})
    assert "expected at most 1000 characters" in problems(model, 6)["model.output.labels"]
