"""The queue of one replica agrees with what is known exactly: M/D/1, M/M/c, M/G/1 and small bulk queues."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.planner.distributions import Arrivals, Durations, Floats, Lattice, binomial, single, sums, thinned
from service.planner.station import Station, Waits, erlang_c


def always(seconds: float) -> Durations:
    return Durations(np.array([seconds]), np.ones(1))


def whole(waits: Waits) -> Floats:
    return np.asarray(np.sum(waits.by_size, axis=0) + waits.in_backlog, np.float64)


def mean_wait_s(station: Station, longest_s: float) -> float:
    lattice = Lattice(longest_s / 8192, 8192)
    distribution = whole(station.waits(lattice))
    assert distribution.sum() == pytest.approx(1, abs=2e-3)
    return lattice.mean(distribution)


@pytest.mark.parametrize("load", [0.1, 0.5, 0.8])
def test_one_lane_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    fixed = Station(single(load), (always(1.0),), always(1.0), lanes=1)
    assert fixed.utilisation == pytest.approx(load, rel=1e-3)
    assert mean_wait_s(fixed, 60) == pytest.approx(load / (2 * (1 - load)), rel=0.01)
    uneven = Durations(np.array([0.5, 3.0]), np.array([0.8, 0.2]))
    square = 0.8 * 0.25 + 0.2 * 9
    station = Station(single(load), (uneven,), uneven, lanes=1)
    assert mean_wait_s(station, 200) == pytest.approx(load * square / (2 * (1 - load)), rel=0.01)


@pytest.mark.parametrize(("lanes", "load", "chance"), [(1, 0.3, 0.3), (2, 0.5, 1 / 3), (3, 2 / 3, 4 / 9)])
def test_all_lanes_are_busy_as_often_as_erlang_says(lanes: int, load: float, chance: float) -> None:
    assert erlang_c(lanes, load) == pytest.approx(chance)


@pytest.mark.parametrize(("load", "known"), [(0.5, 0.1766), (0.8, 0.9099)])
def test_two_lanes_wait_nearly_as_in_the_tables_of_m_d_2(load: float, known: float) -> None:
    """Mean waits in service times; `known` by the recursion of Kiefer and Wolfowitz, two million arrivals."""
    station = Station(single(2 * load), (always(1.0),), always(1.0), lanes=2)
    assert mean_wait_s(station, 60) == pytest.approx(known, rel=0.11)


def test_a_bulk_queue_serves_together_who_waits_together() -> None:
    """With batches of any size at the same price the number that came during one is the number in the next: Poisson."""
    rate = 2.0
    station = Station(single(rate), tuple(always(1.0) for _ in range(40)), always(1.0), lanes=1)
    sizes = station.batch_sizes
    begun = np.array([math.exp(-rate) * rate**n / math.factorial(n) for n in range(41)])
    begun[1] += begun[0]
    assert sizes[1:12] == pytest.approx(begun[1:12] / begun[1:].sum(), abs=1e-3)


def test_a_wait_in_a_bulk_queue_is_the_rest_of_one_batch() -> None:
    station = Station(single(2.0), tuple(always(1.0) for _ in range(40)), always(1.0), lanes=1)
    assert mean_wait_s(station, 4.0) == pytest.approx(0.5 * station.utilisation, rel=0.01)


def test_groups_wait_longer_than_single_images() -> None:
    groups = Arrivals(0.25, np.array([0.0, 0.0, 1.0]))
    together = Station(groups, (always(1.0),), always(1.0), lanes=1)
    apart = Station(single(0.5), (always(1.0),), always(1.0), lanes=1)
    assert groups.images_per_s == 0.5
    # M[X]/D/1: what the work ahead takes, and the fellow that goes before every other one.
    assert mean_wait_s(together, 60) == pytest.approx(0.5 * 2 / (2 * 0.5) + 0.5, rel=0.02)
    assert mean_wait_s(apart, 60) < mean_wait_s(together, 60)


def test_steadier_arrivals_wait_less() -> None:
    steady = Arrivals(0.8, np.array([0.0, 1.0]), dispersion=0.5)
    assert mean_wait_s(Station(steady, (always(1.0),), always(1.0), 1), 60) < mean_wait_s(
        Station(single(0.8), (always(1.0),), always(1.0), 1), 60
    )


def test_more_than_can_be_done_is_refused() -> None:
    with pytest.raises(ValueError, match="times the capacity"):
        Station(single(2.0), (always(1.0),), always(1.0), lanes=2)


@given(st.integers(0, 12), st.floats(0, 1))
def test_who_stays_of_n_is_somebody_between_none_and_all(n: int, share: float) -> None:
    chances = binomial(n, share)
    assert len(chances) == n + 1
    assert chances.sum() == pytest.approx(1)
    assert chances @ np.arange(n + 1) == pytest.approx(n * share, abs=1e-9)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=8), st.floats(0, 1))
def test_thinning_keeps_the_mean_in_proportion(weights: list[float], share: float) -> None:
    counts = np.array(weights) / sum(weights)
    left = thinned(counts, share)
    numbers = np.arange(len(counts))
    assert left.sum() == pytest.approx(1)
    assert left @ numbers == pytest.approx(share * (counts @ numbers), abs=1e-9)


@given(st.floats(0.05, 0.9), st.floats(0.1, 3.0), st.floats(0.5, 1.0))
def test_as_many_come_in_a_time_as_the_rate_says(rate: float, seconds: float, dispersion: float) -> None:
    arrivals = Arrivals(rate, np.array([0.0, 0.5, 0.5]), dispersion)
    counts = arrivals.counts(np.array([seconds]), 128)[0]
    assert counts.sum() == pytest.approx(1, abs=0.02)
    assert counts @ np.arange(128) == pytest.approx(arrivals.images_per_s * seconds, rel=0.05)


def test_a_time_between_two_points_keeps_its_mean() -> None:
    lattice = Lattice(0.1, 64)
    assert lattice.mean(lattice.at(1.234)) == pytest.approx(1.234)
    assert lattice.mean(lattice.convolved(lattice.at(1.234), lattice.at(2.0))) == pytest.approx(3.234)
    assert lattice.quantile(lattice.at(1.2), 0.99) == pytest.approx(1.2)


def test_sums_of_numbers_are_sums() -> None:
    rows = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    assert sums(rows, np.array([0.0, 1.0])) == pytest.approx(np.array([[0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0]]))
