"""What threshold vectors do: the published rule's golden vectors, and the laws of leaving early."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.policy import MEASURES, Measure
from tests.training.synthetic_exits import synthetic_exits
from training.thresholds import (
    Calibration,
    calibration_of,
    evaluate_many,
    evaluate_thresholds,
    quantile_shares,
    quantile_thresholds,
)
from training.thresholds.quantile import PUBLISHED_RATIOS, quantile_vectors

GOLDEN = Path(__file__).parent.parent / "golden" / "thresholds.seed0.npz"
NEVER_AS_PUBLISHED = 1e8


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as stored:
        return dict(stored)


def published_thresholds(golden: dict[str, np.ndarray]) -> np.ndarray:
    """(59, K - 1), with inf for never; the published code stores the last exit too, as "takes all"."""
    stored = golden["thresholds"][:, :-1].astype(np.float64)
    return np.where(stored == NEVER_AS_PUBLISHED, np.inf, stored)


def test_the_quantile_rule_finds_the_published_thresholds(golden: dict[str, np.ndarray]) -> None:
    shares = quantile_shares(3)
    found = [quantile_thresholds(golden["calibration_probabilities"], row) for row in shares]
    np.testing.assert_array_equal(found, published_thresholds(golden))


def test_the_published_vectors_do_what_the_published_code_says(golden: dict[str, np.ndarray]) -> None:
    outcomes = [
        evaluate_thresholds(
            golden["evaluation_probabilities"], golden["evaluation_targets"], golden["gflops"], thresholds
        )
        for thresholds in published_thresholds(golden)
    ]
    np.testing.assert_allclose([100 * each.top1 for each in outcomes], golden["accuracy_percent"], rtol=0, atol=1e-9)
    np.testing.assert_allclose([each.mean_gmacs for each in outcomes], golden["mean_gflops"], rtol=1e-6)


def test_looking_at_the_probabilities_once_changes_no_vector(golden: dict[str, np.ndarray]) -> None:
    calibration = calibration_of(golden["calibration_probabilities"], golden["calibration_targets"], golden["gflops"])
    np.testing.assert_array_equal(quantile_vectors(calibration), published_thresholds(golden))


@pytest.mark.parametrize("measure", MEASURES)
def test_many_vectors_at_once_do_what_each_does_alone(golden: dict[str, np.ndarray], measure: Measure) -> None:
    arguments = golden["evaluation_probabilities"], golden["evaluation_targets"], golden["gflops"]
    vectors = np.array([[0.2, 0.9], [0.7, 0.1], [np.inf, 0.5], [0.0, 0.0], [np.inf, np.inf]])
    together = evaluate_many(calibration_of(*arguments, measure), vectors)
    for row, vector in enumerate(vectors):
        alone = evaluate_thresholds(*arguments, vector, measure)
        assert together[row].exit_shares == alone.exit_shares
        assert (together[row].top1, together[row].mean_gmacs) == pytest.approx((alone.top1, alone.mean_gmacs))


def test_a_set_larger_than_a_block_is_counted_whole() -> None:
    calibration = synthetic_exits(0, 3_000)
    vectors = np.random.default_rng(0).random((2_000, 2))
    outcomes = evaluate_many(calibration, vectors)
    for row in (0, 999, 1_999):
        assert outcomes[row] == evaluate_many(calibration, vectors[row : row + 1])[0]


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    """Small sets of 1 to 4 exits with ties and NaN confidences."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 12)))
    values = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("nan")])
    confidences = draw(hnp.arrays(np.float64, shape, elements=values))
    return Calibration(confidences, draw(hnp.arrays(np.bool_, shape)), np.arange(1.0, shape[0] + 1))


THRESHOLDS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.6, 1.0, np.inf])


@given(calibration=calibrations(), data=st.data())
def test_raising_a_threshold_never_makes_a_sample_leave_earlier(calibration: Calibration, data: st.DataObject) -> None:
    lower = data.draw(hnp.arrays(np.float64, calibration.exits - 1, elements=THRESHOLDS))
    higher = np.maximum(lower, data.draw(hnp.arrays(np.float64, calibration.exits - 1, elements=THRESHOLDS)))
    for column in range(calibration.samples):
        sample = calibration.take(np.array([column]))
        taken = evaluate_many(sample, np.stack((lower, higher))).exit_shares.argmax(axis=1)
        assert taken[0] <= taken[1]


@given(calibration=calibrations(), data=st.data())
def test_every_sample_leaves_at_exactly_one_exit(calibration: Calibration, data: st.DataObject) -> None:
    vectors = data.draw(hnp.arrays(np.float64, (3, calibration.exits - 1), elements=THRESHOLDS))
    outcomes = evaluate_many(calibration, vectors)
    np.testing.assert_allclose(outcomes.exit_shares.sum(axis=1), 1.0)
    assert (outcomes.exit_shares >= 0).all()
    assert (outcomes.mean_gmacs >= calibration.cumulative_gmacs[0] - 1e-9).all()
    assert (outcomes.mean_gmacs <= calibration.cumulative_gmacs[-1] + 1e-9).all()


