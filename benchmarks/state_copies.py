"""What moving state costs on a CPU: copies by index into a batch and back, as a share of a stage's whole time.

The copies are repeated on a second arena of the same layout, on the same slots, right after the batch that they belong
to, so that caches are as cold for them as they are for the backend.
"""

import statistics
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import Environment, environment
from models.bundle import Bundle
from service.backends.arena import Arena
from service.backends.base import Capacity
from service.backends.layout import StateLayout, state_layout
from service.backends.onnx import OnnxBackend

_SLOTS = 48
_STATE_BYTES = 1 << 30


@dataclass(frozen=True)
class StageCopies:
    """Medians of one stage, in milliseconds a batch; `share` is copies / (stage, its own copies included)."""

    stage: int
    bytes_an_image: int
    stage_ms: float
    copies_ms: float
    share: float


@dataclass(frozen=True)
class CopiesDocument:
    environment: Environment
    architecture: str
    batch: int
    threads: int
    rounds: int
    stages: tuple[StageCopies, ...]


def measure_copies(bundle: Bundle, batch: int, threads: int, rounds: int) -> CopiesDocument:
    layout = state_layout(bundle.config)
    backend = OnnxBackend(bundle, threads, Capacity(_SLOTS, _STATE_BYTES, batch))
    arena = Arena(layout, backend.slots)
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (backend.slots, *layout.image), dtype=np.uint8)
    slots = [backend.begin(picture) for picture in pictures]
    assert slots == [arena.put(picture) for picture in pictures]
    for stage in range(1, layout.stages):  # Every slot of the second arena has been written, as in the first.
        arena.scatter(slots, layout.handed_on(stage), _zeros(layout, stage, len(slots)))
    stages = []
    for stage in range(1, layout.stages + 1):
        taken, handed_on, values = layout.taken[stage - 1], layout.handed_on(stage), _zeros(layout, stage, batch)
        run_s, copies_s = [], []
        for number in range(rounds + 2):
            some = [slots[row] for row in random.permutation(len(slots))[:batch]]
            began_s = time.perf_counter()
            backend.run(stage, some)
            ran_s = time.perf_counter()
            arena.images(some)
            arena.gather(some, taken)
            gathered_s = time.perf_counter()
            arena.scatter(some, handed_on, values)
            scattered_s = time.perf_counter()
            if number >= 2:  # The first two warm up.
                copies_s.append(scattered_s - ran_s)
                run_s.append(ran_s - began_s + scattered_s - gathered_s)
        for first in range(0, len(slots), batch):
            part = slots[first : first + batch]
            backend.run(stage, part).keep(range(len(part)))
        stage_ms, copies_ms = (1e3 * statistics.median(seconds) for seconds in (run_s, copies_s))
        moved = pictures[0].nbytes + 4 * sum(part.size for part in (*taken, *handed_on))
        stages.append(StageCopies(stage, moved, stage_ms, copies_ms, copies_ms / stage_ms))
    return CopiesDocument(environment(), bundle.config.architecture, batch, threads, rounds, tuple(stages))


def _zeros(layout: StateLayout, stage: int, batch: int) -> dict[str, NDArray[np.float32]]:
    return {part.name: np.zeros((batch, *part.shape), np.float32) for part in layout.handed_on(stage)}
