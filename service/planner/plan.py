"""How many replicas a load needs, and what they cost: the fewest that keep the p99 within an objective.

Two topologies. *Whole*: every replica computes all stages. *Stages*: one pool a stage, so that cheap early stages and
dear late ones grow apart, for a hop from pool to pool.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from service.planner.forecast import Forecast, Load, Pool, forecast

Topology = Literal["whole", "stages"]
TOPOLOGIES: tuple[Topology, ...] = ("whole", "stages")

# A pool is not planned fuller than this unless asked to be: up to here the formulas were checked, and beyond it a small
# error of the rate is a large one of the wait (docs/planning.md).
MOST_LOAD = 0.55
_IDLE = 0.02
# Of a large pool, replicas are taken by this share at a time, so that a plan for millions is as quick as one for ten.
_STEP = 0.01


@dataclass(frozen=True)
class Objective:
    """99 % of images are to be answered within `p99_s`.

    Prices are of a replica an hour: of one that computes all stages, and of one in each stage's pool (empty: the same).
    `hop_s`: from pool to pool. `spare`: replicas more in each pool, which may be lost. `most_load`: the share of its
    capacity that may be used of a pool.
    """

    p99_s: float
    whole_price: float = 1.0
    stage_prices: tuple[float, ...] = ()
    hop_s: float = 0.0
    spare: int = 0
    most_load: float = MOST_LOAD


@dataclass(frozen=True)
class PlannedPool:
    """`replicas` with the spare ones; `load`, the share of the capacity of the others that is used; `utilisation`, the
    share of time that their lanes compute, which is more where batches are not full."""

    first_stage: int
    last_stage: int
    replicas: int
    load: float
    utilisation: float


@dataclass(frozen=True)
class Plan:
    """For one rate and topology. Latency is that without the spare replicas."""

    topology: Topology
    rate_per_s: float
    pools: tuple[PlannedPool, ...]
    p50_ms: float
    p99_ms: float
    price_an_hour: float

    @property
    def replicas(self) -> int:
        return sum(pool.replicas for pool in self.pools)


class UnreachableError(ValueError):
    """However many replicas: an objective below what the stages take."""


def plan(load: Load, topology: Topology, rate_per_s: float, objective: Objective) -> Plan:
    """Raises `UnreachableError`."""
    stages = load.device.stages
    spans = [(1, stages)] if topology == "whole" else [(k, k) for k in range(1, stages + 1) if load.reaching(k) > 1e-9]
    needs = [rate_per_s * load.reaching(first) / load.capacity_per_s(first, last) for first, last in spans]
    prices = _prices(spans, objective)
    seen: dict[tuple[int, ...], Forecast] = {}

    def forecast_of(counts: Sequence[int]) -> Forecast:
        key = tuple(counts)
        if key not in seen:
            pools = [Pool(first, last, count) for (first, last), count in zip(spans, counts, strict=True)]
            seen[key] = forecast(load, pools, rate_per_s, objective.hop_s)
        return seen[key]

    counts = _fewest(needs, prices, objective.most_load, lambda counts: forecast_of(counts).p99_s <= objective.p99_s)
    if counts is None:
        least_ms = 1000 * forecast_of(_counts(needs, _IDLE)).p99_s
        raise UnreachableError(
            f"{topology}: a p99 of {1000 * objective.p99_s:g} ms is out of reach on this device, nearly idle replicas "
            f"have {least_ms:.3g} ms; allow more, or choose a cheaper profile"
        )
    found = forecast_of(counts)
    pools = tuple(
        PlannedPool(first, last, count + objective.spare, need / count, used)
        for (first, last), count, need, used in zip(spans, counts, needs, found.utilisation, strict=True)
    )
    price = sum(pool.replicas * each for pool, each in zip(pools, prices, strict=True))
    return Plan(topology, rate_per_s, pools, 1000 * found.p50_s, 1000 * found.p99_s, price)


def _prices(spans: Sequence[tuple[int, int]], objective: Objective) -> list[float]:
    if len(spans) == 1 and spans[0][0] != spans[0][1]:
        return [objective.whole_price]
    prices = objective.stage_prices or (objective.whole_price,) * spans[-1][1]
    return [prices[first - 1] for first, _ in spans]


def _counts(needs: Sequence[float], load: float) -> list[int]:
    return [max(1, math.ceil(need / load)) for need in needs]


def _fewest(
    needs: Sequence[float], prices: Sequence[float], most_load: float, holds: Callable[[Sequence[int]], bool]
) -> list[int] | None:
    """The load that all pools may have, by halving; then each pool is made smaller, the dearest step first, as long as
    the objective holds (marginal allocation, Fox 1966). None where not even idle replicas hold it.
    """
    low, high = _IDLE, most_load
    if not holds(_counts(needs, low)):
        return None
    if holds(_counts(needs, high)):
        low = high
    while high - low > 0.005:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(_counts(needs, middle)) else (low, middle)
    counts = _counts(needs, low)
    step = [max(1, int(_STEP * count)) for count in counts]
    while True:
        by_gain = sorted(range(len(counts)), key=lambda pool: -prices[pool] * step[pool])
        for pool in by_gain:
            fewer = list(counts)
            fewer[pool] -= step[pool]
            if fewer[pool] >= max(1, math.ceil(needs[pool] / most_load)) and holds(fewer):
                counts = fewer
                break
        else:
            if all(each == 1 for each in step):
                return counts
            step = [max(1, each // 2) for each in step]
