"""Several lanes over the same queues: at once, on what waits for anybody, and ending together."""

import threading

from service.backends.base import Slot
from tests.service.cascades import sure_at, wait_until
from tests.service.engine.benches import bench


def test_lanes_compute_at_once_and_share_what_waits() -> None:
    gate = threading.Event()
    made = bench(sure_at({}), gate=gate, lanes=3, start=False)
    for number in range(5):
        made.submit(number, 1)
    made.scheduler.start()
    wait_until(lambda: len(made.scheduler.running) == 3)
    gate.set()
    made.wait()
    assert sorted(len(kinds) for _, kinds in made.backend.batches) == [1, 2, 2]


def test_a_lane_with_nothing_to_do_takes_what_another_hands_on() -> None:
    gate = threading.Event()
    made = bench(sure_at({3: 2}), gate=gate, gate_before=2, lanes=2, max_batch=2, start=False)
    made.submit(0, 3)
    made.submit(1, 3)
    made.scheduler.start()
    wait_until(lambda: [running.stage for running in made.scheduler.running] == [2, 2])
    gate.set()
    made.wait()


def test_when_one_lane_breaks_all_end_and_everybody_is_answered() -> None:
    gate = threading.Event()
    made = bench(sure_at({7: 3}), gate=gate, lanes=2, max_batch=1, start=False)
    release = made.backend.release

    def broken(slot: Slot) -> None:
        made.backend.release = release  # type: ignore[method-assign]
        release(slot)
        raise KeyError("bug")

    made.backend.release = broken  # type: ignore[method-assign]
    for number in range(6):
        made.submit(number, 7 if number % 2 else 1)
    made.scheduler.start()
    wait_until(lambda: len(made.scheduler.running) == 2)
    gate.set()
    made.wait()
    wait_until(lambda: not made.scheduler.alive)
    assert made.scheduler.failure == "KeyError: 'bug'"
    assert all(len(outcomes) == 1 for outcomes in made.outcomes.values())
