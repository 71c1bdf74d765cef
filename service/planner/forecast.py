"""What a number of replicas does with a load: latency of the images, and how busy the replicas are.

Images come as a Poisson process and are spread over the replicas of a pool by lot, so each replica has its own Poisson
process and can be looked at alone; so do the groups of survivors that a pool hands to the next one. The time in one
pool is taken as independent of that in another (Jackson 1957 shows it for exponential services; here it is an
approximation).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.planner.cascade import Leg
from service.planner.costs import DeviceCosts
from service.planner.distributions import STEADIEST, Arrivals, Floats, Lattice, single, thinned
from service.planner.station import Station

_POINTS = 4096
_ROUGH = 1024


@dataclass(frozen=True)
class Pool:
    """`replicas` of one device, each computing stages `first` to `last`."""

    first: int
    last: int
    replicas: int


@dataclass(frozen=True)
class Forecast:
    """Seconds from an image's arrival to its answer, and the share of time that the lanes of each pool compute."""

    p50_s: float
    p99_s: float
    mean_s: float
    utilisation: tuple[float, ...]


@dataclass(frozen=True)
class _Passed:
    """Of the images of one pool: when they are answered there, when they are handed on, in groups like these."""

    answered: Floats
    onward: Floats
    utilisation: float
    batches_per_s: float
    batch_sizes: Floats


@dataclass(frozen=True)
class Load:
    """Images a second that leave in these shares, on replicas of this device."""

    device: DeviceCosts
    exit_shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.exit_shares) != self.device.stages:
            raise ValueError(f"{len(self.exit_shares)} exit shares for {self.device.stages} stages")
        if any(share < 0 for share in self.exit_shares) or abs(sum(self.exit_shares) - 1) > 1e-6:
            raise ValueError(f"exit shares are {self.exit_shares}: none may be below 0, and altogether they must be 1")

    def reaching(self, stage: int) -> float:
        """Share of the images that come to a stage."""
        return max(0.0, 1 - sum(self.exit_shares[: stage - 1]))

    def leg(self, first: int, last: int) -> Leg:
        leaving = tuple(
            self.exit_shares[stage - 1] / self.reaching(stage) if self.reaching(stage) > 0 else 1.0
            for stage in range(first, last + 1)
        )
        if last == self.device.stages:
            leaving = (*leaving[:-1], 1.0)
        return Leg(self.device.stage_costs(first, last), leaving, self.device.lanes)

    def capacity_per_s(self, first: int, last: int) -> float:
        """Images a second that one replica of these stages can compute, of those that come to it."""
        leg = self.leg(first, last)
        return self.device.lanes * leg.largest / leg.full().mean_s


def forecast(load: Load, pools: Sequence[Pool], rate_per_s: float, hop_s: float = 0.0) -> Forecast:
    """`hop_s`: from one pool to the next. Raises `ValueError` where a pool is too small for the rate."""
    # A first look, over all that is thinkable, tells how long the lattice has to be; the second one is exact.
    rough = Lattice(_longest_s(load, pools, rate_per_s, hop_s) / _ROUGH, _ROUGH)
    nearly_all_s = rough.quantile(_answered(load, pools, rate_per_s, hop_s, rough)[0], 0.999)
    lattice = Lattice(2 * nearly_all_s / _POINTS, _POINTS)
    answered, utilisation = _answered(load, pools, rate_per_s, hop_s, lattice)
    return Forecast(
        lattice.quantile(answered, 0.5), lattice.quantile(answered, 0.99), lattice.mean(answered), utilisation
    )


def _answered(
    load: Load, pools: Sequence[Pool], rate_per_s: float, hop_s: float, lattice: Lattice
) -> tuple[Floats, tuple[float, ...]]:
    """When images are answered, and the utilisation of the pools."""
    answered, utilisation = np.zeros(lattice.size), []
    so_far = lattice.at(0.0)
    arrivals = single(rate_per_s / pools[0].replicas)
    for pool, following in zip(pools, [*pools[1:], None], strict=True):
        passed = _passed(load, pool, arrivals, lattice)
        utilisation.append(passed.utilisation)
        answered += lattice.convolved(so_far, passed.answered)
        if following is not None:
            so_far = lattice.convolved(lattice.convolved(so_far, passed.onward), lattice.at(hop_s))
            arrivals = _handed_on(load, pool, following, passed)
    return answered, tuple(utilisation)


def _passed(load: Load, pool: Pool, arrivals: Arrivals, lattice: Lattice) -> _Passed:
    used = arrivals.images_per_s / load.capacity_per_s(pool.first, pool.last)
    # At this load a backlog ends as a geometric series does.
    leg = replace(load.leg(pool.first, pool.last), backlog_cycles=1 / max(1e-3, 1 - used))
    durations = tuple(leg.durations(n) for n in range(1, leg.largest + 1))
    station = Station(arrivals, durations, leg.full(), load.device.lanes)
    waits = station.waits(lattice)
    answered, onward = np.zeros(lattice.size), np.zeros(lattice.size)
    alone = [(waited, n, None) for n, waited in enumerate(waits.by_size, start=1)]
    for waited, n, backlog_s in [*alone, (waits.in_backlog, leg.largest, station.backlog_s)]:
        if waited.sum() < 1e-9:
            continue
        here, on = leg.answered(lattice, n, backlog_s)
        answered += lattice.convolved(waited, here)
        onward += lattice.convolved(waited, on)
    sizes = station.batch_sizes
    batches_per_s = arrivals.images_per_s / float(sizes @ np.arange(len(sizes)))
    return _Passed(answered, onward, station.utilisation, batches_per_s, sizes)


def _handed_on(load: Load, pool: Pool, following: Pool, passed: _Passed) -> Arrivals:
    """The groups that one replica of the following pool gets: of each batch, those that stay and draw its lot."""
    stay = load.reaching(following.first) / load.reaching(pool.first)
    sizes = thinned(passed.batch_sizes, stay / following.replicas)
    some = 1 - sizes[0]
    sizes[0] = 0.0
    return Arrivals(pool.replicas * passed.batches_per_s * some, sizes / some, _dispersion(load, pool, passed, some))


def _dispersion(load: Load, pool: Pool, passed: _Passed, some: float) -> float:
    """Of the groups' process, by Whitt ("The Queueing Network Analyzer", 1983): batches leave a busy replica as
    steadily as it computes them; leaving some out, and laying the processes of many replicas over each other, makes
    them Poisson.
    """
    steadiness = passed.utilisation**2 / math.sqrt(load.device.lanes)
    return max(STEADIEST, 1 - some * steadiness / pool.replicas)


def _longest_s(load: Load, pools: Sequence[Pool], rate_per_s: float, hop_s: float) -> float:
    """More than the slowest of the images take."""
    longest = hop_s * len(pools)
    for pool in pools:
        leg = load.leg(pool.first, pool.last)
        share = load.reaching(pool.first)
        used = min(0.995, rate_per_s * share / (pool.replicas * load.capacity_per_s(pool.first, pool.last)))
        longest += 4 * leg.costs.pass_s + 12 * leg.full().mean_s / (load.device.lanes * (1 - used))
    return longest
