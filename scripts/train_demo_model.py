"""Train the demo's model on one half of its recordings, judge it on the other, write processor/demo/motions.onnx.

    python -m scripts.train_demo_model

The model sees the form of a movement and not its strength: of each channel the range and the mean step from one reading
to the next, both in mean absolute deviations. So it does not depend on the sensors' scale, which the source does not
tell. It is right nearly nine times in ten and mostly knows when it is not. Given the strength as well, the same
classifier is right 98 times in a hundred, and a demo of choosing what deserves a label would have little to choose.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from processor.demo.data import FIELDS, MODEL_PATH, RATE_HZ, WINDOW_SIZE, WINDOW_STEP, Recordings, load
from processor.types import Ints

PENALTIES = np.logspace(-2, 2, 9)
"""Values of C, the inverse of the regularisation's strength, to choose from."""

MIDDLE = (0.4, 0.7)
"""Confidences at which a label from a human is worth its price."""

OPSET = 17
IR_VERSION = 8
DESCRIPTION = (
    f"Activity from {WINDOW_SIZE} readings at {RATE_HZ} Hz of {', '.join(FIELDS)}. Trained on the training half of "
    "BasicMotions, UEA multivariate time series classification archive (A. Bagnall et al., 2018, arXiv:1811.00075)."
)
CHANNELS = len(FIELDS)
FEATURES = f"""
features (float[N, {CHANNELS}, {WINDOW_SIZE}] input) => (float[N, {2 * CHANNELS}] features)
<float flat = {{0.001}}, int64[1] first = {{0}}, int64[1] second = {{1}}, int64[1] last = {{-1}},
 int64[1] end = {{{WINDOW_SIZE}}}>
{{
    readings = Transpose <perm = [2, 0, 1]> (input)
    mean = ReduceMean <axes = [0], keepdims = 0> (readings)
    deviations = Sub (readings, mean)
    magnitudes = Abs (deviations)
    deviation = ReduceMean <axes = [0], keepdims = 0> (magnitudes)
    unit = Max (deviation, flat)
    highest = ReduceMax <axes = [0], keepdims = 0> (readings)
    lowest = ReduceMin <axes = [0], keepdims = 0> (readings)
    extent = Sub (highest, lowest)
    range = Div (extent, unit)
    earlier = Slice (readings, first, last, first)
    later = Slice (readings, second, end, first)
    steps = Sub (later, earlier)
    distances = Abs (steps)
    distance = ReduceMean <axes = [0], keepdims = 0> (distances)
    roughness = Div (distance, unit)
    features = Concat <axis = 1> (range, roughness)
}}
"""
"""What the classifier is given, as ONNX text: the range and the mean step of each channel, in mean absolute deviations.

`flat` keeps a sensor that stands still from dividing by zero. All operators give a window the same bits in any batch
(measured with ONNX Runtime 1.20 and 1.32): time comes first, for a mean over the last axis depends on where in memory
the window begins; and there is no standard deviation, for in 1.20 a square root depends on that too.
"""
CLASSIFIER = f"""
classifier (float[N, {2 * CHANNELS}] features) => (float[N, K] probabilities, string[N] label)
{{
    logits = Gemm (features, weights, bias)
    probabilities = Softmax <axis = 1> (logits)
    likeliest = ArgMax <axis = 1, keepdims = 0> (probabilities)
    label = Gather (labels, likeliest)
}}
"""
"""The logistic regression, as ONNX text; K labels.

Plain operators rather than a converter's ai.onnx.ml.LinearClassifier, whose answer for a single row differs in the last
bits from its answer for the same row among others (measured with ONNX Runtime 1.32).
"""

Singles = NDArray[np.float32]


def cut_windows(recordings: Recordings) -> tuple[Singles, list[str], Ints]:
    """Cut each recording into windows as the processor does.

    Returns:
        (W, 6, WINDOW_SIZE) windows, W activities, and (W,) the recording each window is from.
    """
    views = np.lib.stride_tricks.sliding_window_view(recordings.values, WINDOW_SIZE, axis=2)[:, :, ::WINDOW_STEP]
    count, channels, each, size = views.shape
    windows = views.swapaxes(1, 2).reshape(count * each, channels, size).astype(np.float32)
    return windows, np.repeat(recordings.activities, each).tolist(), np.repeat(np.arange(count), each)


