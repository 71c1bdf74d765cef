"""A plan holds its objective with the fewest replicas, and grows with the load, at any scale."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.planner.costs import DeviceCosts
from service.planner.forecast import Load, Pool, forecast
from service.planner.plan import MOST_LOAD, TOPOLOGIES, Objective, Topology, UnreachableError, plan

CPU = DeviceCosts(({"1": 0.002}, {"1": 0.004}, {"1": 0.006}), lanes=2, max_batch=8)
GPU = DeviceCosts(
    tuple({str(n): call + n * each for n in (1, 8)} for call, each in ((1e-3, 1e-4), (2e-3, 3e-4), (2e-3, 6e-4))),
    lanes=1,
    max_batch=8,
)
SHARES = (0.8, 0.15, 0.05)
topologies = pytest.mark.parametrize("topology", TOPOLOGIES)


@topologies
@settings(max_examples=20)
@given(rate=st.floats(1, 1e7), p99_s=st.floats(0.03, 1.0))
def test_a_plan_holds_its_objective_and_leaves_room(topology: Topology, rate: float, p99_s: float) -> None:
    found = plan(Load(CPU, SHARES), topology, rate, Objective(p99_s))
    assert found.p99_ms <= 1000 * p99_s
    assert found.p50_ms <= found.p99_ms
    assert all(pool.load <= MOST_LOAD + 1e-9 for pool in found.pools)


@topologies
@pytest.mark.parametrize("device", [CPU, GPU], ids=["lanes", "batches"])
def test_no_replica_of_it_could_be_left_out(topology: Topology, device: DeviceCosts) -> None:
    load, objective = Load(device, SHARES), Objective(0.02)
    found = plan(load, topology, 4000, objective)
    for left_out, pool in enumerate(found.pools):
        if pool.replicas == 1:
            continue
        fewer = [
            Pool(each.first_stage, each.last_stage, each.replicas - (number == left_out))
            for number, each in enumerate(found.pools)
        ]
        too_full = found.pools[left_out].load * pool.replicas / (pool.replicas - 1) > MOST_LOAD
        assert too_full or forecast(load, fewer, 4000).p99_s > objective.p99_s


@topologies
def test_ten_times_the_load_takes_less_than_ten_times_the_replicas(topology: Topology) -> None:
    counts = [plan(Load(CPU, SHARES), topology, 10.0**power, Objective(0.1)).replicas for power in range(1, 8)]
    assert counts == sorted(counts)
    assert all(more <= 10 * fewer for fewer, more in pairwise(counts))
    assert counts[-1] / counts[-2] == pytest.approx(10, rel=0.02)


def test_a_tighter_objective_takes_more_replicas() -> None:
    load = Load(GPU, SHARES)
    loose, tight = (plan(load, "whole", 100_000, Objective(p99_s)).replicas for p99_s in (0.1, 0.009))
    assert tight > loose


def test_a_hop_is_paid_by_those_that_make_it() -> None:
    load, pools = Load(CPU, SHARES), [Pool(1, 1, 3), Pool(2, 2, 3), Pool(3, 3, 3)]
    near, far = (forecast(load, pools, 300, hop_s) for hop_s in (0.0, 0.5))
    assert far.mean_s - near.mean_s == pytest.approx(0.5 * 0.2 + 0.5 * 0.05, rel=0.02)
    assert far.p50_s == pytest.approx(near.p50_s, abs=0.01)


def test_a_stage_that_nobody_reaches_has_no_pool() -> None:
    found = plan(Load(CPU, (0.7, 0.3, 0.0)), "stages", 1000, Objective(0.1))
    assert [pool.first_stage for pool in found.pools] == [1, 2]


def test_dear_stages_are_spared_first() -> None:
    load = Load(CPU, SHARES)
    found = plan(load, "stages", 1e5, Objective(0.05, stage_prices=(1, 1, 100)))
    assert found.price_an_hour == pytest.approx(
        sum(pool.replicas * price for pool, price in zip(found.pools, (1, 1, 100), strict=True))
    )
    even = plan(load, "stages", 1e5, Objective(0.05))
    assert found.pools[2].replicas <= even.pools[2].replicas


@topologies
def test_what_no_number_of_replicas_can_do_is_said(topology: Topology) -> None:
    with pytest.raises(UnreachableError, match="nearly idle replicas"):
        plan(Load(CPU, SHARES), topology, 10, Objective(0.001))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.5, 0.6, -0.1), (0.2, 0.2, 0.2)])
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="shares"):
        Load(CPU, shares)


def test_one_stage_is_a_cascade_too() -> None:
    load = Load(DeviceCosts(({"1": 0.01},), 1, 1), (1.0,))
    assert plan(load, "whole", 100, Objective(0.1)).pools == plan(load, "stages", 100, Objective(0.1)).pools
