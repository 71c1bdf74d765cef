"""The loop: a batch runs a stage, the exit rule decides, leavers are answered, stayers join the next queue.

A lane is a thread that runs the loop: one a device, on a CPU as many as batches are computed at once. All lanes serve
the same queues. They take turns with everything but a batch's computation, so that what they share (queues, slots, the
backend's `begin` and `release`, costs) knows one thread at a time. Jobs come in through `submit`.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.preprocess import Pixels
from service.backends.base import Slot, StageBackend, StageOutput
from service.engine.batching import BatchLimits, Choice, next_batch
from service.engine.costs import StageCosts
from service.engine.exits import ExitMeasure, Word, deadline_outcome, judge, outcome_of
from service.engine.guard import DeepGuard
from service.engine.job import Job, Outcome
from service.engine.queues import StageQueues
from service.engine.warmup import WarmUpStep, warm_up
from service.engine.watch import WARM_UP_LIMIT_S, Running, stall_limit_s
from service.errors import InferenceFailedError, NotReadyError
from service.metrics import Metrics
from service.types import Clock, ExitReason, JobTimes


class Scheduler:
    """Answers every submitted job exactly once, whatever happens: also when a batch fails, and when it is stopped.

    As many lanes as the backend can use.
    `warm_px`: side of the input, for the warm-up; None where the backend is warm and costs may be learnt on the way.
    `stall_s`: a batch that takes longer than this, and than 20 times its cost, counts as one that never ends.
    `guard`: caps what the stages after the first may take; None caps nothing.
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
        guard: DeepGuard | None = None,
    ) -> None:
        self._backend = backend
        self._measure = measure
        largest = min(limits.max_batch, backend.slots, backend.buckets[-1])
        self._limits = replace(limits, max_batch=largest)
        self._warm_px = warm_px
        self._stall_s = stall_s
        self._guard = guard or DeepGuard(1.0, clock)
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self.costs = StageCosts(measure.exits, largest)
        self._queues = StageQueues(measure.exits, backend.slots)
        self._inbox: list[tuple[Job, Pixels]] = []
        self._arriving: list[tuple[Job, Pixels]] = []
        self._some_are_done = False
        self._turn = threading.Lock()
        self._wake = threading.Condition()
        self._stopping = False
        self._given_up = False
        self._lanes = tuple(_Lane() for _ in range(backend.lanes))
        self._threads: list[threading.Thread] = []
        self.failure: str | None = None
        self.warming: WarmUpStep | None = None if warm_px is None else WarmUpStep(1, 1, 0, 0)

    # For any thread.

    def start(self) -> None:
        for number, lane in enumerate(self._lanes, start=1):
            name = f"dvt-engine-{number}"
            self._threads.append(threading.Thread(target=self._loop, args=(lane,), name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether it works, or will as soon as it is warm."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads) and not self._stopping

    @property
    def running(self) -> tuple[Running, ...]:
        """The batches in work, at most one a lane."""
        return tuple(lane.running for lane in self._lanes if lane.running is not None)

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
        return self.costs.work_s(waiting) / len(self._lanes)

    def stop(self, timeout_s: float | None = None) -> None:
        """End every lane after its present batch; what is left is answered with an error. For use after a drain.

        Waits for them, at most `timeout_s` for each; not at all once they were given up.
        """
        self._begin_to_stop()
        if not self._given_up:
            for thread in self._threads:
                thread.join(timeout_s)

    def give_up(self, failure: str | None = None) -> None:
        """Answer everybody without the lanes: one will not come back (`failure` says why), or time is up.

        Waits for no lane's turn, which one that hangs on a device may hold.
        """
        self._given_up = True
        self.failure = self.failure or failure
        self._begin_to_stop()
        left = [job for lane in self._lanes for job in lane.jobs]
        left += [job for queue in self._queues.waiting for job in list(queue)]
        left += [job for job, _ in (*self._arriving, *self._inbox)]
        for job in left:
            job.finish(_stopped())

    def _begin_to_stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify_all()

    # For the lanes alone.

    def _loop(self, lane: "_Lane") -> None:
        try:
            if self._warm_px is not None and lane is self._lanes[0]:
                self._warm_up(self._warm_px, lane)
            while self.await_work():
                self.round(lane)
        except Exception as error:
            # Not a failed batch (caught where it runs) but a bug of ours, or a device that cannot compute the model.
            self.failure = f"{type(error).__name__}: {error}"
            self._log.exception("engine stopped by a bug" if self.warming is None else "engine could not warm up")
        finally:
            self._begin_to_stop()
            with self._turn:
                left = [*lane.jobs, *(job for job, _ in (*self._arriving, *self._inbox)), *self._queues.clear()]
                self._inbox.clear()
                for job in left:
                    try:
                        self._close(job, _stopped())
                    except Exception:  # A backend that cannot release a slot: the others must be answered all the same.
                        self._log.exception("slot not released")

    def _warm_up(self, size_px: int, lane: "_Lane") -> None:
        def began(step: WarmUpStep) -> bool:
            self.warming = step
            lane.running = Running(step.stage, step.images, WARM_UP_LIMIT_S)
            return not self._stopping

        warm_up(self._backend, self.costs, size_px, clock=self._clock, began=began)
        lane.running = None
        with self._wake:
            self.warming = None
            self._wake.notify_all()

    def await_work(self) -> bool:
        """Wait until there is something to do; False when to end."""
        with self._wake:
            while not self._stopping and (self.warming is not None or not (self._inbox or len(self._queues))):
                self._wake.wait()
            return not self._stopping

    def round(self, lane: "_Lane | None" = None) -> None:
        """Let in who came, let go of those that are done, choose a batch, run it."""
        lane = lane or self._lanes[0]
        with self._turn:
            self._take_in()
            choice = self._choose()
            lane.jobs = choice.jobs
        if choice.jobs:
            self._run(lane, choice.stage, choice.jobs)
            lane.jobs = ()
            if len(self._queues):
                with self._wake:
                    self._wake.notify()
        elif choice.wake_s is not None:
            with self._wake:
                if not self._inbox and not self._stopping:
                    self._wake.wait(max(0.0, choice.wake_s - self._clock()))

    def _take_in(self) -> None:
        with self._wake:
            self._arriving, self._inbox = self._inbox, []
        for job, pixels in self._arriving:
            self._begin(job, pixels)
        self._arriving = []

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

    def _choose(self) -> Choice[Job]:
        """The next batch, taken out of its queue."""
        if self._some_are_done:
            self._some_are_done = False
            for job in self._queues.remove_done():
                self._drop(job)
        limits = self._limits.shared(len(self._queues), sum(not lane.jobs for lane in self._lanes))
        choice = next_batch(self._clock(), self._queues.waiting, limits, self.costs)
        if choice.dropped:
            self._queues.remove(choice.dropped)
            for job in choice.dropped:
                self._drop(job)
        if choice.jobs:
            self._queues.take(choice.stage, choice.jobs)
        self._metrics.queued(self._queues.lengths)
        return choice

    def _run(self, lane: "_Lane", stage: int, jobs: Sequence[Job]) -> None:
        """Compute a batch. One that fails is split until the guilty job is alone; only that one fails."""
        limit_s = stall_limit_s(self.costs.seconds(stage, len(jobs)), self._stall_s)
        lane.running = Running(stage, len(jobs), limit_s)
        slots = [_slot(job) for job in jobs]
        started_s = self._clock()
        try:
            output = self._backend.run(stage, slots)
            words = judge(self._measure, stage, output.logits, [job.rule for job in jobs])
        except Exception as error:  # Whatever a runtime raises: the others of the batch must be answered.
            self._failed(lane, stage, jobs, error)
            return
        finally:
            lane.running = None
        ended_s = self._clock()
        for job, word in zip(jobs, words, strict=True):
            if word.taken is not None:
                job.tell(word.taken, leaves=word.reason is not None)
        going_on: list[tuple[int, Job]] = []
        with self._turn:
            self._metrics.batch(stage, len(jobs), ended_s - started_s)
            self.costs.observe(stage, len(jobs), ended_s - started_s)
            for row, (job, word) in enumerate(zip(jobs, words, strict=True)):
                waited_s = max(0.0, started_s - job.queued_since_s)
                job.times = JobTimes(job.times.queue_s + waited_s, (*job.times.stages_s, ended_s - started_s))
                job.stages_run = stage
                if not job.is_background:
                    self._guard.charge(job.owner, stage, (ended_s - started_s) / len(jobs))
                heir = self._heir(job, word)
                if heir is not None:
                    going_on.append((row, heir))
            audits = [heir for row, heir in going_on if heir is not jobs[row]]
            lane.jobs = (*lane.jobs, *audits)
            self.costs.observe_stay(stage, len(jobs), len(going_on) - len(audits))
        if going_on:
            self._hand_on(stage, output, going_on)

    def _hand_on(self, stage: int, output: StageOutput, going_on: Sequence[tuple[int, Job]]) -> None:
        """To the next stage's queue, once its input is in the slots. `going_on`: rows of the batch, with their jobs."""
        try:
            output.keep([row for row, _ in going_on])
        except Exception as error:  # A device without memory, say. What the slots hold now is unknown.
            self._log.warning("state not kept", extra={"stage": stage, "error": f"{type(error).__name__}: {error}"})
            with self._turn:
                for _, job in going_on:
                    self._close(job, InferenceFailedError(f"what stage {stage} hands on could not be kept"))
            return
        now_s = self._clock()
        with self._turn:
            for _, job in going_on:
                self._queues.put(stage + 1, job, now_s)

    def _failed(self, lane: "_Lane", stage: int, jobs: Sequence[Job], error: Exception) -> None:
        self._metrics.batch_failed(stage)
        self._log.warning(
            "batch failed", extra={"stage": stage, "images": len(jobs), "error": f"{type(error).__name__}: {error}"}
        )
        if len(jobs) == 1:
            with self._turn:
                self._close(jobs[0], InferenceFailedError(f"stage {stage} could not be computed for this image"))
            return
        middle = len(jobs) // 2
        for half in (jobs[:middle], jobs[middle:]):
            still_wanted = []
            with self._turn:
                for job in half:
                    if job.done:
                        self._drop(job)
                    else:
                        still_wanted.append(job)
            if still_wanted:
                self._run(lane, stage, still_wanted)

    def _heir(self, job: Job, word: Word) -> Job | None:
        """Who goes on with the image: still the job, its audit once it is answered, or nobody."""
        if word.taken is not None:
            job.best = word.taken
        if word.reason is not None:
            return self._leave(job, word.reason)
        if job.done:
            self._drop(job)
            return None
        if job.best is not None and not job.is_background and self._guard.ends(job.owner):
            self._close(job, outcome_of(job, "guard"))
            return None
        return job

    def _leave(self, job: Job, reason: ExitReason) -> Job | None:
        """Answers; gives what goes on, if that is to be audited."""
        outcome = outcome_of(job, reason)
        if job.draw is not None and job.best is not None and not job.done:
            if reason == "final":
                job.draw.reached_last(job.best.label)
            elif reason == "confident":
                job.draw.left(job.best.label)
                audit = job.hand_over(self._measure.exits, self._clock())
                if job.close(outcome):
                    return audit
                job = audit  # Something else has decided just now.
        self._close(job, outcome)
        return None

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


@dataclass(eq=False)
class _Lane:
    """A batch's jobs from when they leave their queue until they are answered or in the next one."""

    jobs: Sequence[Job] = ()
    running: Running | None = None


def _slot(job: Job) -> Slot:
    assert job.slot is not None, "a waiting job has no slot"
    return job.slot


def _stopped() -> NotReadyError:
    return NotReadyError("the engine has stopped; try again in a moment", retry_after_s=5)
