"""From pixels to a stage's image tokens, as nodes of its graph. `models.dvt.DVT.view` and the tokenisers say the same
in PyTorch; here are the shortcuts that give the same numbers with less work.

Shapes: B batch; S image side; K channels of an image; P places of a soft split, s = sqrt(P); d = 64 token width;
m = 32 random features; D width; N tokens.
"""

import numpy as np
from onnx import TensorProto

from models.config import ConvTokenizer, DVTConfig, HybridTokenizer, PatchTokenizer, T2TTokenizer
from models.conv_tokenizer import EPS as BATCH_NORM_EPS
from models.efficientnet import BLOCKS, FEATURE_CHANNELS, STEM_CHANNELS
from models.graph_performer import SoftSplit, write_performer
from models.graph_writer import GraphWriter, Value
from models.tokens_to_token import TOKEN_DIM


def write_tokens(graph: GraphWriter, config: DVTConfig, k: int, image: Value) -> Value:
    """Tokens (B, N, D) of stage k's tokeniser, without the class token, from `image` (B, 3, S, S) uint8."""
    tokenizer, name = config.stages[k].tokenizer, f"stages.{k}.tokenizer"
    pixels = graph.op("Cast", image, to=TensorProto.FLOAT)
    if isinstance(tokenizer, (ConvTokenizer, HybridTokenizer)) and tokenizer.image_px != config.input.size_px:
        # Before the normalisation, which is then done on fewer pixels: averaging and scaling commute.
        pixels = _downsample(graph, pixels, tokenizer.image_px)
    pixels = _normalise(graph, config, pixels)
    match tokenizer:
        case T2TTokenizer():
            image = _soft_splits(graph, name, tokenizer, pixels, config.input.size_px, config.backbone.dim)
        case PatchTokenizer():
            image = _conv(graph, f"{name}.proj", pixels, tokenizer.stride, (tokenizer.padding, tokenizer.padding))
        case ConvTokenizer():
            features = _conv_steps(graph, name, tokenizer, pixels)
            return _linear(graph, f"{name}.project", _rows_of(graph, features, tokenizer.steps[-1].width), config, k)
        case HybridTokenizer():
            rows = _rows_of(graph, _stem(graph, pixels), FEATURE_CHANNELS)
            scale, shift = graph.weight(f"{name}.norm.weight"), graph.weight(f"{name}.norm.bias")
            normed = graph.op("LayerNormalization", rows, scale, shift, epsilon=config.backbone.norm_eps)
            return _linear(graph, f"{name}.project", normed, config, k)
    return graph.transpose(graph.reshape(image, 0, config.backbone.dim, config.stages[k].grid ** 2), 0, 2, 1)


def _normalise(graph: GraphWriter, config: DVTConfig, pixels: Value) -> Value:
    """(x / 255 - mean) / std of pixels 0..255."""
    mean, std = np.asarray(config.input.mean).reshape(3, 1, 1), np.asarray(config.input.std).reshape(3, 1, 1)
    return graph.op("Add", graph.op("Mul", pixels, graph.constant(1 / (255 * std))), graph.constant(-mean / std))


def _downsample(graph: GraphWriter, pixels: Value, side: int) -> Value:
    """Antialiased bilinear, as PyTorch's."""
    return graph.op(
        "Resize",
        pixels,
        Value(""),
        Value(""),
        graph.integers(side, side),
        axes=[2, 3],
        mode="linear",
        antialias=1,
        exclude_outside=1,
        coordinate_transformation_mode="half_pixel",
    )


def _conv(
    graph: GraphWriter, name: str, image: Value, stride: int = 1, pad: tuple[int, int] = (0, 0), groups: int = 1
) -> Value:
    """The convolution of the model by that name, with bias; `pad` before and after, alike on both axes."""
    pads = [pad[0], pad[0], pad[1], pad[1]]
    kernel, bias = graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias")
    return graph.op("Conv", image, kernel, bias, strides=[stride, stride], pads=pads, group=groups)


def _rows_of(graph: GraphWriter, features: Value, channels: int) -> Value:
    """(B, channels, g, g) -> (B * N, channels)."""
    return graph.reshape(graph.transpose(features, 0, 2, 3, 1), -1, channels)


