"""Frontiers: threshold vectors that no other vector beats in both cost and accuracy.

Shapes: P points, K exits, B budgets.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.thresholds.calibration import Calibration, Floats, evaluate_many


@dataclass(frozen=True)
class Frontier:
    """Non-dominated points, cheapest first: `mean_gmacs` (P,) and `top1` (P,) both rise strictly from point to point.

    `thresholds` (P, K - 1), `inf` is "never". Both numbers are those of the samples searched on, and so optimistic.
    """

    thresholds: Floats
    top1: Floats
    mean_gmacs: Floats

    def __len__(self) -> int:
        return len(self.top1)

    def take(self, rows: NDArray[np.intp]) -> "Frontier":
        """Some of the points, `rows` rising."""
        return Frontier(self.thresholds[rows], self.top1[rows], self.mean_gmacs[rows])

    def thinned(self, points: int) -> "Frontier":
        """At most `points` of the points, both ends among them, evenly spread in cost."""
        if len(self) <= points:
            return self
        wanted = np.linspace(self.mean_gmacs[0], self.mean_gmacs[-1], points)
        rows = np.searchsorted(self.mean_gmacs, wanted, side="right") - 1
        return self.take(np.unique(rows))


def non_dominated(mean_gmacs: Floats, top1: Floats) -> NDArray[np.intp]:
    """Indices of the points (P,) that no other beats, cheapest first; of equal points the first."""
    order = np.lexsort((-top1, mean_gmacs))
    rising = top1[order]
    best_before = np.maximum.accumulate(np.concatenate(([-np.inf], rising[:-1])))
    return order[rising > best_before]


def frontier_of(calibration: Calibration, thresholds: Floats) -> Frontier:
    """The best among the given vectors (P, K - 1)."""
    outcomes = evaluate_many(calibration, thresholds)
    kept = non_dominated(outcomes.mean_gmacs, outcomes.top1)
    return Frontier(thresholds[kept], outcomes.top1[kept], outcomes.mean_gmacs[kept])


def best_vectors(frontier: Frontier, budgets_gmacs: Floats) -> NDArray[np.intp]:
    """For each budget (B,) the row of the most accurate point that costs no more; the cheapest where none fits."""
    # A budget is often the mean of the very point that is looked for, computed along another path.
    slack = 1e-12 * np.abs(budgets_gmacs)
    return np.maximum(np.searchsorted(frontier.mean_gmacs, budgets_gmacs + slack, side="right") - 1, 0)
