"""Confidence and the exit rule."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.policy import MEASURES, Floats, Measure, confidence, leaves, softmax

all_logits = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(2, 8)), elements=st.floats(-50, 50, width=32))
confidences = arrays(np.float64, st.integers(1, 10), elements=st.floats(0, 1) | st.just(math.nan))
thresholds = st.none() | st.floats(0, 1)

every_measure = pytest.mark.parametrize("measure", MEASURES)


@given(all_logits, st.floats(0.1, 10))
def test_probabilities_sum_to_1_and_keep_the_order(logits: Floats, temperature: float) -> None:
    probabilities = softmax(logits, temperature)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)
    largest = np.take_along_axis(probabilities, logits.argmax(axis=-1, keepdims=True), axis=-1)
    assert (largest[:, 0] >= probabilities.max(axis=-1)).all()


def test_huge_logits_do_not_overflow() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0]], np.float32)), [[1, 0]])


@given(all_logits)
def test_confidence_lies_in_0_to_1(logits: Floats) -> None:
    for measure in MEASURES:
        found = confidence(softmax(logits), measure)
        assert found.shape == logits.shape[:1]
        assert ((found >= -1e-5) & (found <= 1 + 1e-5)).all()


@pytest.mark.parametrize(
    ("measure", "expected"),
    [("max_softmax", 0.5), ("margin", 0.25), ("entropy", 1 - 1.5 * math.log(2) / math.log(3))],
)
def test_measures_by_hand(measure: Measure, expected: float) -> None:
    found = confidence(np.array([[0.25, 0.5, 0.25]]), measure)
    np.testing.assert_allclose(found, [expected])


@every_measure
def test_certainty_is_1_and_no_idea_is_least(measure: Measure) -> None:
    certain, no_idea = confidence(np.array([[0.0, 1.0, 0.0, 0.0], [0.25] * 4]), measure)
    assert certain == pytest.approx(1)
    assert no_idea == pytest.approx(0.25 if measure == "max_softmax" else 0)


@every_measure
def test_a_single_class_is_certain(measure: Measure) -> None:
    np.testing.assert_array_equal(confidence(np.ones((3, 1)), measure), 1)


@every_measure
def test_nan_never_leaves(measure: Measure) -> None:
    logits = np.array([[math.nan, 1.0, 2.0], [0.0, 9.0, 0.0]])
    with np.errstate(invalid="ignore"):
        found = leaves(confidence(softmax(logits), measure), 0.0)
    assert found.tolist() == [False, True]


def test_an_unknown_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown confidence measure 'vibes', known are max_softmax, margin, entropy"):
        confidence(np.ones((1, 2)), "vibes")  # type: ignore[arg-type]  # what a file could hold


@given(confidences, thresholds, thresholds)
def test_raising_a_threshold_never_makes_a_sample_leave(found: Floats, one: float | None, other: float | None) -> None:
    lower, higher = sorted((one, other), key=lambda threshold: math.inf if threshold is None else threshold)
    assert not (leaves(found, higher) & ~leaves(found, lower)).any()


def test_a_confidence_at_the_threshold_leaves_and_never_is_never() -> None:
    found = np.array([0.5, 1.0])
    assert leaves(found, 0.5).tolist() == [True, True]
    assert leaves(found, 1.0).tolist() == [False, True]
    assert leaves(found, None).tolist() == [False, False]
