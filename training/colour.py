"""Colour operations of RandAugment (Cubuk et al. 2020, arXiv 1909.13719), on a batch with a strength an image.

Everything takes and returns float pixels 0..255, (B, 3, S, S), and a strength (B, 1, 1, 1); definitions are those of
Pillow's ImageEnhance and ImageOps.
"""

import torch
from torch import Tensor

# ITU-R 601-2 luma, what Pillow's convert("L") uses.
LUMA = (0.299, 0.587, 0.114)


def grey(pixels: Tensor) -> Tensor:
    """Luma (B, 1, S, S)."""
    red, green, blue = pixels.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """From black (0) through the image (1) to brighter."""
    return (pixels * factor).clamp_(0, 255)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """From the image's mean luma (0) through the image (1) to harder."""
    return _away_from(grey(pixels).mean(dim=(2, 3), keepdim=True), pixels, factor)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """From grey (0) through the image (1) to more colourful."""
    return _away_from(grey(pixels), pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """From smoothed by (1 1 1, 1 5 1, 1 1 1) / 13 (0) through the image (1) to sharper; the border stays as it is."""
    smooth = pixels.clone()
    inner = pixels[:, :, 1:-1, 1:-1]
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth[:, :, 1:-1, 1:-1] = (box + 4 * inner) / 13
    return _away_from(smooth, pixels, factor)


def posterize(pixels: Tensor, bits: Tensor) -> Tensor:
    """Keep the upper `bits` (0..8) of every value."""
    step = torch.exp2(8 - bits.round())
    return (pixels / step).floor_() * step


def solarize(pixels: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is at or above `threshold` (0..256)."""
    return torch.where(pixels < threshold, pixels, 255 - pixels)


def autocontrast(pixels: Tensor) -> Tensor:
    """Stretch every channel to 0..255; a channel of one value stays."""
    low, high = pixels.amin(dim=(2, 3), keepdim=True), pixels.amax(dim=(2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (pixels - low) * (255 / spread.clamp(min=1e-6)), pixels)


def equalize(pixels: Tensor) -> Tensor:
    """Flatten every channel's histogram of 256 values; a channel of one value stays."""
    values = pixels.round().clamp_(0, 255).long().flatten(2)
    counts = torch.zeros(*values.shape[:2], 256, device=pixels.device)
    counts.scatter_add_(2, values, torch.ones_like(values, dtype=counts.dtype))
    below = counts.cumsum(2)
    lowest = counts.gather(2, values.amin(2, keepdim=True))
    rest = values.shape[2] - lowest
    table = (below - lowest) * (255 / rest.clamp(min=1))
    return torch.where(rest.unsqueeze(3) > 0, table.gather(2, values).view_as(pixels), pixels)


def _away_from(base: Tensor, pixels: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(base.expand_as(pixels), pixels, factor.expand_as(pixels)).clamp_(0, 255)
