"""The backends that are measured on a device, and the bundles of random weights that they open."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.geometry import Geometry, read_geometry, write_geometry
from benchmarks.gpu.document import Kind
from models.bundle import Bundle
from service.backends.base import Capacity, Precision, StageBackend
from service.backends.choose import CUDA_LANES
from service.backends.compiled import CompiledBackend
from service.backends.cudagraph import CompiledCudaGraphBackend, CudaGraphBackend
from service.backends.eager import EagerBackend

BACKENDS: dict[Kind, Callable[..., StageBackend]] = {
    "eager": EagerBackend,
    "compiled": CompiledBackend,
    "cudagraph": CudaGraphBackend,
    "compiled-cudagraph": CompiledCudaGraphBackend,
}
_STATE_BYTES = 32 << 30


def geometry(folder: Path, architecture: str) -> Geometry:
    """Made there where it is not yet, whole or not at all. Raises `ValueError` for an unknown architecture."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as making:
            write_geometry(Path(making) / folder.name, architecture, with_graphs=False)
            (Path(making) / folder.name).rename(folder)
    return read_geometry(folder)


def open_backend(
    bundle: Bundle, kind: Kind, precision: Precision, images: int, batch: int, device: torch.device
) -> StageBackend:
    """For so many images inside at once, in batches of at most `batch`; with the lanes that it serves with."""
    lanes = CUDA_LANES if device.type == "cuda" else 1
    return BACKENDS[kind](bundle, str(device), 1, Capacity(images, _STATE_BYTES, batch), precision, lanes=lanes)
