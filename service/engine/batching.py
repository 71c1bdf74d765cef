"""Which stage runs next, and with which jobs: a pure function of the time, the queues, the limits and the costs.

The rules, each a line of the table in the tests (docs/adr/0004 says why these):
- Whenever a job waits, a batch runs. Only an operator's `delay_s` lets stage 1 wait for company.
- A job is due at its deadline, at the latest `PATIENCE_S` after it came, and a step of priority is worth
  `PRIORITY_STEP_S` of waiting: the earliest deadline goes first within a priority, and nobody waits for ever.
- The stage of the most urgent job runs, unless one of its peers (due within `PATIENCE_S` of it) has a better claim:
  a full batch, the deepest first, while the urgent one's would be small; or a batch that would miss a deadline if it
  had to wait for another. What belongs to a later priority is nobody's peer and waits.
- A batch grows only as long as its images are computed the better for it, by the measured costs, and nobody in it
  misses a deadline by it. Who can meet its deadline no more goes last.
- Background work runs when nothing else waits. It alone may starve.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

from service.engine.costs import StageCosts

PATIENCE_S = 2.0
# Twice as much: with no deadline at all, a priority still goes before the next one's most pressing deadline.
PRIORITY_STEP_S = 2 * PATIENCE_S
# A small batch deeper in may be passed over by full ones for so many full passes through the cascade; by then stayers
# have joined it, or there are too few to wait for.
MERGE_PASSES = 2.0
# Below the priorities 1 to 9 that requests have: work that nobody waits for.
BACKGROUND = 10


class Waiting(Protocol):
    """What is looked at of a waiting job. Times are of the monotonic clock."""

    @property
    def done(self) -> bool: ...
    @property
    def deadline_s(self) -> float | None: ...
    @property
    def due_s(self) -> float:
        """By `due_s` below; the order of a queue."""
        ...

    @property
    def queued_since_s(self) -> float:
        """When it joined the queue that it is in."""
        ...


W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True)
class BatchLimits:
    """Most images that one stage computes together, and how long stage 1 may wait for a full batch (0: never)."""

    max_batch: int
    delay_s: float = 0.0


@dataclass(frozen=True)
class Choice(Generic[W]):
    """`jobs` run at `stage` (numbered from 1; 0 when nothing runs now); `dropped` are done or too late, of any stage.

    Not every job that is done is found at once, only those met on the way. `wake_s`: when to ask again at the latest,
    where all that waits does so for company.
    """

    stage: int
    jobs: tuple[W, ...]
    dropped: tuple[W, ...]
    wake_s: float | None = None


def shared(limits: BatchLimits, waiting: int, idle: int) -> BatchLimits:
    """The limits of a batch that leaves work for the other ones of so many idle lanes."""
    share = max(1, math.ceil(waiting / idle)) if idle > 1 else limits.max_batch
    return limits if share >= limits.max_batch else replace(limits, max_batch=share)


def due_s(priority: int, arrived_s: float, deadline_s: float | None) -> float:
    """By when a job is due, a step of priority counted as time; infinite for background work."""
    if priority >= BACKGROUND:
        return math.inf
    patience_ends_s = arrived_s + PATIENCE_S
    by_deadline_s = patience_ends_s if deadline_s is None else min(deadline_s, patience_ends_s)
    return by_deadline_s + priority * PRIORITY_STEP_S


def is_over(job: Waiting, now_s: float) -> bool:
    """Whether computing it further is of no use to anybody."""
    return job.done or (job.deadline_s is not None and now_s >= job.deadline_s)


def next_batch(now_s: float, queues: Sequence[Iterable[W]], limits: BatchLimits, costs: StageCosts) -> Choice[W]:
    """The stage to run and the jobs for it. Each queue is in the order of `due_s`."""
    fronts = [_front(now_s, stage, queue, limits, costs) for stage, queue in enumerate(queues, start=1)]
    dropped = tuple(job for front in fronts for job in front.dropped)
    batches = [front for front in fronts if front.jobs]
    if batches:
        ripe = [batch for batch in batches if batch.ripe_s(limits) <= now_s]
        if not ripe:
            return Choice(0, (), dropped, min(batch.ripe_s(limits) for batch in batches))
        batch = _choose(now_s, ripe, costs)
        return Choice(batch.stage, tuple(batch.jobs), dropped)
    for kind in ([front.late for front in fronts], [front.background for front in fronts]):
        stages = [(jobs[0].due_s, -stage) for stage, jobs in enumerate(kind, start=1) if jobs]
        if stages:
            stage = -min(stages)[1]
            return Choice(stage, tuple(kind[stage - 1]), dropped)
    return Choice(0, (), dropped)


@dataclass
class _Front(Generic[W]):
    """Who of a queue would run now: `jobs` in time; or else `late`, who miss their deadline anyway; or `background`.

    `deadline_s` is the earliest among `jobs`, `seconds` what their batch costs.
    """

    stage: int
    jobs: list[W] = field(default_factory=list)
    late: list[W] = field(default_factory=list)
    background: list[W] = field(default_factory=list)
    dropped: list[W] = field(default_factory=list)
    deadline_s: float = math.inf
    seconds: float = 0.0
    full: bool = False

    @property
    def due_s(self) -> float:
        return self.jobs[0].due_s

    def ripe_s(self, limits: BatchLimits) -> float:
        """When it may run: at once, but for a small batch of stage 1 under a delay, if its deadlines allow it."""
        if limits.delay_s <= 0 or self.stage > 1 or self.full:
            return -math.inf
        waited_from_s = min(job.queued_since_s for job in self.jobs)
        return min(waited_from_s + limits.delay_s, self.deadline_s - self.seconds)


def _front(now_s: float, stage: int, queue: Iterable[W], limits: BatchLimits, costs: StageCosts) -> _Front[W]:
    front: _Front[W] = _Front(stage)
    jobs, alone_s = front.jobs, costs.seconds(stage, 1)
    most = min(limits.max_batch, costs.most(stage))
    for job in queue:
        deadline_s = job.deadline_s
        if job.done or (deadline_s is not None and now_s >= deadline_s):
            front.dropped.append(job)
        elif job.due_s == math.inf:
            if jobs or front.late or len(front.background) == most:
                break
            front.background.append(job)
        elif deadline_s is not None and now_s + alone_s > deadline_s:
            if len(front.late) < most:
                front.late.append(job)
        else:
            if deadline_s is not None or front.deadline_s < math.inf:
                ends_s = now_s + costs.seconds(stage, len(jobs) + 1)
                if ends_s > front.deadline_s:
                    break
                if deadline_s is not None:
                    if ends_s > deadline_s:
                        continue  # More urgent ones fill the batch; it goes with a smaller one, or never.
                    front.deadline_s = min(front.deadline_s, deadline_s)
            jobs.append(job)
            if len(jobs) == most:
                front.full = True
                break
    front.seconds = costs.seconds(stage, len(jobs)) if jobs else 0.0
    return front


def _choose(now_s: float, batches: Sequence[_Front[W]], costs: StageCosts) -> _Front[W]:
    """Of batches that could all run now."""
    urgent = min(batches, key=lambda batch: (batch.due_s, -batch.stage))
    peers = [batch for batch in batches if batch.due_s < urgent.due_s + PATIENCE_S]
    is_small = not urgent.full and len(urgent.jobs) < costs.worth(urgent.stage)
    if is_small and now_s >= urgent.jobs[0].queued_since_s + MERGE_PASSES * costs.pass_s:
        chosen = urgent
    else:
        worth = [batch for batch in peers if batch.full or (batch is urgent and not is_small)]
        chosen = max(worth, key=lambda batch: batch.stage, default=urgent)
    pressing = [batch for batch in peers if batch is not chosen and _goes_before(now_s, batch, chosen)]
    return min(pressing, key=lambda batch: (batch.due_s, -batch.stage), default=chosen)


def _goes_before(now_s: float, batch: _Front[W], chosen: _Front[W]) -> bool:
    """Whether it would miss a deadline behind the chosen one, which would miss none, or is due later, behind it."""
    both_s = now_s + batch.seconds + chosen.seconds
    if both_s <= batch.deadline_s:
        return False
    return both_s <= chosen.deadline_s or (batch.due_s, -batch.stage) < (chosen.due_s, -chosen.stage)
