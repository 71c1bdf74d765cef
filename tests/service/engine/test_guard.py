"""The cap on deep stages: nothing below it, above it only those who take more than their part."""

import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.guard import DeepGuard
from tests.service.cascades import FakeBackend, client_of, make_service, picture, small_profiles, sure_at
from tests.service.engine.benches import Bench


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def guard(cap: float, clock: Clock | None = None) -> DeepGuard:
    return DeepGuard(cap, clock or Clock(), half_life_s=10.0)


def use(made: DeepGuard, owner: str, *seconds: float) -> None:
    """What one image took in each stage."""
    for stage, each in enumerate(seconds, start=1):
        made.charge(owner, stage, each)


def test_below_the_cap_everybody_goes_on() -> None:
    made = guard(0.5)
    use(made, "ann", 1.0, 0.9)
    assert not made.ends("ann")


def test_above_it_who_takes_more_than_his_part_ends_and_the_others_do_not() -> None:
    made = guard(0.5)
    for _ in range(9):
        use(made, "eve", 1.0, 2.0, 3.0)
    use(made, "ann", 1.0, 2.0)
    assert made.ends("eve")
    assert not made.ends("ann")
    assert not made.ends("who never came")


def test_alone_and_above_the_cap_one_ends_too() -> None:
    made = guard(0.5)
    use(made, "eve", 1.0, 2.0)
    assert made.ends("eve")


def test_what_was_long_ago_does_not_count() -> None:
    clock = Clock()
    made = guard(0.5, clock)
    use(made, "eve", 1.0, 9.0)
    assert made.ends("eve")
    clock.now_s = 60.0
    use(made, "eve", 1.0)
    assert not made.ends("eve")


def test_no_cap_is_no_cap() -> None:
    made = guard(1.0)
    use(made, "eve", 0.001, 100.0)
    assert not made.ends("eve")


def test_after_weeks_it_still_counts() -> None:
    clock = Clock()
    made = guard(0.5, clock)
    for day in range(30):
        clock.now_s = 86_400.0 * day
        use(made, "ann", 1.0, 0.1)
        use(made, "eve", 1.0, 9.0)
        assert made.ends("eve")
        assert not made.ends("ann")


def test_those_who_stopped_are_forgotten() -> None:
    clock = Clock()
    made = guard(0.5, clock)
    for number in range(5_000):
        clock.now_s = float(number)
        use(made, f"key-{number}", 1.0, 5.0)
    assert len(made._deep) < 2_000


@given(
    st.floats(0.05, 0.95),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 3), st.floats(0.001, 1.0)), min_size=1, max_size=60),
)
def test_nobody_within_his_part_is_ever_ended(cap: float, uses: list[tuple[str, int, float]]) -> None:
    made = guard(cap)
    total, deep = 0.0, dict.fromkeys("abcd", 0.0)
    for owner, stage, seconds in uses:
        made.charge(owner, stage, seconds)
        total += seconds
        deep[owner] += seconds if stage > 1 else 0.0
    active = sum(seconds > 0 for seconds in deep.values())
    for owner, seconds in deep.items():
        if active and seconds < cap * total / active * (1 - 1e-9):
            assert not made.ends(owner)
    if sum(deep.values()) > cap * total * (1 + 1e-9):
        assert any(made.ends(owner) for owner in deep), "over the cap, somebody has more than a part"


@pytest.mark.parametrize("cap", [0.0, 0.5])
def test_nothing_computed_is_nothing_capped(cap: float) -> None:
    assert not guard(cap).ends("ann")


class Greedy(DeepGuard):
    """Over its cap for one owner, whatever is computed."""

    def __init__(self) -> None:
        super().__init__(0.5, Clock())
        self.charged: list[tuple[str, int]] = []

    def charge(self, owner: str, stage: int, seconds: float) -> None:
        self.charged.append((owner, stage))

    def ends(self, owner: str) -> bool:
        return owner == "eve"


def test_who_is_over_his_part_leaves_at_the_best_exit_so_far_and_others_are_computed_on() -> None:
    greedy = Greedy()
    made = Bench(FakeBackend(sure_at({3: 3})), guard=greedy)
    for number, owner in enumerate(("eve", "ann")):
        made.submit(number, 3, owner=owner)
    made.scheduler.start()
    made.wait()
    made.scheduler.stop()
    assert [(made.answer(n).exit.number, made.answer(n).reason) for n in (0, 1)] == [(1, "guard"), (3, "final")]
    assert greedy.charged == [("eve", 1), ("ann", 1), ("ann", 2), ("ann", 3)]


def test_over_http_the_key_that_sends_hard_images_alone_pays_for_them(tmp_path: Path) -> None:
    hard, easy = 9, 1
    service = make_service(
        tmp_path, FakeBackend(sure_at({hard: 3})), profiles=small_profiles(), api_keys="eve,ann", guard_share=0.2
    )
    with client_of(service) as client:

        def reasons(key: str, kind: int, times: int) -> set[str]:
            headers = {"Authorization": f"Bearer {key}"}
            answers = [client.post("/classify", content=picture(kind), headers=headers).json() for _ in range(times)]
            return {answer["results"][0]["exit"]["reason"] for answer in answers}

        assert "guard" in reasons("eve", hard, 40)
        assert reasons("ann", easy, 40) == {"confident"}
        assert reasons("ann", hard, 1) == {"final"}


def test_engines_of_several_devices_count_at_once() -> None:
    """Many owners, so that those who stopped are looked for all the time."""
    made = guard(0.5)
    failed: list[BaseException] = []

    def count(device: int) -> None:
        try:
            for number in range(3000):
                made.charge(f"{device}-{number}", 2, 1.0)
                made.ends(f"{device}-{number}")
        except RuntimeError as error:
            failed.append(error)

    threads = [threading.Thread(target=count, args=(device,)) for device in range(3)]
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before_s)
    assert failed == []
