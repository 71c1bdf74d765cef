"""Moving pixels of a whole batch at once: shifts and flips by index, everything else folded into one affine sampling.

Shapes: B images of S x S pixels. An affine (B, 2, 3) maps output places (x, y, 1) to input places, both in -1..1 over
the image (the convention of `torch.nn.functional.affine_grid` with align_corners=False). Composing `a` after `b` in
the output image is the product of their matrices, so a crop, a flip and a rotation cost one interpolation.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.seeds import IntArray, Rng

Floats = NDArray[np.float32]
Reals = NDArray[np.floating]
Bools = NDArray[np.bool_]


def shift_and_flip(images: Tensor, rows: IntArray, columns: IntArray, flipped: Bools) -> Tensor:
    """Crop (B, C, S, S) of any type `rows` down and `columns` right, mirroring beyond the border; then flip.

    The same as padding by reflection and cropping, without making the padded image. Shifts must be smaller than S.
    """
    B, C, S, _ = images.shape
    column = np.where(flipped[:, None], np.arange(S)[::-1], np.arange(S))
    # Rows and columns are sent apart and become places on the device: as places they are S / 2 times as many bytes, and
    # CUDA promises not to wait for the device only up to 64 KB (its programming guide, section on the host's part).
    row_of, column_of = (
        torch.from_numpy(_reflect(places, S)).to(images.device, non_blocking=True)
        for places in (np.arange(S) + rows[:, None], column + columns[:, None])
    )
    index = (row_of[:, :, None] * S + column_of[:, None, :]).view(B, 1, S * S).expand(B, C, S * S)
    return images.reshape(B, C, S * S).gather(2, index).view(B, C, S, S)


def _reflect(places: IntArray, S: int) -> IntArray:
    """Indices outside 0..S-1 mirrored at the border pixel, which is not repeated."""
    inside: IntArray = S - 1 - np.abs(S - 1 - np.abs(places))
    return inside


def placed_like(numbers: Reals, tensor: Tensor) -> Tensor:
    """Numbers of the CPU where `tensor` is and of its type, without waiting for what the device has to do before."""
    return torch.from_numpy(numbers).to(tensor, non_blocking=True)


def identity(B: int) -> Floats:
    return np.tile(np.eye(2, 3, dtype=np.float32), (B, 1, 1))


def compose(first: Floats, then: Floats) -> Floats:
    """The affine (B, 2, 3) of an image transformed by `first` and the result by `then`."""
    bottom = np.tile(np.array([[[0, 0, 1]]], dtype=np.float32), (len(first), 1, 1))
    return first @ np.concatenate((then, bottom), axis=1)


def affine(xx: Reals, xy: Reals, yx: Reals, yy: Reals, x: Reals, y: Reals) -> Floats:
    """Matrices (B, 2, 3) from entries (B,)."""
    return np.stack((np.stack((xx, xy, x), -1), np.stack((yx, yy, y), -1)), axis=1).astype(np.float32)


def rotation(degrees: Floats) -> Floats:
    cos, sin, zero = np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), np.zeros_like(degrees)
    return affine(cos, -sin, sin, cos, zero, zero)


def shear(x: Floats, y: Floats) -> Floats:
    one, zero = np.ones_like(x), np.zeros_like(x)
    return affine(one, x, y, one, zero, zero)


def translation(x: Floats, y: Floats) -> Floats:
    """Shifts in fractions of the image's side."""
    one, zero = np.ones_like(x), np.zeros_like(x)
    return affine(one, zero, zero, one, 2 * x, 2 * y)


def resized_crops(
    B: int, scale: tuple[float, float], ratio: tuple[float, float], flipped: Bools, generator: Rng
) -> Floats:
    """Crops of an area share in `scale` and an aspect ratio in `ratio`, stretched to the image, some of them flipped.

    Inception's crop, as everyone trains on ImageNet; a side that would leave the image is cut to it.
    """
    area = generator.uniform(*scale, B)
    aspect = np.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1]), B))
    width = np.minimum(np.sqrt(area * aspect), 1.0)
    height = np.minimum(np.sqrt(area / aspect), 1.0)
    x = generator.uniform(-1, 1, B) * (1 - width)
    y = generator.uniform(-1, 1, B) * (1 - height)
    zero = np.zeros(B)
    return affine(np.where(flipped, -width, width), zero, zero, height, x, y)


def sample(pixels: Tensor, matrices: Floats, fill: Tensor, size_px: int) -> Tensor:
    """Bilinear samples (B, 3, size_px, size_px) of float `pixels` (B, 3, S, S); `fill` (3, 1, 1) outside the image."""
    theta = placed_like(matrices, pixels)
    grid = F.affine_grid(theta, [len(pixels), pixels.shape[1], size_px, size_px], align_corners=False)
    # Outside is zero for grid_sample: measuring from `fill` makes that the fill.
    return F.grid_sample(pixels - fill, grid, padding_mode="zeros", align_corners=False) + fill
