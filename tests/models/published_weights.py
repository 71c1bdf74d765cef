"""A published checkpoint that anyone can make again: entries as published, values drawn from generators that are
seeded with the entries' names. `tests/golden` holds what the published code makes of them.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GOLDEN = Path(__file__).parent.parent / "golden"
SEED = 0

Entries = Mapping[str, tuple[int, ...]]
Floats = NDArray[np.float32]


def published_entries(name: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of everything in the `model_state_dict` of a published checkpoint, such as "DVT_T2t_vit_12"."""
    entries = json.loads((GOLDEN / f"{name}.keys.json").read_text())
    return {entry: tuple(shape) for entry, shape in entries.items()}


def published_state_dict(entries: Entries) -> dict[str, Tensor]:
    """Values for `entries` that keep activations near 1 through all layers."""
    return {name: torch.from_numpy(_values(name, shape)) for name, shape in entries.items()}


def published_images(count: int, size_px: int = 224) -> Tensor:
    """Images (count, 3, S, S), normalised already."""
    return torch.from_numpy(_noise("images", (count, 3, size_px, size_px)))


def _noise(name: str, shape: tuple[int, ...]) -> Floats:
    """Standard normal, the same for the same name on any machine."""
    seed = hashlib.sha256(f"{SEED}:{name}".encode()).digest()[:8]
    generator = np.random.default_rng(int.from_bytes(seed, "little"))
    return generator.standard_normal(shape).astype(np.float32)


def _values(name: str, shape: tuple[int, ...]) -> Floats:
    noise = _noise(name, shape)
    match name.rpartition(".")[2], len(shape):
        case "w", _:  # the Performer's random projection
            return noise
        case "weight", 1:  # of a norm
            return np.float32(1) + np.float32(0.05) * noise
        case _, 1:
            return np.float32(0.05) * noise
        case (("cls_token" | "pos_embed"), _):
            return np.float32(0.5) * noise
    fan_in = math.prod(shape[1:])
    return noise / np.float32(math.sqrt(fan_in))
