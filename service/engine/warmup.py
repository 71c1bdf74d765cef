"""Before the first request: every stage at every batch size once, so that nobody waits for an allocation, a compiled
kernel or a captured graph; and timed, so that the schedule knows its costs from the start.

Shapes: S side of the input in px.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from models.preprocess import Pixels
from service.backends.base import Slot, StageBackend
from service.engine.costs import StageCosts
from service.types import Clock

# The first run of a size pays for what comes once; the later ones are timed, and the fastest counts: what disturbs a
# measurement only ever makes it longer.
_TIMED_RUNS = 2


@dataclass(frozen=True)
class WarmUpStep:
    """The stage and batch size in work, and how far it is: step `number` of `of`."""

    stage: int
    images: int
    number: int
    of: int

    def __str__(self) -> str:
        return f"stage {self.stage} at batch {self.images}, step {self.number} of {self.of}"


def batch_sizes(backend: StageBackend, max_batch: int) -> tuple[int, ...]:
    """Ascending: the backend's own sizes up to the largest batch that will be asked for, and that one."""
    largest = min(max_batch, backend.slots, backend.buckets[-1])
    return (*(size for size in backend.buckets if size < largest), largest)


def warm_up(
    backend: StageBackend,
    costs: StageCosts,
    size_px: int,
    *,
    clock: Clock,
    began: Callable[[WarmUpStep], bool],
) -> None:
    """Run and time everything once, the smallest batch first; seeds `costs`. Ends early when `began` says False.

    Raises whatever the runtime raises: what cannot be computed now will not be later.
    """
    sizes = batch_sizes(backend, costs.max_batch)
    measured: list[dict[int, float]] = [{} for _ in range(backend.stages)]
    pixels = np.zeros((3, size_px, size_px), np.uint8)
    number = 0
    for size in sizes:
        with _slots(backend, pixels, size) as slots:
            for stage in range(1, backend.stages + 1):
                number += 1
                if not began(WarmUpStep(stage, size, number, len(sizes) * backend.stages)):
                    return
                measured[stage - 1][size] = _seconds(backend, stage, slots, clock)
    for stage, seconds in enumerate(measured, start=1):
        # A clock that does not move (as in tests) measures nothing: then nothing is known, as before.
        if min(seconds.values()) > 0:
            costs.seed(stage, seconds)


def _seconds(backend: StageBackend, stage: int, slots: list[Slot], clock: Clock) -> float:
    """Of the fastest run of this batch, whose slots end up as the next stage wants them."""
    backend.run(stage, slots)
    timed = []
    for _ in range(_TIMED_RUNS):
        began_s = clock()
        output = backend.run(stage, slots)
        timed.append(clock() - began_s)
    output.keep(range(len(slots)))
    return min(timed)


@contextmanager
def _slots(backend: StageBackend, pixels: Pixels, images: int) -> Iterator[list[Slot]]:
    slots: list[Slot] = []
    try:
        slots.extend(backend.begin(pixels) for _ in range(images))
        yield slots
    finally:
        for slot in slots:
            backend.release(slot)
