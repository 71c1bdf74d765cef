"""Temperatures: how far an exit's softmax has to be flattened so that a confidence of 0.9 is right 9 times in 10.

Guo et al., "On Calibration of Modern Neural Networks", 2017: one number an exit, by the negative log-likelihood of
held-out samples. It changes no prediction. It makes one threshold mean the same at every exit.

Shapes: n samples, C classes, logits (n, C), targets (n,).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.policy import softmax

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

TEMPERATURE_RANGE = (0.05, 20.0)
"""Beyond it a sharper or flatter softmax is no longer told apart in float32, or the exit has learned nothing."""

ECE_BINS = 15
"""As in the paper."""


@dataclass(frozen=True)
class TemperatureFit:
    """An exit's temperature, and its expected calibration error (0..1) and negative log-likelihood before and after."""

    temperature: float
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float


def fit_temperature(logits: Floats, targets: Ints) -> TemperatureFit:
    """The temperature with the least negative log-likelihood, within `TEMPERATURE_RANGE`; always the same for the same
    samples. Raises `ValueError` for shapes that do not fit, no samples, or logits that are not finite.
    """
    if logits.ndim != 2 or 0 in logits.shape or targets.shape != logits.shape[:1]:
        raise ValueError(f"logits have shape {logits.shape} and targets {targets.shape}, expected (n, C) and (n,)")
    if not np.isfinite(logits).all():
        raise ValueError("logits are not finite: the weights are damaged")
    logits = logits.astype(np.float64)
    temperature = 1.0 / _best_inverse(logits - logits.max(axis=1, keepdims=True), targets)
    before, after = softmax(logits), softmax(logits, temperature)
    return TemperatureFit(
        temperature=temperature,
        ece_before=reliability(before, targets).ece,
        ece_after=reliability(after, targets).ece,
        nll_before=negative_log_likelihood(before, targets),
        nll_after=negative_log_likelihood(after, targets),
    )


def negative_log_likelihood(probabilities: Floats, targets: Ints) -> float:
    """Mean of -ln p(target) in nats; a probability of 0 counts as the smallest float."""
    chosen = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


@dataclass(frozen=True)
class Reliability:
    """Samples by their confidence, in bins of equal width that are not empty: mean confidence, accuracy, and share of
    all samples, each (bins,) and 0..1."""

    confidence: Floats
    accuracy: Floats
    share: Floats

    @property
    def ece(self) -> float:
        """The expected calibration error: how far confidence and accuracy lie apart, weighted by share."""
        return float((np.abs(self.confidence - self.accuracy) * self.share).sum())


def reliability(probabilities: Floats, targets: Ints, bins: int = ECE_BINS) -> Reliability:
    """How often probabilities (n, C) are as right as they are sure."""
    confident = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == targets
    bin_of = np.minimum((confident * bins).astype(np.intp), bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    filled = counts > 0
    sums = (np.bincount(bin_of, weights=values, minlength=bins)[filled] for values in (confident, correct))
    confidence, accuracy = (total / counts[filled] for total in sums)
    return Reliability(confidence, accuracy, counts[filled] / len(targets))


def _best_inverse(logits: Floats, targets: Ints) -> float:
    """The b = 1 / temperature that minimises mean(ln sum exp(b z) - b z_target), which is convex in b.

    Newton's method between brackets: its slope rises with b, so every slope seen narrows the bracket, and a step that
    leaves it is replaced by its middle.
    """
    low, high = 1.0 / TEMPERATURE_RANGE[1], 1.0 / TEMPERATURE_RANGE[0]
    at_target = logits[np.arange(len(targets)), targets]
    inverse = 1.0
    for _ in range(100):
        weights = softmax(logits * inverse)
        mean = (weights * logits).sum(axis=1)
        slope = float((mean - at_target).mean())
        curvature = float(((weights * logits**2).sum(axis=1) - mean**2).mean())
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        if high - low < 1e-9 * high:
            break
        step = inverse - slope / curvature if curvature > 0 else np.nan
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) < 1e-9 * inverse:
            break
        inverse = following
    return inverse
