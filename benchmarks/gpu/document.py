"""What `dvt bench gpu` keeps of a device, in a file of its own. No torch: the page is made without it."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.engine import Ran
from benchmarks.machine import Environment
from service.backends.base import Precision

FILE, CEILINGS_FILE = "gpu-{device}.json", "gpu-ceilings-{device}.json"

Kind = Literal["eager", "compiled", "cudagraph", "compiled-cudagraph"]

SHARES = (0.60, 0.25, 0.15)
"""Of the images that leave at each exit of the measured cascades."""


@dataclass(frozen=True)
class Ceilings:
    """`matrix_tflops`: a large bf16 product, 2 operations a multiply-add. `copy_tb_per_s`: read plus written."""

    device: str
    torch: str
    matrix_tflops: float
    copy_tb_per_s: float
    date: str = ""


@dataclass(frozen=True)
class StageTime:
    """One stage (from 1) of one backend for a full batch.

    `seconds`: the median of `run` as the engine sees it, from the call until the logits are on the host. `operations`
    (2 a multiply-add) and `moved_bytes` (every input read once, every output written once) are of its matrix products;
    `matrix_seconds` is the least time of those products that the matrix ceiling holds back, `memory_seconds` of those
    that the memory's does.
    """

    architecture: str
    backend: Kind
    precision: Precision
    batch: int
    stage: int
    seconds: float
    operations: int
    moved_bytes: int
    matrix_seconds: float
    memory_seconds: float

    @property
    def least_seconds(self) -> float:
        """What the device's ceilings allow: the summed roofline."""
        return self.matrix_seconds + self.memory_seconds

    @property
    def roofline_share(self) -> float:
        return self.least_seconds / self.seconds

    @property
    def images_per_s(self) -> float:
        return self.batch / self.seconds


@dataclass(frozen=True)
class StageOnDevice:
    """The same by the device's own time stamps: while anything of `run` was at work there, and of `keep`.

    `kernels`: kernels and copies of one `run`.
    """

    architecture: str
    backend: Kind
    precision: Precision
    batch: int
    stage: int
    seconds: float
    keep_seconds: float
    kernels: int


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
    def outside_share(self) -> float | None:
        """Of the time, what was spent while no lane was inside a stage; None where that was not noted."""
        return None if self.ran.inside_seconds is None else 1 - self.ran.inside_seconds / self.ran.seconds


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
class DecodeRate:
    threads: int
    images_per_s: float


@dataclass(frozen=True)
class Decoding:
    """JPEG files to pixels of `size_px` by the device's host, as the service does it: by threads of one process."""

    photos: str
    mean_bytes: float
    size_px: int
    rates: tuple[DecodeRate, ...]


@dataclass(frozen=True)
class Failure:
    """A piece that could not be measured, and what the runtime said; it is tried again by the next run."""

    piece: str
    reason: str


@dataclass(frozen=True)
class GpuDocument:
    environment: Environment
    ceilings: Ceilings
    decoding: Decoding | None = None
    stages: tuple[StageTime, ...] = ()
    on_device: tuple[StageOnDevice, ...] = ()
    cascades: tuple[CascadeRun, ...] = ()
    relations: tuple[WayMeasured, ...] = ()
    relation_networks: tuple[WayMeasured, ...] = ()
    pointwise: tuple[WayMeasured, ...] = ()
    failures: tuple[Failure, ...] = ()
