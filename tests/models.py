"""Small ONNX models for tests, one function each. Weights come from a fixed seed, so a model is the same each time.

path = write(dense(), tmp_path)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LinearRegression, LogisticRegression

ACTIVITIES = ("standing", "walking", "running", "badminton")
_HEADER = '<ir_version: 8, opset_import: ["": 17]>\n'


def write(model: onnx.ModelProto, folder: Path, name: str = "model") -> Path:
    """Write `model` to `folder`/`name`.onnx and return the path."""
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def graph(text: str, *, metadata: Mapping[str, str] | None = None, **weights: NDArray[Any]) -> onnx.ModelProto:
    """Return the model whose graph is `text` in ONNX's text format, with `weights` as its initializers."""
    model = onnx.parser.parse_model(_HEADER + text)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    onnx.helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    return model


def _weights(seed: int, *shape: int, dtype: str = "f4") -> NDArray[Any]:
    weights: NDArray[Any] = np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[0])
    return weights.astype(dtype)


def dense(
    *, batch: int | str = "N", dtype: str = "float", softmax: bool = True, metadata: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """Return 6 -> 32 -> 4 on single readings (NC), ending in a softmax or in logits.

    Args:
        batch: the first dimension: a name, or a number where it is fixed.
        dtype: `float`, `double` or `float16`.
        softmax: False leaves the logits.
        metadata: custom metadata, such as {"labels": "a,b,c,d"}.
    """
    kind = {"float": "f4", "double": "f8", "float16": "f2"}[dtype]
    last = "probabilities = Softmax <axis = 1> (sums)" if softmax else "logits = Identity (sums)"
    return graph(
        f"""dense ({dtype}[{batch}, 6] x) => ({dtype}[{batch}, 4] {"probabilities" if softmax else "logits"})
        {{
            first = MatMul (x, w1)
            biased = Add (first, b1)
            hidden = Relu (biased)
            sums = MatMul (hidden, w2)
            {last}
        }}""",
        metadata=metadata,
        w1=_weights(1, 6, 32, dtype=kind),
        b1=_weights(2, 32, dtype=kind),
        w2=_weights(3, 32, 4, dtype=kind),
    )


def logits() -> onnx.ModelProto:
    """Return `dense` without its softmax."""
    return dense(softmax=False)


def fixed_batch(rows: int = 4) -> onnx.ModelProto:
    """Return `dense` with a first dimension of exactly `rows`."""
    return dense(batch=rows)


def float64_input() -> onnx.ModelProto:
    """Return `dense` in double precision."""
    return dense(dtype="double")


def int64_input() -> onnx.ModelProto:
    """Return a model that looks up each of 3 whole numbers, -8 to 7, in a table of 4 columns and sums: logits.

    It raises on any other number.
    """
    return graph(
        """table (int64[N, 3] x) => (float[N, 4] logits)
        <int64[1] axis = {1}>
        {
            rows = Gather (table, x)
            logits = ReduceSum <keepdims = 0> (rows, axis)
        }""",
        table=_weights(1, 8, 4),
    )


def raising() -> onnx.ModelProto:
    """Return a model of one value that raises when the reading, cut to a whole number, is not -4 to 3."""
    return graph(
        """raising (float[N, 1] x) => (float[N, 1] value)
        <float[4] table = {0.5, 1.5, 2.5, 3.5}>
        {
            index = Cast <to = 7> (x)
            value = Gather (table, index)
        }"""
    )


def cnn(*, channels: int = 6, size: int = 100, labels: Sequence[str] = ACTIVITIES) -> onnx.ModelProto:
    """Return two convolutions over time and a softmax (NCT), its labels in the metadata, comma-separated."""
    return graph(
        f"""cnn (float[N, {channels}, {size}] x) => (float[N, {len(labels)}] probabilities)
        {{
            first = Conv <kernel_shape = [5], pads = [2, 2]> (x, w1)
            active = Relu (first)
            second = Conv <kernel_shape = [5], pads = [2, 2], strides = [2]> (active, w2)
            hidden = Relu (second)
            pooled = GlobalAveragePool (hidden)
            flat = Flatten (pooled)
            sums = MatMul (flat, w3)
            probabilities = Softmax <axis = 1> (sums)
        }}""",
        metadata={"labels": ",".join(labels)},
        w1=_weights(1, 16, channels, 5),
        w2=_weights(2, 16, 16, 5),
        w3=_weights(3, 16, len(labels)),
    )


def lstm(*, channels: int = 6, size: int = 20) -> onnx.ModelProto:
    """Return an LSTM over (batch, time, channels) (NTC) and a softmax over 4 labels."""
    return graph(
        f"""lstm (float[N, {size}, {channels}] x) => (float[N, 4] probabilities)
        <int64[1] zero = {{0}}>
        {{
            by_time = Transpose <perm = [1, 0, 2]> (x)
            steps, last = LSTM <hidden_size = 16> (by_time, w, r)
            hidden = Squeeze (last, zero)
            sums = MatMul (hidden, w3)
            probabilities = Softmax <axis = 1> (sums)
        }}""",
        w=_weights(1, 1, 64, channels),
        r=_weights(2, 1, 64, 16) / 4,
        w3=_weights(3, 16, 4),
    )


def attention(*, channels: int = 6, size: int = 20) -> onnx.ModelProto:
    """Return one block of self-attention over (batch, time, channels) (NTC) and a softmax over 4 labels."""
    return graph(
        f"""attention (float[N, {size}, {channels}] x) => (float[N, 4] probabilities)
        {{
            queries = MatMul (x, wq)
            keys = MatMul (x, wk)
            values = MatMul (x, wv)
            across = Transpose <perm = [0, 2, 1]> (keys)
            alike = MatMul (queries, across)
            weights = Softmax <axis = 2> (alike)
            mixed = MatMul (weights, values)
            pooled = ReduceMean <axes = [1], keepdims = 0> (mixed)
            sums = MatMul (pooled, w3)
            probabilities = Softmax <axis = 1> (sums)
        }}""",
        wq=_weights(1, channels, 16),
        wk=_weights(2, channels, 16),
        wv=_weights(3, channels, 16),
        w3=_weights(4, 16, 4),
    )


def sigmoid(*, flat: bool = False) -> onnx.ModelProto:
    """Return a logistic regression on 6 channels (NC) with one output: (N, 1), or (N,) where `flat`."""
    last = "score = Squeeze (column, one)" if flat else "score = Identity (column)"
    return graph(
        f"""sigmoid (float[N, 6] x) => (float[{"N" if flat else "N, 1"}] score)
        <int64[1] one = {{1}}>
        {{
            sum = MatMul (x, w)
            column = Sigmoid (sum)
            {last}
        }}""",
        w=_weights(1, 6, 1),
    )


def identity(columns: int = 2, *, output: str = "y") -> onnx.ModelProto:
    """Return a model whose answer is its reading of `columns` channels (NC): a test says what the model says."""
    return graph(f"identity (float[N, {columns}] x) => (float[N, {columns}] {output}) {{ {output} = Identity (x) }}")


def quantised() -> onnx.ModelProto:
    """Return a dynamically INT8 quantised layer on 6 channels (NC): one scale a batch, so company changes answers."""
    return graph(
        """quantised (float[N, 6] x) => (float[N, 4] probabilities)
        <float weight_scale = {0.01}>
        {
            bytes, scale, zero = DynamicQuantizeLinear (x)
            whole = MatMulInteger (bytes, w, zero)
            real = Cast <to = 1> (whole)
            both = Mul (scale, weight_scale)
            sums = Mul (real, both)
            probabilities = Softmax <axis = 1> (sums)
        }""",
        w=np.random.default_rng(1).integers(-127, 128, size=(6, 4), dtype=np.int8),
    )


def depends_on_rows(changed: str) -> onnx.ModelProto:
    """Return a model of one value that adds something which hangs on the number of rows in the call.

    Args:
        changed: ONNX text for a float `shift`, made of `rows`, the (1,) float number of rows in the call, and the
            constants `one`, `eight`.
    """
    return graph(
        f"""rows (float[N, 1] x) => (float[N, 1] value)
        <float[1] one = {{1.0}}, float[1] eight = {{8.0}}>
        {{
            count = Shape <start = 0, end = 1> (x)
            rows = Cast <to = 1> (count)
            {changed}
            value = Add (x, shift)
        }}"""
    )


def alone_differs() -> onnx.ModelProto:
    """Return a model that answers otherwise when a call has one row."""
    return depends_on_rows("single = Equal (rows, one) shift = Cast <to = 1> (single)")


def rows_differ() -> onnx.ModelProto:
    """Return a model whose answer is another for each number of rows in a call."""
    return depends_on_rows("shift = Div (rows, eight)")


def company_differs() -> onnx.ModelProto:
    """Return a model that subtracts the mean of the rows in the call."""
    return depends_on_rows("shift = ReduceMean <keepdims = 1> (x)")


def random_answers() -> onnx.ModelProto:
    """Return a model that answers otherwise each time."""
    return depends_on_rows("shift = RandomUniformLike (x)")


def many_differ(most: int = 40) -> onnx.ModelProto:
    """Return a model that answers otherwise when a call has over `most` rows."""
    return depends_on_rows(f"limit = Constant <value_float = {most}.0> () far = Greater (rows, limit) "
                           "shift = Cast <to = 1> (far)")  # fmt: skip


def one_row_only() -> onnx.ModelProto:
    """Return a model whose input says any number of rows, and which raises on any but one."""
    return graph(
        """single (float[N, 4] x) => (float[M, 2] y)
        <int64[2] shape = {2, 2}>
        {
            square = Reshape (x, shape)
            y = ReduceSum <keepdims = 1> (square, zero)
        }""",
        zero=np.array([0]),
    )


def two_outputs() -> onnx.ModelProto:
    """Return a model of 6 channels (NC) with an embedding (N, 16), then logits (N, 4), then a label (N,)."""
    return graph(
        """two (float[N, 6] x) => (float[N, 16] embedding, float[N, 4] logits, int64[N] label)
        {
            embedding = MatMul (x, w1)
            logits = MatMul (embedding, w2)
            label = ArgMax <axis = 1, keepdims = 0> (logits)
        }""",
        w1=_weights(1, 6, 16),
        w2=_weights(2, 16, 4),
    )


def two_inputs() -> onnx.ModelProto:
    """Return a model that wants a second input."""
    return graph("pair (float[N, 6] x, float[N, 6] mask) => (float[N, 6] y) { y = Mul (x, mask) }")


def image(*, channels_last: bool = False, height: int = 8, width: int = 12) -> onnx.ModelProto:
    """Return a model of RGB images in bytes: the mean of each colour, as logits; NCHW, or NHWC."""
    shape, axes = (f"{height}, {width}, 3", "[1, 2]") if channels_last else (f"3, {height}, {width}", "[2, 3]")
    return graph(
        f"""image (uint8[N, {shape}] x) => (float[N, 3] logits)
        {{
            real = Cast <to = 1> (x)
            logits = ReduceMean <axes = {axes}, keepdims = 0> (real)
        }}"""
    )


def mean_image(dtype: str, layout: str, size: tuple[int, int], colours: int = 3) -> onnx.ModelProto:
    """Return a model of images of numbers of a type: the mean of all of it, as a value."""
    height, width = size
    shape = f"{colours}, {height}, {width}" if layout == "NCHW" else f"{height}, {width}, {colours}"
    return graph(
        f"""mean ({dtype}[N, {shape}] x) => ({dtype}[N] value)
        {{
            value = ReduceMean <axes = [1, 2, 3], keepdims = 0> (x)
        }}"""
    )


def _train() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    readings = np.random.default_rng(5).normal(size=(120, 3)).astype(np.float32)
    return readings, np.digitize(readings[:, 0], [-0.5, 0.5])


def _converted(estimator: object, **options: object) -> onnx.ModelProto:
    """Convert an estimator of 3 channels."""
    inputs = [("x", FloatTensorType([None, 3]))]
    model: onnx.ModelProto = to_onnx(estimator, initial_types=inputs, target_opset={"": 17, "ai.onnx.ml": 3}, **options)
    return model


@cache
def sklearn_classifier(*, zipmap: bool, names: bool = True) -> onnx.ModelProto:
    """Return scikit-learn's logistic regression on 3 channels: a label, and probabilities of 3 classes.

    Args:
        zipmap: probabilities as a sequence of maps, skl2onnx's default; else as (N, 3).
        names: classes `high low mid` (scikit-learn sorts them); else 0, 1, 2.
    """
    readings, classes = _train()
    targets = np.array(["low", "mid", "high"])[classes] if names else classes
    return _converted(
        LogisticRegression().fit(readings, targets),
        options={"zipmap": zipmap},
    )


@cache
def isolation_forest() -> onnx.ModelProto:
    """Return an IsolationForest on 3 channels: outputs `label` and `scores`, below 0 for the unusual."""
    forest = IsolationForest(n_estimators=10, random_state=0).fit(_train()[0])
    return _converted(forest)


@cache
def regression() -> onnx.ModelProto:
    """Return a linear regression on 3 channels: `variable` (N, 1)."""
    readings, _ = _train()
    fitted = LinearRegression().fit(readings, readings @ np.array([[10.0], [-20.0], [5.0]]))
    return _converted(fitted)
