"""A whole bundle and its images, made in a second: dvt_micro with random weights, classes that are flat colours."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from models.architectures import build_config
from models.bundle import write_bundle
from models.dvt import DVT
from training import splits
from training.data import ImageFolder

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 60), "red": (220, 30, 30)}
TRAIN, TEST = 16, 10
HELD_OUT = splits.SplitSizes(search=21, certify=6)


@dataclass(frozen=True)
class TinyBundle:
    """`path` of the bundle, `data` the folder of the images it says it was trained on."""

    path: Path
    data: Path


def write_tiny_bundle(folder: Path, architecture: str = "dvt_micro") -> TinyBundle:
    """Under `folder`; the same for the same architecture."""
    data = folder / "data"
    rng = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("test", TEST)):
        for name, colour in COLOURS.items():
            (data / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.normal(colour, 60, size=(32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(data / split / name / f"{number}.png")
    tree = ImageFolder.scan(data)
    torch.manual_seed(0)
    model = DVT(build_config(architecture, tree.labels))
    with torch.no_grad():
        for stage in model.stages:
            # Heads start near zero; larger ones make confidences that differ from image to image.
            assert isinstance(stage.head, nn.Linear)
            nn.init.normal_(stage.head.weight)
    bundle = write_bundle(
        folder / "bundle",
        model.config,
        {name: tensor.numpy() for name, tensor in model.state_dict().items()},
        readme="Random weights, for tests.\n",
        splits=splits.record(splits.cut(tree, HELD_OUT, seed=0), seed=0).to_json(),
    )
    return TinyBundle(bundle.path, data)
