"""The one loop: a batch runs a stage, the exit rule decides, leavers are answered, stayers join the next queue.

One thread a device. Everything it touches (queues, slots, the backend) is its own; jobs come in through `submit`.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace

from models.preprocess import Pixels
from service.backends.base import Slot, StageBackend
from service.engine.batching import BatchLimits, next_batch
from service.engine.costs import StageCosts
from service.engine.exits import ExitMeasure, Word, deadline_outcome, judge, outcome_of
from service.engine.job import Job, Outcome
from service.engine.queues import StageQueues
from service.engine.warmup import WarmUpStep, warm_up
from service.engine.watch import WARM_UP_LIMIT_S, Running, stall_limit_s
from service.errors import InferenceFailedError, NotReadyError
from service.metrics import Metrics
from service.types import Clock, JobTimes


class Scheduler:
    """Answers every submitted job exactly once, whatever happens: also when a batch fails, and when it is stopped.

    `warm_px`: side of the input, for the warm-up; None where the backend is warm and costs may be learnt on the way.
    `stall_s`: a batch that takes longer than this, and than 20 times its cost, counts as one that never ends.
    """

    def __init__(
        self,
        backend: StageBackend,
        measure: ExitMeasure,
        limits: BatchLimits,
        *,
        clock: Clock,
        metrics: Metrics,
        log: logging.Logger,
        warm_px: int | None = None,
        stall_s: float = 30.0,
    ) -> None:
        self._backend = backend
        self._measure = measure
        largest = min(limits.max_batch, backend.slots, backend.buckets[-1])
        self._limits = replace(limits, max_batch=largest)
        self._warm_px = warm_px
        self._stall_s = stall_s
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self.costs = StageCosts(measure.exits, largest)
        self._queues = StageQueues(measure.exits, backend.slots)
        self._inbox: list[tuple[Job, Pixels]] = []
        self._in_work: Sequence[Job] = ()
        self._some_are_done = False
        self._wake = threading.Condition()
        self._stopping = False
        self._given_up = False
        self._thread: threading.Thread | None = None
        self.failure: str | None = None
        self.running: Running | None = None
        self.warming: WarmUpStep | None = None if warm_px is None else WarmUpStep(1, 1, 0, 0)

    # For any thread.

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="dvt-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it works, or will as soon as it is warm."""
        return self._thread is not None and self._thread.is_alive() and not self._stopping

    @property
    def ready(self) -> bool:
        """Whether it takes jobs: alive, and every stage is warm."""
        return self.warming is None and self.alive

    def submit(self, job: Job, pixels: Pixels) -> None:
        """Hand over a job with its image (3, S, S)."""
        with self._wake:
            if not self._stopping:
                self._inbox.append((job, pixels))
                self._wake.notify()
                return
        job.close(_stopped())

    def notice_done(self) -> None:
        """Some jobs were answered elsewhere, or their clients have left: let go of them before the next batch."""
        self._some_are_done = True

    def work_s(self, images: int) -> float:
        """About how long it takes until so many images, with those that wait among them, are done."""
        waiting = self._queues.lengths
        waiting[0] += max(0, images - sum(waiting))
        return self.costs.work_s(waiting)

    def stop(self, timeout_s: float | None = None) -> None:
        """End the thread after its present batch; what is left is answered with an error. For use after a drain.

        Waits for it, at most `timeout_s`; not at all once it was given up.
        """
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None and not self._given_up:
            self._thread.join(timeout_s)

    def give_up(self, failure: str | None = None) -> None:
        """Answer everybody without the thread: it will not come back (`failure` says why), or time is up."""
        with self._wake:
            self._stopping = self._given_up = True
            self.failure = self.failure or failure
            left = [*self._in_work, *(job for queue in self._queues.waiting for job in list(queue))]
            left += [job for job, _ in self._inbox]
            self._wake.notify()
        for job in left:
            job.finish(_stopped())

    # For the engine's thread alone.

    def _loop(self) -> None:
        try:
            if self._warm_px is not None:
                self._warm_up(self._warm_px)
            while self.take_in():
                self.round()
        except Exception as error:
            # Not a failed batch (caught where it runs) but a bug of ours, or a device that cannot compute the model.
            self.failure = f"{type(error).__name__}: {error}"
            self._log.exception("engine stopped by a bug" if self.warming is None else "engine could not warm up")
        finally:
            with self._wake:
                self._stopping = True
                left = [*self._in_work, *(job for job, _ in self._inbox), *self._queues.clear()]
                self._inbox.clear()
            for job in left:
                try:
                    self._close(job, _stopped())
                except Exception:  # A backend that cannot release a slot: the others must be answered all the same.
                    self._log.exception("slot not released")

    def _warm_up(self, size_px: int) -> None:
        def began(step: WarmUpStep) -> bool:
            self.warming = step
            self.running = Running(step.stage, step.images, WARM_UP_LIMIT_S)
            return not self._stopping

        warm_up(self._backend, self.costs, size_px, clock=self._clock, began=began)
        self.running = self.warming = None

    def take_in(self) -> bool:
        """Move what has come in into the first queue, waiting for it if there is nothing else; False when to end."""
        with self._wake:
            while not self._stopping and not self._inbox and not len(self._queues):
                self._wake.wait()
            arrived, self._inbox = self._inbox, []
            if self._stopping:
                self._inbox = arrived
                return False
        for job, pixels in arrived:
            self._begin(job, pixels)
        return True

    def _begin(self, job: Job, pixels: Pixels) -> None:
        if job.done:
            self._drop(job)
            return
        try:
            job.slot = self._backend.begin(pixels)
        except Exception as error:
            # Whatever a runtime raises, an accelerator's full memory say: only this image fails.
            self._log.warning("image not taken in", extra={"error": f"{type(error).__name__}: {error}"})
            self._close(job, InferenceFailedError("the image could not be brought to the device"))
        else:
            self._queues.put(1, job, self._clock())

    def round(self) -> None:
        """Let go of those that are done, choose a batch, run it."""
        if self._some_are_done:
            self._some_are_done = False
            for job in self._queues.remove_done():
                self._drop(job)
        now_s = self._clock()
        choice = next_batch(now_s, self._queues.waiting, self._limits, self.costs)
        if choice.dropped:
            self._queues.remove(choice.dropped)
            for job in choice.dropped:
                self._drop(job)
        if choice.jobs:
            self._queues.take(choice.stage, choice.jobs)
        self._metrics.queued(self._queues.lengths)
        if choice.jobs:
            self._in_work = choice.jobs
            self._run(choice.stage, choice.jobs)
            self._in_work = ()
        elif choice.wake_s is not None:
            with self._wake:
                if not self._inbox and not self._stopping:
                    self._wake.wait(max(0.0, choice.wake_s - now_s))

    def _run(self, stage: int, jobs: Sequence[Job]) -> None:
        """Compute a batch. One that fails is split until the guilty job is alone; only that one fails."""
        limit_s = stall_limit_s(self.costs.seconds(stage, len(jobs)), self._stall_s)
        self.running = Running(stage, len(jobs), limit_s)
        slots = [_slot(job) for job in jobs]
        started_s = self._clock()
        try:
            output = self._backend.run(stage, slots)
            words = judge(self._measure, stage, output.logits, [job.rule for job in jobs])
        except Exception as error:  # Whatever a runtime raises: the others of the batch must be answered.
            self._failed(stage, jobs, error)
            return
        finally:
            self.running = None
        ended_s = self._clock()
        self._metrics.batch(stage, len(jobs), ended_s - started_s)
        self.costs.observe(stage, len(jobs), ended_s - started_s)
        staying = []
        for row, (job, word) in enumerate(zip(jobs, words, strict=True)):
            waited_s = max(0.0, started_s - job.queued_since_s)
            job.times = JobTimes(job.times.queue_s + waited_s, (*job.times.stages_s, ended_s - started_s))
            job.stages_run = stage
            if self._stays(job, word):
                staying.append(row)
        self.costs.observe_stay(stage, len(jobs), len(staying))
        if staying:
            output.keep(staying)
        for row in staying:
            self._queues.put(stage + 1, jobs[row], ended_s)

    def _failed(self, stage: int, jobs: Sequence[Job], error: Exception) -> None:
        self._metrics.batch_failed(stage)
        self._log.warning(
            "batch failed", extra={"stage": stage, "images": len(jobs), "error": f"{type(error).__name__}: {error}"}
        )
        if len(jobs) == 1:
            self._close(jobs[0], InferenceFailedError(f"stage {stage} could not be computed for this image"))
            return
        middle = len(jobs) // 2
        for half in (jobs[:middle], jobs[middle:]):
            still_wanted = [job for job in half if not job.done]
            for job in half:
                if job.done:
                    self._drop(job)
            if still_wanted:
                self._run(stage, still_wanted)

    def _stays(self, job: Job, word: Word) -> bool:
        """Answers one that leaves here, and lets go of one that was answered meanwhile."""
        if word.taken is not None:
            job.best = word.taken
        if word.reason is not None:
            self._close(job, outcome_of(job, word.reason))
            return False
        if job.done:
            self._drop(job)
            return False
        return True

    def _drop(self, job: Job) -> None:
        """It was answered elsewhere, its client left, or its deadline passed before the event loop noticed."""
        self._metrics.dropped()
        self._close(job, deadline_outcome(job))

    def _close(self, job: Job, outcome: Outcome) -> None:
        try:
            slot, job.slot = job.slot, None
            if slot is not None:
                self._backend.release(slot)
        finally:
            job.close(outcome)


def _slot(job: Job) -> Slot:
    assert job.slot is not None, "a waiting job has no slot"
    return job.slot


def _stopped() -> NotReadyError:
    return NotReadyError("the engine has stopped; try again in a moment", retry_after_s=5)
