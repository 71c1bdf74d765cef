"""The state of an unfinished run, written atomically and read without unpickling code."""

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.bundle import write_file_atomically

SCHEMA_VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint is damaged or of another run. The message says which and the way out."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """`step` updates are done, in `seconds`; `fingerprint` says of what run (recipe, data, batch)."""

    fingerprint: str
    step: int
    model: dict[str, Any]
    average: dict[str, Any]
    optimizer: dict[str, Any]
    seconds: float = 0.0  # an earlier version did not tell


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    content = {"schema_version": SCHEMA_VERSION, **vars(checkpoint)}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_file_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, fingerprint: str, device: torch.device) -> Checkpoint:
    """Raises `CheckpointError` for a damaged file or one of another run."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        version = content.pop("schema_version")
        checkpoint = Checkpoint(**content)
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of `dvt train`: {error}; remove it to start anew") from error
    if version != SCHEMA_VERSION:
        raise CheckpointError(f"{path} has schema_version {version}, this version reads {SCHEMA_VERSION}")
    if checkpoint.fingerprint != fingerprint:
        raise CheckpointError(
            f"{path} belongs to another run (other recipe, data or options): "
            "resume with what it was started with, or choose another --out"
        )
    return checkpoint
