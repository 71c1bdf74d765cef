"""Temperatures: known ones are found again, predictions stay, confidence becomes honest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.policy import softmax
from training.temperature import (
    TEMPERATURE_RANGE,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)


def honest_logits(seed: int, samples: int = 4_000, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the very distribution that the targets are drawn from: temperature 1."""
    rng = np.random.default_rng(seed)
    logits = 2.5 * rng.normal(size=(samples, classes))
    cumulative = np.cumsum(softmax(logits), axis=1)
    targets = (rng.random((samples, 1)) > cumulative[:, :-1]).sum(axis=1)
    return logits, targets


@given(seed=st.integers(0, 20), factor=st.floats(0.2, 5.0))
def test_logits_that_are_too_sharp_by_a_factor_get_that_temperature(seed: int, factor: float) -> None:
    logits, targets = honest_logits(seed)
    fit = fit_temperature((logits * factor).astype(np.float32), targets)
    assert fit.temperature == pytest.approx(factor, rel=0.1)
    assert fit.temperature == pytest.approx(factor * fit_temperature(logits, targets).temperature, rel=1e-4)


def test_overconfident_logits_become_calibrated() -> None:
    logits, targets = honest_logits(3)
    fit = fit_temperature(3 * logits, targets)
    assert fit.ece_before > 0.1
    assert fit.ece_after < 0.02
    assert fit.nll_after < fit.nll_before


def test_no_other_temperature_is_likelier() -> None:
    logits, targets = honest_logits(4, samples=300)
    fit = fit_temperature(logits, targets)
    for other in np.linspace(0.3, 3, 28):
        assert fit.nll_after <= negative_log_likelihood(softmax(logits, other), targets) + 1e-12


@pytest.mark.parametrize(("right", "expected"), [(True, TEMPERATURE_RANGE[0]), (False, TEMPERATURE_RANGE[1])])
def test_an_exit_that_is_always_or_never_right_gets_the_end_of_the_range(right: bool, expected: float) -> None:
    logits, _ = honest_logits(5, samples=200)
    targets = logits.argmax(axis=1) if right else logits.argmin(axis=1)
    assert fit_temperature(logits, targets).temperature == pytest.approx(expected, rel=1e-3)


def test_calibration_error_is_the_distance_of_confidence_and_accuracy() -> None:
    probabilities = np.tile([0.8, 0.2], (10, 1))
    half_right = np.array([0, 1] * 5)
    assert reliability(probabilities, half_right).ece == pytest.approx(0.3)
    too_sure_and_too_modest = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    targets = np.array([0] * 7 + [1] * 3 + [0] * 8 + [1] * 2)
    assert reliability(too_sure_and_too_modest, targets).ece == pytest.approx(0.2)
    four_in_five = np.array([0, 0, 0, 0, 1] * 2)
    assert reliability(probabilities, four_in_five).ece == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("logits", "targets", "said"),
    [
        (np.zeros((0, 3)), np.zeros(0, dtype=np.int64), "expected"),
        (np.zeros((2, 3)), np.zeros(3, dtype=np.int64), "expected"),
        (np.full((2, 3), np.nan), np.zeros(2, dtype=np.int64), "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(logits: np.ndarray, targets: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit_temperature(logits, targets)
