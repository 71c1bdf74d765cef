"""Augmentation of a whole batch of tensors on any device.

Shapes: images uint8 (B, 3, S, S), pixels float 0..255 of the same shape. All random numbers are drawn on the CPU from
the generator that is handed in, so that a seed means the same augmentation on every device.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models.config import InputConfig
from training import colour, geometry
from training.geometry import Bools, Floats
from training.mix import MixConfig, draw_mix
from training.seeds import Rng

MAGNITUDE_MAX = 10.0


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to a training image, in this order.

    `crop`: "shift" moves by up to `shift_px` with reflection (small images), "resized" is Inception's random resized
    crop. `operations` of RandAugment at `magnitude` (0..10, varied by a normal of `magnitude_std` an image).
    `erase_probability`: a rectangle is painted over with the mean colour (Zhong et al. 2020, arXiv 1708.04896).
    """

    crop: Literal["none", "shift", "resized"] = "none"
    shift_px: int = 4
    crop_scale: tuple[float, float] = (0.35, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    operations: int = 0
    magnitude: float = 9.0
    magnitude_std: float = 0.5
    erase_probability: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.33)
    mix: MixConfig = field(default_factory=MixConfig)


NO_AUGMENTATION = AugmentConfig(flip_probability=0.0)


@dataclass(frozen=True, eq=False)
class Augmented:
    """What a training step takes: `images` float (B, 3, S, S), normalised; soft `targets` (B, classes)."""

    images: Tensor
    targets: Tensor


def augment(
    images: Tensor, targets: Tensor, *, classes: int, config: AugmentConfig, input_config: InputConfig, generator: Rng
) -> Augmented:
    """Augment uint8 `images` and class indices `targets` (B,), on the device where they are."""
    pixels = augment_pixels(images, config, input_config, generator)
    normalised = normalise(pixels, input_config)
    soft = F.one_hot(targets, classes).to(normalised.dtype)
    if not config.mix.on:
        return Augmented(normalised, soft)
    mix = draw_mix(len(images), config.mix, generator)
    return Augmented(mix.apply(normalised), mix.apply_targets(soft))


def augment_pixels(images: Tensor, config: AugmentConfig, input_config: InputConfig, generator: Rng) -> Tensor:
    """All but the mixing: float pixels 0..255 of the network's input size; `to_uint8` makes an image of them again."""
    B = len(images)
    fill = 255 * _channels(input_config.mean, images.device)
    flipped = generator.random(B) < config.flip_probability
    matrices = geometry.identity(B)
    if config.crop == "resized":
        matrices = geometry.resized_crops(B, config.crop_scale, config.crop_ratio, flipped, generator)
    elif config.crop == "shift":
        shifts = generator.integers(-config.shift_px, config.shift_px + 1, (2, B))
        images = geometry.shift_and_flip(images, shifts[0], shifts[1], flipped)
    elif flipped.any():
        nowhere = np.zeros(B, dtype=np.int64)
        images = geometry.shift_and_flip(images, nowhere, nowhere, flipped)
    choice, strength = _draw_operations(B, config, generator)
    for each in range(config.operations):
        matrices = geometry.compose(matrices, _geometric(choice[:, each], strength[:, each]))
    pixels = _sampled(images.float(), matrices, fill, input_config.size_px)
    for each in range(config.operations):
        _colour_in_place(pixels, choice[:, each], strength[:, each])
    if config.erase_probability > 0:
        pixels = torch.where(_erased(B, pixels, config, generator), fill, pixels)
    return pixels


def normalise(pixels: Tensor, input_config: InputConfig) -> Tensor:
    """(x / 255 - mean) / std of float pixels 0..255."""
    mean, std = _channels(input_config.mean, pixels.device), _channels(input_config.std, pixels.device)
    return (pixels / 255 - mean) / std


def to_uint8(pixels: Tensor) -> Tensor:
    return pixels.round().clamp_(0, 255).to(torch.uint8)


