"""Which of a frontier's points get a name, chosen with care against luck.

Of a million threshold vectors tried on 1,000 samples the best has been lucky: its accuracy there is one that it
will not keep. So a point is judged by what the rule finds, for the point's budget, on nine tenths of the samples and
achieves on the tenth that it has not seen; every sample is such an unseen one once (cross-fitting).

What a rule seeks and what it is judged by may differ: two `Calibration` of the same samples. Thresholds are sought by
harm, right at the last exit and wrong where one leaves, since an early exit that is right where the last one is wrong
was lucky: a rule that counts such hits stops short of the thresholds that keep the last exit's accuracy.

Shapes: P points of a frontier, n samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.profiles import OperatingPoint
from training.thresholds import Calibration, Floats, Frontier, Outcomes, ThresholdRule, best_vectors, evaluate_many

FOLDS = 10

TOLERANCES: Mapping[str, float] = {"accurate": 0.0, "balanced": 0.005, "fast": 0.02}
"""How much top-1 (0..1) below the last exit's each named profile may lose to be cheap.

`fast` gives up 2 points, one image in fifty: about as much as a cascade's stages lie apart from each other, so
that most images leave at the first exit and only those that it is unsure of go on. Beyond that the frontier
ends soon anyway, at the first exit alone.
"""


@dataclass(frozen=True)
class Choice:
    """Named rows of a frontier, and its points' top-1 (P,) as cross-fitting sees them."""

    rows: dict[str, int]
    expected_top1: Floats


def cross_fitted_top1(
    sought: Calibration, judged: Calibration, rule: ThresholdRule, budgets_gmacs: Floats, folds: int = FOLDS
) -> Floats:
    """Top-1 (P,) by `judged` on samples that the thresholds were not searched on, for each budget (P,)."""
    folds = min(folds, judged.samples)
    # Seeded, so that a bundle profiled twice gets the same profiles; shuffled, since samples come class by class.
    fold_of = np.random.default_rng(0).permutation(judged.samples) % folds
    hits = np.zeros(len(budgets_gmacs))
    for fold in range(folds):
        seen, unseen = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        frontier = rule(sought.take(seen))
        vectors = frontier.thresholds[best_vectors(frontier, budgets_gmacs)]
        hits += evaluate_many(judged.take(unseen), vectors).top1 * len(unseen)
    top1: Floats = hits / judged.samples
    return top1


def choose_named(sought: Calibration, judged: Calibration, rule: ThresholdRule, frontier: Frontier) -> Choice:
    """For each of `TOLERANCES` the cheapest point within it of the last exit's top-1, or else the best point.

    `frontier` is what `rule` found in `sought`; top-1 is that of `judged`.
    """
    expected = np.full(len(frontier), float(judged.exit_top1[-1]))
    if judged.exits > 1 and judged.samples > 1:
        expected = cross_fitted_top1(sought, judged, rule, frontier.mean_gmacs)
    rows = {}
    for name, tolerance in TOLERANCES.items():
        # A hit more or less is 1 / n; half of that is the rounding of a fraction, never a hit.
        wanted = judged.exit_top1[-1] - tolerance - 0.5 / judged.samples
        enough = np.flatnonzero(expected >= wanted)
        rows[name] = int(enough[0]) if len(enough) else int(expected.argmax())
    return Choice(rows, expected)


def operating_point(vectors: Floats, outcomes: Outcomes, row: int) -> OperatingPoint:
    """As profiles.json has it: never is None, and rounding that left 0..1 by a hair is undone."""
    thresholds = tuple(None if np.isinf(value) else float(np.clip(value, 0.0, 1.0)) for value in vectors[row])
    outcome = outcomes[row]
    return OperatingPoint(thresholds, outcome.top1, outcome.mean_gmacs, outcome.exit_shares)
