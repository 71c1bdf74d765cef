"""How long each stage of a backend takes for a batch, beside the least that the device's ceilings allow."""

import statistics
import time

import numpy as np
import torch

from benchmarks.geometry import Geometry
from benchmarks.gpu.backends import open_backend
from benchmarks.gpu.document import Ceilings, Kind, StageTime
from benchmarks.gpu.roofline import least, products_of
from service.backends.base import Precision, Slot, StageBackend

# Batches take turns, so that a batch's images are not in the cache from its last time: 77 MB of them at 224 px.
_IMAGES = 512
_TIMED_RUNS = 20


def stage_times(
    geometry: Geometry, kind: Kind, precision: Precision, batch: int, device: torch.device, ceilings: Ceilings
) -> list[StageTime]:
    """Full batches of fresh noise; the next of the sets each time.

    Timed on the host around `run`, which ends when the logits are there: that is what the service waits for.
    """
    bundle = geometry.cascade
    sets = -(-_IMAGES // batch) if device.type == "cuda" else 1
    backend = open_backend(bundle, kind, precision, sets * batch, batch, device)
    slots = [noise(backend, batch, bundle.config.input.size_px, seed) for seed in range(sets)]
    element_bytes = torch.finfo(getattr(torch, precision)).bits // 8
    rows = []
    for stage, products in enumerate(products_of(bundle.config, batch), start=1):
        for each in slots:  # Compiled and captured by this; and what the next stage takes is there.
            run_and_keep(backend, stage, each)
        timed = []
        for number in range(_TIMED_RUNS):
            began_s = time.perf_counter()
            backend.run(stage, slots[number % sets])
            timed.append(time.perf_counter() - began_s)
        takes = least(products, ceilings, element_bytes)
        rows.append(
            StageTime(
                geometry.costs.architecture,
                kind,
                precision,
                batch,
                stage,
                statistics.median(timed),
                sum(each.operations for each in products),
                sum(each.elements for each in products) * element_bytes,
                takes.matrix_seconds,
                takes.memory_seconds,
            )
        )
    return rows


def noise(backend: StageBackend, batch: int, size_px: int, seed: int) -> list[Slot]:
    """A batch of fresh noise, before stage 1."""
    random = np.random.default_rng(seed)
    return [backend.begin(random.integers(0, 256, (3, size_px, size_px), dtype=np.uint8)) for _ in range(batch)]


def run_and_keep(backend: StageBackend, stage: int, slots: list[Slot]) -> None:
    """Raises `ArithmeticError` for logits that are no numbers."""
    output = backend.run(stage, slots)
    if not np.isfinite(output.logits).all():
        raise ArithmeticError(f"stage {stage} of {backend.name} gives logits that are no numbers")
    output.keep(range(len(slots)))
