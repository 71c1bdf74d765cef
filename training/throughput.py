"""How much of a device training uses: images and FLOPs a second, against what a large matrix product reaches there."""

import time
from dataclasses import dataclass

import torch

from models.device_rate import matrix_tflops
from models.dvt import DVT
from models.flops import stages_gmacs

FLOPS_A_MAC = 2
# A product's backward is two products of its size: one for what went in, one for the weights.
FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True)
class Speed:
    """`of_ceiling`: `tflops` as a share of the ceiling, 0..1."""

    images_per_s: float
    tflops: float
    of_ceiling: float


@dataclass(frozen=True)
class Throughput:
    """`flops_per_image` of a training step; `ceiling_tflops` of all processes' devices together, in the run's dtype."""

    flops_per_image: float
    ceiling_tflops: float

    def at(self, images_per_s: float) -> Speed:
        tflops = images_per_s * self.flops_per_image / 1e12
        return Speed(images_per_s, tflops, tflops / self.ceiling_tflops)


def training_flops(model: DVT, teacher: DVT | None = None) -> float:
    """FLOPs of a training step for one image: what the network has to compute, not what is in fact computed.

    Two a multiply-accumulate of the matrix products and convolutions of all stages, backward twice forward; of a
    teacher forward alone. Not counted: everything between products, augmentation, the optimizer, a frozen stem, whose
    features are cached.
    """
    gmacs = FORWARD_AND_BACKWARD * stages_gmacs(model)
    if teacher is not None:
        gmacs += stages_gmacs(teacher)
    return FLOPS_A_MAC * gmacs * 1e9


def measure_throughput(flops_per_image: float, device: torch.device, dtype: torch.dtype, processes: int) -> Throughput:
    """The ceiling is measured on this process's device; the others are taken to be like it."""
    return Throughput(flops_per_image, processes * matrix_tflops(device, dtype))


class Pace:
    """The speed between two looks at a run."""

    def __init__(self, throughput: Throughput, batch: int) -> None:
        self._throughput = throughput
        self._batch = batch
        self.restart(0)

    def restart(self, step: int) -> None:
        self._since_step, self._since_s = step, time.monotonic()

    def speed(self, step: int) -> Speed:
        """Since `restart`, when `step` updates are done."""
        seconds = max(time.monotonic() - self._since_s, 1e-9)
        return self._throughput.at((step - self._since_step) * self._batch / seconds)