def run(model: onnx.ModelProto, windows: Singles, *outputs: str) -> list[Singles]:
    """Return the named outputs of `model` for (W, 6, WINDOW_SIZE) windows."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at the import
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answers: list[Singles] = session.run(outputs, {"input": windows})
    return answers


def make_model(graph: onnx.GraphProto) -> onnx.ModelProto:
    """Return a checked model of `graph`, in versions that every ONNX Runtime from 1.20 on reads."""
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets, producer_name="mlade")
    onnx.checker.check_model(model, full_check=True)
    return model


def train() -> onnx.ModelProto:
    """Return a model trained on the training half alone; the same each time.

    The regularisation is the one with the least log loss on recordings left out of its training, five folds of them.
    Windows of one recording never stand on both sides, for they overlap.
    """
    windows, activities, recording = cut_windows(load("train"))
    features = onnx.parser.parse_graph(FEATURES)
    (rows,) = run(make_model(features), windows, "features")
    # Newton's method, to a tolerance far below float32: the optimum, not the place where a solver happened to stop.
    regression = LogisticRegression(solver="newton-cholesky", tol=1e-10)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), regression),
        {"logisticregression__C": PENALTIES},
        scoring="neg_log_loss",
        cv=GroupKFold(5),
    )
    search.fit(rows.astype(np.float64), activities, groups=recording)
    scaler, regression = search.best_estimator_
    labels = regression.classes_.tolist()
    weights = regression.coef_ / scaler.scale_
    bias = regression.intercept_ - weights @ scaler.mean_

    classifier = onnx.parser.parse_graph(CLASSIFIER.replace("K", str(len(labels))))
    classifier.initializer.append(numpy_helper.from_array(weights.T.astype(np.float32), "weights"))
    classifier.initializer.append(numpy_helper.from_array(bias.astype(np.float32), "bias"))
    classifier.initializer.append(helper.make_tensor("labels", onnx.TensorProto.STRING, [len(labels)], labels))
    model = make_model(
        onnx.compose.merge_graphs(features, classifier, io_map=[("features", "features")], name="motions")
    )
    model.doc_string = DESCRIPTION
    helper.set_model_props(model, {"labels": json.dumps(labels), "window_size": str(WINDOW_SIZE)})
    typer.echo(f"C = {search.best_params_['logisticregression__C']:.3g}, log loss {-search.best_score_:.3f}")
    return model


def judge(model: onnx.ModelProto) -> None:
    """Print how often the model is right on the other half, and how sure of it."""
    windows, activities, _ = cut_windows(load("test"))
    probabilities, labels = run(model, windows, "probabilities", "label")
    confidence = probabilities.max(axis=1)
    right = labels == np.array(activities)
    typer.echo(f"{len(windows)} test windows, {right.mean():.1%} right, mean confidence {confidence.mean():.1%}")
    tenth = np.minimum(confidence * 10, 9).astype(int)
    for number in range(2, 10):
        among = tenth == number
        share = f"{right[among].mean():6.1%} right" if among.any() else " " * 12
        bar = "#" * round(100 * among.mean())
        typer.echo(f"confidence from 0.{number}: {among.sum():4d} {among.mean():6.1%} {share} {bar}".rstrip())
    middle = np.mean((confidence >= MIDDLE[0]) & (confidence <= MIDDLE[1]))
    typer.echo(f"{MIDDLE[0]} to {MIDDLE[1]}: {middle:.1%}")


def main(destination: Annotated[Path, typer.Argument(dir_okay=False, help="The file to write.")] = MODEL_PATH) -> None:
    """Train, judge and write the model."""
    model = train()
    judge(model)
    onnx.save(model, destination)
    typer.echo(f"{destination}: {destination.stat().st_size} bytes")


if __name__ == "__main__":
    typer.run(main)
