"""The planner's formulas beside the simulation, over a grid of devices, exits, topologies and loads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cluster_simulation import SimulatedPool, simulate_cluster
from models.tables import Table
from service.planner.costs import DeviceCosts
from service.planner.forecast import Load, Pool, forecast
from service.planner.plan import MOST_LOAD, TOPOLOGIES, Topology

# What a forecast may be wrong by, as a share of what is simulated.
TOLERANCE = 0.10


def _affine(call_s: float, image_s: float) -> dict[str, float]:
    """A batch costs a call, and each of its images the same."""
    return {str(size): call_s + size * image_s for size in (1, 2, 4, 8, 16, 32)}


# Measured, where not said otherwise: docs/adr/0007, docs/performance.md, docs/stage-speed.md.
DEVICES = {
    "T2T-ViT-12, 2 lanes of 1": DeviceCosts(({"1": 1 / 79}, {"1": 1 / 36.5}, {"1": 1 / 17}), lanes=2, max_batch=8),
    "T2T-ViT-12, 4 lanes of 1": DeviceCosts(({"1": 1 / 79}, {"1": 1 / 36.5}, {"1": 1 / 17}), lanes=4, max_batch=8),
    "T2T-ViT-12, 1 lane of 8": DeviceCosts(
        ({"1": 0.0089, "8": 0.0576}, {"1": 0.020, "8": 0.1104}, {"1": 0.040, "8": 0.2472}), lanes=1, max_batch=8
    ),
    "imagenette-hybrid, 2 lanes of 8": DeviceCosts(
        (
            {"1": 0.00186, "2": 0.00329, "4": 0.00627, "8": 0.01226},
            {"1": 0.00376, "2": 0.00710, "4": 0.01302, "8": 0.02800},
            {"1": 0.00588, "2": 0.01326, "4": 0.02407, "8": 0.06034},
        ),
        lanes=2,
        max_batch=8,
    ),
    "supposed GPU, 1 lane of 32": DeviceCosts(
        (_affine(1e-3, 1e-4), _affine(1.5e-3, 3e-4), _affine(2e-3, 6e-4)), lanes=1, max_batch=32
    ),
}
SHARES = {"90/8/2": (0.90, 0.08, 0.02), "60/25/15": (0.60, 0.25, 0.15), "0/0/100": (0.0, 0.0, 1.0)}
LOADS = (0.15, 0.3, 0.45, MOST_LOAD)
# In the rarest stage's pool: the next pool's arrivals are the more like a Poisson process the more of them there are.
_LEAST_REPLICAS = 3
_AROUND = 0.02


@dataclass(frozen=True)
class Case:
    """Pools on one device under one load, the share of the fullest pool's capacity that is used."""

    device: str
    shares: str
    topology: Topology
    load: float
    pools: tuple[Pool, ...]
    rate_per_s: float


@dataclass(frozen=True)
class Compared:
    """One case: forecast and simulation side by side. `utilisation` is that of the busiest pool.

    Where many images take exactly as long, half of them may be answered by one time or by another: the simulated p50 is
    given as the quantiles a little below and above the middle.
    """

    device: str
    shares: str
    topology: Topology
    load: float
    replicas: tuple[int, ...]
    rate_per_s: float
    p50_ms: float
    simulated_p50_ms: tuple[float, ...]
    p99_ms: float
    simulated_p99_ms: float
    mean_ms: float
    simulated_mean_ms: float
    utilisation: float
    simulated_utilisation: float

    @property
    def errors(self) -> dict[str, float]:
        """Of the forecast, as shares of what was simulated."""
        return {
            "p50": self._p50_error,
            "p99": self.p99_ms / self.simulated_p99_ms - 1,
            "mean": self.mean_ms / self.simulated_mean_ms - 1,
            "utilisation": self.utilisation / self.simulated_utilisation - 1,
        }

    @property
    def _p50_error(self) -> float:
        low, high = self.simulated_p50_ms
        return self.p50_ms / min(max(self.p50_ms, low), high) - 1

    @property
    def worst(self) -> float:
        return max(map(abs, self.errors.values()))


def grid(loads: Sequence[float] = LOADS) -> tuple[Case, ...]:
    """All cases. Where every image goes all the way one pool a stage makes no sense, and is left out."""
    return tuple(
        case(device, shares, topology, load)
        for device in DEVICES
        for shares in SHARES
        for load in loads
        for topology in TOPOLOGIES
        if topology == "whole" or SHARES[shares][0]
    )


def plan_table(cases: Sequence[Compared]) -> Table:
    """A row for each device, exits and topology: the error of the load where it is worst."""
    groups: dict[tuple[str, str, str], list[Compared]] = {}
    for each in cases:
        groups.setdefault((each.device, each.shares, each.topology), []).append(each)
    rows = []
    for (device, shares, topology), group in groups.items():
        worst = [max((each.errors[what] for each in group), key=abs) for what in ("p50", "p99", "mean", "utilisation")]
        rows.append((device, shares, topology, *(f"{100 * error:+.1f} %" for error in worst)))
    return Table("", ("device", "exits, %", "topology", "p50", "p99", "mean", "utilisation"), tuple(rows))


def case(device: str, shares: str, topology: Topology, load: float) -> Case:
    at = Load(DEVICES[device], SHARES[shares])
    stages = DEVICES[device].stages
    spans = [(1, stages)] if topology == "whole" else [(k, k) for k in range(1, stages + 1)]
    need = [at.reaching(first) / at.capacity_per_s(first, last) for first, last in spans]
    rate_per_s = load * _LEAST_REPLICAS / min(need)
    pools = tuple(
        Pool(first, last, max(1, math.ceil(rate_per_s * each / load - 1e-9)))
        for (first, last), each in zip(spans, need, strict=True)
    )
    return Case(device, shares, topology, load, pools, rate_per_s)


def compare(case: Case, images: int, seed: int = 0) -> Compared:
    """`images`: how many are simulated."""
    device, shares = DEVICES[case.device], SHARES[case.shares]
    told = forecast(Load(device, shares), case.pools, case.rate_per_s)
    pools = [SimulatedPool(pool.first, pool.last, pool.replicas, device) for pool in case.pools]
    ran = simulate_cluster(pools, shares, case.rate_per_s, images, seed)
    return Compared(
        case.device,
        case.shares,
        case.topology,
        case.load,
        tuple(pool.replicas for pool in case.pools),
        case.rate_per_s,
        1000 * told.p50_s,
        tuple(1000 * ran.latency_s(0.5 + aside) for aside in (-_AROUND, _AROUND)),
        1000 * told.p99_s,
        1000 * ran.latency_s(0.99),
        1000 * told.mean_s,
        1000 * sum(ran.seconds) / len(ran.seconds),
        max(told.utilisation),
        max(ran.utilisation),
    )
