"""The one loop: a batch runs a stage, the exit rule decides, leavers are answered, stayers join the next queue.

One thread a device. Everything it touches (queues, slots, the backend) is its own; jobs come in through `submit`.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models import policy
from models.policy import Measure
from models.preprocess import Pixels
from service.backends.base import StageBackend, StageOutput
from service.engine.batching import BatchLimits, next_batch
from service.engine.job import Job
from service.engine.queues import StageQueues
from service.errors import DeadlineExceededError, InferenceFailedError, NotReadyError, ServiceError
from service.metrics import Metrics
from service.types import Answer, Clock, ExitReason, ExitTaken, JobTimes


@dataclass(frozen=True)
class ExitMeasure:
    """How logits become a confidence: the measure, and one softmax temperature an exit."""

    confidence: Measure
    temperatures: tuple[float, ...]

    @property
    def exits(self) -> int:
        return len(self.temperatures)


class Scheduler:
    """Answers every submitted job exactly once, whatever happens: also when a batch fails, and when it is stopped."""

    def __init__(
        self,
        backend: StageBackend,
        measure: ExitMeasure,
        limits: BatchLimits,
        *,
        clock: Clock,
        metrics: Metrics,
        log: logging.Logger,
    ) -> None:
        self._backend = backend
        self._measure = measure
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._queues = StageQueues(measure.exits)
        self._inbox: list[tuple[Job, Pixels]] = []
        self._wake = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="dvt-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._stopping

    def submit(self, job: Job, pixels: Pixels) -> None:
        """Hand over a job with its image (3, S, S). From any thread."""
        with self._wake:
            if not self._stopping:
                self._inbox.append((job, pixels))
                self._wake.notify()
                return
        job.close(NotReadyError("the engine has stopped; try again in a moment"))

    def stop(self) -> None:
        """End the thread after its present batch; what is left is answered with an error. For use after a drain."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        try:
            while self._take_in():
                self._step()
        except Exception:
            # Not a failed batch (caught where it runs) but a bug of ours: say so, answer all, and be found dead.
            self._log.exception("engine stopped by a bug")
        finally:
            with self._wake:
                self._stopping = True
                left = [job for job, _ in self._inbox] + self._queues.clear()
                self._inbox.clear()
            for job in left:
                self._close(job, NotReadyError("the engine has stopped; try again in a moment"))

    def _take_in(self) -> bool:
        """Wait for work and move it into the first queue; False when it is time to end."""
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
        try:
            job.slot = self._backend.begin(pixels)
        except Exception as error:
            # Whatever a runtime raises, an accelerator's full memory say: only this image fails.
            self._log.warning("image not taken in", extra={"error": f"{type(error).__name__}: {error}"})
            self._close(job, InferenceFailedError("the image could not be brought to the device"))
        else:
            self._queues.put(1, job, self._clock())

    def _step(self) -> None:
        choice = next_batch(self._clock(), self._queues.waiting, self._limits)
        self._queues.remove((*choice.dropped, *choice.jobs))
        for job in choice.dropped:
            self._drop(job)
        for stage, queue in enumerate(self._queues.waiting, start=1):
            self._metrics.queued(stage, len(queue))
        if choice.jobs:
            self._run(choice.stage, choice.jobs)

    def _run(self, stage: int, jobs: Sequence[Job]) -> None:
        """Compute a batch. One that fails is split until the guilty job is alone; only that one fails."""
        started_s = self._clock()
        slots = [job.slot for job in jobs if job.slot is not None]
        assert len(slots) == len(jobs), "a waiting job has no slot"
        try:
            output = self._backend.run(stage, slots)
            decided = self._judge(stage, output, len(jobs))
        except Exception as error:  # Whatever a runtime raises: the others of the batch must be answered.
            self._metrics.batch_failed(stage)
            self._log.warning(
                "batch failed", extra={"stage": stage, "images": len(jobs), "error": f"{type(error).__name__}: {error}"}
            )
            if len(jobs) == 1:
                self._close(jobs[0], InferenceFailedError(f"stage {stage} could not be computed for this image"))
                return
            middle = len(jobs) // 2
            self._run(stage, jobs[:middle])
            self._run(stage, jobs[middle:])
            return
        ended_s = self._clock()
        self._metrics.batch(stage, len(jobs), ended_s - started_s)
        staying: list[int] = []
        for row, (job, (probabilities, confidence)) in enumerate(zip(jobs, decided, strict=True)):
            waited_s = max(0.0, started_s - job.queued_since_s)
            job.times = JobTimes(job.times.queue_s + waited_s, (*job.times.stages_s, ended_s - started_s))
            job.stages_run = stage
            if self._stays(stage, job, probabilities, confidence):
                staying.append(row)
        if staying:
            output.keep(staying)
        for row in staying:
            self._queues.put(stage + 1, jobs[row], ended_s)

    def _judge(self, stage: int, output: StageOutput, images: int) -> list[tuple[np.ndarray, float]]:
        """Probabilities (C,) and confidence of each image of a batch; NaN where the logits are not finite."""
        logits = output.logits
        if logits.ndim != 2 or logits.shape[0] != images:
            raise ValueError(f"stage {stage} gave logits of shape {logits.shape} for {images} images")
        with np.errstate(all="ignore"):
            probabilities = policy.softmax(logits.astype(np.float64), self._measure.temperatures[stage - 1])
            confidences = policy.confidence(probabilities, self._measure.confidence)
        return [(row, float(value)) for row, value in zip(probabilities, confidences, strict=True)]

    def _stays(self, stage: int, job: Job, probabilities: np.ndarray, confidence: float) -> bool:
        """Answers one that leaves here."""
        rule = job.rule
        is_last = stage == self._measure.exits
        threshold = None if is_last else rule.thresholds[stage - 1]
        if np.isfinite(confidence):
            job.best = ExitTaken(stage, probabilities, confidence, threshold)
            reason: ExitReason | None = None
            if bool(policy.leaves(np.asarray(confidence), threshold)):
                reason = "confident"
            elif is_last:
                reason = "final"
            elif stage >= rule.max_exit:
                reason = "max_exit"
            if reason is not None:
                self._close(job, Answer(job.best, reason, stage, job.times))
                return False
        elif is_last:
            # The last exit has no usable word: the best earlier one is the answer, if there is any.
            if job.best is None:
                self._close(job, InferenceFailedError("no exit gave finite numbers for this image"))
            else:
                self._close(job, Answer(job.best, "guard", stage, job.times))
            return False
        return True

    def _drop(self, job: Job) -> None:
        """It was answered elsewhere, its client left, or its deadline passed before the event loop noticed."""
        self._metrics.dropped()
        self._close(job, deadline_outcome(job))

    def _close(self, job: Job, outcome: Answer | ServiceError) -> None:
        try:
            self._let_go(job)
        finally:
            job.close(outcome)

    def _let_go(self, job: Job) -> None:
        slot = job.slot
        job.slot = None
        if slot is not None:
            self._backend.release(slot)


def deadline_outcome(job: Job) -> Answer | ServiceError:
    """What a job is answered with when its time is up: the best exit so far, or an error when there is none."""
    best = job.best
    if best is None:
        return DeadlineExceededError(
            "deadline_ms passed before the first exit was reached; allow more time, or try when there is less load"
        )
    return Answer(best, "deadline", job.stages_run, job.times)
