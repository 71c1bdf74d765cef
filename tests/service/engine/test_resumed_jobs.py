"""State that rests after an answer: gone on with from there, never in anybody's way, never lost or used twice."""

import threading
from collections.abc import Sequence

import pytest

from service.engine.draws import Lottery
from service.engine.guard import DeepGuard
from service.engine.job import Job
from service.engine.kept import KeptLimits, Work
from service.errors import InferenceFailedError
from service.types import Answer, ExitRule
from tests.service.cascades import FakeOutput, sure_at, wait_until
from tests.service.engine.benches import Bench, bench

EASY, MEDIUM, HARD, BAD = 1, 2, 3, 66
SCRIPT = sure_at({EASY: 1, MEDIUM: 2, HARD: 3, BAD: 3})
KEEPS = KeptLimits(keep_s=60.0, slots=8, answers_bytes=1 << 20, finds_content=False)
ALL_THE_WAY, TO_THE_SECOND = ExitRule((None, None), 3), ExitRule((None, None), 2)


def work_of(job: Job) -> Work:
    assert job.work is not None
    return job.work


def rested(made: Bench, number: int, kind: int) -> Work:
    """What is kept of an image that was answered."""
    work = work_of(made.submit(number, kind))
    made.wait()
    wait_until(lambda: made.kept.standing(work) == "resting")
    return work


def test_an_early_leaver_is_gone_on_with_and_no_stage_runs_twice() -> None:
    made = bench(SCRIPT, keeps=KEEPS)
    work = rested(made, 0, EASY)
    made.resume(1, work, rule=TO_THE_SECOND)
    made.wait()
    made.resume(2, work, rule=ALL_THE_WAY)
    made.wait()
    assert made.backend.batches == [(1, (EASY,)), (2, (EASY,)), (3, (EASY,))]
    answers = [made.answer(number) for number in range(3)]
    assert [(each.exit.number, each.reason) for each in answers] == [(1, "confident"), (2, "max_exit"), (3, "final")]
    assert [(each.stages_run, each.stages_before) for each in answers] == [(1, 0), (2, 1), (3, 2)]
    assert [exit_.number for exit_ in work.exits] == [1, 2, 3]
    assert made.backend.slots_in_use == 0, "at the last exit there is nothing to keep"


def test_resumed_images_share_batches_with_others() -> None:
    made = bench(SCRIPT, keeps=KEEPS)
    works = [rested(made, number, EASY) for number in range(2)]
    gate = made.backend.gate = threading.Event()
    made.submit(2, HARD)
    wait_until(lambda: made.scheduler.running != ())
    for number, work in enumerate(works, start=3):
        made.resume(number, work, rule=ALL_THE_WAY)
    gate.set()
    made.wait()
    assert made.backend.batches[-2:] == [(2, (HARD, EASY, EASY)), (3, (HARD, EASY, EASY))]


def test_a_newcomer_that_finds_no_slot_takes_the_one_that_rested_longest() -> None:
    made = bench(SCRIPT, keeps=KEEPS, slots=2)
    works = [rested(made, number, EASY) for number in range(4)]
    assert [made.kept.standing(work) for work in works] == ["gone", "gone", "resting", "resting"]
    assert made.backend.slots_in_use == 2


def test_who_is_answered_at_its_deadline_can_be_gone_on_with() -> None:
    gate = threading.Event()
    made = bench(SCRIPT, keeps=KEEPS, gate=gate, gate_before=2)
    job = made.submit(0, HARD, deadline_s=100.0)
    wait_until(lambda: [running.stage for running in made.scheduler.running] == [2])
    assert job.best is not None
    job.finish(Answer(job.best, "deadline", job.stages_run, job.times))
    work = work_of(job)
    assert made.kept.standing(work) == "running"
    gate.set()
    wait_until(lambda: made.kept.standing(work) == "resting")
    made.resume(1, work, rule=ALL_THE_WAY)
    made.wait()
    assert [stage for stage, _ in made.backend.batches] == [1, 2, 3]


def test_whose_deadline_passes_in_a_queue_can_be_gone_on_with() -> None:
    made = bench(SCRIPT, keeps=KEEPS, start=False)
    work = work_of(made.submit(0, HARD, deadline_s=50.0))
    made.scheduler.round()
    assert made.kept.standing(work) == "running"
    made.now_s = 51.0
    made.scheduler.round()
    assert made.answer(0).reason == "deadline"
    made.resume(1, work, rule=ALL_THE_WAY)
    made.scheduler.start()
    made.wait()
    assert [stage for stage, _ in made.backend.batches] == [1, 2, 3]


