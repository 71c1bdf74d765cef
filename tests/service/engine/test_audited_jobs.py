"""Audited images in the engine: answered as any other, then computed to the last exit, whatever happens meanwhile."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from service.backends.base import Slot
from service.engine.draws import Draw, Lottery
from service.engine.exits import deadline_outcome
from service.engine.guard import DeepGuard
from service.engine.job import Job
from service.types import ExitRule
from tests.service.cascades import FakeBackend, FakeOutput, label_of, sure_at, wait_until
from tests.service.engine.benches import Bench, bench

FICKLE = 3  # Has another label at the last exit.


def fickle(kind: int, stage: int) -> int:
    return label_of(kind + (kind == FICKLE and stage == 3), stage)


def drawn() -> Draw:
    draw = Lottery(1.0, 1, lambda: None).draw((0.9, 0.9))
    assert draw is not None
    return draw


def audited(made: Bench, draws: Sequence[Draw]) -> list[str | None]:
    wait_until(lambda: all(draw.has_ended for draw in draws))
    return [draw.found for draw in draws]


def test_the_answer_is_out_before_the_audit_is_computed() -> None:
    gate = threading.Event()
    made = bench(sure_at({}), label_of=fickle, gate=gate, gate_before=2)
    draws = [drawn(), drawn()]
    for number, (kind, draw) in enumerate(zip((1, FICKLE), draws, strict=True)):
        made.submit(number, kind, draw=draw)
    made.wait()
    answers = [made.answer(0), made.answer(1)]
    assert [(answer.exit.number, answer.reason, answer.stages_run) for answer in answers] == [(1, "confident", 1)] * 2
    assert answers[1].exit.label == FICKLE
    assert not any(draw.has_ended for draw in draws)
    gate.set()
    assert audited(made, draws) == ["agreed", "disagreed"]
    assert made.backend.slots_in_use == 0


def test_who_reached_the_last_exit_anyway_agrees_and_costs_nothing_more() -> None:
    made = bench(sure_at({3: 3}))
    draw = drawn()
    made.submit(0, 3, draw=draw)
    made.wait()
    assert audited(made, [draw]) == ["agreed"]
    assert [stage for stage, _ in made.backend.batches] == [1, 2, 3]


def test_an_audit_waits_while_anybody_else_does() -> None:
    gate = threading.Event()
    made = bench(sure_at({3: 2}), gate=gate, max_batch=1, start=False)
    draw = drawn()
    made.submit(0, 1, draw=draw)
    for number in (1, 2, 3):
        made.submit(number, 3)
    gate.set()
    made.scheduler.start()
    made.wait()
    assert audited(made, [draw]) == ["agreed"]
    stages = [(stage, kind) for stage, (kind,) in made.backend.batches]
    assert stages[-2:] == [(2, 1), (3, 1)]


def test_what_something_else_decides_is_left_out() -> None:
    gate = threading.Event()
    made = bench(sure_at({3: 3}), gate=gate, gate_before=2)
    draws = [drawn(), drawn(), drawn()]
    jobs = [made.submit(number, 3, draw=draw) for number, draw in enumerate(draws[:2])]
    made.submit(2, 3, rule=ExitRule((0.9, 0.9), 2), draw=draws[2])
    wait_until(lambda: made.scheduler.running != () and made.scheduler.running[0].stage == 2)
    assert jobs[0].finish(deadline_outcome(jobs[0]))
    assert jobs[1].abandon()
    gate.set()
    made.wait()
    assert audited(made, draws) == ["left_out"] * 3


def test_who_is_answered_while_the_last_exit_is_computed_is_left_out_too() -> None:
    made = bench(sure_at({3: 3}), start=False)
    draw = drawn()
    job = made.submit(0, 3, draw=draw)
    run = made.backend.run

    def leaving(stage: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
        if stage == 3:
            job.abandon()
        return run(stage, slots)

    made.backend.run = leaving  # type: ignore[method-assign]
    made.scheduler.start()
    made.wait()
    assert audited(made, [draw]) == ["left_out"]


def test_who_is_answered_at_the_moment_it_leaves_is_left_out_too() -> None:
    made = bench(sure_at({}), start=False)
    draw = drawn()
    job = made.submit(0, 1, draw=draw)
    hand_over = job.hand_over

    def overtaken(exits: int, now_s: float) -> Job:
        assert job.abandon()
        return hand_over(exits, now_s)

    job.hand_over = overtaken  # type: ignore[method-assign]
    made.scheduler.start()
    made.wait()
    assert audited(made, [draw]) == ["left_out"]
    assert made.outcomes[0] == []


def test_before_any_exit_has_spoken_an_image_tells_nothing() -> None:
    made = bench(sure_at({}), start=False, poison=frozenset({66}))
    draws = [drawn(), drawn()]
    assert made.submit(0, 1, draw=draws[0]).abandon()
    made.submit(1, 66, draw=draws[1])
    made.scheduler.start()
    made.wait()
    assert audited(made, draws) == [None, None]


@pytest.mark.parametrize("stage", [2, 3])
def test_an_audit_that_fails_is_left_out_and_leaves_nothing(stage: int) -> None:
    made = bench(sure_at({}), start=False)
    run = made.backend.run

    def failing(now: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
        if now == stage:
            raise RuntimeError("broken")
        return run(now, slots)

    made.backend.run = failing  # type: ignore[method-assign,assignment]
    draws = [drawn(), drawn()]
    for number, draw in enumerate(draws):
        made.submit(number, 1, draw=draw)
    made.scheduler.start()
    made.wait()
    assert audited(made, draws) == ["left_out"] * 2
    assert [made.answer(number).exit.number for number in (0, 1)] == [1, 1]


def test_an_audit_whose_last_exit_says_nothing_usable_is_left_out() -> None:
    made = bench(lambda kind, stage: float("nan") if stage == 3 else 0.95)
    draw = drawn()
    made.submit(0, 1, draw=draw)
    made.wait()
    assert audited(made, [draw]) == ["left_out"]


def test_an_audit_is_charged_to_nobody_and_cut_by_no_guard() -> None:
    class Greedy(DeepGuard):
        """Lets nobody go deeper."""

        def __init__(self) -> None:
            super().__init__(0.5, lambda: 0.0)
            self.charged: list[tuple[str, int]] = []

        def charge(self, owner: str, stage: int, seconds: float) -> None:
            self.charged.append((owner, stage))

        def ends(self, owner: str) -> bool:
            return True

    guard = Greedy()
    made = Bench(FakeBackend(sure_at({3: 2})), guard=guard)
    draws = [drawn(), drawn()]
    made.submit(0, 1, owner="ann", draw=draws[0])
    made.submit(1, 3, owner="ann", draw=draws[1])
    made.scheduler.start()
    made.wait()
    assert audited(made, draws) == ["agreed", "left_out"]
    made.scheduler.stop()
    assert guard.charged == [("ann", 1), ("ann", 1)]


@pytest.mark.parametrize("end", ["stop", "give_up", "bug"])
def test_when_the_engine_ends_audits_end_with_it(end: str) -> None:
    gate = threading.Event()
    made = bench(sure_at({}), gate=gate, gate_before=2, max_batch=1)
    draws = [drawn() for _ in range(3)]
    for number, draw in enumerate(draws):
        made.submit(number, 1, draw=draw)
    made.wait()
    wait_until(lambda: made.scheduler.running != ())
    release = made.backend.release

    def broken(slot: Slot) -> None:
        release(slot)
        raise KeyError("bug")

    if end == "give_up":
        made.scheduler.give_up()
    elif end == "bug":
        made.backend.release = broken  # type: ignore[method-assign]
    else:
        made.scheduler.stop(timeout_s=0.0)
    gate.set()
    assert audited(made, draws).count("agreed") <= 1
    assert all(len(made.outcomes[number]) == 1 for number in range(3))
    wait_until(lambda: made.backend.slots_in_use == 0)


def test_lanes_share_audits_too() -> None:
    made = bench(sure_at({}), label_of=fickle, lanes=3, max_batch=2, start=False)
    draws = [drawn() for _ in range(12)]
    for number, draw in enumerate(draws):
        made.submit(number, FICKLE if number % 2 else 1, draw=draw)
    made.scheduler.start()
    made.wait()
    assert audited(made, draws) == ["agreed", "disagreed"] * 6
    assert np.unique([made.answer(number).exit.number for number in range(12)]).tolist() == [1]
