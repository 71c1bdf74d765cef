"""What a training step takes, from pixels or from cached views of a frozen stem, as a pure function of the step.

Shapes: B images of this process, K stages.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import DVTConfig
from training.augment import AugmentConfig, augment
from training.data import DecodedImages, ImageSource
from training.mix import MixConfig, draw_mix
from training.seeds import IntArray, rng
from training.views import ViewCache

STREAMED_AHEAD = 2


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """`inputs`: normalised images (B, 3, S, S), or K views; `targets`: soft (B, classes)."""

    inputs: Tensor | list[Tensor]
    targets: Tensor


class TrainingInputs(Protocol):
    """Training images by index."""

    @property
    def ahead(self) -> int:
        """How many batches are worth making beforehand, in a thread."""

    def __len__(self) -> int:
        """How many images, n."""

    def batch(self, indices: IntArray, epoch: int, key: tuple[int, ...]) -> TrainingBatch:
        """The images at `indices` (B,), augmented by the random numbers of `key`."""


@dataclass(frozen=True)
class PixelInputs:
    """Decoded images, augmented on the device."""

    source: ImageSource
    config: DVTConfig
    augment: AugmentConfig
    device: torch.device

    @property
    def ahead(self) -> int:
        return 0 if isinstance(self.source, DecodedImages) else STREAMED_AHEAD

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: IntArray, epoch: int, key: tuple[int, ...]) -> TrainingBatch:
        found = self.source.batch(indices)
        augmented = augment(
            found.images.to(self.device, non_blocking=True),
            found.targets.to(self.device, non_blocking=True),
            classes=self.config.classes,
            config=self.augment,
            input_config=self.config.input,
            generator=rng("augment", *key),
        )
        return TrainingBatch(augmented.images, augmented.targets)


@dataclass(frozen=True)
class ViewInputs:
    """Cached views; only the mixing is left to do."""

    cache: ViewCache
    classes: int
    mix: MixConfig
    device: torch.device
    ahead: int = 0

    def __len__(self) -> int:
        return len(self.cache)

    def batch(self, indices: IntArray, epoch: int, key: tuple[int, ...]) -> TrainingBatch:
        views = [view.to(self.device, non_blocking=True) for view in self.cache.take(indices, epoch)]
        targets = F.one_hot(torch.from_numpy(self.cache.targets[indices]), self.classes).to(self.device, torch.float32)
        if self.mix.on:
            mix = draw_mix(len(indices), self.mix, rng("augment", *key))
            views, targets = [mix.apply(view) for view in views], mix.apply_targets(targets)
        return TrainingBatch(list(views), targets)
