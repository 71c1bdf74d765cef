"""Real bundles that take a second to make: a few thousand random weights, ONNX graphs included."""

from pathlib import Path

import torch
from torch import nn

from models.bundle import Bundle, write_bundle
from models.config import (
    BackboneConfig,
    ConvStep,
    ConvTokenizer,
    DVTConfig,
    InputConfig,
    ReuseConfig,
    StageConfig,
)
from models.dvt import DVT
from models.export import export_graphs

LABELS = ("apple", "bell", "cat", "dog", "egg")


def tiny_config(exits: int = 3, reuse: ReuseConfig | None = None) -> DVTConfig:
    """Grids of 2, 3, ... tokens a side on an image of 16 px."""
    stages = tuple(StageConfig(grid, ConvTokenizer(2 * grid, (ConvStep(8, 2),))) for grid in range(2, 2 + exits))
    backbone = BackboneConfig(16, 2, 2, mlp_ratio=2, qkv_bias=True, norm_eps=1e-5, position="learned")
    reuse = reuse or ReuseConfig(feature_hidden=8, feature_dim=4, relation_expansion=1)
    return DVTConfig("tiny", backbone, stages, InputConfig(16, 16), LABELS, reuse)


def write_tiny_bundle(path: Path, config: DVTConfig | None = None, *, with_graphs: bool = True) -> Bundle:
    """The same weights for the same configuration; heads large enough that confidences differ from image to image."""
    torch.manual_seed(0)
    model = DVT(config or tiny_config()).eval()
    with torch.no_grad():
        for stage in model.stages:
            assert isinstance(stage.head, nn.Linear)
            nn.init.normal_(stage.head.weight)
    return write_bundle(
        path,
        model.config,
        {name: tensor.numpy() for name, tensor in model.state_dict().items()},
        readme="Random weights, for tests.\n",
        onnx=export_graphs(model) if with_graphs else None,
    )
