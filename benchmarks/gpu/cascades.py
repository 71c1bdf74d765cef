"""The cascade through the engine with scripted exits, and its static twin on as many images."""

from collections.abc import Iterator

import torch

from benchmarks.engine import Work, run_engine, scripted
from benchmarks.geometry import Geometry
from benchmarks.gpu.backends import open_backend
from benchmarks.gpu.document import CascadeRun, Kind
from service.backends.base import Precision

SHARES = (0.60, 0.25, 0.15)


def cascade_runs(
    geometry: Geometry,
    kind: Kind,
    precision: Precision,
    in_flight: int,
    jobs: int,
    max_batch: int,
    device: torch.device,
) -> Iterator[CascadeRun]:
    """The cascade, then its twin, with so many images inside."""
    costs, size_px = geometry.costs, geometry.cascade.config.input.size_px
    batch = min(max_batch, in_flight)
    work = scripted(SHARES, jobs, 0, size_px)
    spent = sum(share * gmacs for share, gmacs in zip(SHARES, costs.exit_gmacs, strict=True))
    for bundle, todo, gmacs in (
        (geometry.cascade, work, spent),
        (geometry.static, Work((1,) * jobs, work.pixels), costs.static_gmacs),
    ):
        backend = open_backend(bundle, kind, precision, in_flight + batch, batch, device)
        ran = run_engine(bundle, backend, todo, batch, in_flight)
        is_static = bundle is geometry.static
        yield CascadeRun(costs.architecture, kind, precision, is_static, in_flight, gmacs, ran)