@given(exits=st.integers(2, 6), ratio=st.floats(0.05, 2.9))
def test_a_larger_ratio_sends_more_samples_to_the_last_exit(exits: int, ratio: float) -> None:
    less, more = quantile_shares(exits, np.array([ratio, ratio + 0.05]))
    assert less.sum() == pytest.approx(1.0)
    assert more[-1] > less[-1]
    assert more[0] < less[0]
    assert (np.cumsum(more) <= np.cumsum(less) + 1e-12).all()


@given(seed=st.integers(0, 1000), samples=st.integers(200, 400))
def test_without_ties_the_exits_take_the_shares_they_were_given(seed: int, samples: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(5), size=(3, samples))
    targets = np.zeros(samples, dtype=np.int64)
    for shares in quantile_shares(3, np.array([0.3, 1.0, 1.7])):
        thresholds = quantile_thresholds(probabilities, shares)
        outcome = evaluate_thresholds(probabilities, targets, np.arange(1.0, 4), thresholds)
        np.testing.assert_allclose(outcome.exit_shares, shares, atol=2 / samples)


def test_ties_that_leave_too_few_samples_make_the_next_exit_never() -> None:
    """All ten leave at the first exit together, so that the second has none to choose from."""
    probabilities = np.tile([0.9, 0.1], (3, 10, 1))
    np.testing.assert_array_equal(quantile_thresholds(probabilities, np.full(3, 1 / 3)), [0.9, np.inf])


def test_a_share_below_one_sample_is_never() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), size=(2, 9))
    np.testing.assert_array_equal(quantile_thresholds(probabilities, np.array([0.1, 0.9])), [np.inf])


def test_a_sample_without_a_confidence_goes_to_the_last_exit() -> None:
    probabilities = np.array([[[np.nan, np.nan]], [[0.3, 0.7]]])
    target, gmacs = np.array([1]), np.array([1.0, 2.0])
    alone = evaluate_thresholds(probabilities, target, gmacs, np.array([0.0]))
    together = evaluate_many(calibration_of(probabilities, target, gmacs), np.array([[0.0]]))[0]
    assert alone == together
    assert (alone.exit_shares, alone.top1, alone.mean_gmacs) == ((0.0, 1.0), 1.0, 2.0)


def test_an_exit_where_no_sample_has_a_confidence_is_never() -> None:
    probabilities = np.stack((np.full((6, 2), np.nan), np.full((6, 2), 0.5)))
    np.testing.assert_array_equal(quantile_thresholds(probabilities, np.array([0.5, 0.5])), [np.inf])


def test_a_sample_exactly_at_the_threshold_leaves() -> None:
    probabilities = np.array([[[0.25, 0.75]], [[0.5, 0.5]]])
    target, gmacs = np.array([1]), np.array([1.0, 2.0])
    alone = evaluate_thresholds(probabilities, target, gmacs, np.array([0.75]))
    together = evaluate_many(calibration_of(probabilities, target, gmacs), np.array([[0.75]]))[0]
    assert alone.exit_shares == together.exit_shares == (1.0, 0.0)


def test_one_exit_needs_no_thresholds() -> None:
    outcome = evaluate_thresholds(np.array([[[0.4, 0.6], [0.9, 0.1]]]), np.array([1, 1]), np.array([3.0]), np.empty(0))
    assert (outcome.top1, outcome.mean_gmacs, outcome.exit_shares) == (0.5, 3.0, (1.0,))


@pytest.mark.parametrize(
    ("thresholds", "gmacs", "targets", "said"),
    [
        ([0.5], [1.0, 2.0, 3.0], [0, 1], r"expected \(2,\)"),
        ([0.5, 0.5], [1.0, 2.0], [0, 1], r"expected \(3,\)"),
        ([0.5, 0.5], [1.0, 3.0, 2.0], [0, 1], "must rise"),
        ([0.5, 0.5], [1.0, 2.0, 3.0], [0], r"expected \(2,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(
    thresholds: list[float], gmacs: list[float], targets: list[int], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        evaluate_thresholds(np.full((3, 2, 4), 0.25), np.array(targets), np.array(gmacs), np.array(thresholds))


def test_the_published_sweep_has_59_ratios() -> None:
    assert len(PUBLISHED_RATIOS) == 59
    assert (PUBLISHED_RATIOS[0], PUBLISHED_RATIOS[-1]) == (0.05, 2.95)
