import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from training import geometry
from training.geometry import Floats
from training.seeds import rng

FILL = torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1)
NONE = np.zeros(1, dtype=np.float32)


def images_of(B: int, S: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(rng("images", seed).integers(0, 256, (B, 3, S, S), dtype=np.uint8))


@given(seed=st.integers(0, 1000), S=st.integers(5, 12), reach=st.integers(0, 4))
def test_shifting_equals_padding_by_reflection_and_cropping(seed: int, S: int, reach: int) -> None:
    draw = rng("shift", seed)
    images = images_of(4, S, seed)
    rows, columns = draw.integers(-reach, reach + 1, (2, 4))
    flipped = draw.random(4) < 0.5
    shifted = geometry.shift_and_flip(images, rows, columns, flipped)
    padded = F.pad(images.float(), (reach,) * 4, mode="reflect")
    for i in range(4):
        top, left = reach + rows[i], reach + columns[i]
        expected = padded[i, :, top : top + S, left : left + S]
        expected = expected.flip(-1) if flipped[i] else expected
        assert torch.equal(shifted[i].float(), expected)


@given(seed=st.integers(0, 1000), S=st.integers(1, 12))
def test_flipping_twice_gives_the_image_back(seed: int, S: int) -> None:
    images = images_of(3, S, seed)
    still, flipped = np.zeros(3, dtype=np.int64), np.array([True, False, True])
    once = geometry.shift_and_flip(images, still, still, flipped)
    assert torch.equal(once[0], images[0].flip(-1))
    assert torch.equal(geometry.shift_and_flip(once, still, still, flipped), images)


def sampled(pixels: torch.Tensor, matrices: Floats) -> torch.Tensor:
    return geometry.sample(pixels, matrices, FILL, pixels.shape[-1])


def test_the_identity_changes_nothing() -> None:
    pixels = images_of(2, 9).float()
    torch.testing.assert_close(sampled(pixels, geometry.identity(2)), pixels, atol=1e-3, rtol=0)


@pytest.mark.parametrize("S", [8, 9])
def test_a_rotation_by_90_degrees_is_exact(S: int) -> None:
    pixels = images_of(1, S).float()
    turned = sampled(pixels, geometry.rotation(np.array([90.0], dtype=np.float32)))
    torch.testing.assert_close(turned, torch.rot90(pixels, 1, (2, 3)), atol=1e-3, rtol=0)


def test_a_translation_moves_pixels_and_fills_what_comes_from_outside() -> None:
    pixels = images_of(1, 8).float()
    moved = sampled(pixels, geometry.translation(np.array([2 / 8], dtype=np.float32), np.array([-1 / 8], np.float32)))
    torch.testing.assert_close(moved[:, :, 1:, :6], pixels[:, :, :7, 2:], atol=1e-3, rtol=0)
    torch.testing.assert_close(moved[0, :, :, 6:], FILL.expand(3, 8, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(moved[0, :, :1], FILL.expand(3, 1, 8), atol=1e-3, rtol=0)


def test_a_shear_leaves_the_middle_row_and_moves_the_others_in_proportion() -> None:
    pixels = torch.arange(9.0).expand(1, 3, 9, 9) * 10
    slanted = sampled(pixels, geometry.shear(np.array([0.5], dtype=np.float32), NONE))
    torch.testing.assert_close(slanted[0, 0, 4], pixels[0, 0, 4], atol=1e-3, rtol=0)
    torch.testing.assert_close(slanted[0, 0, 6, 2:7], pixels[0, 0, 6, 2:7] + 10.0, atol=1e-3, rtol=0)


def test_composing_is_transforming_one_after_the_other() -> None:
    pixels = images_of(1, 8).float()
    turn = geometry.rotation(np.array([90.0], dtype=np.float32))
    move = geometry.translation(np.array([3 / 8], dtype=np.float32), NONE)
    assert not np.allclose(geometry.compose(turn, move), geometry.compose(move, turn))
    for first, then in ((turn, move), (move, turn)):
        one_by_one = sampled(sampled(pixels, first), then)
        torch.testing.assert_close(sampled(pixels, geometry.compose(first, then)), one_by_one, atol=1e-2, rtol=0)


@given(seed=st.integers(0, 1000), least=st.floats(0.05, 1.0))
def test_resized_crops_lie_in_the_image_and_have_the_area_asked_for(seed: int, least: float) -> None:
    flipped = np.arange(64) % 2 == 0
    matrices = geometry.resized_crops(64, (least, 1.0), (3 / 4, 4 / 3), flipped, rng("crop", seed))
    width, height = np.abs(matrices[:, 0, 0]), matrices[:, 1, 1]
    assert (width + np.abs(matrices[:, 0, 2]) <= 1 + 1e-6).all()
    assert (height + np.abs(matrices[:, 1, 2]) <= 1 + 1e-6).all()
    np.testing.assert_array_equal(matrices[:, 0, 0] < 0, flipped)
    whole = (width < 1 - 1e-6) & (height < 1 - 1e-6)  # a side cut to the image's makes the area smaller
    assert (width * height >= least - 1e-6)[whole].all()
    assert (width * height <= 1).all()


def test_a_crop_to_a_smaller_input_is_that_part_of_the_image() -> None:
    pixels = images_of(1, 8).float()
    upper_right = geometry.affine(*(np.array([v], np.float32) for v in (0.5, 0, 0, 0.5, 0.5, -0.5)))
    cropped = geometry.sample(pixels, upper_right, FILL, 4)
    torch.testing.assert_close(cropped, pixels[:, :, :4, 4:], atol=1e-3, rtol=0)
