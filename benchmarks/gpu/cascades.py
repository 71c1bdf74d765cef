"""The cascade through the engine with scripted exits, and its static twin on as many images."""

from collections.abc import Sequence

import torch

from benchmarks.engine import Ran, Work, run_engine, scripted
from benchmarks.geometry import Geometry
from benchmarks.gpu.backends import open_backend
from benchmarks.gpu.document import SHARES, CascadeRun, Kind
from service.backends.base import Precision

# A run takes seconds, and the end of it, when no more images come, a small part of them.
_LEAST_JOBS, _JOBS_OF_EACH = 512, 128
_ROUNDS = 3


def cascade_runs(
    geometry: Geometry,
    kind: Kind,
    precision: Precision,
    in_flight: int,
    most_jobs: int,
    max_batch: int,
    device: torch.device,
) -> list[CascadeRun]:
    """The cascade and its twin, each the median of rounds in which they take turns, with so many images inside.

    At most `most_jobs` go through.
    """
    costs, size_px = geometry.costs, geometry.cascade.config.input.size_px
    batch = min(max_batch, in_flight)
    jobs = min(most_jobs, max(_LEAST_JOBS, _JOBS_OF_EACH * in_flight))
    work = scripted(SHARES, jobs, 0, size_px)
    spent = sum(share * gmacs for share, gmacs in zip(SHARES, costs.exit_gmacs, strict=True))
    ways = [
        (bundle, open_backend(bundle, kind, precision, in_flight + batch, batch, device), todo, gmacs)
        for bundle, todo, gmacs in (
            (geometry.cascade, work, spent),
            (geometry.static, Work((1,) * jobs, work.pixels), costs.static_gmacs),
        )
    ]
    rounds = [
        [run_engine(bundle, backend, todo, batch, in_flight) for bundle, backend, todo, _ in ways]
        for _ in range(_ROUNDS)
    ]
    return [
        CascadeRun(costs.architecture, kind, precision, bundle is geometry.static, in_flight, gmacs, _median(rans))
        for (bundle, _, _, gmacs), rans in zip(ways, zip(*rounds, strict=True), strict=True)
    ]


def _median(rans: Sequence[Ran]) -> Ran:
    return sorted(rans, key=lambda ran: ran.seconds)[len(rans) // 2]
