"""What a batch keeps a lane for, and when its images are answered, on cascades small enough to reckon by hand."""

import numpy as np
import pytest

from service.engine.costs import StageCosts
from service.planner.cascade import Leg
from service.planner.distributions import Lattice

LATTICE = Lattice(0.01, 4096)


def costs(*stages: dict[int, float], max_batch: int = 4) -> StageCosts:
    found = StageCosts(len(stages), max_batch)
    for number, seconds in enumerate(stages, start=1):
        found.seed(number, seconds)
    return found


# A batch of four costs as much as one image in stage 1; in stage 2 each image costs the same.
MERGES_FIRST = costs({1: 1.0, 4: 1.0}, {1: 2.0})
# Both stages gain by full batches.
MERGES = costs({1: 1.0, 4: 1.0}, {1: 2.0, 4: 2.0})


def test_survivors_of_a_batch_that_nobody_waits_behind_go_on_at_once() -> None:
    durations = Leg(MERGES_FIRST, (0.5, 1.0), lanes=1).durations(2)
    assert dict(zip(durations.seconds, durations.chances, strict=True)) == pytest.approx(
        {1.0: 0.25, 3.0: 0.5, 5.0: 0.25}
    )


def test_stages_that_do_not_gain_by_company_cost_the_same_in_a_backlog() -> None:
    leg = Leg(MERGES_FIRST, (0.5, 1.0), lanes=1)
    assert leg.full().mean_s == pytest.approx(leg.durations(4).mean_s) == pytest.approx(1 + 4 * 0.5 * 2)


def test_in_a_backlog_survivors_are_merged_and_cost_less() -> None:
    leg = Leg(MERGES, (0.75, 1.0), lanes=1)
    assert leg.durations(4).mean_s == pytest.approx(1 + 2 * (1 - 0.75**4))
    assert leg.full().mean_s == pytest.approx(1 + 2 / 4)


def test_a_short_backlog_merges_less_than_a_long_one() -> None:
    long, short = (Leg(MERGES, (0.75, 1.0), 1, cycles).full().mean_s for cycles in (100.0, 1.0))
    assert long == pytest.approx(1 + 2 / 4)
    assert short == pytest.approx(1 + 2 / 2)


def test_all_that_come_are_answered_or_handed_on() -> None:
    for leaving, onward in (((0.5, 1.0), 0.0), ((0.5, 0.4), 0.3)):
        leg = Leg(MERGES, leaving, lanes=2)
        for n in (1, 3):
            answered, handed = leg.answered(LATTICE, n)
            assert answered.sum() == pytest.approx(1 - onward)
            assert handed.sum() == pytest.approx(onward)


def test_an_image_is_answered_where_it_leaves() -> None:
    answered, _ = Leg(MERGES_FIRST, (0.5, 1.0), lanes=1).answered(LATTICE, 1)
    times = {round(at * LATTICE.step_s, 6): answered[at] for at in np.flatnonzero(answered > 1e-6)}
    assert times == pytest.approx({1.0: 0.5, 3.0: 0.5})


def test_lanes_share_the_survivors_of_one_batch() -> None:
    one, two = (LATTICE.mean(Leg(MERGES_FIRST, (0.0, 1.0), lanes).answered(LATTICE, 4)[0]) for lanes in (1, 2))
    assert one == pytest.approx(1 + (2 + 4 + 6 + 8) / 4)
    assert two == pytest.approx(1 + (2 + 3 + 4 + 5) / 4)


def test_in_a_backlog_an_image_waits_for_its_batch_to_fill_but_no_longer_than_the_backlog() -> None:
    leg = Leg(MERGES, (0.75, 1.0), lanes=1)
    at_once, soon, late = (LATTICE.mean(leg.answered(LATTICE, 4, backlog_s)[0]) for backlog_s in (0.0, 0.5, 50.0))
    assert at_once == pytest.approx(1 + 0.25 * 2)
    assert at_once <= soon <= late
