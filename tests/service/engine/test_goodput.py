"""What the rules are for, in virtual time: throughput on a backlog, latency below it, against simpler schedules.

Costs are those measured for DVT on T2T-ViT-12 in ONNX Runtime on two cores (ms an image, batch 8 and 1: 7.2/13.8/30.9
and 8.9/20/40), sizes between them on a smooth line.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from service.engine.batching import BatchLimits, Choice, next_batch
from service.engine.costs import StageCosts
from service.engine.job import Job
from service.engine.queues import StageQueues
from service.types import ExitRule

COSTS_S = (
    {1: 0.0089, 2: 0.0156, 4: 0.0296, 8: 0.0576},
    {1: 0.020, 2: 0.034, 4: 0.060, 8: 0.1104},
    {1: 0.040, 2: 0.070, 4: 0.130, 8: 0.2472},
)
BATCH = 8
SHARES = (0.60, 0.25, 0.15)
IMAGES = 1500

Schedule = Callable[[float, Sequence[Sequence[Job]], BatchLimits, StageCosts], Choice[Job]]


def measured() -> StageCosts:
    costs = StageCosts(3, BATCH)
    for stage, seconds in enumerate(COSTS_S, start=1):
        costs.seed(stage, seconds)
    return costs


def exits(seed: int) -> Iterator[int]:
    numbers = random.Random(seed)
    while True:
        (number,) = numbers.choices((1, 2, 3), SHARES)
        yield number


def first_come(now_s: float, queues: Sequence[Sequence[Job]], limits: BatchLimits, costs: StageCosts) -> Choice[Job]:
    """The simplest schedule that never idles: the stage of whoever came first."""
    heads = [(queue[0].due_s, -stage) for stage, queue in enumerate(queues, start=1) if queue]
    if not heads:
        return Choice(0, (), ())
    stage = -min(heads)[1]
    return Choice(stage, tuple(queues[stage - 1][: limits.max_batch]), ())


@dataclass(frozen=True)
class Run:
    images_per_s: float
    latencies_s: list[float]
    """Sorted."""

    def latency_s(self, share: float) -> float:
        return self.latencies_s[int(share * (len(self.latencies_s) - 1))]


def simulate(schedule: Schedule, *, in_flight: int = 0, rate: float = 0.0) -> Run:
    """`in_flight` images inside at any time, or Poisson arrivals at a rate; until all images are done."""
    costs, queues, limits = measured(), StageQueues(3, IMAGES), BatchLimits(BATCH)
    leaves_at, gaps = exits(0), random.Random(1)
    exit_of: dict[int, int] = {}
    latencies: list[float] = []
    now_s = 0.0

    def arrive(at_s: float) -> None:
        job = Job(
            ExitRule((None, None), 3),
            arrived_s=at_s,
            deadline_s=None,
            priority=5,
            deliver=lambda outcome: None,
            released=lambda: None,
        )
        exit_of[id(job)] = next(leaves_at)
        kept.append(job)
        queues.put(1, job, at_s)

    kept: list[Job] = []
    arrivals: list[float] = []
    if rate:
        at_s = 0.0
        for _ in range(IMAGES):
            at_s += gaps.expovariate(rate)
            arrivals.append(at_s)
        arrivals.reverse()
    for _ in range(in_flight):
        arrive(0.0)
    while len(latencies) < IMAGES:
        while arrivals and arrivals[-1] <= now_s:
            arrive(arrivals.pop())
        choice = schedule(now_s, queues.waiting, limits, costs)
        if not choice.jobs:
            now_s = arrivals[-1]
            continue
        queues.take(choice.stage, choice.jobs)
        now_s += costs.seconds(choice.stage, len(choice.jobs))
        for job in choice.jobs:
            if exit_of[id(job)] > choice.stage:
                queues.put(choice.stage + 1, job, now_s)
                continue
            latencies.append(now_s - job.arrived_s)
            if in_flight and len(kept) < IMAGES:
                arrive(now_s)
    return Run(IMAGES / now_s, sorted(latencies))


def whole_batches(*, shrinking: bool) -> float:
    """Images a second where a batch runs until its last image leaves, with those that left or without."""
    costs, leaves_at, seconds = measured(), exits(0), 0.0
    for _ in range(IMAGES // BATCH):
        batch = [next(leaves_at) for _ in range(BATCH)]
        for stage in range(1, max(batch) + 1):
            seconds += costs.seconds(stage, sum(at >= stage for at in batch) if shrinking else BATCH)
    return IMAGES // BATCH * BATCH / seconds


def full_batches() -> float:
    """Images a second if every batch of every stage were full: what no schedule can beat."""
    costs = measured()
    each_s = [costs.seconds(stage, BATCH) / BATCH for stage in (1, 2, 3)]
    return 1 / sum(seconds * sum(SHARES[stage:]) for stage, seconds in enumerate(each_s))


def test_a_backlog_is_worked_off_nearly_as_if_every_batch_were_full() -> None:
    ours = simulate(next_batch, in_flight=64).images_per_s
    assert ours > 0.97 * full_batches()
    assert ours > 2.4 * whole_batches(shrinking=False)
    assert ours > 1.06 * whole_batches(shrinking=True)
    assert ours > 1.06 * simulate(first_come, in_flight=64).images_per_s


def test_few_in_flight_are_enough() -> None:
    assert simulate(next_batch, in_flight=16).images_per_s > 0.95 * full_batches()


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_fuller_batches_cost_no_latency_where_there_is_no_backlog(load: float) -> None:
    rate = load * full_batches()
    ours, simplest = simulate(next_batch, rate=rate), simulate(first_come, rate=rate)
    assert ours.latency_s(0.5) <= 1.02 * simplest.latency_s(0.5)
    assert ours.latency_s(0.99) <= 1.05 * simplest.latency_s(0.99)


def test_near_capacity_they_save_latency() -> None:
    rate = 0.9 * full_batches()
    ours, simplest = simulate(next_batch, rate=rate), simulate(first_come, rate=rate)
    assert ours.latency_s(0.5) < 0.8 * simplest.latency_s(0.5)
