"""Cascades of every kind, small enough to build and run in milliseconds, with weights that make exits differ."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.config import (
    BackboneConfig,
    ConvStep,
    ConvTokenizer,
    DVTConfig,
    HybridTokenizer,
    InputConfig,
    PatchTokenizer,
    ReuseConfig,
    StageConfig,
    T2TTokenizer,
)
from models.dvt import DVT

LABELS = ("ant", "bee", "cat", "dog", "elk")
SIZE_PX = 32
NOTHING = ReuseConfig(features=False, relations=False)


def patch_stage(grid: int) -> StageConfig:
    """For grids that divide the 32 pixels, and those whose patches overlap the padding."""
    stride = SIZE_PX // grid
    return StageConfig(grid, PatchTokenizer(kernel=SIZE_PX - stride * (grid - 1), stride=stride, padding=0))


def conv_stage(image_px: int, *strides: int) -> StageConfig:
    tokenizer = ConvTokenizer(image_px, tuple(ConvStep(8, stride, residuals=1) for stride in strides))
    return StageConfig(tokenizer.grid(SIZE_PX), tokenizer)


T2T_STAGES = (
    StageConfig(2, T2TTokenizer(kernel=6, stride=4, padding=1)),
    StageConfig(4, T2TTokenizer(kernel=4, stride=2, padding=1)),
)
CONV_STAGES = (conv_stage(16, 2, 2), conv_stage(24, 2, 2), conv_stage(SIZE_PX, 2, 2))
HYBRID_STAGES = tuple(StageConfig(grid, HybridTokenizer(16 * grid)) for grid in (1, 2))
MIXED_STAGES = (conv_stage(16, 2, 2), HYBRID_STAGES[1], patch_stage(4))


def small_config(
    stages: Sequence[StageConfig],
    reuse: ReuseConfig | None = None,
    position: Literal["learned", "sinusoid"] = "learned",
    labels: tuple[str, ...] = LABELS,
    depth: int = 2,
) -> DVTConfig:
    """Layers of two heads on 32-pixel images."""
    backbone = BackboneConfig(16, depth, 2, 2, qkv_bias=position == "learned", norm_eps=1e-5, position=position)
    reuse = reuse or ReuseConfig(feature_hidden=8, feature_dim=4, relation_expansion=2)
    return DVTConfig("small", backbone, tuple(stages), InputConfig(SIZE_PX, SIZE_PX), labels, reuse)


def small_cascade(config: DVTConfig) -> DVT:
    """In evaluation mode, weights drawn anew from a fixed seed: larger than at the start of training, and no zeros."""
    torch.manual_seed(0)
    model = DVT(config)
    with torch.no_grad():
        for parameter in model.stages.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
            elif parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for module in model.stem.modules() if model.stem is not None else ():
            if isinstance(module, nn.Conv2d):  # as they come, ten blocks of ReLU6 leave nothing of the image
                nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
    return model.eval()


def pixels(count: int, seed: int = 0) -> Tensor:
    """uint8 images (count, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, SIZE_PX, SIZE_PX), generator=generator, dtype=torch.uint8)


def weights_of(model: DVT) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
