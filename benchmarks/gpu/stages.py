"""How long each stage of a backend takes for a batch, beside the least that the device's ceilings allow."""

import statistics
import time

import numpy as np
import torch

from benchmarks.geometry import Geometry
from benchmarks.gpu.backends import open_backend
from benchmarks.gpu.document import Ceilings, Kind, StageTime
from benchmarks.gpu.roofline import least_seconds, products_of
from service.backends.base import Precision, Slot

# Batches that take turns, so that their images and state do not stay in the cache.
_MOST_SETS = 8
_TIMED_RUNS = 12


def stage_times(
    geometry: Geometry, kind: Kind, precision: Precision, batch: int, device: torch.device, ceilings: Ceilings
) -> list[StageTime]:
    """Full batches of fresh noise; the next of the sets each time."""
    bundle = geometry.cascade
    sets = max(1, min(_MOST_SETS, 256 // batch)) if device.type == "cuda" else 1
    backend = open_backend(bundle, kind, precision, sets * batch, batch, device)
    size_px = bundle.config.input.size_px
    random = np.random.default_rng(batch)
    slots: list[list[Slot]] = [
        [backend.begin(random.integers(0, 256, (3, size_px, size_px), dtype=np.uint8)) for _ in range(batch)]
        for _ in range(sets)
    ]
    element_bytes = torch.finfo(getattr(torch, precision)).bits // 8
    rows = []
    for stage, products in enumerate(products_of(bundle.config, batch), start=1):
        for each in slots:  # Compiled and captured by this; and what the next stage takes is there.
            output = backend.run(stage, each)
            if not np.isfinite(output.logits).all():
                raise ArithmeticError(f"stage {stage} of {kind} gives logits that are no numbers")
            output.keep(range(batch))
        timed = []
        for number in range(_TIMED_RUNS):
            began_s = time.perf_counter()
            backend.run(stage, slots[number % sets])
            timed.append(time.perf_counter() - began_s)
        least_s = least_seconds(products, ceilings, element_bytes)
        architecture = geometry.costs.architecture
        rows.append(StageTime(architecture, kind, precision, batch, stage, statistics.median(timed), least_s))
    return rows
