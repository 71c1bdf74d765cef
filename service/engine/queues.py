"""The queues before the stages, owned by the engine's thread alone. Who waits for stage k is in `waiting[k - 1]`."""

from bisect import insort
from collections.abc import Sequence
from operator import attrgetter

from service.engine.job import Job

_BY_DUE = attrgetter("due_s")


class StageQueues:
    """One queue a stage, each in the order of `due_s`, then of coming; together they hold at most `limit` jobs.

    No round walks a whole queue: joining is a binary search, and those who leave stand near the front.
    """

    def __init__(self, stages: int, limit: int) -> None:
        self.waiting: tuple[list[Job], ...] = tuple([] for _ in range(stages))
        self._limit = limit

    def __len__(self) -> int:
        return sum(map(len, self.waiting))

    @property
    def lengths(self) -> list[int]:
        """May be read by other threads too."""
        return [len(queue) for queue in self.waiting]

    def put(self, stage: int, job: Job, now_s: float) -> None:
        assert len(self) < self._limit, "more jobs wait than were let in"
        job.queued_since_s = now_s
        insort(self.waiting[stage - 1], job, key=_BY_DUE)

    def take(self, stage: int, jobs: Sequence[Job]) -> None:
        """Take these out of one queue."""
        queue, leaving = self.waiting[stage - 1], set(map(id, jobs))
        stays: list[Job] = []
        for looked_at, job in enumerate(queue, start=1):
            if id(job) in leaving:
                leaving.remove(id(job))
                if not leaving:
                    queue[:looked_at] = stays
                    return
            else:
                stays.append(job)
        assert not leaving, "a job that was to leave the queue was not in it"

    def remove(self, jobs: Sequence[Job]) -> None:
        """Take these out, wherever they wait."""
        leaving = set(map(id, jobs))
        for queue in self.waiting:
            queue[:] = [job for job in queue if id(job) not in leaving]

    def remove_done(self) -> list[Job]:
        """Take out, and give, all that were answered elsewhere or whose client has left."""
        gone = [job for queue in self.waiting for job in queue if job.done]
        if gone:
            self.remove(gone)
        return gone

    def clear(self) -> list[Job]:
        """Take all out."""
        jobs = [job for queue in self.waiting for job in queue]
        for queue in self.waiting:
            queue.clear()
        return jobs
