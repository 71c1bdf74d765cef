"""How likely an image is late: never less so at a higher load, with less time, or where images go deeper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.costs import StageCosts
from service.engine.lateness import Mix

SHARES = (0.6, 0.25, 0.15)


def costs_of(*stages: dict[int, float]) -> StageCosts:
    costs = StageCosts(len(stages), 8)
    for stage, seconds in enumerate(stages, start=1):
        costs.seed(stage, seconds)
    return costs


ONE_BY_ONE = costs_of({1: 0.01}, {1: 0.02}, {1: 0.04})
TOGETHER = costs_of({1: 0.01, 8: 0.02}, {1: 0.02, 8: 0.04}, {1: 0.04, 8: 0.08})


def test_work_is_that_of_all_stages_by_how_many_reach_them_in_full_batches() -> None:
    assert Mix(SHARES, ONE_BY_ONE, lanes=1).work_s == pytest.approx(0.01 + 0.4 * 0.02 + 0.15 * 0.04)
    assert Mix(SHARES, ONE_BY_ONE, lanes=2).work_s == pytest.approx(0.012)
    assert Mix(SHARES, TOGETHER, lanes=1).work_s == pytest.approx((0.02 + 0.4 * 0.04 + 0.15 * 0.08) / 8)


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
    assert Mix(SHARES, costs, lanes=1).paths_s(load) == pytest.approx(paths_s, rel=1e-3)


def test_who_has_less_time_than_its_stages_take_is_late_without_any_load() -> None:
    mix = Mix(SHARES, ONE_BY_ONE, lanes=1)
    assert mix.late_chance(0.0, 0.05) == pytest.approx(0.15)
    assert mix.late_chance(0.0, 0.02) == pytest.approx(0.40)
    assert mix.late_chance(0.0, 0.08) == 0.0


def test_beyond_capacity_everybody_is_late() -> None:
    mix = Mix(SHARES, ONE_BY_ONE, lanes=1)
    assert mix.late_chance(1.01 / mix.work_s, 1000.0) == 1.0


def test_nearly_all_are_those_but_the_share_that_may_be_late() -> None:
    assert Mix((0.98, 0.015, 0.005), ONE_BY_ONE, 1).nearly_all_s(0.0, 0.01) == pytest.approx(0.03)
    assert Mix((0.99, 0.005, 0.005), ONE_BY_ONE, 1).nearly_all_s(0.0, 0.01) == pytest.approx(0.01)
    assert Mix((0.0, 0.0, 1.0), ONE_BY_ONE, 1).nearly_all_s(0.0, 0.01) == pytest.approx(0.07)


def test_before_anything_was_measured_nobody_is_late() -> None:
    assert Mix(SHARES, StageCosts(3, 8), lanes=1).late_chance(100.0, 0.01) == 0.0


loads = st.floats(0.0, 1.2)


@given(loads, loads, st.floats(0.001, 5.0), st.integers(1, 16), st.sampled_from([ONE_BY_ONE, TOGETHER]))
def test_a_higher_rate_makes_nobody_earlier(
    load: float, other: float, objective_s: float, lanes: int, costs: StageCosts
) -> None:
    mix = Mix(SHARES, costs, lanes)
    low, high = (mix.late_chance(each / mix.work_s, objective_s) for each in sorted((load, other)))
    assert 0.0 <= low <= high * (1 + 1e-9) + 1e-12
    assert high <= 1.0 + 1e-12


@given(loads, st.floats(0.001, 5.0), st.floats(0.001, 5.0))
def test_more_time_makes_nobody_late(load: float, objective_s: float, other_s: float) -> None:
    mix = Mix(SHARES, ONE_BY_ONE, lanes=2)
    short_s, long_s = sorted((objective_s, other_s))
    assert mix.late_chance(load / mix.work_s, long_s) <= mix.late_chance(load / mix.work_s, short_s) + 1e-12
