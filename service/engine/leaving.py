"""How images come into their slots and leave them: answered, audited, kept for those who come back, or let go of.

For the lanes' threads, one at a time.
"""

from dataclasses import dataclass

from models.preprocess import Pixels
from service.backends.base import Slot, StageBackend
from service.engine.counts import EngineCounts
from service.engine.exits import Word, deadline_outcome, outcome_of
from service.engine.guard import DeepGuard
from service.engine.job import Job, Outcome
from service.engine.kept import KeptWork
from service.types import Clock, ExitReason


@dataclass(frozen=True)
class Fate:
    """What becomes of an image after a stage: `job`, its own or its audit, goes on, or leaves with `outcome`."""

    job: Job
    outcome: Outcome | None = None


class Slots:
    """Of one backend; `kept` are those that rest between requests, on this `device` and others."""

    def __init__(self, backend: StageBackend, kept: KeptWork, device: int) -> None:
        self._backend = backend
        self._kept = kept
        self._device = device

    def begin(self, pixels: Pixels) -> Slot:
        """For a newcomer. Admission has counted his place, so if none is free then one of the kept ones must go."""
        while self._backend.slots_in_use >= self._backend.slots:
            oldest = self._kept.take_oldest(self._device)
            assert oldest is not None, "more images were let in than there are slots"
            self._backend.release(oldest)
        return self._backend.begin(pixels)

    def close(self, job: Job, outcome: Outcome, *, holds_next: bool = False) -> None:
        """The end of a job. Where its slot `holds_next`, what its next stage takes, that may be kept."""
        slot, job.slot = job.slot, None
        try:
            if job.work is not None:
                slot = self._rest(job, slot, holds_next=holds_next)
                self.sweep()  # Another may have had to go for it.
            if slot is not None:
                self._backend.release(slot)
        finally:
            job.close(outcome)

    def sweep(self) -> None:
        """Free what is kept no longer."""
        for slot in self._kept.take_released(self._device):
            self._backend.release(slot)

    def clear(self) -> None:
        """At the end: free all that is kept."""
        for slot in self._kept.take_all(self._device):
            self._backend.release(slot)

    def _rest(self, job: Job, slot: Slot | None, *, holds_next: bool) -> Slot | None:
        assert job.work is not None
        if slot is None or holds_next:
            return self._kept.rest(job.work, slot)
        self._kept.rest(job.work, None)
        return slot


class Fates:
    """Decides what becomes of images at an exit."""

    def __init__(self, exits: int, guard: DeepGuard, kept: KeptWork, clock: Clock, metrics: EngineCounts) -> None:
        self._exits = exits
        self._guard = guard
        self._kept = kept
        self._clock = clock
        self._metrics = metrics

    def after(self, job: Job, word: Word) -> Fate:
        """Of an image that an exit has spoken of. One that is to be audited is answered here."""
        if word.taken is not None:
            job.best = word.taken
        if job.work is not None:
            self._kept.reached(job.work, word.taken)
        if word.reason is not None:
            return self._leave(job, word.reason)
        if job.done:
            return Fate(job, self.dropped(job))
        if self.is_cut_off(job):
            return Fate(job, outcome_of(job, "guard"))
        return Fate(job)

    def is_cut_off(self, job: Job) -> bool:
        """Whether the guard lets it go no deeper."""
        return job.best is not None and not job.is_background and self._guard.ends(job.owner)

    def dropped(self, job: Job) -> Outcome:
        """Of one that was answered elsewhere, whose client left, or whose deadline the event loop has not noticed."""
        self._metrics.dropped()
        return deadline_outcome(job)

    def _leave(self, job: Job, reason: ExitReason) -> Fate:
        outcome = outcome_of(job, reason)
        if job.draw is not None and job.best is not None and not job.done:
            if reason == "final":
                job.draw.reached_last(job.best.label)
            elif reason == "confident":
                job.draw.left(job.best.label)
                audit = job.hand_over(self._exits, self._clock())
                if job.close(outcome):
                    return Fate(audit)
                job = audit  # Something else has decided just now.
        return Fate(job, outcome)
