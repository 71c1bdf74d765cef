"""A batch that takes many times its cost is one that never ends; a process that was paused is not stuck."""

import threading
from collections.abc import Sequence

import pytest

from service.backends.base import Slot
from service.engine.watch import STALL_FACTOR, Running, StallWatch, stall_limit_s
from service.errors import NotReadyError
from service.types import Answer
from tests.service.cascades import FakeBackend, FakeOutput, sure_at, wait_until
from tests.service.engine.benches import Bench


class Watched:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.running: tuple[Running, ...] = ()
        self.watch = StallWatch(lambda: self.running, lambda: self.now_s)

    def looks(self, times: int, every_s: float) -> list[str | None]:
        found = []
        for _ in range(times):
            self.now_s += every_s
            found.append(self.watch.look())
        return found


@pytest.mark.parametrize(("cost_s", "limit_s"), [(0.0, 10.0), (0.1, 10.0), (2.0, 2.0 * STALL_FACTOR)])
def test_the_limit_is_a_multiple_of_the_cost_and_never_less_than_the_setting(cost_s: float, limit_s: float) -> None:
    assert stall_limit_s(cost_s, 10.0) == limit_s


def test_a_batch_beyond_its_limit_is_named() -> None:
    watched = Watched()
    watched.running = (Running(2, 8, limit_s=3.0),)
    found = watched.looks(9, every_s=0.5)
    assert found[:7] == [None] * 7
    assert found[7] == "stage 2 with 8 images has not ended after 3.5 s, the limit is 3.0 s"


def test_an_idle_engine_and_one_that_goes_from_batch_to_batch_are_well() -> None:
    watched = Watched()
    assert watched.looks(50, every_s=0.5) == [None] * 50
    for _ in range(20):
        watched.running = (Running(1, 1, limit_s=1.0),)
        assert watched.looks(2, every_s=0.5) == [None] * 2


def test_of_several_batches_the_one_that_stands_still_is_named() -> None:
    watched = Watched()
    stuck = Running(2, 8, limit_s=3.0)
    found = []
    for _ in range(5):
        watched.running = (Running(1, 1, limit_s=1.0), stuck)
        found += watched.looks(2, every_s=0.5)
    assert found[:7] == [None] * 7
    assert str(found[7]).startswith("stage 2 with 8 images has not ended after 3.5 s")


def test_a_process_that_was_paused_for_hours_is_not_stuck() -> None:
    watched = Watched()
    watched.running = (Running(2, 8, limit_s=3.0),)
    assert watched.looks(1, every_s=0.5) == [None]
    assert watched.looks(1, every_s=7200.0) == [None]
    watched.running = ()
    assert watched.looks(1, every_s=0.5) == [None]


@pytest.mark.parametrize("lanes", [1, 2])
def test_everybody_is_answered_when_the_engine_does_not_come_back(lanes: int) -> None:
    gate = threading.Event()
    made = Bench(FakeBackend(sure_at({}), gate=gate, lanes=lanes), max_batch=2)
    for number in range(8):
        made.submit(number, 1)
    made.scheduler.start()
    wait_until(lambda: len(made.scheduler.running) == lanes)
    assert [str(batch) for batch in made.scheduler.running] == ["stage 1 with 2 images"] * lanes
    made.scheduler.give_up("stuck")
    assert [type(made.outcome(number)) for number in range(8)] == [NotReadyError] * 8
    assert (made.scheduler.alive, made.scheduler.failure) == (False, "stuck")
    late = made.submit(8, 1)
    assert late.done
    # Should it come back after all, nobody is answered twice, and nothing stays behind.
    gate.set()
    made.wait()
    made.scheduler.stop()
    assert all(len(outcomes) == 1 for outcomes in made.outcomes.values())
    assert made.backend.slots_in_use == 0


def test_a_slow_batch_within_its_limit_is_waited_for() -> None:
    made = Bench(FakeBackend(sure_at({}), stage_seconds=0.05))
    watch = StallWatch(lambda: made.scheduler.running, lambda: made.now_s)
    made.submit(0, 1)
    made.scheduler.start()
    made.wait()
    assert watch.look() is None
    assert isinstance(made.outcome(0), Answer)
    made.scheduler.stop()


def test_the_limit_follows_the_measured_cost() -> None:
    limits: list[float] = []

    class Telling(FakeBackend):
        def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
            (running,) = made.scheduler.running
            limits.append(running.limit_s)
            return super().run(stage, slots, lane)

    made = Bench(Telling(sure_at({})), stall_s=1.0)
    made.scheduler.costs.seed(1, {1: 0.5, 8: 4.0})
    made.submit(0, 1)
    made.scheduler.start()
    made.wait()
    made.scheduler.stop()
    assert limits == [0.5 * STALL_FACTOR]
