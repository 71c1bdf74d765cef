"""Many replicas in simulated time: images spread over pools of replicas, each of which queues and batches for itself.

A replica's queues, `next_batch` and costs are those that serve; what is simulated is the clock, the arrivals, and
devices whose batches take what was measured. A pool is a number of replicas that compute the same stages; an image that
is not answered in one pool goes on to the next. Which replica takes an image is drawn by lot, as connections are spread
by kube-proxy. Where an image leaves is drawn too, in the shares of the exits.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, count

from benchmarks.measure import percentile
from service.engine.batching import BatchLimits, Choice, next_batch
from service.engine.job import Job
from service.engine.queues import StageQueues
from service.planner.costs import DeviceCosts
from service.types import ExitRule

# Far beyond what a load below capacity lets wait; a simulation that gets there is one of an overload.
_QUEUE_LIMIT = 100_000
# It begins empty, which is not how it goes on: the first of the images are not counted.
_FIRST = 0.1


@dataclass(frozen=True)
class SimulatedPool:
    """`replicas` of a device, each computing stages `first` to `last` of the cascade."""

    first: int
    last: int
    replicas: int
    device: DeviceCosts


@dataclass(frozen=True)
class ClusterRun:
    """Seconds that each image took but the first ones, and the share of time in which lanes computed, by pool."""

    seconds: tuple[float, ...]
    utilisation: tuple[float, ...]

    def latency_s(self, share: float) -> float:
        return percentile(self.seconds, share)


class _Image(Job):
    """A job that knows where it will leave."""

    def __init__(self, exit_number: int, exits: int, arrived_s: float, counted: bool) -> None:
        super().__init__(
            ExitRule((None,) * (exits - 1), exits),
            arrived_s=arrived_s,
            deadline_s=None,
            priority=5,
            deliver=lambda _: None,
            released=lambda: None,
        )
        self.exit = exit_number
        self.counted = counted


class _Replica:
    """One device with the queues of its stages; the first of them is stage `offset` + 1 of the cascade."""

    def __init__(self, cluster: "_Cluster", pool: SimulatedPool, number: int) -> None:
        self._cluster = cluster
        self._pool = pool
        self._number = number
        stages = pool.last - pool.first + 1
        self._costs = pool.device.stage_costs(pool.first, pool.last)
        self._queues = StageQueues(stages, _QUEUE_LIMIT)
        self._limits = BatchLimits(pool.device.max_batch)
        self._idle = pool.device.lanes
        self.busy_s = 0.0

    def take(self, images: Sequence[_Image]) -> None:
        for image in images:
            self._queues.put(1, image, self._cluster.now_s)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._idle and len(self._queues):
            limits = self._limits.shared(len(self._queues), self._idle)
            choice = next_batch(self._cluster.now_s, self._queues.waiting, limits, self._costs)
            self._queues.take(choice.stage, choice.jobs)
            self._idle -= 1
            seconds = self._costs.seconds(choice.stage, len(choice.jobs))
            self.busy_s += seconds
            self._cluster.at(self._cluster.now_s + seconds, partial(self._complete, choice))

    def _complete(self, choice: Choice[Job]) -> None:
        self._idle += 1
        stage = self._pool.first + choice.stage - 1
        onward = []
        for image in choice.jobs:
            assert isinstance(image, _Image), "only such were queued"
            if image.exit == stage:
                self._cluster.answer(image)
            elif stage == self._pool.last:
                onward.append(image)
            else:
                self._queues.put(choice.stage + 1, image, self._cluster.now_s)
        if onward:
            self._cluster.hand_on(self._number, onward)
        self._dispatch()


class _Cluster:
    """All pools, and the clock that they share."""

    def __init__(self, pools: Sequence[SimulatedPool], seed: int) -> None:
        self.now_s = 0.0
        self.seconds: list[float] = []
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.pools = [[_Replica(self, pool, number) for _ in range(pool.replicas)] for number, pool in enumerate(pools)]

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), action))

    def answer(self, image: _Image) -> None:
        if image.counted:
            self.seconds.append(self.now_s - image.arrived_s)

    def hand_on(self, pool: int, images: Sequence[_Image]) -> None:
        """Each image to a replica of its own lot; those that meet again come at once."""
        replicas = self.pools[pool + 1]
        by_replica: dict[int, list[_Image]] = {}
        for image in images:
            by_replica.setdefault(self._random.randrange(len(replicas)), []).append(image)
        for number, together in by_replica.items():
            replicas[number].take(together)

    def run(self, rate_per_s: float, images: int, exit_shares: Sequence[float]) -> None:
        reached = tuple(accumulate(exit_shares[:-1]))
        for number in range(images):
            arrives_s = self.now_s + self._random.expovariate(rate_per_s)
            self._until(arrives_s)
            hardness = self._random.random()
            exit_number = 1 + sum(hardness > share for share in reached)
            image = _Image(exit_number, len(exit_shares), arrives_s, number >= _FIRST * images)
            self._random.choice(self.pools[0]).take((image,))
        self._until(float("inf"))

    def _until(self, end_s: float) -> None:
        while self._events and self._events[0][0] <= end_s:
            self.now_s, _, action = heapq.heappop(self._events)
            action()
        if end_s < float("inf"):
            self.now_s = end_s


def simulate_cluster(
    pools: Sequence[SimulatedPool], exit_shares: Sequence[float], rate_per_s: float, images: int, seed: int = 0
) -> ClusterRun:
    """Poisson arrivals at `rate_per_s` until so many have come, all answered. Same arguments, same outcome."""
    cluster = _Cluster(pools, seed)
    cluster.run(rate_per_s, images, exit_shares)
    whole_s = cluster.now_s
    utilisation = tuple(
        sum(replica.busy_s for replica in replicas) / (whole_s * len(replicas) * pool.device.lanes)
        for pool, replicas in zip(pools, cluster.pools, strict=True)
    )
    return ClusterRun(tuple(cluster.seconds), utilisation)
