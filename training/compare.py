"""Which confidence measure to leave by: the three of them and random exit at equal cost (DVT, table 9).

Shapes: K exits, n images, C classes, B budgets.
"""

from dataclasses import dataclass

import numpy as np

from models.policy import MEASURES
from training.probabilities import ExitProbabilities
from training.thresholds import Floats, ThresholdRule, evaluate_many, quantile_shares

BUDGETS = 6


@dataclass(frozen=True)
class Comparison:
    """Report-split top-1 (0..1) at `budgets_gmacs` (B) for each way to choose who leaves."""

    budgets_gmacs: tuple[float, ...]
    top1: dict[str, tuple[float, ...]]


def compare_measures(
    search: ExitProbabilities, report: ExitProbabilities, cumulative_gmacs: Floats, rule: ThresholdRule
) -> Comparison:
    """Thresholds by `rule` on `search` for each measure, sought as a profile's are; top-1 on `report`, interpolated to
    the same mean GMACs.

    Budgets lie evenly between the first exit's cost and the last's, both left out.
    """
    budgets = np.linspace(cumulative_gmacs[0], cumulative_gmacs[-1], BUDGETS + 2)[1:-1]
    top1: dict[str, tuple[float, ...]] = {}
    for measure in MEASURES:
        found = rule(search.calibration_by_harm(cumulative_gmacs, measure, "accuracy_drop"))
        outcomes = evaluate_many(report.calibration(cumulative_gmacs, measure), found.thresholds)
        top1[measure] = at_budgets(budgets, outcomes.mean_gmacs, outcomes.top1)
    top1["random"] = random_exit(budgets, report.correct.mean(axis=1), cumulative_gmacs)
    return Comparison(tuple(budgets.tolist()), top1)


def random_exit(budgets_gmacs: Floats, exit_top1: Floats, cumulative_gmacs: Floats) -> tuple[float, ...]:
    """Expected top-1 at budgets (B,) when chance decides who leaves, in the shares of the published rule."""
    # Ratios from "all leave at the first exit" to "all reach the last", by powers of 10 that leave 1e-4 elsewhere.
    shares = quantile_shares(len(cumulative_gmacs), np.logspace(-4, 4, 2_000))
    return at_budgets(budgets_gmacs, shares @ cumulative_gmacs, shares @ exit_top1)


def at_budgets(budgets_gmacs: Floats, mean_gmacs: Floats, top1: Floats) -> tuple[float, ...]:
    """`top1` (P,) of points that cost `mean_gmacs` (P,), interpolated linearly to budgets (B,)."""
    order = np.argsort(mean_gmacs, kind="stable")
    return tuple(np.interp(budgets_gmacs, mean_gmacs[order], top1[order]).tolist())