@lru_cache
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept, since to bring it to a device waits for that."""
    return torch.tensor(values, device=device).view(3, 1, 1)


def _sampled(pixels: Tensor, matrices: Floats, fill: Tensor, size_px: int) -> Tensor:
    """Only the images that move are interpolated: the others keep their exact pixels."""
    if pixels.shape[-1] != size_px:
        return geometry.sample(pixels, matrices, fill, size_px)
    moving = np.flatnonzero((matrices != geometry.identity(1)).any(axis=(1, 2)))
    if len(moving) == len(pixels):
        return geometry.sample(pixels, matrices, fill, size_px)
    if len(moving):
        rows = torch.from_numpy(moving).to(pixels.device, non_blocking=True)
        pixels[rows] = geometry.sample(pixels[rows], matrices[moving], fill, size_px)
    return pixels


_GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")

# At strength s in -1..1 (magnitude / 10, with a random sign); ranges are those of timm's RandAugment, except posterize,
# which keeps at least 4 bits.
_COLOUR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": lambda pixels, s: colour.brightness(pixels, 1 + 0.9 * s),
    "contrast": lambda pixels, s: colour.contrast(pixels, 1 + 0.9 * s),
    "saturation": lambda pixels, s: colour.saturation(pixels, 1 + 0.9 * s),
    "sharpness": lambda pixels, s: colour.sharpness(pixels, 1 + 0.9 * s),
    "posterize": lambda pixels, s: colour.posterize(pixels, 8 - 4 * s.abs()),
    "solarize": lambda pixels, s: colour.solarize(pixels, 256 * (1 - s.abs())),
    "autocontrast": lambda pixels, _: colour.autocontrast(pixels),
    "equalize": lambda pixels, _: colour.equalize(pixels),
}

OPERATIONS = ("identity", *_GEOMETRIC, *_COLOUR)


def _draw_operations(B: int, config: AugmentConfig, generator: Rng) -> tuple[NDArray[np.int64], Floats]:
    """Which of `OPERATIONS`, and how strong in -1..1: (B, operations) each."""
    shape = (B, config.operations)
    choice = generator.integers(0, len(OPERATIONS), shape)
    magnitude = generator.normal(config.magnitude, config.magnitude_std, shape) / MAGNITUDE_MAX
    sign = generator.choice((-1.0, 1.0), shape)
    return choice, (sign * np.clip(magnitude, 0, 1)).astype(np.float32)


def _geometric(choice: NDArray[np.int64], strength: Floats) -> Floats:
    """Matrices (B, 2, 3): up to 30 degrees, a shear of 0.3, a shift of 0.45 of the side; the identity for the rest."""

    def of(name: str) -> Floats:
        return np.where(choice == OPERATIONS.index(name), strength, np.float32(0))

    turned = geometry.rotation(30 * of("rotate"))
    sheared = geometry.shear(0.3 * of("shear_x"), 0.3 * of("shear_y"))
    moved = geometry.translation(0.45 * of("translate_x"), 0.45 * of("translate_y"))
    return geometry.compose(geometry.compose(turned, sheared), moved)


def _colour_in_place(pixels: Tensor, choice: NDArray[np.int64], strength: Floats) -> None:
    for name, operation in _COLOUR.items():
        chosen = np.flatnonzero(choice == OPERATIONS.index(name))
        if len(chosen):
            rows = torch.from_numpy(chosen).to(pixels.device, non_blocking=True)
            strengths = geometry.placed_like(strength[chosen], pixels).view(-1, 1, 1, 1)
            pixels[rows] = operation(pixels[rows], strengths)


def _erased(B: int, pixels: Tensor, config: AugmentConfig, generator: Rng) -> Tensor:
    """Where to paint over, bool (B, 1, S, S): rectangles of `erase_area` of the image, 1:3.3 to 3.3:1."""
    area = generator.uniform(*config.erase_area, B)
    aspect = np.exp(generator.uniform(-np.log(3.3), np.log(3.3), B))
    sides = np.minimum(np.stack((np.sqrt(area / aspect), np.sqrt(area * aspect))), 1.0)
    start = generator.random((2, B)) * (1 - sides)
    erased = generator.random(B) < config.erase_probability
    S = pixels.shape[-1]
    centre = (np.arange(S) + 0.5) / S
    inside: Bools = (centre >= start[..., None]) & (centre < (start + sides)[..., None])
    down, across = (
        torch.from_numpy(side).to(pixels.device, non_blocking=True) for side in (inside[0] & erased[:, None], inside[1])
    )
    return down[:, None, :, None] & across[:, None, None, :]
