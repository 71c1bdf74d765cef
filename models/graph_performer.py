"""A soft split and the Performer block after it, as nodes of a graph, without ever unfolding a patch.

`models.tokens_to_token.Performer` is the same in PyTorch. What is exploited here:

- LayerNorm over a patch, then a linear layer W, is a convolution with W (its scale folded in, its rows centred, so that
  the patch's mean drops out) divided by the patch's standard deviation, which box filters of the image give. They run
  in float64: where a photo is white, its variance is the small difference of two large moments.
- That division and the bias go into the exponent of the random features: w.k - |k|^2 / 2 for k = r K + b, with r the
  reciprocal deviation, is r ((w - b).K - r |K|^2 / 2) + (w.b - |b|^2 / 2).
- Channels come first, as convolutions have it, so that nothing is transposed between one soft split and the next.

Shapes: B batch; S image side; C its channels; P places of the split, s = sqrt(P); d = 64; m = 32 random features.
"""

import math
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from models.graph_writer import GraphWriter, Value
from models.tokens_to_token import NORM_EPS, PERFORMER_EPS, RANDOM_FEATURES, TOKEN_DIM


@dataclass(frozen=True)
class SoftSplit:
    """Overlapping patches of an image (B, channels, side, side), zeros around it."""

    channels: int
    side: int
    kernel: int
    stride: int
    padding: int

    @property
    def places(self) -> int:
        """s, the places on one axis."""
        return (self.side + 2 * self.padding - self.kernel) // self.stride + 1


def write_performer(graph: GraphWriter, name: str, image: Value, split: SoftSplit) -> Value:
    """Image (B, C, S, S) to tokens as an image (B, d, s, s), with the weights of the Performer called `name`."""
    deviation = _reciprocal_deviation(graph, _patch_variance(graph, image, split))
    key, query, value = _projections(graph, name, image, split)
    projection_bias = graph.weight(f"{name}.proj.bias", TOKEN_DIM, 1)
    keys, queries = (_random_features(graph, name, part, deviation) for part in (key, query))

    # The skip connection's values carry the projection's bias already; the sums take it out of the attention again.
    values = graph.op("Add", graph.op("Mul", value.channels, deviation), graph.op("Add", value.bias, projection_bias))
    sums = graph.transpose(graph.op("ReduceSum", keys, graph.integers(2)), 0, 2, 1)  # (B, 1, m)
    mixed = graph.op("MatMul", values, graph.transpose(keys, 0, 2, 1))  # (B, d, m)
    mixed = graph.op("Sub", mixed, graph.op("Mul", projection_bias, sums))
    # Projected here, at m columns, not at P places.
    mixed = graph.op("MatMul", graph.weight(f"{name}.proj.weight"), mixed)
    normaliser = graph.op("Add", graph.op("MatMul", sums, queries), PERFORMER_EPS)  # (B, 1, P)
    attended = graph.op("MatMul", mixed, graph.op("Div", queries, normaliser))
    tokens = _mlp(graph, name, graph.op("Add", attended, values))
    return graph.reshape(tokens, 0, TOKEN_DIM, split.places, split.places)


@dataclass(frozen=True)
class _Projection:
    """One of key, query, value as r * channels + bias: channels (B, d, P), bias (d, 1), r the reciprocal deviation."""

    channels: Value
    bias: Value


def _projections(graph: GraphWriter, name: str, image: Value, split: SoftSplit) -> list[_Projection]:
    weight, bias = _fold_norm(graph, f"{name}.kqv", f"{name}.norm1")
    kernel = graph.reshape(weight, 3 * TOKEN_DIM, split.channels, split.kernel, split.kernel)
    strides, pads = [split.stride] * 2, [split.padding] * 4
    raw = graph.op("Conv", image, kernel, strides=strides, pads=pads)
    parts = graph.split(graph.reshape(raw, 0, 3 * TOKEN_DIM, split.places**2), [TOKEN_DIM] * 3, axis=1)
    biases = graph.split(bias, [TOKEN_DIM] * 3, axis=0)
    return [_Projection(part, of_part) for part, of_part in zip(parts, biases, strict=True)]