def test_a_client_that_leaves_while_its_image_is_refined_leaves_the_state_to_rest() -> None:
    made = bench(SCRIPT, keeps=KEEPS)
    work = rested(made, 0, EASY)
    made.kept.remember("id", work, 1, "")
    gate = made.backend.gate = threading.Event()
    job = made.resume(1, work, rule=ALL_THE_WAY)
    wait_until(lambda: [running.stage for running in made.scheduler.running] == [2])
    job.abandon()
    made.kept.forget(work)
    gate.set()
    wait_until(lambda: made.kept.standing(work) == "resting")
    made.resume(2, work, rule=ALL_THE_WAY)
    made.wait()
    assert [stage for stage, _ in made.backend.batches] == [1, 2, 3]


def test_a_client_that_leaves_before_its_answer_leaves_nothing() -> None:
    gate = threading.Event()
    made = bench(SCRIPT, keeps=KEEPS, gate=gate)
    job = made.submit(0, HARD)
    wait_until(lambda: made.scheduler.running != ())
    job.abandon()
    made.kept.forget(work_of(job))
    gate.set()
    made.wait()
    assert made.backend.slots_in_use == 0


def test_an_audit_has_the_state_and_its_exits_are_known_when_it_is_through() -> None:
    made = bench(SCRIPT, keeps=KEEPS)
    draw = Lottery(1.0, 1, lambda: None).draw((0.9, 0.9))
    work = work_of(made.submit(0, EASY, draw=draw))
    assert draw is not None
    wait_until(lambda: draw.has_ended)
    assert made.answer(0).exit.number == 1
    wait_until(lambda: made.kept.standing(work) == "gone")
    assert [exit_.number for exit_ in work.exits] == [1, 2, 3]
    assert made.backend.slots_in_use == 0


def test_state_whose_time_is_over_is_freed_though_nobody_comes() -> None:
    made = bench(SCRIPT, keeps=KeptLimits(keep_s=0.05, slots=8, answers_bytes=1 << 20, finds_content=False))
    rested(made, 0, EASY)
    assert made.backend.slots_in_use == 1
    made.now_s = 1.0
    wait_until(lambda: made.backend.slots_in_use == 0)


def test_where_state_cannot_be_written_leavers_are_answered_and_stayers_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: FakeOutput, rows: Sequence[int]) -> None:
        raise MemoryError("no room on the device")

    monkeypatch.setattr(FakeOutput, "keep", full)
    made = bench(SCRIPT, keeps=KEEPS, start=False)
    made.submit(0, EASY)
    made.submit(1, HARD)
    made.scheduler.start()
    made.wait()
    assert made.answer(0).exit.number == 1
    assert isinstance(made.outcome(1), InferenceFailedError)
    assert made.backend.slots_in_use == 0


def test_a_stage_that_fails_when_resumed_ends_what_was_kept() -> None:
    made = bench(sure_at({}), keeps=KEEPS)
    work = rested(made, 0, BAD)
    made.backend.poison = frozenset({BAD})
    made.resume(1, work, rule=ALL_THE_WAY)
    made.wait()
    assert isinstance(made.outcome(1), InferenceFailedError)
    assert made.kept.standing(work) == "gone"
    assert made.backend.slots_in_use == 0


def test_the_guard_ends_a_refinement_before_it_costs_anything() -> None:
    class Shut(DeepGuard):
        def ends(self, owner: str) -> bool:
            return owner == "greedy"

    made = bench(SCRIPT, keeps=KEEPS, guard=Shut(0.5, lambda: 0.0))
    work = rested(made, 0, EASY)
    made.resume(1, work, rule=ALL_THE_WAY, owner="greedy")
    made.wait()
    assert (made.answer(1).reason, made.answer(1).exit.number) == ("guard", 1)
    assert made.backend.batches == [(1, (EASY,))]
    assert made.kept.standing(work) == "resting"


def test_an_image_whose_numbers_are_not_finite_is_not_kept() -> None:
    made = bench(lambda kind, stage: 0.97 if stage == 2 else float("nan"), keeps=KEEPS)
    job = made.submit(0, EASY)
    made.wait()
    assert made.answer(0).exit.number == 2
    made.kept.remember("id", work_of(job), 2, "")
    assert made.kept.answer("id", "") is None
    assert made.backend.slots_in_use == 0


def test_kept_probabilities_do_not_keep_their_batch_alive() -> None:
    made = bench(SCRIPT, keeps=KEEPS, start=False)
    jobs = [made.submit(number, EASY) for number in range(4)]
    made.scheduler.start()
    made.wait()
    for job in jobs:
        (taken,) = work_of(job).exits
        assert taken.ranking.probabilities.base is None
        assert taken.ranking.best(4) == made.answer(0).exit.ranking.best(4)
