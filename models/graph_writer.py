"""Writes one ONNX graph node by node.

A weight of the model is named, never copied: its initializer is marked as external data under its state-dict name (see
`models.graphs`). What is computed from weights and constants alone, such as a normalisation folded into the layer
after it, is written as nodes too: the runtime computes it once, when it makes a session.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 10

Value = NewType("Value", str)
Shapes = Mapping[str, tuple[int, ...]]


class GraphWriter:
    """Collects nodes; a `Value` is the name of a tensor, and every method that computes gives that of its result."""

    def __init__(self, weights: Shapes) -> None:
        """`weights` are the shapes of all that the graph may use, by state-dict name."""
        self._weights = weights
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def to_bytes(self) -> bytes:
        """The whole graph, serialised."""
        graph = helper.make_graph(
            self._nodes, "stage", self._inputs, self._outputs, initializer=list(self._initializers.values())
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, producer_name="dvt", opset_imports=[opset], ir_version=IR_VERSION)
        data: bytes = model.SerializeToString()
        return data

    def input(self, name: str, data_type: int, shape: Sequence[int]) -> Value:
        """An input (B, *shape) of the graph."""
        self._inputs.append(helper.make_tensor_value_info(name, data_type, ["batch", *shape]))
        return Value(name)

    def output(self, name: str, value: Value, shape: Sequence[int]) -> None:
        """An output (B, *shape) of the graph in float32."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))

    def weight(self, name: str, *shape: int) -> Value:
        """The model's weight of that state-dict name, seen as another shape if one is given."""
        if name not in self._initializers:
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=self._weights[name])
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="model.safetensors")
            self._initializers[name] = tensor
        return self.reshape(Value(name), *shape) if shape else Value(name)

    def constant(self, values: NDArray[np.number] | float) -> Value:
        """A small constant in float32."""
        return self._constant(np.asarray(values, np.float32))

    def integers(self, *values: int) -> Value:
        """A vector of integers: a shape, axes, padding."""
        return self._constant(np.asarray(values, np.int64))

    def op(self, kind: str, *inputs: Value | float, **attributes: Any) -> Value:
        """A node of ONNX's own operators with one output."""
        values = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        return self._node(kind, values, 1, attributes)[0]

    def split(self, value: Value, sizes: Sequence[int], axis: int) -> list[Value]:
        if len(sizes) == 1:
            return [value]
        return self._node("Split", (value, self.integers(*sizes)), len(sizes), {"axis": axis})

    def reshape(self, value: Value, *shape: int) -> Value:
        """0 keeps the axis of that place, -1 takes what is left."""
        return self.op("Reshape", value, self.integers(*shape))

    def transpose(self, value: Value, *axes: int) -> Value:
        return self.op("Transpose", value, perm=axes)

    def slice(self, value: Value, start: int, end: int, axis: int) -> Value:
        return self.op("Slice", value, *(self.integers(number) for number in (start, end, axis)))

    def first(self, value: Value, axis: int) -> Value:
        """What lies at index 0 of an axis, without that axis."""
        return self.op("Gather", value, self._constant(np.asarray(0, np.int64)), axis=axis)

    def pad(self, value: Value, before: Sequence[int], after: Sequence[int]) -> Value:
        """Zeros before and after, a number of them for each axis."""
        return self.op("Pad", value, self.integers(*before, *after))

    def mean(self, value: Value, axis: int) -> Value:
        """The mean over an axis, which stays with length 1."""
        return self.op("ReduceMean", value, self.integers(axis))

    def _constant(self, array: NDArray[np.generic]) -> Value:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = Value(f"constant_{len(self._constants)}")
            self._initializers[name] = numpy_helper.from_array(array, name)
            self._constants[key] = name
        return self._constants[key]

    def _node(self, kind: str, inputs: Sequence[Value], outputs: int, attributes: Mapping[str, Any]) -> list[Value]:
        name = f"{kind.lower()}_{len(self._nodes)}"
        values = [Value(name if number == 0 else f"{name}_{number}") for number in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, values, name=name, **attributes))
        return values
