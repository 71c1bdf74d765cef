"""The queues before the stages, owned by the engine's thread alone. Who waits for stage k is in `waiting[k - 1]`."""

from collections.abc import Iterable

from service.engine.job import Job


class StageQueues:
    """One queue a stage, in no particular order: who goes first is decided by `batching.next_batch`."""

    def __init__(self, stages: int) -> None:
        self.waiting: tuple[list[Job], ...] = tuple([] for _ in range(stages))

    def __len__(self) -> int:
        return sum(map(len, self.waiting))

    def put(self, stage: int, job: Job, now_s: float) -> None:
        job.queued_since_s = now_s
        self.waiting[stage - 1].append(job)

    def remove(self, jobs: Iterable[Job]) -> None:
        """Take these out, wherever they wait. Jobs are told apart by identity."""
        leaving = {id(job) for job in jobs}
        for queue in self.waiting:
            queue[:] = [job for job in queue if id(job) not in leaving]

    def clear(self) -> list[Job]:
        """Take all out."""
        jobs = [job for queue in self.waiting for job in queue]
        for queue in self.waiting:
            queue.clear()
        return jobs
