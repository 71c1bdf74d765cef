"""What the exits say of a bundle's own splits: the images found again, and computed once.

Shapes: as in `training.evaluate`.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

import torch

from models.bundle import Bundle
from models.config import InputConfig
from models.dvt import load_bundle
from models.profiles import Split
from training.data import ImageFolder, ImageList, StreamedImages
from training.devices import placed
from training.evaluate import ExitLogits, Forward, Progress, collect_logits, evenly_limited, with_model_targets
from training.splits import find_again, hash_files, hash_of_set, read_record

MeasuredOn = Literal["search", "certify", "report"]


def eager(bundle: Bundle, device: torch.device | str) -> Forward:
    """The bundle's model, as PyTorch runs it."""
    model = placed(load_bundle(bundle.path), device)
    return lambda images: model(images.to(model.mean.device))


def find_images(
    bundle: Bundle, names: Sequence[MeasuredOn], data: Path, limit: int | None
) -> dict[MeasuredOn, ImageList]:
    """The images of some splits under `data`, with targets that count in the model's labels; `limit` of each at most.

    Held-out images must be those that the bundle recorded, since all others may have been trained on. Report images
    may be new ones. Raises `DataError` that names what differs.
    """
    record, folder = read_record(bundle.path), ImageFolder.scan(data)
    return {
        name: evenly_limited(
            with_model_targets(
                folder.report if name == "report" else find_again(record, name, data), folder, bundle.config.labels
            ),
            limit,
        )
        for name in names
    }


def collect_splits(
    forward: Forward,
    images: Mapping[MeasuredOn, ImageList],
    config: InputConfig,
    batch: int,
    progress: Progress | None,
) -> dict[MeasuredOn, ExitLogits]:
    """Every exit's logits of each split; `progress` counts the images of all."""
    total, before = sum(map(len, images.values())), 0
    logits = {}
    for name, chosen in images.items():
        with closing(StreamedImages(chosen, config)) as source:
            logits[name] = collect_logits(forward, source, batch=batch, progress=_beyond(before, total, progress))
        before += len(chosen)
    return logits


def as_measured(name: MeasuredOn, images: ImageList) -> Split:
    """How profiles.json names a set of images."""
    return Split(name, len(images), hash_of_set(hash_files(images.root, images.paths)))


def _beyond(before: int, total: int, progress: Progress | None) -> Progress | None:
    return progress and (lambda done, _: progress(before + done, total))
