"""A device that was measured on paper: round numbers, to tell what follows from them."""

from benchmarks.engine import Ran, StageUse
from benchmarks.gpu.document import (
    CascadeRun,
    Ceilings,
    DecodeRate,
    Decoding,
    GpuDocument,
    Kind,
    StageOnDevice,
    StageTime,
    WayMeasured,
)
from tests.benchmarks.test_plan import ENVIRONMENT

CEILINGS = Ceilings("A 100", "2.11.0", matrix_tflops=500.0, copy_tb_per_s=2.0, date="2026-11-26 10:00")


def stage(
    batch: int,
    seconds: float,
    *,
    number: int = 1,
    architecture: str = "dvt_t2t_vit_12",
    backend: Kind = "cudagraph",
    matrix: float = 0.0,
    memory: float = 0.0,
) -> StageTime:
    """`matrix` and `memory`: least seconds of the products that each ceiling holds back."""
    return StageTime(architecture, backend, "bfloat16", batch, number, seconds, 10**9, 10**6, matrix, memory)


def cascade(
    images_per_s: float,
    *,
    in_flight: int = 1024,
    is_static: bool = False,
    architecture: str = "dvt_t2t_vit_12",
    backend: Kind = "cudagraph",
    inside: float = 0.98,
) -> CascadeRun:
    """A second of it; `inside`: with a lane in a stage. The cascade takes 2 GMACs an image, the twin 3."""
    images = round(images_per_s)
    ran = Ran(images, 1.0, {"1": StageUse(1.6, images // 100, images)}, inside)
    return CascadeRun(architecture, backend, "bfloat16", is_static, in_flight, 3.0 if is_static else 2.0, ran)


def whole() -> GpuDocument:
    """All that there is to measure."""
    stages = tuple(
        stage(batch, 0.0005 + batch * number * 1e-5, number=number, matrix=batch * number * 5e-6, memory=1e-6)
        for batch in (1, 256)
        for number in (1, 2, 3)
    )
    on_device = tuple(
        StageOnDevice(row.architecture, row.backend, row.precision, row.batch, row.stage, row.seconds / 2, 1e-5, 300)
        for row in stages
    )
    cascades = (
        cascade(1000.0, in_flight=1, inside=0.9),
        cascade(800.0, in_flight=1, is_static=True),
        cascade(28_000.0),
        cascade(20_000.0, is_static=True),
    )
    decoding = Decoding("10 photos", 13_000.0, 224, (DecodeRate(1, 400.0), DecodeRate(16, 5600.0)))
    ways = (
        WayMeasured("sum in memory", 1e-3, 0.002, "a case", 256, "bfloat16", 0.001),
        WayMeasured("mask", None, None, "a case", 256, "bfloat16", 0.001, "no memory"),
    )
    return GpuDocument(ENVIRONMENT, CEILINGS, decoding, stages, on_device, cascades, ways)
