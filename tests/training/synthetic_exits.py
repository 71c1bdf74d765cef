"""Exits as real cascades have them: deeper ones better, errors shared between exits, confidence a noisy guide."""

import numpy as np

from training.evaluate import ExitLogits
from training.thresholds import Calibration

CUMULATIVE_GMACS = np.array([0.11, 0.35, 0.89, 1.6, 2.8])
CLASSES = 5


def synthetic_exits(seed: int, samples: int, exits: int = 3) -> Calibration:
    """The first exit is right for about 75 % of the samples, the third for 87 %, the fifth for 92 %."""
    rng = np.random.default_rng(seed)
    ease = 0.6 * rng.normal(size=samples) - 1.3 * rng.normal(size=samples)
    margin = 1.6 + 0.5 * np.arange(exits)[:, None] + ease + 0.7 * rng.normal(size=(exits, samples))
    correct = rng.random((exits, samples)) < _sigmoid(margin)
    confidences = 0.1 + 0.9 * _sigmoid(margin + 0.5 * rng.normal(size=(exits, samples)))
    return Calibration(confidences.astype(np.float32), correct, CUMULATIVE_GMACS[:exits])


def logits_of_exits(seed: int, samples: int, exits: int = 3) -> ExitLogits:
    """Logits whose exits are right and confident as `synthetic_exits` says, sharper than they should be."""
    calibration = synthetic_exits(seed, samples, exits)
    rng = np.random.default_rng(seed + 1_000)
    targets = rng.integers(0, CLASSES, samples)
    wrong = (targets + rng.integers(1, CLASSES, size=(exits, samples))) % CLASSES
    predicted = np.where(calibration.correct, targets, wrong)
    # A winner that stands m above the others has confidence 1 / (1 + (C - 1) exp(-m)).
    margin = np.log((CLASSES - 1) * calibration.confidences / (1 - np.minimum(calibration.confidences, 0.999)))
    logits = rng.normal(0, 0.1, size=(exits, samples, CLASSES))
    np.put_along_axis(logits, predicted[..., None], 1 + np.abs(margin)[..., None], axis=-1)
    return ExitLogits(2 * logits.astype(np.float32), targets.astype(np.int64))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    squashed: np.ndarray = 1 / (1 + np.exp(-x))
    return squashed
