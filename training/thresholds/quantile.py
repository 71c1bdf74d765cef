"""The published rule (DVT, section 3.3 and its code): exits take fixed shares of the samples.

Shapes: K exits, n samples, C classes, Q share vectors.
"""

import numpy as np

from models.policy import Measure
from training.thresholds.calibration import Calibration, Floats, fast_confidence
from training.thresholds.frontier import Frontier, frontier_of

PUBLISHED_RATIOS: Floats = np.arange(1, 60) / 20
"""q of the published sweep: below 1 most samples leave at the first exit, above 1 most reach the last."""


def quantile_shares(exits: int, ratios: Floats = PUBLISHED_RATIOS) -> Floats:
    """Shares (Q, K) of the samples: exit k of 1..K gets q^k / (q + ... + q^K) for each of `ratios` (Q,)."""
    powers = ratios[:, None] ** np.arange(1, exits + 1)
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def quantile_thresholds(probabilities: Floats, shares: Floats, measure: Measure = "max_softmax") -> Floats:
    """Thresholds (K - 1,) with which about `shares` (K,) of the samples of probabilities (K, n, C) leave at each exit.

    `inf` is "never". For many share vectors on one set use `quantile_rule`, which looks at the probabilities once.
    """
    exits = probabilities.shape[0]
    if probabilities.ndim != 3 or np.shape(shares) != (exits,):
        raise ValueError(f"shares have shape {np.shape(shares)} for probabilities of shape {probabilities.shape}")
    confidences = fast_confidence(probabilities[:-1], measure)
    return _thresholds(np.where(np.isnan(confidences), -np.inf, confidences), np.asarray(shares))


def quantile_rule(calibration: Calibration, ratios: Floats = PUBLISHED_RATIOS) -> Frontier:
    """The best of the vectors that the published rule finds for `ratios`."""
    return frontier_of(calibration, quantile_vectors(calibration, ratios))


def quantile_vectors(calibration: Calibration, ratios: Floats = PUBLISHED_RATIOS) -> Floats:
    """One vector a ratio, (Q, K - 1), dominated ones too: the published sweep."""
    confidences = calibration.confidences[:-1]
    shares = quantile_shares(calibration.exits, ratios)
    return np.stack([_thresholds(confidences, row) for row in shares])


def _thresholds(confidences: Floats, shares: Floats) -> Floats:
    """Exit by exit: the floor(share * n)-th most confident of the samples still there, if there are that many.

    confidences: (K - 1, n), of all exits but the last, without NaN.
    """
    thresholds = np.full(len(confidences), np.inf)
    samples = confidences.shape[1]
    staying = np.ones(samples, dtype=np.bool_)
    for k, at_exit in enumerate(confidences):
        count = int(np.floor(shares[k] * samples))
        left = at_exit[staying]
        if not 0 < count <= len(left):
            continue
        threshold = np.partition(left, len(left) - count)[len(left) - count]
        if threshold == -np.inf:
            continue
        thresholds[k] = threshold
        staying &= at_exit < threshold
    return thresholds
