"""The planner's forecasts are within 10 % of the simulation: a few cases at every run, the whole grid with patience."""

import pytest

from benchmarks.cluster_simulation import SimulatedPool, simulate_cluster
from benchmarks.plan_check import DEVICES, SHARES, TOLERANCE, Case, case, compare, grid, plan_table
from benchmarks.result_files import RESULTS, read_results
from benchmarks.results import PLAN_FILE, PlanDocument
from service.planner.costs import DeviceCosts

ONE = DeviceCosts(({"1": 1.0},), lanes=1, max_batch=1)


@pytest.mark.parametrize(
    "few",
    [
        case("T2T-ViT-12, 2 lanes of 1", "60/25/15", "whole", 0.5),
        case("imagenette-hybrid, 2 lanes of 8", "90/8/2", "stages", 0.45),
        case("supposed GPU, 1 lane of 32", "60/25/15", "whole", 0.3),
        case("T2T-ViT-12, 1 lane of 8", "0/0/100", "whole", 0.45),
    ],
    ids=lambda few: f"{few.device}, {few.shares}, {few.topology}",
)
def test_a_forecast_is_near_the_simulation(few: Case) -> None:
    compared = compare(few, images=40_000)
    assert compared.worst <= TOLERANCE, compared.errors


@pytest.mark.slow
@pytest.mark.parametrize("of_grid", grid(), ids=lambda of: f"{of.device}, {of.shares}, {of.topology} at {of.load}")
def test_every_forecast_of_the_grid_is_near_the_simulation(of_grid: Case) -> None:
    compared = compare(of_grid, images=200_000, seed=1)
    assert compared.worst <= TOLERANCE, compared.errors


def test_the_kept_result_is_of_this_grid_and_within_the_tolerance() -> None:
    kept = read_results(PlanDocument, RESULTS / PLAN_FILE)
    assert kept is not None
    told = [(each.device, each.shares, each.topology, each.load) for each in kept.cases]
    assert told == [(each.device, each.shares, each.topology, each.load) for each in grid()]
    assert max(each.worst for each in kept.cases) <= TOLERANCE
    assert len(plan_table(kept.cases).rows) == len(DEVICES) * (2 * len(SHARES) - 1)


def test_the_simulation_waits_as_m_d_1_does() -> None:
    ran = simulate_cluster([SimulatedPool(1, 1, 1, ONE)], (1.0,), rate_per_s=0.5, images=50_000)
    assert sum(ran.seconds) / len(ran.seconds) == pytest.approx(1 + 0.5, rel=0.05)
    assert ran.utilisation == pytest.approx((0.5,), rel=0.02)


def test_every_simulated_image_but_the_first_is_answered_whatever_way_it_goes() -> None:
    device = DEVICES["imagenette-hybrid, 2 lanes of 8"]
    pools = [SimulatedPool(number, number, 2, device) for number in (1, 2, 3)]
    for each in (pools, [SimulatedPool(1, 3, 2, device)]):
        ran = simulate_cluster(each, (0.6, 0.3, 0.1), rate_per_s=400, images=2_000)
        assert len(ran.seconds) == 1_800
        assert min(ran.seconds) >= 0.0018
    assert simulate_cluster(pools, (0.6, 0.3, 0.1), 400, 2_000) == simulate_cluster(pools, (0.6, 0.3, 0.1), 400, 2_000)
