"""What holds a stage back at each batch size: matrix products, memory, or launches."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from benchmarks.gpu.document import StageTime

Binding = Literal["matrix products", "memory", "launches"]

RULE = (
    "Launches bind where more than half of the time would be taken by a batch of no images (by the straight line "
    "through this batch size and the next) and is not in the roofline: launching kernels, and kernels too small to "
    "fill the device. Otherwise what binds is the ceiling that holds back the larger part of the roofline, the matrix "
    "rate or the memory's; how much of the measured time that explains is the share of the roofline."
)


def bindings(rows: Sequence[StageTime]) -> Mapping[int, Binding]:
    """By batch, of one stage of one backend, by `RULE`. That takes two batch sizes: of a single one nothing is said."""
    by_batch = sorted(rows, key=lambda row: row.batch)
    fixed_s = [_fixed_seconds(row, larger) for row, larger in pairwise(by_batch)]
    # The largest batch lies on the line that it ends.
    return {row.batch: _binding(row, fixed) for row, fixed in zip(by_batch, [*fixed_s, *fixed_s[-1:]], strict=False)}


def _fixed_seconds(row: StageTime, larger: StageTime) -> float:
    """What no images at all would take, by the line through both."""
    an_image_s = (larger.seconds - row.seconds) / (larger.batch - row.batch)
    return row.seconds - an_image_s * row.batch


def _binding(row: StageTime, fixed_s: float) -> Binding:
    if min(fixed_s, row.seconds - row.least_seconds) > row.seconds / 2:
        return "launches"
    return "matrix products" if row.matrix_seconds >= row.memory_seconds else "memory"
