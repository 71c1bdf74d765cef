"""Every stage at every batch size is run, and timed, before the first job."""

import threading
from collections.abc import Sequence

import pytest

from service.backends.base import Slot
from service.engine.costs import StageCosts
from service.engine.scheduler import Scheduler
from service.engine.warmup import WarmUpStep, batch_sizes, warm_up
from tests.service.cascades import SIZE_PX, FakeBackend, FakeOutput, sure_at, wait_until
from tests.service.engine.benches import Bench


class Timed(FakeBackend):
    """Stage k takes k seconds a batch and k more an image, on a clock of its own; the first run of a size 100 times
    that."""

    now_s = 0.0

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
        is_first = (stage, len(slots)) not in self.warmed
        self.now_s += stage * (1 + len(slots)) * (100 if is_first else 1)
        return super().run(stage, slots, lane)


@pytest.mark.parametrize(
    ("buckets", "slots", "max_batch", "sizes"),
    [
        ((1, 2, 4, 8), 99, 8, (1, 2, 4, 8)),
        ((1, 2, 4, 8), 99, 5, (1, 2, 4, 5)),
        ((1, 2, 4, 8), 3, 8, (1, 2, 3)),
        ((1, 2, 4, 8), 99, 64, (1, 2, 4, 8)),
        ((4,), 1, 8, (1,)),
    ],
)
def test_the_sizes_are_the_backends_up_to_the_largest_that_will_be_asked_for(
    buckets: tuple[int, ...], slots: int, max_batch: int, sizes: tuple[int, ...]
) -> None:
    backend = FakeBackend(sure_at({}), buckets=buckets, slots=slots)
    assert batch_sizes(backend, max_batch) == sizes


def test_everything_runs_and_its_fastest_time_is_the_first_estimate() -> None:
    backend, costs = Timed(sure_at({}), buckets=(1, 4)), StageCosts(3, 4)
    steps: list[WarmUpStep] = []

    def began(step: WarmUpStep) -> bool:
        steps.append(step)
        return True

    warm_up(backend, costs, SIZE_PX, clock=lambda: backend.now_s, began=began)
    assert set(backend.warmed) == {(stage, size) for stage in (1, 2, 3) for size in (1, 4)}
    assert [costs.seconds(stage, size) for stage in (1, 2, 3) for size in (1, 2, 4)] == [2, 3, 5, 4, 6, 10, 6, 9, 15]
    assert [str(steps[0]), str(steps[-1])] == ["stage 1 at batch 1, step 1 of 6", "stage 3 at batch 4, step 6 of 6"]
    assert backend.slots_in_use == 0


def test_it_ends_early_when_the_engine_is_to_stop() -> None:
    backend, costs = Timed(sure_at({})), StageCosts(3, 4)
    warm_up(backend, costs, SIZE_PX, clock=lambda: backend.now_s, began=lambda step: step.number < 3)
    assert {stage for stage, _ in backend.warmed} == {1, 2}
    assert (backend.slots_in_use, costs.pass_s) == (0, 0.0)


def engine(backend: FakeBackend) -> Scheduler:
    return Bench(backend, warm_px=SIZE_PX).scheduler


def test_an_engine_is_alive_but_not_ready_until_everything_is_warm() -> None:
    gate = threading.Event()
    scheduler = engine(FakeBackend(sure_at({}), warm_gate=gate, gate_before=2))
    scheduler.start()
    wait_until(lambda: scheduler.warming is not None and scheduler.warming.stage == 2)
    assert (scheduler.alive, scheduler.ready) == (True, False)
    assert str(scheduler.warming) == "stage 2 at batch 1, step 2 of 12"
    gate.set()
    wait_until(lambda: scheduler.ready)
    scheduler.stop()


def test_a_device_that_cannot_compute_a_stage_is_found_before_the_first_job() -> None:
    class Broken(FakeBackend):
        def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> FakeOutput:
            raise MemoryError("no room for batch 8")

    backend = Broken(sure_at({}))
    scheduler = engine(backend)
    scheduler.start()
    wait_until(lambda: not scheduler.alive)
    scheduler.stop()
    assert scheduler.failure == "MemoryError: no room for batch 8"
    assert backend.slots_in_use == 0
