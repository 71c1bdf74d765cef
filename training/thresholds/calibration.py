"""What a threshold vector costs and achieves on a set of samples.

Shapes: K exits, n samples, C classes, P threshold vectors. A vector has K - 1 entries, `inf` is "never leave here"; a
sample leaves at the first exit whose confidence is at least its threshold, the last exit takes all that are left.
GMACs are cumulative: leaving at exit k has run stages 1..k.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.policy import Measure, confidence

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

BLOCK_CELLS = 1 << 22
"""How many (vector, sample) pairs are looked at together: a few boolean arrays of 4 MB, which caches still hold."""


@dataclass(frozen=True)
class Calibration:
    """All that a threshold rule may know of a set of samples.

    `confidences` (K, n), `correct` (K, n): whether exit k's prediction for a sample is right; `cumulative_gmacs` (K,),
    rising. A NaN confidence becomes -inf: such a sample never leaves early. Raises `ValueError` where shapes differ,
    the set is empty, or costs do not rise.
    """

    confidences: Floats
    correct: Bools
    cumulative_gmacs: Floats

    def __post_init__(self) -> None:
        shape = self.confidences.shape
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"confidences have shape {shape}, expected (exits, samples), neither of them 0")
        if self.correct.shape != shape:
            raise ValueError(f"correct has shape {self.correct.shape}, confidences have {shape}")
        object.__setattr__(self, "confidences", np.where(np.isnan(self.confidences), -np.inf, self.confidences))
        object.__setattr__(self, "cumulative_gmacs", checked_gmacs(self.cumulative_gmacs, shape[0]))

    @property
    def exits(self) -> int:
        """The number of exits, K."""
        return int(self.confidences.shape[0])

    @property
    def samples(self) -> int:
        """The number of samples, n."""
        return int(self.confidences.shape[1])

    @property
    def exit_top1(self) -> Floats:
        """Top-1 (K,) of every exit alone, 0..1."""
        top1: Floats = self.correct.mean(axis=1)
        return top1

    def take(self, chosen: NDArray[np.intp]) -> "Calibration":
        """The same exits on some of the samples (indices)."""
        return Calibration(self.confidences[:, chosen], self.correct[:, chosen], self.cumulative_gmacs)


@dataclass(frozen=True)
class Outcome:
    """One threshold vector on one set: top-1 (0..1), mean GMACs an image, share (0..1) of the samples an exit."""

    top1: float
    mean_gmacs: float
    exit_shares: tuple[float, ...]


@dataclass(frozen=True)
class Outcomes:
    """P threshold vectors on one set: `top1` (P,), `mean_gmacs` (P,), `exit_shares` (P, K)."""

    top1: Floats
    mean_gmacs: Floats
    exit_shares: Floats

    def __getitem__(self, row: int) -> Outcome:
        shares = tuple(float(share) for share in self.exit_shares[row])
        return Outcome(float(self.top1[row]), float(self.mean_gmacs[row]), shares)


def checked_gmacs(cumulative_gmacs: Floats, exits: int) -> Floats:
    """Cumulative costs (K,) as float64. Raises `ValueError` unless there is one an exit and they rise."""
    costs = np.asarray(cumulative_gmacs, dtype=np.float64)
    if costs.shape != (exits,):
        raise ValueError(f"cumulative_gmacs has shape {costs.shape}, expected ({exits},)")
    if not (np.diff(costs, prepend=0.0) > 0).all():
        raise ValueError(f"cumulative_gmacs must rise from exit to exit, got {costs.tolist()}")
    return costs


def calibration_of(
    probabilities: Floats,
    targets: NDArray[np.integer],
    cumulative_gmacs: Floats,
    measure: Measure = "max_softmax",
) -> Calibration:
    """Confidences and hits of probabilities (K, n, C) for targets (n,), looked at once for any number of vectors."""
    _check_targets(probabilities, targets)
    correct = probabilities.argmax(axis=-1) == targets
    return Calibration(fast_confidence(probabilities, measure), correct, cumulative_gmacs)


def evaluate_thresholds(
    probabilities: Floats,
    targets: NDArray[np.integer],
    cumulative_gmacs: Floats,
    thresholds: Floats,
    measure: Measure = "max_softmax",
) -> Outcome:
    """What thresholds (K - 1,) do to probabilities (K, n, C) with targets (n,).

    For many vectors on one set make a `Calibration` once and call `evaluate_many`. Raises `ValueError` where shapes
    do not fit together.
    """
    _check_targets(probabilities, targets)
    exits, samples, _ = probabilities.shape
    thresholds = np.asarray(thresholds)
    if thresholds.shape != (exits - 1,):
        raise ValueError(f"thresholds have shape {thresholds.shape}, expected ({exits - 1},)")
    leaves_here = np.ones((exits, samples), dtype=np.bool_)
    leaves_here[:-1] = fast_confidence(probabilities[:-1], measure) >= thresholds[:, None]
    exit_taken = leaves_here.argmax(axis=0)
    predicted = probabilities[exit_taken, np.arange(samples)].argmax(axis=-1)
    shares = np.bincount(exit_taken, minlength=exits) / samples
    mean_gmacs = float(shares @ checked_gmacs(cumulative_gmacs, exits))
    return Outcome(float((predicted == targets).mean()), mean_gmacs, tuple(shares.tolist()))


def evaluate_many(calibration: Calibration, thresholds: Floats) -> Outcomes:
    """What each of thresholds (P, K - 1) does to the set."""
    vectors, samples, exits = len(thresholds), calibration.samples, calibration.exits
    if thresholds.shape != (vectors, exits - 1):
        raise ValueError(f"thresholds have shape {thresholds.shape}, expected (vectors, {exits - 1})")
    counts = np.empty((vectors, exits), dtype=np.int64)
    hits = np.zeros(vectors, dtype=np.int64)
    rows = max(1, BLOCK_CELLS // samples)
    for start in range(0, vectors, rows):
        block = slice(start, start + rows)
        staying = np.ones((len(thresholds[block]), samples), dtype=np.bool_)
        for k in range(exits):
            leaving = staying
            if k < exits - 1:
                leaving = staying & (calibration.confidences[k] >= thresholds[block, k, None])
                staying &= ~leaving
            counts[block, k] = np.count_nonzero(leaving, axis=1)
            hits[block] += np.count_nonzero(leaving & calibration.correct[k], axis=1)
    shares = counts / samples
    return Outcomes(hits / samples, shares @ calibration.cumulative_gmacs, shares)


def fast_confidence(probabilities: Floats, measure: Measure) -> Floats:
    """`models.policy.confidence`, several times faster for few classes.

    numpy reduces a short last axis one row at a time; class by class over the samples gives the same maxima.
    """
    classes = probabilities.shape[-1]
    if measure != "max_softmax" or classes > 64:
        return confidence(probabilities, measure)
    largest = probabilities[..., 0].copy()
    for c in range(1, classes):
        np.maximum(largest, probabilities[..., c], out=largest)
    return largest


def _check_targets(probabilities: Floats, targets: NDArray[np.integer]) -> None:
    if probabilities.ndim != 3 or 0 in probabilities.shape:
        raise ValueError(f"probabilities have shape {probabilities.shape}, expected (exits, samples, classes)")
    if targets.shape != probabilities.shape[1:2]:
        raise ValueError(f"targets have shape {targets.shape}, expected ({probabilities.shape[1]},)")
