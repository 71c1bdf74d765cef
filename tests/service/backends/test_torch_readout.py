"""Confidence and the best classes, by torch as by numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models.policy import MEASURES, ExitMeasure, Measure
from service.backends.torch_readout import brief_of, readout
from tests.service import briefs

Logits = NDArray[np.float32]

shapes = st.tuples(st.integers(1, 5), st.integers(1, 40))
# Rounded, so that many are equal; what is no number, or too large for one, comes from a stage gone wrong.
finite = st.floats(-50, 50, width=32).map(lambda value: round(value, 1))
odd = st.sampled_from([math.nan, math.inf, -math.inf, 3e38, -3e38])

every_measure = pytest.mark.parametrize("measure", MEASURES)


def assert_alike(logits: Logits, temperature: float, measure: Measure, k: int) -> None:
    packed = readout(torch.from_numpy(logits), temperature, measure, k)
    assert (packed.dtype, tuple(packed.shape)) == (torch.float64, (len(logits), 1 + 2 * k))
    ours = brief_of(packed.numpy(), logits.shape[1])
    theirs = briefs.brief_of(logits, ExitMeasure(measure, (temperature,)), 1, k)
    assert ours.of == theirs.of
    np.testing.assert_array_equal(ours.classes, theirs.classes)
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(ours.confidences, theirs.confidences, rtol=1e-12, atol=1e-14)


@every_measure
@given(arrays(np.float32, shapes, elements=finite), st.floats(0.2, 10), st.data())
def test_it_says_what_the_policy_says(
    measure: Measure, logits: Logits, temperature: float, data: st.DataObject
) -> None:
    assert_alike(logits, temperature, measure, data.draw(st.integers(1, logits.shape[1])))


@every_measure
@given(arrays(np.float32, shapes, elements=finite | odd), st.floats(0.2, 10))
def test_what_is_no_number_stays_none_and_spoils_no_other_image(
    measure: Measure, logits: Logits, temperature: float
) -> None:
    assert_alike(logits, temperature, measure, logits.shape[1])


@every_measure
def test_a_thousand_equal_classes_come_in_their_order(measure: Measure) -> None:
    assert_alike(np.zeros((3, 1000), np.float32), 1.0, measure, 16)
