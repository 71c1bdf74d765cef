"""The convolutional tokeniser for small images: a few 3x3 convolutions, one token a last pixel.

Batch normalisation: it learns much faster than groups do here (docs/experiments.md), and an answer still does not
depend on who shares the batch, since evaluation takes the running statistics. They fold into the convolution.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ConvTokenizer

MOMENTUM, EPS = 0.1, 1e-5


class _SumOverProcesses(torch.autograd.Function):
    """The sum over processes: a part of every process's loss, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: object, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class BatchNorm(nn.Module):
    """Batch normalisation of (B, C, H, W) (Ioffe & Szegedy 2015), in training over the batch of all processes.

    PyTorch's own keeps a count that is no weight, and its synchronised form takes no tensor of a CPU.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, image: Tensor) -> Tensor:
        if self.training and dist.is_initialized() and dist.get_world_size() > 1:
            return self._over_processes(image)
        return F.batch_norm(
            image, self.running_mean, self.running_var, self.weight, self.bias, self.training, MOMENTUM, EPS
        )

    def _over_processes(self, image: Tensor) -> Tensor:
        """Every process has as many images as the others, so the mean of their means is the mean."""
        axes, size = (0, 2, 3), dist.get_world_size()
        own = torch.stack((image.float().mean(axes), image.float().square().mean(axes)))
        mean, square = (_SumOverProcesses.apply(own) / size).unbind(0)  # type: ignore[no-untyped-call]  # torch's own
        variance = (square - mean.square()).clamp_min(0)
        count = image.shape[0] * image.shape[2] * image.shape[3] * size
        with torch.no_grad():
            self.running_mean.lerp_(mean, MOMENTUM)
            self.running_var.lerp_(variance * count / (count - 1), MOMENTUM)
        scale = self.weight * torch.rsqrt(variance + EPS)
        normalised: Tensor = image * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
        return normalised


class ConvNorm(nn.Module):
    """3x3 convolution without bias, then batch normalisation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm = BatchNorm(out_channels)

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
