"""What `dvt bench gpu` keeps of a device, in a file of its own. No torch: the page is made without it."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.engine import Ran
from benchmarks.machine import Environment
from service.backends.base import Precision

FILE = "gpu-{device}.json"

Kind = Literal["eager", "compiled", "cudagraph"]


@dataclass(frozen=True)
class Ceilings:
    """`matrix_tflops`: a large bf16 product, 2 operations a multiply-add. `copy_tb_per_s`: read plus written."""

    device: str
    torch: str
    matrix_tflops: float
    copy_tb_per_s: float


@dataclass(frozen=True)
class StageTime:
    """One stage (from 1) of one backend: the median of a batch, and the least that the device's ceilings allow."""

    architecture: str
    backend: Kind
    precision: Precision
    batch: int
    stage: int
    seconds: float
    least_seconds: float


@dataclass(frozen=True)
class CascadeRun:
    """The engine with so many images inside; `gmacs` of an image, on average. `is_static`: the twin, one stage."""

    architecture: str
    backend: Kind
    precision: Precision
    is_static: bool
    in_flight: int
    gmacs: float
    ran: Ran

    @property
    def outside_share(self) -> float:
        """Of the time, what was spent outside of the stages."""
        return 1 - sum(use.seconds for use in self.ran.stages.values()) / self.ran.seconds


@dataclass(frozen=True)
class WayMeasured:
    """One way to compute `case` for a batch of `images`.

    `error`: the distance from float64 over its norm. `seconds`: the median; None where the device cannot do it or it
    computes something else, for the `reason` given. `least_seconds`: what the device's ceilings allow.
    """

    way: str
    error: float | None
    seconds: float | None
    case: str
    images: int
    precision: Precision
    least_seconds: float
    reason: str | None = None


@dataclass(frozen=True)
class GpuDocument:
    environment: Environment
    ceilings: Ceilings
    stages: tuple[StageTime, ...] = ()
    cascades: tuple[CascadeRun, ...] = ()
    relations: tuple[WayMeasured, ...] = ()
    relation_networks: tuple[WayMeasured, ...] = ()
    pointwise: tuple[WayMeasured, ...] = ()
