"""Features of a frozen stem under a few augmentations of every training image, computed once and kept on disk.

A frozen stem gives the same features every epoch, and it is most of what a hybrid cascade computes. So each image
passes it `count` times before training: as it is, flipped, and under random augmentation; an epoch then takes one of
these.

Shapes: n images, V views an image, (c, g, g) what `DVT.view` gives for a stage.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.dvt import DVT
from training.augment import AugmentConfig, augment_pixels, to_uint8
from training.data import DecodedImages, evaluation_orders
from training.seeds import IntArray, rng

BUILD_BATCH = 32

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ViewConfig:
    """`count` views an image: the plain one, its mirror image, then `count` - 2 under `augment`."""

    count: int
    augment: AugmentConfig


class ViewCache:
    """One float16 array (V, n, c, g, g) a stage, mapped from disk; `targets` (n,)."""

    def __init__(self, arrays: Sequence[NDArray[np.float16]], targets: IntArray, seed: int) -> None:
        self._arrays = tuple(arrays)
        self.targets = targets
        self._seed = seed
        self._offset = rng("view", seed).integers(0, len(arrays[0]), len(targets))

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: IntArray, epoch: int) -> list[Tensor]:
        """The views (B, c, g, g) of an epoch, one tensor a stage: each image goes through its V views in turn."""
        which = (self._offset[indices] + epoch) % len(self._arrays[0])
        return [torch.from_numpy(array[which, indices]).float() for array in self._arrays]


def build_views(
    model: DVT,
    plain: DecodedImages,
    wide: DecodedImages | None,
    config: ViewConfig,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
) -> ViewCache:
    """Compute the views of every image, or map those that an earlier run with the same inputs left in `folder`.

    `plain` are the images as evaluation sees them, `wide` the same ones before the centre crop, to augment from
    (None if `config.count` is at most 2). A stage's file is named for all that it depends on, so that a static twin
    finds the views of its cascade's last stage.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{_key(model, k, plain, config, seed)}.npy" for k in range(model.config.exits)]
    todo = [k for k, file in enumerate(files) if not file.exists()]
    if todo:
        _compute(model, plain, wide, config, seed, {k: files[k] for k in todo}, progress)
    return ViewCache([np.load(file, mmap_mode="r") for file in files], plain.targets, seed)


def _compute(
    model: DVT,
    plain: DecodedImages,
    wide: DecodedImages | None,
    config: ViewConfig,
    seed: int,
    files: dict[int, Path],
    progress: Progress | None,
) -> None:
    partial = {k: file.with_suffix(".partial") for k, file in files.items()}
    arrays: dict[int, NDArray[np.float16]] = {}
    orders = evaluation_orders(len(plain), BUILD_BATCH)
    for view in range(config.count):
        for number, indices in enumerate(orders):
            images = _view_images(plain, wide, view, config, model, indices, seed, number)
            for k, file in partial.items():
                with torch.inference_mode():
                    features = model.view(k, images).to(torch.float16).cpu().numpy()
                if k not in arrays:
                    shape = (config.count, len(plain), *features.shape[1:])
                    arrays[k] = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
                arrays[k][view, indices] = features
            if progress is not None:
                progress(view * len(orders) + number + 1, config.count * len(orders))
    for k, file in partial.items():
        arrays.pop(k)
        file.rename(files[k])


def _view_images(
    plain: DecodedImages,
    wide: DecodedImages | None,
    view: int,
    config: ViewConfig,
    model: DVT,
    indices: IntArray,
    seed: int,
    number: int,
) -> Tensor:
    if view < 2:
        images = plain.batch(indices).images
        return (images.flip(-1) if view == 1 else images).to(model.mean.device, memory_format=torch.channels_last)
    assert wide is not None
    images = wide.batch(indices).images.to(model.mean.device)
    return to_uint8(augment_pixels(images, config.augment, model.config.input, rng("views", seed, view, number)))


def _key(model: DVT, k: int, plain: DecodedImages, config: ViewConfig, seed: int) -> str:
    assert model.stem is not None
    digest = hashlib.sha256()
    for name, tensor in model.stem.state_dict().items():
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    says = (asdict(model.config.stages[k]), asdict(model.config.input), asdict(config), seed, plain.kept.paths)
    digest.update(json.dumps(says).encode())
    return f"grid{model.config.stages[k].grid}-{digest.hexdigest()[:16]}"
