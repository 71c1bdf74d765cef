from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.config import InputConfig
from training.augment import (
    NO_AUGMENTATION,
    OPERATIONS,
    AugmentConfig,
    Augmented,
    augment,
    augment_pixels,
    normalise,
    to_uint8,
)
from training.mix import MixConfig
from training.seeds import rng

INPUT = InputConfig(size_px=16, resize_px=16)
EVERYTHING = AugmentConfig(
    crop="resized", operations=2, erase_probability=0.5, mix=MixConfig(mixup_alpha=0.2, cutmix_alpha=1.0)
)
CONFIGS = {
    "nothing": NO_AUGMENTATION,
    "flip": AugmentConfig(),
    "shift": AugmentConfig(crop="shift"),
    "shift and RandAugment": AugmentConfig(crop="shift", operations=2),
    "everything": EVERYTHING,
}


@pytest.fixture
def images() -> Tensor:
    return torch.from_numpy(rng("images", 0).integers(0, 256, (32, 3, 16, 16), dtype=np.uint8))


def run(images: Tensor, config: AugmentConfig, seed: int = 0, input_config: InputConfig = INPUT) -> Augmented:
    targets = torch.arange(len(images)) % 10
    return augment(images, targets, classes=10, config=config, input_config=input_config, generator=rng("a", seed))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_same_generator_gives_the_same_batch_and_leaves_the_images_alone(
    images: Tensor, config: AugmentConfig
) -> None:
    before = images.clone()
    first, again = run(images, config), run(images, config)
    assert torch.equal(images, before)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets, again.targets)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_pixels_stay_in_range_and_targets_sum_to_one(images: Tensor, config: AugmentConfig) -> None:
    for seed in range(5):
        pixels = augment_pixels(images, config, INPUT, rng("a", seed))
        assert pixels.shape == (32, 3, 16, 16)
        assert pixels.min() >= -1e-3
        assert pixels.max() <= 255 + 1e-3
        torch.testing.assert_close(run(images, config, seed).targets.sum(dim=1), torch.ones(32))


def test_other_steps_are_augmented_otherwise(images: Tensor) -> None:
    assert not torch.equal(run(images, EVERYTHING, 0).images, run(images, EVERYTHING, 1).images)


def test_without_augmentation_images_are_normalised_and_targets_one_hot(images: Tensor) -> None:
    made = run(images, NO_AUGMENTATION)
    red = (images[:, 0].float() / 255 - INPUT.mean[0]) / INPUT.std[0]
    torch.testing.assert_close(made.images[:, 0], red)
    assert torch.equal(made.targets.argmax(dim=1), torch.arange(32) % 10)
    assert torch.equal(to_uint8(augment_pixels(images, NO_AUGMENTATION, INPUT, rng("a", 0))), images)


def test_images_are_flipped_as_often_as_asked_for(images: Tensor) -> None:
    many = images[:1].expand(2000, -1, -1, -1)
    pixels = augment_pixels(many, replace(NO_AUGMENTATION, flip_probability=0.3), INPUT, rng("a", 0))
    is_flipped = (pixels == images[:1].flip(-1)).all(dim=(1, 2, 3))
    is_same = (pixels == images[:1]).all(dim=(1, 2, 3))
    assert (is_flipped ^ is_same).all()
    assert is_flipped.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_shifts_reach_as_far_as_asked_for_and_no_further() -> None:
    ramp = torch.arange(16, dtype=torch.uint8).expand(500, 3, 16, 16).contiguous()
    config = AugmentConfig(crop="shift", shift_px=2, flip_probability=0)
    moved = augment_pixels(ramp, config, INPUT, rng("a", 0))[:, 0, 0, 8] - 8
    assert set(moved.tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}


def test_larger_images_are_brought_to_the_networks_input_size(images: Tensor) -> None:
    small = InputConfig(size_px=12, resize_px=12)
    assert run(images, EVERYTHING, input_config=small).images.shape == (32, 3, 12, 12)
    assert run(images, NO_AUGMENTATION, input_config=small).images.shape == (32, 3, 12, 12)


def test_erasing_paints_a_rectangle_with_the_mean_colour(images: Tensor) -> None:
    config = replace(NO_AUGMENTATION, erase_probability=0.5, erase_area=(0.1, 0.3))
    made = run(images, config).images
    original = run(images, NO_AUGMENTATION).images
    painted = (made != original).any(dim=1)
    assert 8 <= int(painted.any(dim=(1, 2)).sum()) <= 24
    torch.testing.assert_close(made.permute(0, 2, 3, 1)[painted], torch.zeros(int(painted.sum()), 3), atol=1e-6, rtol=0)
    for mask in painted[painted.any(dim=(1, 2))]:
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert torch.equal(mask, rows[:, None] & columns[None, :])
        assert 0.05 <= mask.float().mean().item() <= 0.4


def test_without_strength_operations_only_stretch_contrast(images: Tensor) -> None:
    """At magnitude 0 all but the two operations without a strength are the identity."""
    full_range = images.clone()
    full_range[:, :, 0, 0], full_range[:, :, 0, 1] = 0, 255  # so that autocontrast is the identity too
    config = replace(NO_AUGMENTATION, operations=1, magnitude=0.0, magnitude_std=0.0)
    pixels = augment_pixels(full_range, config, INPUT, rng("a", 0))
    same = (pixels - full_range.float()).abs().amax(dim=(1, 2, 3)) < 1e-2
    assert 0.8 <= same.float().mean().item() < 1.0


def test_every_operation_changes_some_image(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(NO_AUGMENTATION, operations=1, magnitude=8.0)
    strengths = np.where(np.arange(32) % 2, 0.8, -0.8).astype(np.float32)[:, None]
    dim = images // 2 + 40  # leaves autocontrast something to do
    for number, name in enumerate(OPERATIONS):
        chosen = np.full((32, 1), number)
        monkeypatch.setattr("training.augment._draw_operations", lambda B, c, g, drawn=chosen: (drawn, strengths))
        changed = (augment_pixels(dim, config, INPUT, rng("a", 0)) != dim).any(dim=(1, 2, 3))
        assert changed.all() if name != "identity" else not changed.any(), name


def test_normalised_mean_colour_is_zero() -> None:
    mean = torch.tensor(INPUT.mean).view(1, 3, 1, 1).expand(1, 3, 2, 2) * 255
    torch.testing.assert_close(normalise(mean, INPUT), torch.zeros(1, 3, 2, 2), atol=1e-6, rtol=0)
