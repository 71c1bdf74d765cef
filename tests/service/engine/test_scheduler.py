"""The loop: each image answered exactly once, by the exit rule, whatever happens around it."""

import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backends.base import Slot
from service.engine.exits import deadline_outcome
from service.engine.job import Job
from service.errors import DeadlineExceededError, InferenceFailedError, NotReadyError, ServiceError
from service.types import Answer, ExitRule, Thresholds
from tests.service.cascades import SIZE_PX, FakeOutput, sure_at, wait_until
from tests.service.engine.benches import bench

NAN = float("nan")


def test_an_image_leaves_at_the_first_exit_that_is_confident_enough() -> None:
    made = bench(sure_at({7: 2}))
    made.submit(0, 7)
    made.wait()
    answer = made.answer(0)
    assert (answer.exit.number, answer.reason, answer.stages_run) == (2, "confident", 2)
    assert answer.exit.confidence == pytest.approx(0.97)
    assert answer.exit.label == 7 % 4
    assert len(answer.times.stages_s) == 2


def test_only_those_that_stay_are_computed_further_and_together_with_others() -> None:
    made = bench(sure_at({1: 1, 2: 2, 3: 3}), start=False)
    for number, kind in enumerate((1, 2, 3, 1, 2, 3)):
        made.submit(number, kind)
    made.scheduler.start()
    made.wait()
    assert made.backend.batches == [(1, (1, 2, 3, 1, 2, 3)), (2, (2, 3, 2, 3)), (3, (3, 3))]


def test_a_stayer_is_batched_with_one_that_came_later() -> None:
    gate = threading.Event()
    made = bench(sure_at({3: 3}), gate=gate, max_batch=2)
    made.submit(0, 3)
    wait_until(lambda: made.backend.held != {})
    made.submit(1, 3)
    gate.set()
    made.wait()
    assert Counter(stage for stage, _ in made.backend.batches)[1] == 2
    assert [answer.exit.number for answer in (made.answer(0), made.answer(1))] == [3, 3]


def test_a_failing_batch_is_split_until_the_guilty_one_is_alone() -> None:
    made = bench(sure_at({}), poison=frozenset({66}), start=False)
    for number, kind in enumerate((1, 2, 66, 3, 4)):
        made.submit(number, kind)
    made.scheduler.start()
    made.wait()
    assert isinstance(made.outcome(2), InferenceFailedError)
    assert [made.answer(number).exit.number for number in (0, 1, 3, 4)] == [1, 1, 1, 1]
    assert made.scheduler.alive


