"""The loop: a batch runs a stage, the exit rule decides, leavers are answered, stayers join the next queue.

A lane is a thread that runs the loop: one a device, on a CPU as many as batches are computed at once. All lanes serve
the same queues. They take turns with everything but a batch's computation, so that what they share (queues, slots, the
backend's `begin` and `release`, costs) knows one thread at a time. Jobs come in through `submit`.

Several devices have a scheduler each (`service/engine/fleet.py`). Those share what is kept, the guard and the metrics,
which therefore take care of themselves.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.policy import ExitMeasure
from models.preprocess import Pixels
from service.backends.base import Slot, StageBackend, StageOutput
from service.engine.batching import BatchLimits, Choice, next_batch
from service.engine.costs import Lanes, StageCosts
from service.engine.counts import EngineCounts
from service.engine.exits import judge, outcome_of
from service.engine.guard import DeepGuard
from service.engine.job import Job
from service.engine.kept import KEEP_NOTHING, KeptWork, Work
from service.engine.leaving import Fate, Fates, Slots
from service.engine.queues import StageQueues
from service.engine.warmup import WarmUpStep, warm_up
from service.engine.watch import WARM_UP_LIMIT_S, Running, stall_limit_s
from service.errors import InferenceFailedError, NotReadyError
from service.types import Clock, JobTimes, StageRun


class Scheduler:
    """Answers every submitted job exactly once, whatever happens: also when a batch fails, and when it is stopped.

    As many lanes as the backend can use.
    `warm_px`: side of the input, for the warm-up; None where the backend is warm and costs may be learnt on the way.
    `stall_s`: a batch that takes longer than this, and than 20 times its cost, counts as one that never ends.
    `guard`: caps what the stages after the first may take; None caps nothing. `kept`: where what was computed is kept
    for those who come back; None keeps nothing. `device`: of several the number of this one, by which what is kept
    knows it, and `device_name` is told of what happens on it.
    """

    def __init__(
        self,
        backend: StageBackend,
        measure: ExitMeasure,
        limits: BatchLimits,
        *,
        clock: Clock,
        metrics: EngineCounts,
        log: logging.Logger,
        warm_px: int | None = None,
        stall_s: float = 30.0,
        guard: DeepGuard | None = None,
        kept: KeptWork | None = None,
        device: int = 0,
        device_name: str = "",
    ) -> None:
        self._backend = backend
        self._measure = measure
        largest = min(limits.max_batch, backend.slots, backend.buckets[-1])
        self._limits = replace(limits, max_batch=largest)
        self._warm_px = warm_px
        self._stall_s = stall_s
        self._guard = guard or DeepGuard(1.0, clock)
        self._kept = kept or KeptWork(KEEP_NOTHING, exits=measure.exits, clock=clock, metrics=metrics)
        self._device = device
        self._device_name = device_name
        self._slots = Slots(backend, self._kept, device)
        self._fates = Fates(measure.exits, self._guard, self._kept, clock, metrics)
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self.costs = StageCosts(measure.exits, largest)
        self._queues = StageQueues(measure.exits, backend.slots)
        self._inbox: list[tuple[Job, Pixels | None]] = []
        self._arriving: list[tuple[Job, Pixels | None]] = []
        self._some_are_done = False
        self._turn = threading.Lock()
        self._wake = threading.Condition()
        self._stopping = False
        self._given_up = False
        self._lanes = tuple(_Lane(number) for number in range(backend.lanes))
        self._threads: list[threading.Thread] = []
        self.failure: str | None = None
        self.warming: WarmUpStep | None = None if warm_px is None else WarmUpStep(1, 1, 0, 0)

    # For any thread.

    def start(self) -> None:
        for number, lane in enumerate(self._lanes, start=1):
            name = "-".join(filter(None, ("dvt-engine", self._device_name, str(number))))
            self._threads.append(threading.Thread(target=self._loop, args=(lane,), name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether it works, or will as soon as it is warm."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads) and not self._stopping

    @property
    def stopped(self) -> bool:
        """Whether it takes no more jobs: it was told to end, or is lost."""
        return self._stopping

    @property
    def slots(self) -> int:
        """Images that can be inside at once."""
        return self._backend.slots

    @property
    def lanes(self) -> tuple[Lanes, ...]:
        return (Lanes(self.costs, len(self._lanes)),)

    @property
    def waiting(self) -> list[int]:
        """Images before each stage."""
        return self._queues.lengths

    @property
    def running(self) -> tuple[Running, ...]:
        """The batches in work, at most one a lane."""
        return tuple(lane.running for lane in self._lanes if lane.running is not None)

    @property
    def ready(self) -> bool:
        """Whether it takes jobs: alive, and every stage is warm."""
        return self.warming is None and self.alive

    def submit(self, job: Job, pixels: Pixels | None = None) -> None:
        """Hand over a job with its image (3, S, S); without one where it resumes what was kept."""
        with self._wake:
            if not self._stopping:
                self._inbox.append((job, pixels))
                self._wake.notify()
                return
        job.close(_stopped())

    def claim(self, work: Work) -> Slot | None:
        """The state of a work, for a job that goes on with it; None where that is gone, or somebody else does."""
        return self._kept.claim(work)

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
        self.begin_to_stop()
        if not self._given_up:
            for thread in self._threads:
                thread.join(timeout_s)

    def give_up(self, failure: str | None = None) -> None:
        """Answer everybody without the lanes: one will not come back (`failure` says why), or time is up.

        Waits for no lane's turn, which one that hangs on a device may hold.
        """
        self._given_up = True
        self.failure = self.failure or failure
        self.begin_to_stop()
        left = [job for lane in self._lanes for job in lane.jobs]
        left += [job for queue in self._queues.waiting for job in list(queue)]
        left += [job for job, _ in (*self._arriving, *self._inbox)]
        for job in left:
            job.finish(_stopped())

    def begin_to_stop(self) -> None:
        """The same without waiting for it."""
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
            self.failure = f"{type(error).__name__}: {error}{self._device_name and f' on {self._device_name}'}"
            self._log.exception(
                "engine stopped by a bug" if self.warming is None else "engine could not warm up", extra=self._where()
            )
        finally:
            self.begin_to_stop()
            with self._turn:
                left = [*lane.jobs, *(job for job, _ in (*self._arriving, *self._inbox)), *self._queues.clear()]
                self._inbox.clear()
                for job in left:
                    try:
                        self._slots.close(job, _stopped())
                    except Exception:  # A backend that cannot release a slot: the others must be answered all the same.
                        self._log.exception("slot not released", extra=self._where())
                self._slots.clear()

    def _warm_up(self, size_px: int, lane: "_Lane") -> None:
        def began(step: WarmUpStep) -> bool:
            self.warming = step
            lane.running = Running(step.stage, step.images, WARM_UP_LIMIT_S, self._device_name)
            return not self._stopping

        warm_up(self._backend, self.costs, size_px, clock=self._clock, began=began)
        lane.running = None
        with self._wake:
            self.warming = None
            self._wake.notify_all()

    def await_work(self) -> bool:
        """Wait until there is something to do, be it that a kept state's time is over; False when to end."""
        with self._wake:
            while not self._stopping and (self.warming is not None or not (self._inbox or len(self._queues))):
                due_s = self._kept.due_s(self._device)
                left_s = None if due_s is None else due_s - self._clock()
                if left_s is not None and left_s <= 0:
                    break
                self._wake.wait(left_s)
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
        self._slots.sweep()
        for job, pixels in self._arriving:
            self._begin(job, pixels)
        self._arriving = []

    def _begin(self, job: Job, pixels: Pixels | None) -> None:
        if job.done:
            self._drop(job)
            return
        if pixels is None:
            if self._fates.is_cut_off(job):
                self._slots.close(job, outcome_of(job, "guard"), holds_next=True)
            else:
                self._queues.put(job.stages_run + 1, job, self._clock())
            return
        try:
            job.slot = self._slots.begin(pixels)
        except Exception as error:
            # Whatever a runtime raises, an accelerator's full memory say: only this image fails.
            self._warn("image not taken in", error)
            self._slots.close(job, InferenceFailedError("the image could not be brought to the device"))
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
        return choice

    def _run(self, lane: "_Lane", stage: int, jobs: Sequence[Job]) -> None:
        """Compute a batch. One that fails is split until the guilty job is alone; only that one fails."""
        limit_s = stall_limit_s(self.costs.seconds(stage, len(jobs)), self._stall_s)
        lane.running = Running(stage, len(jobs), limit_s, self._device_name)
        slots = [_slot(job) for job in jobs]
        started_s = self._clock()
        try:
            output = self._backend.run(stage, slots, lane.number)
            words = judge(self._measure, stage, output, [job.rule for job in jobs], max(job.classes for job in jobs))
        except Exception as error:  # Whatever a runtime raises: the others of the batch must be answered.
            self._failed(lane, stage, jobs, error)
            return
        finally:
            lane.running = None
        ended_s = self._clock()
        for job, word in zip(jobs, words, strict=True):
            if word.taken is not None:
                job.tell(word.taken, leaves=word.reason is not None)
        handed_on: list[tuple[int, Fate]] = []
        stayed = 0
        with self._turn:
            self._metrics.batch(stage, len(jobs), ended_s - started_s)
            self.costs.observe(stage, len(jobs), ended_s - started_s)
            for row, (job, word) in enumerate(zip(jobs, words, strict=True)):
                run = StageRun(stage, min(started_s, job.queued_since_s), started_s, ended_s, len(jobs))
                job.times = JobTimes((*job.times.runs, run))
                job.stages_run = stage
                if not job.is_background:
                    self._metrics.image_at(stage, run.seconds)
                    self._guard.charge(job.owner, stage, (ended_s - started_s) / len(jobs))
                fate = self._fates.after(job, word)
                if fate.outcome is not None and not self._leaves_state(stage, fate.job):
                    self._slots.close(fate.job, fate.outcome)
                    continue
                handed_on.append((row, fate))
                if fate.job is not job:
                    lane.jobs = (*lane.jobs, fate.job)
                elif fate.outcome is None:
                    stayed += 1
            self.costs.observe_stay(stage, len(jobs), stayed)
        if handed_on:
            self._hand_on(stage, output, handed_on)

    def _leaves_state(self, stage: int, job: Job) -> bool:
        """Whether an image that leaves here has something to keep for whoever comes back for more."""
        return stage < self._measure.exits and self._kept.wants_state(job.work)

    def _hand_on(self, stage: int, output: StageOutput, handed_on: Sequence[tuple[int, Fate]]) -> None:
        """To the next stage's queue, or to rest, once that stage's input is in the slots of these rows of the batch."""
        try:
            output.keep([row for row, _ in handed_on])
        except Exception as error:  # A device without memory, say. What the slots hold now is unknown.
            self._warn("state not kept", error, stage=stage)
            failed = InferenceFailedError(f"what stage {stage} hands on could not be kept")
            with self._turn:
                for _, fate in handed_on:
                    self._slots.close(fate.job, fate.outcome or failed)
            return
        now_s = self._clock()
        with self._turn:
            for _, fate in handed_on:
                if fate.outcome is None:
                    self._queues.put(stage + 1, fate.job, now_s)
                else:
                    self._slots.close(fate.job, fate.outcome, holds_next=True)

    def _failed(self, lane: "_Lane", stage: int, jobs: Sequence[Job], error: Exception) -> None:
        self._metrics.batch_failed(stage)
        self._warn("batch failed", error, stage=stage, images=len(jobs))
        if len(jobs) == 1:
            with self._turn:
                self._slots.close(jobs[0], InferenceFailedError(f"stage {stage} could not be computed for this image"))
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

    def _drop(self, job: Job) -> None:
        """It waits for a stage and is not wanted any more."""
        self._slots.close(job, self._fates.dropped(job), holds_next=job.stages_run > 0)

    def _warn(self, event: str, error: Exception, **about: int) -> None:
        self._log.warning(event, extra={**about, "error": f"{type(error).__name__}: {error}", **self._where()})

    def _where(self) -> dict[str, str]:
        return {"device": self._device_name} if self._device_name else {}


@dataclass(eq=False)
class _Lane:
    """A batch's jobs from when they leave their queue until they are answered or in the next one. `number` from 0."""

    number: int
    jobs: Sequence[Job] = ()
    running: Running | None = None


def _slot(job: Job) -> Slot:
    assert job.slot is not None, "a waiting job has no slot"
    return job.slot


def _stopped() -> NotReadyError:
    return NotReadyError("the engine has stopped; try again in a moment", retry_after_s=5)
