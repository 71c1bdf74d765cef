"""Against Pillow, image by image: it rounds to whole values where we do not, hence the tolerance of a level or two."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from training import colour
from training.seeds import rng

FACTORS = [0.0, 0.3, 1.0, 1.7]


def photo_like() -> Tensor:
    """Two smooth pictures with a little noise, (2, 3, 24, 24), whole values 20..230."""
    draw = rng("photo", 1)
    coarse = torch.from_numpy(draw.uniform(30, 220, (2, 3, 4, 4))).float()
    smooth = torch.nn.functional.interpolate(coarse, (24, 24), mode="bilinear")
    return (smooth + torch.from_numpy(draw.uniform(-10, 10, smooth.shape)).float()).round()


def by_pillow(pixels: Tensor, operation: Callable[[Image.Image], Image.Image]) -> Tensor:
    images = map(Image.fromarray, pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8))
    return torch.stack([torch.from_numpy(np.array(operation(image))) for image in images]).permute(0, 3, 1, 2).float()


def strength(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (colour.brightness, ImageEnhance.Brightness),
        (colour.contrast, ImageEnhance.Contrast),
        (colour.saturation, ImageEnhance.Color),
        (colour.sharpness, ImageEnhance.Sharpness),
    ],
)
def test_enhancing_does_what_pillow_does(
    ours: Callable[[Tensor, Tensor], Tensor], theirs: Callable[[Image.Image], ImageEnhance._Enhance], factor: float
) -> None:
    pixels = photo_like()
    expected = by_pillow(pixels, lambda image: theirs(image).enhance(factor))
    torch.testing.assert_close(ours(pixels, strength(factor, factor)), expected, atol=2.0, rtol=0)


@pytest.mark.parametrize("bits", [1, 4, 7, 8])
def test_posterizing_does_what_pillow_does(bits: int) -> None:
    expected = by_pillow(photo_like(), lambda image: ImageOps.posterize(image, bits))
    assert torch.equal(colour.posterize(photo_like(), strength(bits, bits)), expected)


@pytest.mark.parametrize("threshold", [0, 77, 256])
def test_solarizing_does_what_pillow_does(threshold: int) -> None:
    expected = by_pillow(photo_like(), lambda image: ImageOps.solarize(image, threshold))
    assert torch.equal(colour.solarize(photo_like(), strength(threshold, threshold)), expected)


def test_autocontrast_does_what_pillow_does() -> None:
    torch.testing.assert_close(
        colour.autocontrast(photo_like()), by_pillow(photo_like(), ImageOps.autocontrast), atol=1.0, rtol=0
    )


def test_equalizing_orders_values_and_uses_all_of_the_range_evenly() -> None:
    pixels = photo_like()
    flat = colour.equalize(pixels)
    for before, after in zip(pixels.flatten(0, 1), flat.flatten(0, 1), strict=True):
        order = before.flatten().argsort()
        assert (after.flatten()[order].diff() >= 0).all()
        assert after.min() == 0
        assert after.max() == 255
        quartiles = torch.tensor([0.25, 0.5, 0.75])
        torch.testing.assert_close(after.flatten().quantile(quartiles), 255 * quartiles, atol=6.0, rtol=0)


@pytest.mark.parametrize("operation", [colour.autocontrast, colour.equalize])
def test_a_channel_of_one_value_stays(operation: Callable[[Tensor], Tensor]) -> None:
    flat = torch.full((1, 3, 8, 8), 77.0)
    assert torch.equal(operation(flat), flat)


def test_every_image_has_a_strength_of_its_own() -> None:
    pixels = photo_like()
    dark = colour.brightness(pixels, strength(0.0, 1.0))
    assert (dark[0] == 0).all()
    assert torch.equal(dark[1], pixels[1])