def _linear(graph: GraphWriter, name: str, rows: Value, config: DVTConfig, k: int) -> Value:
    """(B * N, C) -> (B, N, D)."""
    tokens = graph.op("Gemm", rows, graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias"), transB=1)
    return graph.reshape(tokens, -1, config.stages[k].grid ** 2, config.backbone.dim)


def _soft_splits(graph: GraphWriter, name: str, tokenizer: T2TTokenizer, image: Value, side: int, dim: int) -> Value:
    """(B, 3, S, S) -> (B, D, g, g). The last soft split and its projection are one convolution."""
    first = SoftSplit(3, side, tokenizer.kernel, tokenizer.stride, tokenizer.padding)
    image = write_performer(graph, f"{name}.attention1", image, first)
    image = write_performer(graph, f"{name}.attention2", image, SoftSplit(TOKEN_DIM, first.places, 3, 2, 1))
    weight = graph.weight(f"{name}.project.weight", dim, TOKEN_DIM, 3, 3)
    return graph.op("Conv", image, weight, graph.weight(f"{name}.project.bias"), strides=[2, 2], pads=[1] * 4)


def _conv_steps(graph: GraphWriter, name: str, tokenizer: ConvTokenizer, image: Value) -> Value:
    """(B, 3, S, S) -> (B, width of the last step, g, g)."""
    for number, step in enumerate(tokenizer.steps):
        image = graph.op("Gelu", _conv_norm(graph, f"{name}.down.{number}", image, step.stride))
        for place in range(step.residuals):
            residual = f"{name}.residuals.{number}.{place}"
            inner = graph.op("Gelu", _conv_norm(graph, f"{residual}.first", image))
            image = graph.op("Gelu", graph.op("Add", image, _conv_norm(graph, f"{residual}.second", inner)))
    return image


def _conv_norm(graph: GraphWriter, name: str, image: Value, stride: int = 1) -> Value:
    """3x3 convolution without bias, with the batch normalisation after it folded in."""
    weight = graph.weight(f"{name}.conv.weight")
    scale, shift, mean, variance = (
        graph.weight(f"{name}.norm.{part}") for part in ("weight", "bias", "running_mean", "running_var")
    )
    deviation = graph.op("Sqrt", graph.op("Add", variance, BATCH_NORM_EPS))
    factor = graph.op("Div", scale, deviation)
    kernel = graph.op("Mul", weight, graph.reshape(factor, -1, 1, 1, 1))
    bias = graph.op("Sub", shift, graph.op("Mul", mean, factor))
    return graph.op("Conv", image, kernel, bias, strides=[stride, stride], pads=[1] * 4)


def _stem(graph: GraphWriter, image: Value) -> Value:
    """(B, 3, 16 g, 16 g) -> (B, 112, g, g)."""
    image = _same_conv(graph, "stem.stem", image, kernel=3, stride=2, relu6=True)
    width = STEM_CHANNELS
    for number, shape in enumerate(BLOCKS):
        name, hidden = f"stem.blocks.{number}", width * shape.expansion
        inner = image
        if shape.expansion != 1:
            inner = _same_conv(graph, f"{name}.expand", inner, kernel=1, relu6=True)
        inner = _same_conv(graph, f"{name}.depthwise", inner, shape.kernel, shape.stride, groups=hidden, relu6=True)
        inner = _same_conv(graph, f"{name}.project", inner, kernel=1)
        image = graph.op("Add", image, inner) if shape.stride == 1 and width == shape.channels else inner
        width = shape.channels
    return image


def _same_conv(
    graph: GraphWriter, name: str, image: Value, kernel: int, stride: int = 1, groups: int = 1, relu6: bool = False
) -> Value:
    """`models.efficientnet.SameConv`; its padding, and ReLU6 with limits known beforehand, become part of it."""
    total = kernel - stride
    image = _conv(graph, f"{name}.conv", image, stride, (total // 2, total - total // 2), groups)
    return graph.op("Clip", image, 0.0, 6.0) if relu6 else image
