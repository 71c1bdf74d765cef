"""The service in simulated time: deterministic, and within what it promises under each shape of load."""

import pytest

from benchmarks.simulation import Device, Simulated, simulate
from benchmarks.traffic import Traffic, flash_crowd, on_off, ramp, shapes, steady, step
from models.profiles import ExitProfile, OperatingPoint, Profiles
from service.engine.catalogue import AutoGoal, BudgetRequest
from service.engine.costs import Lanes
from service.engine.lateness import Mix

# T2T-ViT-12, one image at a time on a thread of its own, two at once (docs/adr/0007).
DEVICE = Device(({"1": 1 / 79}, {"1": 1 / 36.5}, {"1": 1 / 17}), lanes=2, max_batch=8)
BATCHES = Device(
    ({"1": 0.0089, "8": 0.0576}, {"1": 0.020, "8": 0.1104}, {"1": 0.040, "8": 0.2472}), lanes=1, max_batch=8
)
P99_MS = 1000.0
AUTO = BudgetRequest(auto=AutoGoal(P99_MS, "fast", "accurate"))
FIXED = BudgetRequest(profile="accurate")


def profiles() -> Profiles:
    """Eight points from 95/4/1 to 60/25/15 % of images at the three exits; dearer ones are right more often."""
    ends = ((0.95, 0.04, 0.01), (0.60, 0.25, 0.15))
    frontier = []
    for number in range(8):
        dear = number / 7
        shares = tuple((1 - dear) * low + dear * high for low, high in zip(*ends, strict=True))
        gmacs = 0.5 * shares[0] + 1.5 * shares[1] + 3.5 * shares[2]
        frontier.append(OperatingPoint((0.5 + dear / 10, 0.5), 0.7 + dear / 10, gmacs, shares))
    full = OperatingPoint((None, None), 0.85, 3.5, (0.0, 0.0, 1.0))
    named = {"fast": frontier[0], "balanced": frontier[4], "accurate": frontier[-1], "full": full}
    exits = tuple(ExitProfile(grid, gmacs, 0.7) for grid, gmacs in ((7, 0.5), (10, 1.5), (14, 3.5)))
    return Profiles("0" * 64, "1" * 64, "max_softmax", exits, (), (*frontier, full), named)


PROFILES = profiles()


def ran(request: BudgetRequest, traffic: Traffic, device: Device = DEVICE, seed: int = 0) -> Simulated:
    shares = PROFILES.named["accurate"].exit_shares
    assert shares is not None
    return simulate(PROFILES, device, request, traffic, capacity_per_s=device.capacity_per_s(shares), seed=seed)


def test_the_same_arguments_have_the_same_outcome() -> None:
    assert ran(AUTO, step(40)) == ran(AUTO, step(40))
    assert ran(AUTO, step(40)) != ran(AUTO, step(40), seed=1)


def test_every_image_is_answered_or_refused_once() -> None:
    traffic = steady(1.5, 60)
    shares = PROFILES.named["accurate"].exit_shares
    assert shares is not None
    offered = sum(1 for _ in traffic.arrivals(DEVICE.capacity_per_s(shares), 0))
    for request in (FIXED, AUTO):
        outcome = ran(request, traffic)
        assert outcome.offered == offered
        assert all(image.seconds > 0 for image in outcome.answered)


@pytest.mark.parametrize("device", [DEVICE, BATCHES], ids=["lanes", "batches"])
def test_at_one_and_a_half_times_its_capacity_a_fixed_profile_refuses_and_a_range_holds(device: Device) -> None:
    traffic = steady(1.5, 120)
    fixed, auto = ran(FIXED, traffic, device), ran(AUTO, traffic, device)
    assert len(fixed.refused_s) > 0.2 * fixed.offered
    assert fixed.latency_s(0.99) > 2 * P99_MS / 1000
    assert not auto.refused_s
    assert auto.latency_s(0.99) <= P99_MS / 1000
    assert 0.7 <= auto.top1 < fixed.top1


@pytest.mark.parametrize("traffic", [step(240), ramp(240), flash_crowd(240), on_off(240)], ids=lambda shape: shape.name)
def test_whatever_the_shape_of_the_load_nothing_is_refused_and_the_p99_holds(traffic: Traffic) -> None:
    outcome = ran(AUTO, traffic)
    assert not outcome.refused_s
    assert outcome.latency_s(0.99) <= P99_MS / 1000


def test_where_the_load_has_gone_the_ceiling_is_back() -> None:
    outcome = ran(AUTO, flash_crowd(240))
    assert outcome.switches[-1].top1 == pytest.approx(0.8)
    assert outcome.switches[-1].at_s < 0.4 * 240 + 100
    assert [image.top1 for image in outcome.answered[-10:]] == pytest.approx([0.8] * 10)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_what_is_predicted_to_be_late_is(load: float) -> None:
    shares = PROFILES.named["accurate"].exit_shares
    assert shares is not None
    mix = Mix(shares, (Lanes(DEVICE.costs(), DEVICE.lanes),))
    p99_s = ran(FIXED, steady(load, 300)).latency_s(0.99)
    assert 0.003 < mix.late_chance(load / mix.work_s, p99_s) < 0.03


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9, 1.1, 1.5])
def test_under_a_steady_load_it_settles(load: float) -> None:
    outcome = ran(AUTO, steady(load, 240))
    outcome.switches = [switch for switch in outcome.switches if switch.at_s > 5]
    assert outcome.most_switches_a_minute <= 1


def test_images_are_as_hard_under_every_budget() -> None:
    low = steady(0.3, 60)
    fixed, auto = ran(FIXED, low), ran(AUTO, low)
    assert [image.arrived_s for image in fixed.answered] == [image.arrived_s for image in auto.answered]
    assert [image.seconds for image in fixed.answered] == [image.seconds for image in auto.answered]


@pytest.mark.parametrize("traffic", shapes(50), ids=lambda shape: shape.name)
def test_arrivals_come_as_often_as_their_shape_says(traffic: Traffic) -> None:
    at = list(traffic.arrivals(200.0, seed=3))
    assert at == sorted(at)
    assert at[-1] < traffic.seconds
    mean = sum(traffic.load(second / 10) for second in range(500)) / 500
    assert len(at) == pytest.approx(200 * 50 * mean, rel=0.05)
    assert all(traffic.load(second / 10) <= traffic.peak for second in range(500))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("device", [DEVICE, BATCHES], ids=["lanes", "batches"])
@pytest.mark.parametrize("load", [0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
def test_for_half_an_hour_of_any_steady_load_it_settles_and_the_p99_holds(
    load: float, device: Device, seed: int
) -> None:
    outcome = ran(AUTO, steady(load, 1800), device, seed)
    assert not outcome.refused_s
    assert outcome.latency_s(0.99) <= P99_MS / 1000
    outcome.switches = [switch for switch in outcome.switches if switch.at_s > 5]
    assert outcome.most_switches_a_minute <= 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("traffic", shapes(1200), ids=lambda shape: shape.name)
def test_for_twenty_minutes_of_any_shape_nothing_is_refused_and_the_p99_holds(traffic: Traffic, seed: int) -> None:
    outcome = ran(AUTO, traffic, seed=seed)
    assert not outcome.refused_s
    assert outcome.latency_s(0.99) <= P99_MS / 1000
