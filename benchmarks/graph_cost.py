"""Multiply-accumulates that a graph really does for one image: those of its products and convolutions."""

import math
from collections.abc import Sequence

import onnx


def graph_gmacs(graph: bytes) -> float:
    """GMACs (1e9) of one image, counted as PyTorch's counter does: MatMul, Gemm and Conv, nothing elementwise.

    What depends on weights and constants alone is left out: it is computed once, when a session is made.
    """
    proto = onnx.load_from_string(graph)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    shapes = {each.name: tuple(each.dims) for each in inferred.initializer}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    live = {value.name for value in inferred.input}
    total = 0
    for node in inferred.node:
        if not live.intersection(node.input):
            continue
        live.update(node.output)
        total += (
            _macs(node, shapes[node.input[0]], shapes.get(node.input[1], ()), shapes[node.output[0]])
            if (node.op_type in ("MatMul", "Gemm", "Conv"))
            else 0
        )
    return total / 1e9


def _macs(node: onnx.NodeProto, left: Sequence[int], right: Sequence[int], out: Sequence[int]) -> int:
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(right[1:])
    return math.prod(out) * left[-1]