def _random_features(graph: GraphWriter, name: str, part: _Projection, deviation: Value) -> Value:
    """exp(w.x - |x|^2 / 2) / sqrt(m), (B, m, P)."""
    features = graph.weight(f"{name}.w")
    constant = graph.op("MatMul", features, part.bias)
    constant = graph.op("Sub", constant, graph.op("Mul", _squares(graph, part.bias, axis=0), 0.5))
    constant = graph.op("Sub", constant, math.log(RANDOM_FEATURES) / 2)
    shifted = graph.op("Sub", features, graph.transpose(part.bias, 1, 0))
    half_norm = graph.op("Mul", graph.op("Mul", _squares(graph, part.channels, axis=1), 0.5), deviation)
    exponent = graph.op("Sub", graph.op("MatMul", shifted, part.channels), half_norm)
    return graph.op("Exp", graph.op("Add", graph.op("Mul", exponent, deviation), constant))


def _mlp(graph: GraphWriter, name: str, tokens: Value) -> Value:
    """x + mlp(norm2(x)), (B, d, P)."""
    centred = graph.op("Sub", tokens, graph.mean(tokens, 1))
    deviation = _reciprocal_deviation(graph, graph.mean(graph.op("Mul", centred, centred), 1))
    weight, bias = _fold_norm(graph, f"{name}.fc1", f"{name}.norm2")
    hidden = graph.op("Mul", graph.op("MatMul", weight, centred), deviation)
    hidden = graph.op("Gelu", graph.op("Add", hidden, bias))
    skip = graph.op("Add", tokens, graph.weight(f"{name}.fc2.bias", TOKEN_DIM, 1))
    return graph.op("Add", graph.op("MatMul", graph.weight(f"{name}.fc2.weight"), hidden), skip)


def _fold_norm(graph: GraphWriter, linear: str, norm: str) -> tuple[Value, Value]:
    """Weight (out, in) and bias (out, 1) of a linear layer that took over scale, shift and mean of the norm before it.

    Of LayerNorm there is left the division by the deviation, after the product and before the bias.
    """
    weight = graph.weight(f"{linear}.weight")
    scaled = graph.op("Mul", weight, graph.weight(f"{norm}.weight"))
    centred = graph.op("Sub", scaled, graph.mean(scaled, 1))
    shift = graph.op("MatMul", weight, graph.weight(f"{norm}.bias", -1, 1))
    return centred, graph.op("Add", shift, graph.weight(f"{linear}.bias", -1, 1))


def _patch_variance(graph: GraphWriter, image: Value, split: SoftSplit) -> Value:
    """Of every patch, padding included, (B, 1, P), by two products with a box filter an axis."""
    mean = graph.mean(image, 1)
    centred = graph.op("Sub", image, mean)
    within = _double(graph, graph.mean(graph.op("Mul", centred, centred), 1))  # of a pixel's channels
    mean = _double(graph, mean)
    square = graph.op("Add", within, graph.op("Mul", mean, mean))
    box = _box_filter(graph, split)
    moments = graph.op("MatMul", box, graph.op("Concat", mean, square, axis=1))
    moments = graph.op("MatMul", moments, graph.transpose(box, 1, 0))
    first, second = graph.split(graph.reshape(moments, 0, 2, split.places**2), [1, 1], axis=1)
    return graph.op("Cast", graph.op("Sub", second, graph.op("Mul", first, first)), to=TensorProto.FLOAT)


def _box_filter(graph: GraphWriter, split: SoftSplit) -> Value:
    """(s, S): what a patch's rows weigh, 1 / kernel each. Made of two small vectors to keep the file small."""
    pixel = np.arange(split.side).reshape(1, -1)
    centre = (np.arange(split.places) * split.stride - split.padding + (split.kernel - 1) / 2).reshape(-1, 1)
    distance = graph.op("Abs", graph.op("Sub", graph.constant(pixel), graph.constant(centre)))
    inside = graph.op("Cast", graph.op("Less", distance, split.kernel / 2), to=TensorProto.FLOAT)
    return graph.op("Div", _double(graph, inside), _double(graph, graph.constant(split.kernel)))


def _double(graph: GraphWriter, value: Value) -> Value:
    return graph.op("Cast", value, to=TensorProto.DOUBLE)


def _reciprocal_deviation(graph: GraphWriter, variance: Value) -> Value:
    """1 / sqrt(variance + eps); rounding makes a variance of nothing negative at times."""
    positive = graph.op("Max", variance, 0.0)
    return graph.op("Reciprocal", graph.op("Sqrt", graph.op("Add", positive, NORM_EPS)))


def _squares(graph: GraphWriter, value: Value, axis: int) -> Value:
    """The sum of squares over an axis, which stays with length 1."""
    return graph.op("ReduceSum", graph.op("Mul", value, value), graph.integers(axis))
