"""The laws of the engine, on any course of events: arrivals, exits, audits, cancellations, failures, deadlines, what is
kept and gone on with, any memory cap.

The engine's thread is stood in for: events happen between rounds and in the middle of batches, on a clock that moves by
what each batch is scripted to cost.
"""

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from service.backends.base import Slot
from service.engine.admission import Admission, AdmissionLimits
from service.engine.batching import BACKGROUND, BACKGROUND_S, PATIENCE_S, PRIORITY_STEP_S, BatchLimits, due_s
from service.engine.draws import Draw, Lottery
from service.engine.exits import ExitMeasure, deadline_outcome
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
    """A scheduler, stepped by hand, behind an admission, with everything that happened to each job.

    Beside the `images` there are `places` for audits. `keeps`: whether state rests after an answer.
    """

    images: int
    max_batch: int
    delay_s: float = 0.0
    places: int = 0
    keeps: bool = False
    now_s: float = 1000.0
    jobs: list[Job] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    outcomes: list[list[Outcome]] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    draws: dict[int, Draw] = field(default_factory=dict)
    works: list[Work | None] = field(default_factory=list)
    refused: int = 0
    resumed: int = 0
    during_next: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.backend = Scripted(self)
        metrics = Metrics("fake", "0", EXITS)
        self.kept = KeptWork(
            KEEPS if self.keeps else KEEP_NOTHING, exits=EXITS, classes=4, clock=lambda: self.now_s, metrics=metrics
        )
        self.scheduler = Scheduler(
            self.backend,
            ExitMeasure("max_softmax", (1.0,) * EXITS),
            BatchLimits(self.max_batch, self.delay_s),
            clock=lambda: self.now_s,
            metrics=metrics,
            log=quiet_log(),
            kept=self.kept,
        )
        self.lottery = Lottery(1.0, self.places, lambda: None)
        limits = AdmissionLimits(1000, self.images * SLOT_BYTES, SLOT_BYTES, 1000)
        self.admission = Admission(limits, self.scheduler.work_s, self.held)

    def held(self, images: int, reserved_bytes: int) -> None:
        assert 0 <= reserved_bytes <= self.images * SLOT_BYTES

    def arrive(
        self, kind: int, rule: ExitRule, priority: int, left_s: float | None, is_drawn: bool = False
    ) -> Job | None:
        try:
            self.admission.acquire(1)
        except OverloadedError:
            self.refused += 1
            return None
        number = len(self.jobs)
        draw = self.lottery.draw(rule.thresholds) if is_drawn and rule.max_exit == EXITS else None
        if draw is not None:
            self.draws[number] = draw
        job = self.job(kind, rule, priority, left_s, draw, self.kept.begin(None))
        self.scheduler.submit(job, np.full((3, SIZE_PX, SIZE_PX), kind, np.uint8))
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
        slot = self.kept.claim(found.work)
        if slot is None:
            self.admission.waive()
            return
        job = self.job(self.kinds[number], ExitRule((None,) * (EXITS - 1), to), 5, left_s, None, found.work)
        job.resume(slot, found.work.exits[-1])
        self.resumed += 1
        self.scheduler.submit(job)

    def leave(self, number: int) -> None:
        """The client of a job has gone."""
        if number < len(self.jobs) and self.jobs[number].abandon():
            work = self.works[number]
            if work is not None:
                self.kept.forget(work)
            self.scheduler.notice_done()

    def expire(self) -> None:
        """What the event loop does at deadlines."""
        for job in self.jobs:
            if job.deadline_s is not None and self.now_s >= job.deadline_s and job.finish(deadline_outcome(job)):
                self.scheduler.notice_done()

    @property
    def inside(self) -> int:
        return self.released.count(0) + self.lottery.pending

    def step(self) -> None:
        if self.inside:
            assert self.scheduler.await_work()
            self.scheduler.round()

    def finish(self) -> int:
        """Until nobody is inside; the rounds that it took."""
        for rounds in range(20 * len(self.jobs) + 20):
            if not self.inside:
                return rounds
            self.step()
            self.now_s += 0.001
        raise AssertionError(f"{self.inside} jobs never ended")


