"""Several devices as one engine, with their threads: who goes where, what stays where it is, and how all of it ends."""

import threading

import pytest

from service.backends.base import Slot
from service.engine.draws import Lottery
from service.engine.fleet import Fleet
from service.engine.job import Job
from service.engine.kept import KeptLimits, Work
from service.errors import InferenceFailedError, NotReadyError
from service.types import Answer, ExitRule
from tests.service.cascades import SIZE_PX, sure_at, wait_until
from tests.service.engine.benches import Bench, bench

EASY, HARD, BAD = 4, 14, 66
SCRIPT = sure_at({EASY: 1, HARD: 3})
KEEPS = KeptLimits(keep_s=60.0, slots=8, answers_bytes=1 << 20, finds_content=False)
ALL_THE_WAY = ExitRule((None, None), 3)


def work_of(job: Job) -> Work:
    assert job.work is not None
    return job.work


def promised(made: Bench) -> list[int]:
    assert isinstance(made.engine, Fleet)
    return [device.promised for device in made.engine._devices]


def test_equals_take_turns() -> None:
    gate = threading.Event()
    made = bench(SCRIPT, devices=3, gate=gate)
    for number in range(7):
        made.submit(number, EASY)
    assert promised(made) == [3, 2, 2]
    gate.set()
    made.wait()
    assert promised(made) == [0, 0, 0]
    assert sorted(sum(len(kinds) for _, kinds in backend.batches) for backend in made.backends) == [2, 2, 3]


def test_an_image_goes_where_it_will_be_done_first() -> None:
    made = bench(SCRIPT, devices=2, start=False)
    for scheduler, seconds in zip(made.schedulers, (0.03, 0.01), strict=True):
        for stage in (1, 2, 3):
            scheduler.costs.seed(stage, {1: seconds})
    for number in range(8):
        made.submit(number, EASY)
    assert promised(made) == [2, 6]
    made.engine.start()
    made.wait()


def test_a_device_that_is_full_is_sent_no_more() -> None:
    made = bench(SCRIPT, devices=2, slots=2, start=False)
    for stage in (1, 2, 3):
        made.schedulers[1].costs.seed(stage, {1: 1.0})  # The other's are 0: it seems to be done at once.
    for number in range(4):
        made.submit(number, EASY)
    assert promised(made) == [2, 2]
    made.engine.start()
    made.wait()


def test_work_is_as_if_all_shared_it() -> None:
    made = bench(SCRIPT, devices=2, start=False)
    assert made.engine.work_s(10) == 0.0, "nothing is known"
    for scheduler, seconds in zip(made.schedulers, (0.03, 0.01), strict=True):
        for stage in (1, 2, 3):
            scheduler.costs.seed(stage, {1: seconds})
    # Three stages each: 90 ms on the one, 30 ms on the other.
    assert made.engine.work_s(1) == pytest.approx(1 / (1 / 0.09 + 1 / 0.03))
    assert made.engine.work_s(8) == pytest.approx(0.18)
    for number in range(4):
        made.submit(number, EASY)
    for scheduler in made.schedulers:
        scheduler._take_in()
    assert made.engine.waiting == [4, 0, 0]
    assert made.engine.work_s(0) == made.engine.work_s(4) == pytest.approx(0.09)
    made.engine.start()
    made.wait()


def test_kept_work_is_gone_on_with_where_it_is() -> None:
    made = bench(SCRIPT, devices=2, keeps=KEEPS)
    jobs = [made.submit(number, EASY) for number in range(4)]
    made.wait()
    homes = [work_of(job).device for job in jobs]
    assert sorted(homes) == [0, 0, 1, 1]
    for backend in made.backends:
        backend.batches.clear()
    for number, job in enumerate(jobs):
        if work_of(job).device == 1:
            made.resume(10 + number, work_of(job), rule=ALL_THE_WAY)
    made.wait()
    assert made.backends[0].batches == []
    assert {stage for stage, _ in made.backends[1].batches} == {2, 3}


def test_state_on_a_device_whose_every_slot_is_promised_is_gone() -> None:
    gate = threading.Event()
    made = bench(SCRIPT, devices=2, slots=1, keeps=KEEPS)
    first, second = made.submit(0, EASY), made.submit(1, EASY)
    made.wait()
    assert made.kept.slots == 2
    for backend in made.backends:
        backend.gate = gate
    made.submit(2, HARD)
    home = next(job for job in (first, second) if promised(made)[work_of(job).device])
    other = first if home is second else second
    assert made.engine.claim(work_of(home)) is None
    assert made.kept.standing(work_of(home)) == "gone"
    made.resume(3, work_of(other), rule=ALL_THE_WAY)
    gate.set()
    made.wait()
    assert [made.answer(number).exit.number for number in (2, 3)] == [3, 3]


