"""Tests of risk: exact where there is a formula, equal to MAPIE's, and right as often as they claim."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.risk_control import control_fwer
from scipy.stats import binomtest

from models.profiles import Risk
from training.risk import Ints, fixed_sequence, harmless, p_values, samples_needed, upper_bound
from training.thresholds import Calibration, Floats, evaluate_many, exhaustive_rule

RUNS = 500
COSTS = np.array([1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("risk", "expected"),
    [("disagreement", [[1, 0, 1, 0], [1, 1, 1, 1]]), ("accuracy_drop", [[1, 0, 1, 1], [1, 1, 1, 1]])],
)
def test_what_harms_is_another_label_or_a_right_one_lost(risk: Risk, expected: list[list[int]]) -> None:
    predicted, targets = np.array([[1, 2, 3, 5], [1, 1, 3, 4]]), np.array([1, 1, 2, 5])
    assert harmless(risk, predicted, targets).astype(int).tolist() == expected


@given(st.integers(1, 3000), st.floats(0.001, 0.5), st.data())
def test_a_p_value_is_that_of_the_exact_binomial_test(samples: int, epsilon: float, data: st.DataObject) -> None:
    harmed = data.draw(st.integers(0, samples))
    (value,) = p_values(np.array([harmed]), samples, epsilon)
    assert value == pytest.approx(binomtest(harmed, samples, epsilon, alternative="less").pvalue, rel=1e-9, abs=1e-300)


@given(st.lists(st.floats(0, 1) | st.just(0.05), min_size=1, max_size=40), st.sampled_from([0.01, 0.05, 0.3, 1.0]))
def test_what_is_certified_is_what_mapie_would(values: list[float], delta: float) -> None:
    count = fixed_sequence(np.array(values), delta)
    assert list(control_fwer(np.array(values), delta, "fixed_sequence")) == list(range(count))


def test_nothing_is_certified_by_numbers_that_are_none() -> None:
    assert fixed_sequence(np.array([0.0, math.nan, 0.0]), 0.1) == 1


@given(st.integers(1, 2000), st.sampled_from([0.01, 0.1]), st.data())
def test_a_bound_is_where_the_test_would_just_pass(samples: int, delta: float, data: st.DataObject) -> None:
    harmed = data.draw(st.integers(0, samples))
    bound = upper_bound(harmed, samples, delta)
    if harmed < samples:
        assert p_values(np.array([harmed]), samples, bound)[0] == pytest.approx(delta, rel=1e-6)
    else:
        assert bound == 1


@pytest.mark.parametrize(("epsilon", "delta"), [(0.01, 0.1), (0.005, 0.0125), (0.3, 0.5)])
def test_so_many_samples_are_needed_and_no_fewer(epsilon: float, delta: float) -> None:
    needed = samples_needed(epsilon, delta)
    assert [fixed_sequence(p_values(np.zeros(1, int), n, epsilon), delta) for n in (needed - 1, needed)] == [0, 1]


def test_a_percent_takes_230_samples() -> None:
    assert samples_needed(0.01, 0.1) == 230


def population(samples: int, seed: int) -> Calibration:
    """Exits that are harmless more often the more confident they are; the last one always is."""
    random = np.random.default_rng(seed)
    hardness = random.random(samples)
    confidences = np.clip(
        1 - hardness[None] * np.array([[1.0], [0.7], [0.5]]) + random.normal(0, 0.1, (3, samples)), 0, 1
    )
    unharmed = random.random((3, samples)) > np.array([[0.35], [0.15], [0.0]]) * hardness
    return Calibration(confidences, unharmed, COSTS)


def harmed_in(calibration: Calibration, vectors: Floats) -> Ints:
    return np.asarray(np.rint((1 - evaluate_many(calibration, vectors).top1) * calibration.samples), np.int64)


@pytest.mark.parametrize(("samples", "epsilon", "delta"), [(400, 0.05, 0.1), (1000, 0.02, 0.05)])
def test_a_risk_above_epsilon_is_certified_no_more_often_than_delta(samples: int, epsilon: float, delta: float) -> None:
    everybody, random = population(4000, seed=1), np.random.default_rng(2)
    vectors = exhaustive_rule(population(300, seed=3)).thinned(40).thresholds[::-1]
    true_risk = 1 - evaluate_many(everybody, vectors).top1
    cheapest = []
    for _ in range(RUNS):
        drawn = everybody.take(random.integers(0, everybody.samples, samples))
        count = fixed_sequence(p_values(harmed_in(drawn, vectors), samples, epsilon), delta)
        cheapest.append(true_risk[count - 1] if count else 0.0)
    error = 3 * math.sqrt(delta * (1 - delta) / RUNS)
    assert np.mean(np.array(cheapest) > epsilon) <= delta + error
    assert np.mean(np.array(cheapest) > 0) > 0.9, "a test that always refuses proves nothing"
    assert (true_risk > epsilon).any(), "there was nothing to be wrong about"


@pytest.mark.parametrize(
    ("risk", "least", "most"), [(0.008, 0.99, 1.0), (0.0196, 0.1 / 3, 1.0), (0.02001, 0.1 / 3, 0.1)], ids=str
)
def test_the_test_uses_the_error_that_it_is_allowed(risk: float, least: float, most: float) -> None:
    """Shares of runs in which one vector is certified for 0.02: far below it, just below, just above."""
    samples, epsilon, delta, runs = 1500, 0.02, 0.1, 20_000
    harmed = np.random.default_rng(4).binomial(samples, risk, runs)
    certified = float(np.mean(p_values(harmed, samples, epsilon) <= delta))
    assert least <= certified <= most + 3 * math.sqrt(delta * (1 - delta) / runs)
