"""How likely an image is late: never less so at a higher load, with less time, or where images go deeper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.costs import Lanes, StageCosts
from service.engine.lateness import Mix

SHARES = (0.6, 0.25, 0.15)


def costs_of(*stages: dict[int, float]) -> StageCosts:
    costs = StageCosts(len(stages), 8)
    for stage, seconds in enumerate(stages, start=1):
        costs.seed(stage, seconds)
    return costs


def mix_of(shares: tuple[float, ...], costs: StageCosts, lanes: int) -> Mix:
    return Mix(shares, (Lanes(costs, lanes),))


ONE_BY_ONE = costs_of({1: 0.01}, {1: 0.02}, {1: 0.04})
TOGETHER = costs_of({1: 0.01, 8: 0.02}, {1: 0.02, 8: 0.04}, {1: 0.04, 8: 0.08})


def test_work_is_that_of_all_stages_by_how_many_reach_them_in_full_batches() -> None:
    assert mix_of(SHARES, ONE_BY_ONE, 1).work_s == pytest.approx(0.01 + 0.4 * 0.02 + 0.15 * 0.04)
    assert mix_of(SHARES, ONE_BY_ONE, 2).work_s == pytest.approx(0.012)
    assert mix_of(SHARES, TOGETHER, 1).work_s == pytest.approx((0.02 + 0.4 * 0.04 + 0.15 * 0.08) / 8)


@pytest.mark.parametrize(
    ("costs", "load", "paths_s"),
    [
        (ONE_BY_ONE, 0.0, [0.01, 0.03, 0.07]),
        (ONE_BY_ONE, 0.9, [0.01, 0.03, 0.07]),
        (TOGETHER, 0.0, [0.01, 0.03, 0.07]),
        # At full load full batches, each behind 7/8 of another, which takes (0.02 + 0.4 * 0.04 + 0.15 * 0.08) / 1.55.
        (TOGETHER, 1.0, [0.02 + 0.02710, 0.06 + 0.05419, 0.14 + 0.08129]),
    ],
)
def test_the_way_to_an_exit_takes_its_stages_in_batches_as_full_as_the_load_makes_them(
    costs: StageCosts, load: float, paths_s: list[float]
) -> None:
    assert [path.seconds for path in mix_of(SHARES, costs, 1).paths(load)] == pytest.approx(paths_s, rel=1e-3)


def test_who_has_less_time_than_its_stages_take_is_late_without_any_load() -> None:
    mix = mix_of(SHARES, ONE_BY_ONE, 1)
    assert mix.late_chance(0.0, 0.05) == pytest.approx(0.15)
    assert mix.late_chance(0.0, 0.02) == pytest.approx(0.40)
    assert mix.late_chance(0.0, 0.08) == 0.0


def test_beyond_capacity_everybody_is_late() -> None:
    mix = mix_of(SHARES, ONE_BY_ONE, 1)
    assert mix.late_chance(1.01 / mix.work_s, 1000.0) == 1.0


def test_nearly_all_are_those_but_the_share_that_may_be_late() -> None:
    assert mix_of((0.98, 0.015, 0.005), ONE_BY_ONE, 1).nearly_all_s(0.0, 0.01) == pytest.approx(0.03)
    assert mix_of((0.99, 0.005, 0.005), ONE_BY_ONE, 1).nearly_all_s(0.0, 0.01) == pytest.approx(0.01)
    assert mix_of((0.0, 0.0, 1.0), ONE_BY_ONE, 1).nearly_all_s(0.0, 0.01) == pytest.approx(0.07)


def test_before_anything_was_measured_nobody_is_late() -> None:
    assert mix_of(SHARES, StageCosts(3, 8), 1).late_chance(100.0, 0.01) == 0.0


loads = st.floats(0.0, 1.2)


@given(loads, loads, st.floats(0.001, 5.0), st.integers(1, 16), st.sampled_from([ONE_BY_ONE, TOGETHER]))
def test_a_higher_rate_makes_nobody_earlier(
    load: float, other: float, objective_s: float, lanes: int, costs: StageCosts
) -> None:
    mix = mix_of(SHARES, costs, lanes)
    low, high = (mix.late_chance(each / mix.work_s, objective_s) for each in sorted((load, other)))
    assert 0.0 <= low <= high * (1 + 1e-9) + 1e-12
    assert high <= 1.0 + 1e-12


@given(loads, st.floats(0.001, 5.0), st.floats(0.001, 5.0))
def test_more_time_makes_nobody_late(load: float, objective_s: float, other_s: float) -> None:
    mix = mix_of(SHARES, ONE_BY_ONE, 2)
    short_s, long_s = sorted((objective_s, other_s))
    assert mix.late_chance(load / mix.work_s, long_s) <= mix.late_chance(load / mix.work_s, short_s) + 1e-12


HALF_AS_FAST = costs_of({1: 0.02}, {1: 0.04}, {1: 0.08})


def test_equal_devices_are_one_with_the_lanes_of_all() -> None:
    one = mix_of(SHARES, TOGETHER, 4)
    several = Mix(SHARES, (Lanes(TOGETHER, 1), Lanes(TOGETHER, 3)))
    assert several.work_s == pytest.approx(one.work_s)
    for load in (0.0, 0.5, 0.95):
        rate = load / one.work_s
        assert several.late_chance(rate, 0.2) == pytest.approx(one.late_chance(rate, 0.2))
        assert several.nearly_all_s(load, 0.01) == pytest.approx(one.nearly_all_s(load, 0.01))


def test_unlike_devices_add_what_each_can_do_and_have_images_in_that_proportion() -> None:
    mix = Mix(SHARES, (Lanes(ONE_BY_ONE, 1), Lanes(HALF_AS_FAST, 1)))
    quick, slow = mix_of(SHARES, ONE_BY_ONE, 1), mix_of(SHARES, HALF_AS_FAST, 1)
    assert 1 / mix.work_s == pytest.approx(1 / quick.work_s + 1 / slow.work_s)
    assert [path.seconds for path in mix.paths(0.0)] == pytest.approx([0.01, 0.03, 0.07, 0.02, 0.06, 0.14])
    assert [path.share for path in mix.paths(0.0)] == pytest.approx([0.4, 0.25 / 1.5, 0.1, 0.2, 0.125 / 1.5, 0.05])
    # In 0.1 s only those are late that go all the way on the slow one.
    assert mix.late_chance(0.0, 0.1) == pytest.approx(0.05)
    assert mix.nearly_all_s(0.0, 0.05) == pytest.approx(0.07)
    assert mix.nearly_all_s(0.0, 0.01) == pytest.approx(0.14)


def test_before_one_of_them_was_measured_nobody_is_late() -> None:
    mix = Mix(SHARES, (Lanes(ONE_BY_ONE, 1), Lanes(StageCosts(3, 8), 1)))
    assert mix.late_chance(100.0, 1.0) == 0.0
