"""Bets against a certificate: fair where it just holds, a loss where it holds by far, soon rich where it is wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.evidence import ALPHA, ODDS, bet, first_stakes, reserve, wealth
from tests.service.engine.risks import NOTICED_AT_2_EPSILON, samples_until_broken

EPSILON = 0.01

epsilons = st.floats(0.001, 0.5)
stakes = st.lists(st.floats(0, 100), min_size=len(ODDS), max_size=len(ODDS)).map(np.array)
counts = st.integers(0, 10**7)


def expected(held: np.ndarray, samples: int, risk: float, epsilon: float) -> float:
    """The wealth after one more sample, on average."""
    outcomes = np.array([True, False])
    after = wealth(bet(np.stack([held, held]), samples, outcomes, epsilon), samples + 1, epsilon)
    return float(risk * after[0] + (1 - risk) * after[1])


@given(stakes, counts, epsilons)
def test_at_a_risk_of_epsilon_a_bet_is_fair(held: np.ndarray, samples: int, epsilon: float) -> None:
    now = float(wealth(held, samples, epsilon))
    assert expected(held, samples, epsilon, epsilon) == pytest.approx(now, rel=1e-9)


@given(stakes, counts, epsilons, st.floats(0, 1))
def test_below_epsilon_no_bet_gains_and_above_it_none_loses(
    held: np.ndarray, samples: int, epsilon: float, risk: float
) -> None:
    now = float(wealth(held, samples, epsilon))
    after = expected(held, samples, risk, epsilon)
    assert after <= now * (1 + 1e-9) if risk <= epsilon else after >= now * (1 - 1e-9)


@given(st.lists(st.booleans(), max_size=60), epsilons)
def test_nothing_is_ever_owed_and_all_begins_at_1(outcomes: list[bool], epsilon: float) -> None:
    held = first_stakes()
    assert float(wealth(held, 0, epsilon)) == pytest.approx(1.0)
    for samples, disagreed in enumerate(outcomes):
        held = bet(held, samples, np.array(disagreed), epsilon)
        assert held.min() >= 0


@given(counts, epsilons)
def test_there_is_always_something_left_to_stake(samples: int, epsilon: float) -> None:
    assert reserve(samples, epsilon) > reserve(samples + 1, epsilon) > 0


def share_broken(times: np.ndarray) -> float:
    return float(np.mean(times > 0))


def test_certificates_that_just_hold_are_hardly_ever_called_broken() -> None:
    times = samples_until_broken(EPSILON, [(2_000, EPSILON)], courses=300, seed=1)
    assert share_broken(times) < ALPHA + 3 * np.sqrt(ALPHA / 300)


def test_twice_the_risk_is_noticed_within_the_stated_number_of_samples() -> None:
    times = samples_until_broken(EPSILON, [(4_000, 2 * EPSILON)], courses=300, seed=2)
    assert np.median(times[times > 0]) <= NOTICED_AT_2_EPSILON / EPSILON
    assert share_broken(times) > 0.9


def test_what_breaks_late_is_noticed_too() -> None:
    """Twenty thousand good samples, which no bet of the first hour survives, then five times the risk."""
    times = samples_until_broken(EPSILON, [(20_000, EPSILON / 4), (1_000, 5 * EPSILON)], courses=50, seed=3)
    assert share_broken(times) > 0.9
    assert np.median(times[times > 0]) - 20_000 < NOTICED_AT_2_EPSILON / EPSILON


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.005, 0.01, 0.02, 0.05])
def test_over_1000_courses_of_10000_samples_false_alarms_stay_under_alpha(epsilon: float) -> None:
    times = samples_until_broken(epsilon, [(10_000, epsilon)], courses=1_000, seed=4)
    assert share_broken(times) < ALPHA


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.005, 0.01, 0.02, 0.05])
def test_over_1000_courses_twice_the_risk_is_noticed_within_the_stated_median(epsilon: float) -> None:
    times = samples_until_broken(epsilon, [(10_000, 2 * epsilon)], courses=1_000, seed=5)
    assert np.median(np.where(times > 0, times, np.inf)) <= NOTICED_AT_2_EPSILON / epsilon