class Scripted(FakeBackend):
    """Time passes while a batch runs, and the rest of the world goes on."""

    def __init__(self, course: Course) -> None:
        slots = course.images + course.places
        super().__init__(confidence, label_of, slots=slots, slot_bytes=SLOT_BYTES, buckets=(1, 2, 4, 64))
        self.poison = frozenset({BAD})
        self.course = course
        self.largest = 0

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
        wanted = {job.slot for job in self.course.jobs if not job.done}
        audits = sum(draw.has_left and not draw.has_ended for draw in self.course.draws.values())
        assert len(set(slots) - wanted) <= audits, "a job ran after it was answered"
        in_flight = self.slots_in_use - self.course.kept.slots
        assert in_flight <= self.course.images + audits, "more state than was reserved"
        self.largest = max(self.largest, len(slots))
        self.course.now_s += STAGE_S[stage - 1] * (1 + len(slots)) / 2
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
happenings_beside = (
    st.tuples(st.just("leave"), st.integers(0, 30))
    | st.tuples(st.just("leave within a batch"), st.integers(0, 30))
    | st.tuples(st.just("pause"), st.floats(0, 3))
    | st.just(("expire",))
    | st.just(("round",))
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
    early_arrivals | early_arrivals | refinements | refinements | st.just(("round",)) | happenings_beside,
    min_size=10,
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
    else:
        course.step()


def exit_expected(kind: int, rule: ExitRule) -> int:
    """By the rule alone: the first exit that is confident enough, or the last that it may use."""
    for number in range(1, EXITS + 1):
        threshold = rule.thresholds[number - 1] if number < EXITS else None
        if threshold is not None and confidence(kind, number) >= threshold:
            return number
        if number == min(rule.max_exit, EXITS):
            return number
    raise AssertionError


@given(
    st.tuples(events | drawn_events, st.booleans()) | st.tuples(refined_events, st.just(True)),
    st.integers(1, 6),
    st.integers(1, 5),
    st.sampled_from((0.0, 0.03)),
    st.integers(0, 3),
)
def test_every_job_let_in_ends_exactly_once_by_its_own_rule_and_leaves_nothing_behind(
    course_of_events: tuple[list[tuple[str, ...]], bool], images: int, max_batch: int, delay_s: float, places: int
) -> None:
    happenings, keeps = course_of_events
    course = Course(images, max_batch, delay_s, places, keeps)
    for happening in happenings:
        happen(course, *happening)
    course.finish()

    assert course.released == [1] * len(course.jobs), "a place was lost, or given back twice"
    assert (course.backend.slots_in_use, course.admission.idle) == (course.kept.slots, True), "state was left behind"
    event(f"kept {course.kept.slots > 0}, resumed {course.resumed > 0}")
    assert course.backend.largest <= max_batch
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


newcomers = st.lists(
    st.lists(st.tuples(st.integers(1, 29), st.integers(1, 9), st.none() | st.floats(0.05, 3.0)), max_size=4),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40)
@given(newcomers, st.integers(1, 9), st.integers(1, 4))
def test_no_job_waits_for_ever_however_urgent_those_are_that_keep_coming(
    waves: list[list[tuple[int, int, float | None]]], priority: int, max_batch: int
) -> None:
    """The same waves of others come again and again, for as long as the job is inside.

    Once the time at which it is due, and patience with it, have passed, nobody who comes goes before it; those who are
    inside by then each take at most a round a stage. That bounds its rounds.
    """
    images = 8
    course = Course(images, max_batch)
    rule = ExitRule((0.9,) * (EXITS - 1), EXITS)
    job = course.arrive(25, rule, priority, None)
    assert job is not None
    latest_newcomer_s = due_s(priority, course.now_s, None) - due_s(1, 0.0, 0.0) + PATIENCE_S
    # No round is shorter than the quickest batch; the job itself has three stages to go.
    bound = int((latest_newcomer_s - course.now_s) / STAGE_S[0]) + EXITS * (EXITS * images + 1)
    rounds = 0
    while not job.done:
        for kind, other, left_s in waves[rounds % len(waves)]:
            course.arrive(kind, rule, other, left_s)
        course.step()
        rounds += 1
        assert rounds <= bound, f"not run within {bound} rounds"
    course.finish()


@settings(max_examples=10)
@given(st.integers(1, 9), st.integers(1, 4))
def test_an_audit_stands_back_for_all_others_but_not_for_ever(priority: int, max_batch: int) -> None:
    """Others come all the time; it waits for as long as background work does, then like any other of its priority."""
    course = Course(8, max_batch, places=1)
    rule = ExitRule((0.9,) * (EXITS - 1), EXITS)
    drawn = course.arrive(1, rule, 5, None, is_drawn=True)
    assert drawn is not None
    course.step()
    (draw,) = course.draws.values()
    assert (drawn.done, draw.has_ended) == (True, False)
    answered_s = course.now_s
    # As far as a priority is worth waiting, and the time of those who were inside by then.
    bound_s = BACKGROUND_S + PRIORITY_STEP_S * (BACKGROUND - priority) + 8 * EXITS * sum(STAGE_S)
    while not draw.has_ended:
        for kind in (1, 15, 25):
            course.arrive(kind, rule, priority, None)
        course.step()
        assert course.now_s <= answered_s + bound_s, "it starved"
    assert course.now_s > answered_s + BACKGROUND_S, "it went before others"
    course.finish()


@given(st.lists(st.tuples(st.integers(1, 29), rules, st.booleans()), min_size=1, max_size=20), st.integers(0, 1))
def test_one_job_at_a_time_is_enough_memory_for_everything(work: list[tuple[int, ExitRule, bool]], places: int) -> None:
    course = Course(images=1, max_batch=8, places=places)
    for kind, rule, is_drawn in work:
        before = len(course.jobs)
        for _ in range(EXITS + 1):
            if course.arrive(kind, rule, 5, None, is_drawn) is not None:
                break
            course.step()
        assert len(course.jobs) == before + 1, "an audit has kept a newcomer out"
    course.finish()
    assert all(len(outcomes) == 1 for outcomes in course.outcomes)
    assert all(draw.found in ("agreed", "disagreed") for draw in course.draws.values())


def test_overload_leaves_no_trace() -> None:
    """What is refused or answered is not held on to by anybody."""
    course = Course(4, 2)
    gone: list[weakref.ref[Job]] = []
    for number in range(400):
        job = course.arrive(number % 29 + 1, ExitRule((0.9,) * (EXITS - 1), EXITS), number % 9 + 1, None)
        if job is not None:
            gone.append(weakref.ref(job))
        if number % 5 == 0:
            course.step()
    course.finish()
    assert course.refused > 100
    course.jobs.clear()
    job = None
    gc.collect()
    assert [reference for reference in gone if reference() is not None] == []
