"""One image on its way through the stages: who may answer it, and the best answer so far."""

import threading
from collections.abc import Callable

from service.backends.base import Slot
from service.engine.batching import BACKGROUND, due_s
from service.engine.draws import Draw
from service.engine.kept import Work
from service.errors import ServiceError
from service.types import Answer, ExitRule, ExitTaken, JobTimes

Outcome = Answer | ServiceError


class Job:
    """Answered exactly once: the engine, the deadline and a client's leaving compete for one claim.

    `deadline_s` and `arrived_s` are of the monotonic clock. `owner`: whose it is, a key's name or an address.
    `deliver` is called with the outcome, from whichever thread won the claim; `released` is called once, when nothing
    of the job is held any more. `reached` is told of each exit, in order, and whether its rule has it leave there.
    `classes`: how many each exit is to tell of, the best ones; fewer where there are not so many.
    `draw`: of one that is audited, told how it ends. `work`: where what it computes is kept for others.
    """

    def __init__(
        self,
        rule: ExitRule,
        *,
        arrived_s: float,
        deadline_s: float | None,
        priority: int,
        owner: str = "",
        classes: int = 1,
        deliver: Callable[[Outcome], None],
        released: Callable[[], None],
        reached: Callable[[ExitTaken, bool], None] | None = None,
        draw: Draw | None = None,
        work: Work | None = None,
    ) -> None:
        self.rule = rule
        self.arrived_s = arrived_s
        self.deadline_s = deadline_s
        self.owner = owner
        self.classes = classes
        self.draw = draw
        self.work = work
        self.is_background = priority >= BACKGROUND
        self.due_s = due_s(priority, arrived_s, deadline_s)
        self.slot: Slot | None = None
        self.best: ExitTaken | None = None
        self.stages_run = 0
        self.queued_since_s = 0.0
        self.times = JobTimes()
        # Called once, when it holds nothing of its device any more; of one whose device nobody has to count, none.
        self.vacate: Callable[[], None] | None = None
        self._deliver = deliver
        self._released = released
        self._reached = reached
        self._claim = threading.Lock()
        self._release = threading.Lock()

    @property
    def done(self) -> bool:
        """Whether it was answered, or its client has left."""
        return self._claim.locked()

    def resume(self, slot: Slot, best: ExitTaken) -> None:
        """Go on from the state in `slot`, after the exit that was reached before."""
        self.slot, self.best, self.stages_run = slot, best, best.number

    def tell(self, taken: ExitTaken, *, leaves: bool) -> None:
        """It has come to an exit, and leaves there unless something else than its rule decides."""
        if self._reached is not None and not self.done:
            self._reached(taken, leaves)

    def finish(self, outcome: Outcome) -> bool:
        """Answer, unless someone else has; says whether this call did."""
        if not self._claim.acquire(blocking=False):
            return False
        self._deliver(outcome)
        return True

    def abandon(self) -> bool:
        """Nobody waits for the answer any more: it is dropped before its next stage."""
        return self._claim.acquire(blocking=False)

    def close(self, outcome: Outcome) -> bool:
        """Nothing is held of it any more: give back its place, and answer unless someone else has; says whether it did.

        In this order: whoever has its answer and comes again must find the place free.
        """
        is_ours = self.abandon()
        self.release()
        if is_ours:
            self._deliver(outcome)
        return is_ours

    def release(self) -> None:
        """Give back its place; later calls do nothing."""
        if self._release.acquire(blocking=False):
            if self.vacate is not None:
                self.vacate()
            self._released()
            if self.draw is not None:
                self.draw.end(looked_at=self.stages_run > 0)

    def hand_over(self, exits: int, now_s: float) -> "Job":
        """Its audit: a job that nobody waits for, and that goes on to the last exit with what this one holds."""
        audit = Job(
            ExitRule((None,) * (exits - 1), exits),
            arrived_s=now_s,
            deadline_s=None,
            priority=BACKGROUND,
            deliver=lambda _: None,
            released=lambda: None,
            draw=self.draw,
            work=self.work,
        )
        audit.stages_run = self.stages_run
        audit.slot, self.slot, self.draw, self.work = self.slot, None, None, None
        audit.vacate, self.vacate = self.vacate, None
        return audit
