"""The convolutional tokeniser for small images: a few 3x3 convolutions, one token a last pixel.

Normalised by groups, never by batch: an answer must not depend on who shares the batch.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ConvTokenizer

GROUP_CHANNELS = 16


class ConvNorm(nn.Module):
    """3x3 convolution without bias, then group normalisation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(max(1, out_channels // GROUP_CHANNELS), out_channels)

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.norm(self.conv(image))
        return output


class Residual(nn.Module):
    """x + two convolutions of its width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, image: Tensor) -> Tensor:
        return F.gelu(image + self.second(F.gelu(self.first(image))))


class ConvTokens(nn.Module):
    """(B, 3, S, S) -> (B, N, D)."""

    def __init__(self, config: ConvTokenizer, dim: int) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        self.residuals = nn.ModuleList()
        channels = 3
        for step in config.steps:
            self.down.append(ConvNorm(channels, step.width, step.stride))
            self.residuals.append(nn.Sequential(*(Residual(step.width) for _ in range(step.residuals))))
            channels = step.width
        self.project = nn.Linear(channels, dim)

    def forward(self, image: Tensor) -> Tensor:
        for down, residuals in zip(self.down, self.residuals, strict=True):
            image = residuals(F.gelu(down(image)))
        output: Tensor = self.project(image.flatten(2).transpose(1, 2))
        return output
