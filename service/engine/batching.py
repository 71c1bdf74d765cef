"""Which stage runs next, and with which jobs: a pure function of the time, the queues and the limits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What is looked at of a waiting job. Times are of the monotonic clock."""

    @property
    def done(self) -> bool: ...
    @property
    def priority(self) -> int: ...
    @property
    def deadline_s(self) -> float | None: ...
    @property
    def arrived_s(self) -> float: ...


W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True)
class BatchLimits:
    """Most images that one stage computes together."""

    max_batch: int


@dataclass(frozen=True)
class Choice(Generic[W]):
    """`jobs` run at `stage` (numbered from 1; 0 when nothing can run); `dropped` are done or too late, of any stage."""

    stage: int
    jobs: tuple[W, ...]
    dropped: tuple[W, ...]


def next_batch(now_s: float, queues: Sequence[Sequence[W]], limits: BatchLimits) -> Choice[W]:
    """The stage of the most urgent job, and the most urgent jobs that wait there.

    Urgent is: the smaller priority number, then the earlier deadline, then who came first, so that a job that stays
    goes before those that came later. It never waits for a fuller batch.
    """
    dropped = tuple(job for queue in queues for job in queue if is_over(job, now_s))
    live = [[job for job in queue if not is_over(job, now_s)] for queue in queues]
    heads = [(min(map(urgency, queue)), stage) for stage, queue in enumerate(live, start=1) if queue]
    if not heads:
        return Choice(0, (), dropped)
    # Of two equally urgent the one deeper in: it holds more memory.
    stage = min(heads, key=lambda head: (head[0], -head[1]))[1]
    jobs = sorted(live[stage - 1], key=urgency)[: limits.max_batch]
    return Choice(stage, tuple(jobs), dropped)


def urgency(job: Waiting) -> tuple[int, float, float]:
    deadline_s = math.inf if job.deadline_s is None else job.deadline_s
    return (job.priority, deadline_s, job.arrived_s)


def is_over(job: Waiting, now_s: float) -> bool:
    """Whether computing it further is of no use to anybody."""
    return job.done or (job.deadline_s is not None and now_s >= job.deadline_s)
