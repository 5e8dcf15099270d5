"""Models that nobody would train, for tests of what an upset one upsets."""

from __future__ import annotations

import numpy as np
import onnx

from tests.models import graph


def widening() -> onnx.ModelProto:
    """Return one that gives two numbers for a reading of two channels (NC), three where the first is over a billion."""
    return graph(
        """widening (float[N, 2] x) => (float[N, M] y)
        <int64[1] start = {0}, int64[1] one = {1}, int64[1] axis = {1}, float billion = {1000000000}>
        {
            first = Slice (x, start, one, axis)
            large = Greater (first, billion)
            number = Cast <to = 7> (large)
            most = ReduceMax <keepdims = 0> (number)
            columns = Reshape (most, one)
            end = Add (columns, one)
            zero = Sub (one, one)
            again = Slice (x, zero, columns, axis)
            y = Concat <axis = 1> (x, again)
        }"""
    )


def empty() -> onnx.ModelProto:
    """Return one that gives no number for a reading of two channels (NC)."""
    return graph(
        """empty (float[N, 2] x) => (float[N, M] y) <int64[1] none = {0}, int64[1] axis = {1}>
        { y = Slice (x, none, none, axis) }"""
    )


def endless() -> onnx.ModelProto:
    """Return one for readings of two channels (NC) whose loop has more turns than anybody can wait for."""
    helper = onnx.helper
    turn = helper.make_graph(
        [helper.make_node("Identity", ["goes_on"], ["still"]), helper.make_node("Identity", ["before"], ["after"])],
        "turn",
        [
            helper.make_tensor_value_info("number", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("goes_on", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", onnx.TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", onnx.TensorProto.FLOAT, None),
        ],
    )
    model = graph(
        "endless (float[N, 2] x) => (float[N, 2] y) { y = Identity (x) }",
        turns=np.array(1 << 62, np.int64),
        yes=np.array(True),  # noqa: FBT003 - a tensor
    )
    model.graph.node[0].CopyFrom(helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=turn))
    onnx.checker.check_model(model)
    return model
