"""The models that are run, made here with fixed weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

_HEADER = '<ir_version: 8, opset_import: ["": 17]>\n'
_SHARPNESS = 2.0
"""Factor on the last layer's weights, so that predictions are not all alike."""


def dense() -> onnx.ModelProto:
    """Return a classifier of single readings (NC), 6 -> 32 -> 4."""
    return _model(
        """dense (float[N, 6] x) => (float[N, 4] probabilities)
        {
            first = MatMul (x, w1)
            hidden = Relu (first)
            sums = MatMul (hidden, w2)
            probabilities = Softmax <axis = 1> (sums)
        }""",
        w1=_weights(1, 6, 32),
        w2=_weights(2, 32, 4) * np.float32(_SHARPNESS),
    )


def convolutional() -> onnx.ModelProto:
    """Return a classifier of windows of 100 readings (NCT): one convolution, a pooling and a dense layer."""
    return _model(
        """convolutional (float[N, 6, 100] x) => (float[N, 4] probabilities)
        {
            across = Conv <kernel_shape = [5]> (x, w1)
            active = Relu (across)
            pooled = ReduceMean <axes = [2], keepdims = 0> (active)
            sums = MatMul (pooled, w2)
            probabilities = Softmax <axis = 1> (sums)
        }""",
        w1=_weights(1, 30, 16).T.reshape(16, 6, 5),
        w2=_weights(2, 16, 4) * np.float32(10 * _SHARPNESS),
    )


def write(model: onnx.ModelProto, path: Path) -> Path:
    """Write `model` and return `path`."""
    path.write_bytes(model.SerializeToString())
    return path


def least_confident(path: Path, inputs: NDArray[np.float64], share: float) -> tuple[float, int]:
    """Return the confidence that `share` of the answers to `inputs` do not exceed, and how many answers those are."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"x": inputs.astype(np.float32)})
    confidences = np.sort(np.asarray(probabilities).max(axis=1))
    place = max(1, round(share * len(confidences)))
    # Between two of them, so that rounding cannot matter.
    highest = float(confidences[place - 1 : place + 1].mean(dtype=np.float64))
    return highest, int((confidences <= highest).sum())


def _model(text: str, **weights: NDArray[np.float32]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(_HEADER + text)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()
    )
    onnx.checker.check_model(model)
    return model


def _weights(seed: int, *shape: int) -> NDArray[np.float32]:
    weights: NDArray[np.float32] = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return weights / np.float32(np.sqrt(shape[0]))
