"""Mixup (Zhang et al. 2018, arXiv 1710.09412) and CutMix (Yun et al. 2019, arXiv 1905.04899) with soft targets.

Image i is mixed with image i - 1 of the batch, which is a random one because every epoch is shuffled. Each image
draws its own share. A mix is drawn once and applies to anything square that belongs to the images: pixels, or feature
maps of any grid.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.geometry import placed_like
from training.seeds import Rng

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class MixConfig:
    """`probability` of mixing an image at all; an alpha of 0 switches that kind off.

    Where both are on, `cutmix_share` of the mixed images are cut instead of blended.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    probability: float = 1.0
    cutmix_share: float = 0.5

    @property
    def on(self) -> bool:
        return self.probability > 0 and max(self.mixup_alpha, self.cutmix_alpha) > 0


@dataclass(frozen=True, eq=False)
class Mix:
    """How much of itself each image keeps: outside its box all, inside the box `inside` (B,).

    Boxes are (B,) fractions of the side: `top`..`bottom`, `left`..`right`. A blended image's box is all of it.
    """

    inside: Doubles
    top: Doubles
    bottom: Doubles
    left: Doubles
    right: Doubles

    def kept(self) -> Doubles:
        """The share of itself that each image keeps, (B,); the same at every resolution."""
        return 1 - (1 - self.inside) * (self.bottom - self.top) * (self.right - self.left)

    def apply(self, maps: Tensor) -> Tensor:
        """Mix float `maps` (B, C, S, S). A cell that the box's border crosses is mixed by the part that is covered."""
        down = (1 - self.inside)[:, None] * _cover(self.top, self.bottom, maps.shape[-2])
        across = _cover(self.left, self.right, maps.shape[-1])
        given = placed_like(down, maps)[:, None, :, None] * placed_like(across, maps)[:, None, None, :]
        return torch.lerp(maps, maps.roll(1, 0), given.expand_as(maps))

    def apply_targets(self, targets: Tensor) -> Tensor:
        """Mix soft targets (B, classes)."""
        kept = placed_like(self.kept(), targets).unsqueeze(1)
        return kept * targets + (1 - kept) * targets.roll(1, 0)


def draw_mix(B: int, config: MixConfig, generator: Rng) -> Mix:
    """A mix for a batch of B images."""
    mixed = generator.random(B) < (config.probability if config.on else 0.0)
    chosen = generator.random(B) < config.cutmix_share
    blend = generator.beta(config.mixup_alpha, config.mixup_alpha, B) if config.mixup_alpha > 0 else np.ones(B)
    keep = generator.beta(config.cutmix_alpha, config.cutmix_alpha, B) if config.cutmix_alpha > 0 else np.ones(B)
    centre = generator.random((2, B))
    cut = chosen if min(config.mixup_alpha, config.cutmix_alpha) > 0 else np.full(B, config.cutmix_alpha > 0)
    half = np.sqrt(1 - keep) / 2
    low, high = np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
    whole = ~cut
    return Mix(
        inside=np.where(mixed, np.where(cut, 0.0, blend), 1.0),
        top=np.where(whole, 0.0, low[0]),
        bottom=np.where(whole, 1.0, high[0]),
        left=np.where(whole, 0.0, low[1]),
        right=np.where(whole, 1.0, high[1]),
    )


def _cover(low: Doubles, high: Doubles, cells: int) -> Doubles:
    """The part (B, cells) of each cell that lies in low..high (fractions of the side)."""
    start = np.arange(cells)
    upper = np.minimum(start + 1, high[:, None] * cells)
    covered: Doubles = np.clip(upper - np.maximum(start, low[:, None] * cells), 0, 1)
    return covered
