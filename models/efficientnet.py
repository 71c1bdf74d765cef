"""The stem of the hybrid tokeniser: EfficientNet-Lite0 up to stride 16, batch normalisation folded into biases.

Geometry: EfficientNet (Tan and Le, 2019), table 1, in its Lite variant (no squeeze-excite, ReLU6). Blocks 0 to 10 of
16, 112 channels at stride 16. Pretrained weights come through `training.pretrained`.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

STEM_CHANNELS = 32
FEATURE_CHANNELS = 112


@dataclass(frozen=True)
class BlockShape:
    """One inverted-residual block."""

    expansion: int
    kernel: int
    stride: int
    channels: int


def _repeat(expansion: int, kernel: int, stride: int, channels: int, repeats: int) -> tuple[BlockShape, ...]:
    rest = BlockShape(expansion, kernel, 1, channels)
    return (BlockShape(expansion, kernel, stride, channels), *[rest] * (repeats - 1))


BLOCKS: tuple[BlockShape, ...] = (
    *_repeat(1, 3, 1, 16, 1),
    *_repeat(6, 3, 2, 24, 2),
    *_repeat(6, 5, 2, 40, 2),
    *_repeat(6, 3, 2, 80, 3),
    *_repeat(6, 5, 1, FEATURE_CHANNELS, 3),
)


class SameConv(nn.Module):
    """Convolution with bias and TensorFlow's SAME padding: stride 2 on an even side pads one less in front."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        total = kernel - stride
        self.pad = (total // 2, total - total // 2)
        same = self.pad[0] == self.pad[1]
        padding = self.pad[0] if same else 0
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=padding, groups=groups)
        self.asymmetric = not same

    def forward(self, image: Tensor) -> Tensor:
        if self.asymmetric:
            image = F.pad(image, (*self.pad, *self.pad))
        output: Tensor = self.conv(image)
        return output


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1; identity skip where shapes agree."""

    def __init__(self, in_channels: int, shape: BlockShape) -> None:
        super().__init__()
        hidden = in_channels * shape.expansion
        self.expand = SameConv(in_channels, hidden, 1) if shape.expansion != 1 else None
        self.depthwise = SameConv(hidden, hidden, shape.kernel, shape.stride, groups=hidden)
        self.project = SameConv(hidden, shape.channels, 1)
        self.skip = shape.stride == 1 and in_channels == shape.channels

    def forward(self, image: Tensor) -> Tensor:
        hidden = image if self.expand is None else F.relu6(self.expand(image))
        output: Tensor = self.project(F.relu6(self.depthwise(hidden)))
        return image + output if self.skip else output


class EfficientNetLite0Stem(nn.Module):
    """(B, 3, 16 g, 16 g) normalised as (x - 127) / 128 -> (B, 112, g, g)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_CHANNELS, 3, stride=2)
        widths = (STEM_CHANNELS, *(shape.channels for shape in BLOCKS))
        self.blocks = nn.ModuleList(
            InvertedResidual(width, shape) for width, shape in zip(widths, BLOCKS, strict=False)
        )

    def forward(self, image: Tensor) -> Tensor:
        features = F.relu6(self.stem(image))
        for block in self.blocks:
            features = block(features)
        return features


class FeatureTokens(nn.Module):
    """Stem features (B, 112, g, g) to tokens (B, N, D): LayerNorm over channels, then a linear layer."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(FEATURE_CHANNELS, eps=eps)
        self.project = nn.Linear(FEATURE_CHANNELS, dim)

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.project(self.norm(features.flatten(2).transpose(1, 2)))
        return output
