"""Any course of events around an engine of one device or several: arrivals, exits, audits, cancellations, failures,
deadlines, what is kept and gone on with, any memory cap.

The engine's threads are stood in for: events happen between rounds and in the middle of batches, on a clock that moves
by what each batch is scripted to cost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import event
from hypothesis import strategies as st

from models.policy import ExitMeasure
from service.backends.base import Slot
from service.engine.admission import Admission, AdmissionLimits
from service.engine.batching import BACKGROUND, BatchLimits
from service.engine.draws import Draw, Lottery
from service.engine.engine import Engine
from service.engine.exits import deadline_outcome
from service.engine.fleet import Fleet
from service.engine.job import Job, Outcome
from service.engine.kept import KEEP_NOTHING, KeptLimits, KeptWork, Work
from service.engine.scheduler import Scheduler
from service.errors import InferenceFailedError, OverloadedError
from service.metrics import Metrics
from service.types import Answer, ExitRule, Thresholds
from tests.service.cascades import SIZE_PX, FakeBackend, FakeOutput, quiet_log

EXITS = 3
SLOT_BYTES = 1000
KEEPS = KeptLimits(keep_s=4.0, slots=4, answers_bytes=1 << 20, finds_content=False)
BAD, NANS = 30, 31  # Kinds: fails in every batch; gives NaN at every exit.
STAGE_S = (0.02, 0.05, 0.11)


def confidence(kind: int, stage: int) -> float:
    """Kinds 1 to 9 are sure from exit 1, 11 to 19 from exit 2, 21 to 29 from exit 3."""
    if kind == NANS:
        return float("nan")
    return 0.97 if stage > kind // 10 else 0.3


def label_of(kind: int, stage: int) -> int:
    """Every third kind has another label at the last exit."""
    return (kind + (stage == EXITS and kind % 3 == 0)) % 4


@dataclass
class Course:
    """An engine, stepped by hand, behind an admission, with everything that happened to each job.

    Beside the `images` there are `places` for audits. `keeps`: whether state rests after an answer. `more_slots`: of
    devices beside the first, which has those that they leave; each is half as fast as the one before.
    """

    images: int
    max_batch: int
    delay_s: float = 0.0
    places: int = 0
    keeps: bool = False
    more_slots: tuple[int, ...] = ()
    now_s: float = 1000.0
    jobs: list[Job] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    outcomes: list[list[Outcome]] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    draws: dict[int, Draw] = field(default_factory=dict)
    works: list[Work | None] = field(default_factory=list)
    refused: int = 0
    resumed: int = 0
    lost: int | None = None
    during_next: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        slots = (self.images + self.places - sum(self.more_slots), *self.more_slots)
        self.backends = [Scripted(self, number, each) for number, each in enumerate(slots)]
        metrics = Metrics("fake", "0", EXITS)
        self.kept = KeptWork(
            KEEPS if self.keeps else KEEP_NOTHING,
            exits=EXITS,
            clock=lambda: self.now_s,
            metrics=metrics,
            devices=len(slots),
        )
        self.schedulers = [
            Scheduler(
                backend,
                ExitMeasure("max_softmax", (1.0,) * EXITS),
                BatchLimits(self.max_batch, self.delay_s),
                clock=lambda: self.now_s,
                metrics=metrics,
                log=quiet_log(),
                kept=self.kept,
                device=number,
            )
            for number, backend in enumerate(self.backends)
        ]
        self.engine: Engine = Fleet(self.schedulers, self.kept) if self.more_slots else self.schedulers[0]
        self.lottery = Lottery(1.0, self.places, lambda: None)
        limits = AdmissionLimits(1000, self.images * SLOT_BYTES, SLOT_BYTES, 1000)
        self.admission = Admission(limits, self.engine.work_s)

    def arrive(
        self, kind: int, rule: ExitRule, priority: int, left_s: float | None, is_drawn: bool = False
    ) -> Job | None:
        try:
            self.admission.acquire(1)
        except OverloadedError:
            self.refused += 1
            return None
        assert self.admission.reserved_bytes <= self.images * SLOT_BYTES
        number = len(self.jobs)
        draw = self.lottery.draw(rule.thresholds) if is_drawn and rule.max_exit == EXITS else None
        if draw is not None:
            self.draws[number] = draw
        job = self.job(kind, rule, priority, left_s, draw, self.kept.begin(None))
        self.engine.submit(job, np.full((3, SIZE_PX, SIZE_PX), kind, np.uint8))
        return job

    def job(
        self, kind: int, rule: ExitRule, priority: int, left_s: float | None, draw: Draw | None, work: Work | None
    ) -> Job:
        """One that has its permit."""
        number = len(self.jobs)

        def release() -> None:
            self.released[number] += 1
            self.admission.release()

        def deliver(outcome: Outcome) -> None:
            self.outcomes[number].append(outcome)
            if isinstance(outcome, Answer) and work is not None:
                self.kept.remember(f"id{number}", work, outcome.exit.number, "")

        job = Job(
            rule,
            arrived_s=self.now_s,
            deadline_s=None if left_s is None else self.now_s + left_s,
            priority=priority,
            deliver=deliver,
            released=release,
            draw=draw,
            work=work,
        )
        self.jobs.append(job)
        self.kinds.append(kind)
        self.works.append(work)
        self.outcomes.append([])
        self.released.append(0)
        return job

    def refine(self, number: int, to: int, left_s: float | None) -> None:
        """Who has its answer asks for a deeper exit."""
        number %= max(1, len(self.jobs))
        found = self.kept.answer(f"id{number}", "")
        if found is None or not found.work.exits or to <= found.work.exits[-1].number:
            return
        try:
            self.admission.acquire(1)
        except OverloadedError:
            return
        slot = self.engine.claim(found.work)
        if slot is None:
            self.admission.waive()
            return
        job = self.job(self.kinds[number], ExitRule((None,) * (EXITS - 1), to), 5, left_s, None, found.work)
        job.resume(slot, found.work.exits[-1])
        self.resumed += 1
        self.engine.submit(job)

    def leave(self, number: int) -> None:
        """The client of a job has gone."""
        if number < len(self.jobs) and self.jobs[number].abandon():
            work = self.works[number]
            if work is not None:
                self.kept.forget(work)
            self.engine.notice_done()

    def expire(self) -> None:
        """What the event loop does at deadlines."""
        for job in self.jobs:
            if job.deadline_s is not None and self.now_s >= job.deadline_s and job.finish(deadline_outcome(job)):
                self.engine.notice_done()

    @property
    def slots_in_use(self) -> int:
        return sum(backend.slots_in_use for backend in self.backends)

    @property
    def inside(self) -> int:
        return self.released.count(0) + self.lottery.pending

    def step(self, device: int = 0) -> None:
        """One round of a device, unless it is `lost`."""
        number = device % len(self.schedulers)
        scheduler = self.schedulers[number]
        if self.inside and number != self.lost:
            # Of several, one may have nothing to do, and would wait for it.
            assert len(self.schedulers) > 1 or scheduler.await_work()
            scheduler.round()

    def finish(self) -> int:
        """Until nobody is inside; the rounds that it took."""
        for rounds in range(20 * len(self.jobs) + 20):
            if not self.inside:
                return rounds
            for device in range(len(self.schedulers)):
                self.step(device)
            self.now_s += 0.001
        raise AssertionError(f"{self.inside} jobs never ended")


class Scripted(FakeBackend):
    """Time passes while a batch runs, and the rest of the world goes on."""

    def __init__(self, course: Course, device: int, slots: int) -> None:
        super().__init__(confidence, label_of, slots=slots, slot_bytes=SLOT_BYTES, buckets=(1, 2, 4, 64))
        self.poison = frozenset({BAD})
        self.course = course
        self.number = device
        self.largest = 0

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
        wanted = {job.slot for job in self.course.jobs if not job.done}
        audits = sum(draw.has_left and not draw.has_ended for draw in self.course.draws.values())
        assert len(set(slots) - wanted) <= audits, "a job ran after it was answered"
        in_flight = self.course.slots_in_use - self.course.kept.slots
        assert in_flight <= self.course.images + audits, "more state than was reserved"
        self.largest = max(self.largest, len(slots))
        self.course.now_s += 2**self.number * STAGE_S[stage - 1] * (1 + len(slots)) / 2
        happenings, self.course.during_next = self.course.during_next, []
        for happen in happenings:
            happen()
        return super().run(stage, slots, lane)


thresholds: st.SearchStrategy[Thresholds] = st.tuples(*[st.none() | st.sampled_from((0.0, 0.5, 0.9))] * (EXITS - 1))
rules = st.builds(ExitRule, thresholds, st.integers(1, EXITS))
arrivals = st.tuples(
    st.just("arrive"),
    st.integers(1, 31),
    rules,
    st.integers(1, 9) | st.just(BACKGROUND),
    st.none() | st.floats(0.001, 1.0),
    st.booleans(),
)
# Those that can be audited, few of them with a deadline.
drawn_arrivals = st.tuples(
    st.just("arrive"),
    st.integers(1, 31),
    st.builds(ExitRule, thresholds, st.just(EXITS)),
    st.integers(1, 9),
    st.none() | st.none() | st.floats(0.001, 1.0),
    st.just(True),
)
rounds = st.tuples(st.just("round"), st.integers(0, 2))
happenings_beside = (
    st.tuples(st.just("leave"), st.integers(0, 30))
    | st.tuples(st.just("leave within a batch"), st.integers(0, 30))
    | st.tuples(st.just("pause"), st.floats(0, 3))
    | st.just(("expire",))
    | rounds
)
# Those that leave early, so that there is something to go on with.
early_arrivals = st.tuples(
    st.just("arrive"),
    st.integers(1, 19),
    st.just(ExitRule((0.5,) * (EXITS - 1), EXITS)),
    st.integers(1, 9),
    st.none() | st.none() | st.floats(0.001, 1.0),
    st.booleans(),
)
refinements = st.tuples(
    st.just("refine"), st.integers(0, 8), st.integers(2, EXITS), st.none() | st.none() | st.floats(0.001, 1.0)
)
refined_events = st.lists(
    early_arrivals | early_arrivals | refinements | refinements | rounds | happenings_beside,
    min_size=10,
    max_size=60,
)
# Those that rest on one device or another, and are gone on with.
rounds_of_all = st.just(("round of all",))
scattered_events = st.lists(
    # One part in four is something else, not one for each of its kinds.
    early_arrivals | rounds_of_all | refinements | st.deferred(lambda: happenings_beside),
    min_size=20,
    max_size=60,
)
events = st.lists(arrivals | happenings_beside, max_size=60)
drawn_events = st.lists(drawn_arrivals | happenings_beside, min_size=10, max_size=60)


def happen(course: Course, what: str, *values: object) -> None:
    if what == "arrive":
        course.arrive(*values)  # type: ignore[arg-type]  # as the strategy made them
    elif what == "leave":
        course.leave(int(str(values[0])))
    elif what == "leave within a batch":
        course.during_next += [lambda: course.leave(int(str(values[0]))), course.expire]
    elif what == "pause":
        course.now_s += float(str(values[0]))
    elif what == "refine":
        course.refine(*values)  # type: ignore[arg-type]  # as the strategy made them
    elif what == "expire":
        course.expire()
    elif what == "round of all":
        for device in range(len(course.schedulers)):
            course.step(device)
    else:
        course.step(int(str(values[0])))


def exit_expected(kind: int, rule: ExitRule) -> int:
    """By the rule alone: the first exit that is confident enough, or the last that it may use."""
    for number in range(1, EXITS + 1):
        threshold = rule.thresholds[number - 1] if number < EXITS else None
        if threshold is not None and confidence(kind, number) >= threshold:
            return number
        if number == min(rule.max_exit, EXITS):
            return number
    raise AssertionError


def finish_by_the_law(course: Course) -> None:
    """Every job let in ends exactly once, by its own rule, and leaves nothing behind."""
    course.finish()

    assert course.released == [1] * len(course.jobs), "a place was lost, or given back twice"
    assert (course.slots_in_use, course.admission.idle) == (course.kept.slots, True), "state was left behind"
    event(f"kept {course.kept.slots > 0}, resumed {course.resumed > 0}")
    assert max(backend.largest for backend in course.backends) <= course.max_batch
    for job, kind, outcomes in zip(course.jobs, course.kinds, course.outcomes, strict=True):
        assert len(outcomes) <= 1, "a job was answered twice"
        if not outcomes:
            assert job.done, "a job was lost"  # Its client left.
            continue
        (outcome,) = outcomes
        event(type(outcome).__name__)
        if isinstance(outcome, Answer) and outcome.reason != "deadline":
            assert kind not in (BAD, NANS)
            assert outcome.exit.number == exit_expected(kind, job.rule)
            assert outcome.exit.label == label_of(kind, outcome.exit.number)
        elif job.deadline_s is None:
            assert isinstance(outcome, InferenceFailedError)
            assert kind in (BAD, NANS)

    assert course.lottery.take_ended() == list(course.draws.values()), "an audit was lost, or its turn"
    for number, draw in course.draws.items():
        answers = [each for each in course.outcomes[number] if isinstance(each, Answer)]
        left_at = [each.exit.number for each in answers if each.reason in ("confident", "final")]
        event(f"audit {draw.found}")
        if left_at:
            agree = label_of(course.kinds[number], left_at[0]) == label_of(course.kinds[number], EXITS)
            assert draw.found == ("agreed" if agree else "disagreed")
        else:
            assert draw.found in (None, "left_out"), "something else has decided, or nobody"
