"""What a stage costs: seeded by the warm-up, followed by a running estimate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.costs import StageCosts


def costs_of(*stages: dict[int, float], max_batch: int = 8) -> StageCosts:
    costs = StageCosts(len(stages), max_batch)
    for stage, seconds in enumerate(stages, start=1):
        costs.seed(stage, seconds)
    return costs


def test_measured_sizes_are_known_and_those_between_lie_on_a_line() -> None:
    costs = costs_of({1: 0.02, 2: 0.03, 4: 0.05, 8: 0.09})
    assert [costs.seconds(1, images) for images in (1, 2, 3, 4, 6, 8)] == pytest.approx(
        [0.02, 0.03, 0.04, 0.05, 0.07, 0.09]
    )


def test_sizes_beyond_the_measured_ones_cost_in_proportion() -> None:
    costs = costs_of({2: 0.04, 4: 0.06})
    assert [costs.seconds(1, images) for images in (1, 8, 16)] == pytest.approx([0.02, 0.12, 0.24])


def test_before_anything_was_measured_nothing_costs_anything_and_only_full_batches_are_worth_it() -> None:
    costs = StageCosts(2, 8)
    assert (costs.seconds(2, 8), costs.pass_s, costs.work_s([5, 5])) == (0.0, 0.0, 0.0)
    assert (costs.worth(1), costs.most(1)) == (8, 8)


def test_without_a_seed_the_first_batch_stands_for_all() -> None:
    costs = StageCosts(1, 8)
    costs.observe(1, 4, 0.04)
    assert [costs.seconds(1, images) for images in (1, 8)] == pytest.approx([0.01, 0.08])
    assert costs.worth(1) == 8


def test_the_estimate_follows_what_batches_take_for_every_size() -> None:
    costs = costs_of({1: 0.01, 8: 0.08}, {1: 0.02, 8: 0.1})
    for _ in range(100):
        costs.observe(1, 8, 0.16)
    assert costs.seconds(1, 8) == pytest.approx(0.16, rel=0.01)
    assert 0.01 < costs.seconds(1, 1) < 0.02
    assert costs.seconds(2, 8) == pytest.approx(0.1)


def test_one_accident_hardly_moves_it() -> None:
    costs = costs_of({8: 0.08})
    costs.observe(1, 8, 3600.0)
    assert costs.seconds(1, 8) < 0.08 * 1.35


def test_a_clock_that_stands_still_measures_nothing() -> None:
    costs = costs_of({8: 0.08})
    costs.observe(1, 8, 0.0)
    assert costs.seconds(1, 8) == 0.08


@pytest.mark.parametrize(
    ("seconds", "worth", "most"),
    [
        ({1: 0.01, 2: 0.02, 4: 0.04, 8: 0.08}, 1, 1),
        ({1: 0.04, 2: 0.044, 4: 0.05, 8: 0.08}, 8, 8),
        ({1: 0.02, 2: 0.021, 4: 0.0404, 8: 0.08}, 4, 8),
        ({1: 0.05, 8: 0.05}, 8, 8),
        ({1: 0.01, 2: 0.015, 4: 0.04, 8: 0.1}, 2, 2),
    ],
)
def test_a_batch_is_worth_its_time_when_larger_ones_are_hardly_better_and_full_when_they_are_not(
    seconds: dict[int, float], worth: int, most: int
) -> None:
    costs = costs_of(seconds)
    assert (costs.worth(1), costs.most(1)) == (worth, most)


def test_what_is_worth_it_follows_the_estimate() -> None:
    costs = costs_of({1: 0.01, 8: 0.08})
    for _ in range(64):
        costs.observe(1, 8, 0.04)
    assert (costs.worth(1), costs.most(1)) == (8, 8)


def test_work_counts_the_stages_to_come_by_how_many_stay() -> None:
    costs = costs_of({8: 0.08}, {8: 0.16})
    assert costs.work_s([4, 2]) == pytest.approx(4 * (0.01 + 0.02) + 2 * 0.02)
    for _ in range(200):
        costs.observe_stay(1, 8, 2)
    assert costs.work_s([4, 2]) == pytest.approx(4 * (0.01 + 0.25 * 0.02) + 2 * 0.02)


@given(st.lists(st.tuples(st.integers(1, 8), st.floats(1e-6, 1e3)), min_size=1, max_size=50))
def test_no_series_of_accidents_makes_a_cost_vanish_or_endless(batches: list[tuple[int, float]]) -> None:
    costs = costs_of({1: 0.01, 8: 0.08})
    for images, seconds in batches:
        costs.observe(1, images, seconds)
        assert all(0 < costs.seconds(1, size) < 1e6 for size in range(1, 9))
        assert 1 <= costs.worth(1) <= costs.most(1) <= 8