def test_somebody_elses_claim_promises_nothing() -> None:
    made = bench(SCRIPT, devices=2, keeps=KEEPS)
    work = work_of(made.submit(0, EASY))
    made.wait()
    assert made.engine.claim(work) is not None
    assert made.engine.claim(work) is None
    assert sum(promised(made)) == 1
    job = made.job(1, work=work)
    job.resume(Slot(0), work.exits[-1])
    made.engine.submit(job)
    made.wait()


def test_an_audit_stays_on_the_device_of_its_image_and_counts_there() -> None:
    gate = threading.Event()
    made = bench(SCRIPT, devices=2, gate=gate, gate_before=2)
    draw = Lottery(1.0, 1, lambda: None).draw((0.9, 0.9))
    assert draw is not None
    made.submit(0, EASY, draw=draw)
    made.wait()
    assert made.answer(0).exit.number == 1
    assert sum(promised(made)) == 1
    gate.set()
    wait_until(lambda: draw.has_ended)
    assert promised(made) == [0, 0]
    assert sorted(len(backend.batches) for backend in made.backends) == [0, 3]


def test_a_batch_that_fails_on_one_device_concerns_no_other() -> None:
    made = bench(SCRIPT, devices=2, poison=frozenset({BAD}))
    for number in range(6):
        made.submit(number, BAD if number == 3 else EASY)
    made.wait()
    failed = [number for number in range(6) if isinstance(made.outcome(number), InferenceFailedError)]
    assert failed == [3]


def test_all_warm_up_side_by_side_and_it_is_ready_when_the_last_is() -> None:
    gates = threading.Event(), threading.Event()
    made = bench(SCRIPT, devices=2, start=False, warm_px=SIZE_PX)
    for backend, gate in zip(made.backends, gates, strict=True):
        backend.warm_gate = gate
        backend.gate_before = 2
    made.engine.start()
    wait_until(
        lambda: (
            [str(batch) for batch in made.engine.running]
            == ["stage 2 with 1 images on fake:0", "stage 2 with 1 images on fake:1"]
        )
    )
    gates[1].set()
    wait_until(lambda: made.schedulers[1].ready)
    assert (made.engine.alive, made.engine.ready) == (True, False)
    assert str(made.engine.warming).startswith("stage 2 at batch 1, step 2 of")
    gates[0].set()
    wait_until(lambda: made.engine.ready)
    assert made.engine.warming is None


def test_when_a_device_is_lost_its_images_are_answered_and_those_of_the_others_are_finished() -> None:
    gate = threading.Event()
    made = bench(SCRIPT, devices=2, gate=gate, max_batch=1)
    release = made.backend.release

    def broken(slot: Slot) -> None:
        made.backend.release = release  # type: ignore[method-assign]
        release(slot)
        raise KeyError("bug")

    made.backend.release = broken  # type: ignore[method-assign]
    for number in range(8):
        made.submit(number, EASY)
    gate.set()
    made.wait()
    wait_until(lambda: not made.engine.alive)
    assert made.engine.failure == "KeyError: 'bug' on fake:0"
    answered = [number for number in range(8) if isinstance(made.outcome(number), Answer)]
    assert answered == [0, 1, 3, 5, 7]
    assert all(isinstance(made.outcome(number), NotReadyError) for number in (2, 4, 6))
    made.submit(8, EASY)
    made.wait()
    assert made.answer(8).exit.number == 1


def test_a_device_that_cannot_compute_the_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(SCRIPT, devices=2, start=False, warm_px=SIZE_PX)

    def cannot(stage: int, slots: object, lane: int = 0) -> None:
        raise RuntimeError("no kernel for this device")

    monkeypatch.setattr(made.backends[1], "run", cannot)
    made.engine.start()
    wait_until(lambda: made.engine.failure is not None)
    assert made.engine.failure == "RuntimeError: no kernel for this device on fake:1"
    assert not made.engine.ready


def test_when_it_is_given_up_everybody_is_answered_wherever_he_is() -> None:
    gate = threading.Event()
    made = bench(SCRIPT, devices=2, gate=gate, max_batch=1)
    for number in range(6):
        made.submit(number, EASY)
    wait_until(lambda: len(made.engine.running) == 2)
    made.engine.give_up("stage 1 has not ended")
    assert all(isinstance(made.outcome(number), NotReadyError) for number in range(6))
    assert made.engine.failure == "stage 1 has not ended"
    made.submit(6, EASY)
    assert isinstance(made.outcome(6), NotReadyError)
    gate.set()
    made.wait()


def test_what_waits_and_is_not_wanted_any_more_is_let_go_of_everywhere() -> None:
    gate = threading.Event()
    made = bench(SCRIPT, devices=2, gate=gate, max_batch=1)
    jobs = [made.submit(number, EASY) for number in range(6)]
    wait_until(lambda: len(made.engine.running) == 2)
    for job in jobs:
        job.abandon()
    made.engine.notice_done()
    gate.set()
    made.wait()
    assert sum(len(backend.batches) for backend in made.backends) == 2
