"""What `checkpoints/cifar10-micro` says of the sample photographs, by the model itself; pinned in tests/golden.

`python -m tests.e2e.micro_answers` writes it anew, after the bundle was trained anew.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models import strict_json
from models.bundle import read_bundle
from models.dvt import load_bundle
from models.preprocess import Pixels
from service.decode import ImageLimits, decode
from training.evaluate import ExitPolicy, run_cascade

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "checkpoints" / "cifar10-micro"
PINNED = ROOT / "tests" / "golden" / "cifar10-micro.json"
SAMPLES = sorted((ROOT / "samples").glob("*.jpg"))
PROFILE = "balanced"


@dataclass(frozen=True)
class PhotoAnswer:
    """`logits` (K, C) of all exits, nobody leaving; `label` and `exit` under `PROFILE`."""

    logits: tuple[tuple[float, ...], ...]
    label: str
    exit: int


@dataclass(frozen=True)
class Answers:
    weights_sha256: str
    photos: dict[str, PhotoAnswer]


def sample_pixels() -> tuple[Pixels, ...]:
    """Each sample (3, 32, 32), as the service sees it."""
    config = read_bundle(BUNDLE).config.input
    return tuple(decode(path.read_bytes(), config, ImageLimits(1 << 24, 4096)) for path in SAMPLES)


def pinned() -> Answers:
    return strict_json.loads(Answers, PINNED.read_text(), str(PINNED))


def computed() -> Answers:
    bundle, model = read_bundle(BUNDLE), load_bundle(BUNDLE)
    assert bundle.profiles is not None
    images = torch.from_numpy(np.stack(sample_pixels()))
    with torch.inference_mode():
        logits: NDArray[np.float32] = torch.stack(model(images), dim=1).numpy()
        left = run_cascade(model, images, ExitPolicy.of_profile(bundle.profiles, PROFILE))
    return Answers(
        bundle.weights_sha256,
        {
            path.name: PhotoAnswer(
                tuple(tuple(round(float(value), 6) for value in row) for row in logits[number]),
                bundle.config.labels[left.predicted[number]],
                int(left.exits[number]) + 1,
            )
            for number, path in enumerate(SAMPLES)
        },
    )


if __name__ == "__main__":
    PINNED.write_text(strict_json.dumps(computed()))