def test_who_was_answered_while_its_batch_failed_is_not_computed_again() -> None:
    made = bench(sure_at({}), poison=frozenset({66}), start=False)
    jobs = [made.submit(number, kind) for number, kind in enumerate((1, 2, 66, 3))]
    run = made.backend.run

    def leaving(stage: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
        jobs[3].abandon()
        return run(stage, slots)

    made.backend.run = leaving  # type: ignore[method-assign]
    made.scheduler.start()
    made.wait()
    assert made.backend.batches == [(1, (1, 2, 66, 3)), (1, (1, 2)), (1, (66,))]
    assert made.outcomes[3] == []


def test_where_one_image_of_a_batch_needs_more_classes_than_a_brief_holds_all_logits_are_read() -> None:
    made = bench(sure_at({}), start=False, brief_classes=2)
    for number, classes in enumerate((1, 3)):
        made.submit(number, 1, classes=classes)
    made.scheduler.start()
    made.wait()
    made.submit(2, 1, classes=2)
    made.wait()
    assert made.backend.batches == [(1, (1, 1)), (1, (1,))]
    assert [made.answer(number).exit.ranking.held for number in range(3)] == [4, 4, 2]
    assert [made.answer(number).exit.label for number in range(3)] == [1, 1, 1]


def test_nothing_is_handed_on_for_who_was_answered_within_the_batch() -> None:
    made = bench(sure_at({1: 3, 2: 3}), start=False)
    jobs = [made.submit(number, kind) for number, kind in enumerate((1, 2))]
    run, kept = made.backend.run, []

    class Noting(FakeOutput):
        def keep(self, rows: Sequence[int]) -> None:
            kept.append(tuple(rows))
            super().keep(rows)

    def leaving(stage: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
        jobs[0].abandon()
        output = run(stage, slots)
        return Noting(output.logits, output.slots, output.held)

    made.backend.run = leaving  # type: ignore[method-assign]
    made.scheduler.start()
    made.wait()
    assert kept == [(1,), (0,)]


def test_whose_state_cannot_be_kept_fails_alone() -> None:
    made = bench(sure_at({1: 1, 2: 3}), start=False)
    for number, kind in enumerate((1, 2)):
        made.submit(number, kind)
    run = made.backend.run

    class Full(FakeOutput):
        def keep(self, rows: Sequence[int]) -> None:
            raise MemoryError("no room")

    def fill(stage: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
        output = run(stage, slots)
        return Full(output.logits, output.slots, output.held)

    made.backend.run = fill  # type: ignore[method-assign]
    made.scheduler.start()
    made.wait()
    assert made.answer(0).exit.number == 1
    assert isinstance(made.outcome(1), InferenceFailedError)
    assert made.scheduler.alive


def test_every_rule_is_its_own_within_one_batch() -> None:
    """Thresholds, a least confidence, an exit at the latest, deadlines and priorities: mixed freely."""
    made = bench(lambda kind, stage: (0.5, 0.8, 0.95)[stage - 1], start=False)
    made.submit(0, 1, rule=ExitRule((0.9, 0.9), 3))
    made.submit(1, 1, rule=ExitRule((0.4, 0.4), 3), priority=1)
    made.submit(2, 1, rule=ExitRule((0.5, None), 3), deadline_s=1e9)
    made.submit(3, 1, rule=ExitRule((None, 0.8), 3), priority=9)
    made.submit(4, 1, rule=ExitRule((0.9, 0.9), 2))
    made.submit(5, 1, rule=ExitRule((None, None), 1))
    made.scheduler.start()
    made.wait()
    assert [len(kinds) for _, kinds in made.backend.batches] == [6, 3, 1]
    assert [(made.answer(n).exit.number, made.answer(n).reason) for n in range(6)] == [
        (3, "final"),
        (1, "confident"),
        (1, "confident"),
        (2, "confident"),
        (2, "max_exit"),
        (1, "max_exit"),
    ]
    assert [made.answer(n).exit.threshold for n in range(6)] == [None, 0.4, 0.5, 0.8, 0.9, None]


def test_whoever_leaves_gives_back_its_place_before_the_next_batch_however_far_back_it_waits() -> None:
    gate = threading.Event()
    made = bench(sure_at({}), gate=gate, max_batch=1)
    jobs = [made.submit(number, number + 1) for number in range(20)]
    wait_until(lambda: made.scheduler.running != ())
    for job in jobs[10:]:
        assert job.abandon()
    made.scheduler.notice_done()
    gate.set()
    made.wait()
    assert [kinds for _, kinds in made.backend.batches] == [(number + 1,) for number in range(10)]
    assert list(made.released)[1:11] == list(range(10, 20))


def test_a_delay_lets_a_lone_image_wait_for_company() -> None:
    made = bench(sure_at({}), start=False, delay_s=10.0, max_batch=2)
    made.submit(0, 1)
    made.scheduler.start()
    wait_until(lambda: made.backend.slots_in_use == 1)
    assert made.backend.batches == []
    made.submit(1, 2)
    made.wait()
    assert made.backend.batches == [(1, (1, 2))]


def test_a_delay_ends() -> None:
    made = bench(sure_at({}), start=False, delay_s=0.02, max_batch=2)
    made.submit(0, 1)
    made.scheduler.start()
    wait_until(lambda: made.backend.slots_in_use == 1)
    made.now_s = 0.02
    made.wait()
    assert made.backend.batches == [(1, (1,))]


def test_a_nan_never_exits_early_even_where_the_request_wanted_to_leave() -> None:
    made = bench(lambda kind, stage: NAN if stage < 3 else 0.5)
    made.submit(0, 1, rule=ExitRule((0.0, 0.0), 3))
    made.submit(1, 1, rule=ExitRule((0.0, 0.0), 1))
    made.wait()
    assert [(made.answer(n).exit.number, made.answer(n).reason) for n in (0, 1)] == [(3, "final"), (3, "final")]


def test_a_nan_at_the_last_exit_leaves_the_best_earlier_word() -> None:
    made = bench(lambda kind, stage: NAN if stage == 3 else 0.5)
    made.submit(0, 1)
    made.wait()
    answer = made.answer(0)
    assert (answer.exit.number, answer.reason, answer.stages_run) == (2, "guard", 3)


def test_nothing_but_nan_is_an_error() -> None:
    made = bench(lambda kind, stage: NAN)
    made.submit(0, 1)
    made.wait()
    assert isinstance(made.outcome(0), InferenceFailedError)


def test_a_job_whose_client_has_left_is_dropped_before_its_next_stage() -> None:
    gate = threading.Event()
    made = bench(sure_at({3: 3}), gate=gate)
    job = made.submit(0, 3)
    wait_until(lambda: job.slot is not None)
    assert job.abandon()
    gate.set()
    made.wait()
    assert made.outcomes[0] == []
    assert len(made.backend.batches) <= 1


def test_a_deadline_that_passes_in_the_queue_gives_the_best_exit_so_far_or_an_error() -> None:
    made = bench(sure_at({3: 3}), start=False)
    made.submit(0, 3, deadline_s=5.0)
    made.now_s = 6.0
    made.scheduler.start()
    made.wait()
    assert isinstance(made.outcome(0), DeadlineExceededError)

    late = made.job(1, deadline_s=9.0)
    late.best, late.stages_run = None, 0
    assert isinstance(deadline_outcome(late), DeadlineExceededError)
    late.release()


def test_the_deadline_and_the_engine_compete_for_one_answer() -> None:
    gate = threading.Event()
    made = bench(sure_at({3: 3}), gate=gate)
    job = made.submit(0, 3)
    wait_until(lambda: job.slot is not None)
    assert job.finish(deadline_outcome(job))
    assert not job.finish(InferenceFailedError("too late"))
    gate.set()
    made.wait()
    assert isinstance(made.outcome(0), DeadlineExceededError)


def test_whoever_has_an_answer_finds_the_place_free() -> None:
    made = bench(sure_at({}), start=False)
    order: list[str] = []
    made.outcomes[0] = []

    def released() -> None:
        order.append("released")
        made.released.update([0])

    job = Job(
        made.rule,
        arrived_s=0.0,
        deadline_s=None,
        priority=5,
        deliver=lambda outcome: order.append("answered"),
        released=released,
    )
    made.scheduler.submit(job, np.zeros((3, SIZE_PX, SIZE_PX), np.uint8))
    made.scheduler.start()
    wait_until(lambda: len(order) == 2)
    assert order == ["released", "answered"]


def test_a_device_that_takes_no_image_fails_that_image_alone() -> None:
    made = bench(sure_at({}), start=False)
    begin = made.backend.begin

    def full(pixels: np.ndarray) -> object:
        if pixels[0, 0, 0] == 66:
            raise MemoryError("out of memory")
        return begin(pixels)

    made.backend.begin = full  # type: ignore[assignment,method-assign]
    made.submit(0, 66)
    made.submit(1, 1)
    made.scheduler.start()
    made.wait()
    assert isinstance(made.outcome(0), InferenceFailedError)
    assert made.answer(1).exit.number == 1


def test_a_stopped_engine_answers_what_is_left_and_what_comes_later() -> None:
    made = bench(sure_at({}), start=False)
    made.submit(0, 1)
    made.scheduler.stop()
    made.scheduler.start()
    wait_until(lambda: made.released[0] == 1)
    made.submit(1, 1)
    assert [type(made.outcome(number)) for number in (0, 1)] == [NotReadyError, NotReadyError]
    assert not made.scheduler.alive


def test_a_bug_in_the_loop_answers_everybody_and_is_seen() -> None:
    made = bench(sure_at({}), start=False)

    def broken(slot: Slot) -> None:
        raise KeyError("bug")

    release = made.backend.release
    made.backend.release = broken  # type: ignore[method-assign]
    made.submit(0, 1)
    made.scheduler.start()
    wait_until(lambda: not made.scheduler.alive)
    made.backend.release = release  # type: ignore[method-assign]
    assert len(made.outcomes[0]) == 1
    made.backend.held.clear()


@given(
    kinds=st.lists(st.integers(1, 40), min_size=1, max_size=25),
    exit_of_kind=st.dictionaries(st.integers(0, 40), st.integers(1, 4)),
    poison=st.frozensets(st.integers(0, 40), max_size=3),
    max_batch=st.integers(1, 8),
    lanes=st.integers(1, 3),
)
def test_every_job_is_answered_exactly_once_and_by_its_own_exit(
    kinds: list[int], exit_of_kind: dict[int, int], poison: frozenset[int], max_batch: int, lanes: int
) -> None:
    made = bench(sure_at(exit_of_kind), poison=poison, max_batch=max_batch, lanes=lanes)
    for number, kind in enumerate(kinds):
        made.submit(number, kind)
    made.wait()
    for number, kind in enumerate(kinds):
        outcome = made.outcome(number)
        if kind in poison:
            assert isinstance(outcome, ServiceError)
        else:
            assert isinstance(outcome, Answer)
            assert outcome.exit.number == min(3, exit_of_kind.get(kind, 1))
            assert outcome.exit.label == kind % 4
    made.scheduler.stop()


@given(
    confidences=st.tuples(*[st.floats(0.26, 0.99)] * 3),
    low=st.tuples(*[st.none() | st.floats(0, 1)] * 2),
    raised=st.tuples(*[st.none() | st.floats(0, 1)] * 2),
)
def test_raising_a_threshold_never_makes_an_image_leave_earlier(
    confidences: tuple[float, float, float], low: Thresholds, raised: Thresholds
) -> None:
    high = tuple(None if a is None or b is None else max(a, b) for a, b in zip(low, raised, strict=True))
    made = bench(lambda kind, stage: confidences[stage - 1])
    made.submit(0, 1, rule=ExitRule(low, 3))
    made.submit(1, 1, rule=ExitRule(high, 3))
    made.wait()
    assert made.answer(0).exit.number <= made.answer(1).exit.number
    made.scheduler.stop()


def test_a_queue_is_empty_when_all_who_wait_have_left() -> None:
    gate = threading.Event()
    made = bench(sure_at({}), gate=gate, max_batch=1, start=False)
    jobs = [made.submit(number, 1) for number in range(5)]
    made.scheduler.start()
    wait_until(lambda: made.scheduler.waiting == [4, 0, 0])
    for job in jobs[1:]:
        job.abandon()
    made.scheduler.notice_done()
    gate.set()
    made.wait()
    wait_until(lambda: made.scheduler.waiting == [0, 0, 0])
