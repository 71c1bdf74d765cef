"""Which confidence measure to leave by: the three of them and random exit at equal cost (DVT, table 9).

Shapes: K exits, n images, C classes, B budgets.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.policy import MEASURES, confidence
from training.thresholds import Calibration, Floats, ThresholdRule, evaluate_many, quantile_shares

BUDGETS = 6


@dataclass(frozen=True)
class Comparison:
    """Report-split top-1 (0..1) at `budgets_gmacs` (B) for each way to choose who leaves."""

    budgets_gmacs: tuple[float, ...]
    top1: dict[str, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class ExitProbabilities:
    """Calibrated probabilities (K, n, C) and targets (n,) of one set of images."""

    probabilities: Floats
    targets: NDArray[np.int64]


def compare_measures(
    search: ExitProbabilities, report: ExitProbabilities, cumulative_gmacs: Floats, rule: ThresholdRule
) -> Comparison:
    """Thresholds by `rule` on `search` for each measure; top-1 on `report`, interpolated to the same mean GMACs.

    Budgets lie evenly between the first exit's cost and the last's, both left out.
    """
    budgets = np.linspace(cumulative_gmacs[0], cumulative_gmacs[-1], BUDGETS + 2)[1:-1]
    search_hits = search.probabilities.argmax(axis=-1) == search.targets
    report_hits = report.probabilities.argmax(axis=-1) == report.targets
    top1: dict[str, tuple[float, ...]] = {}
    for measure in MEASURES:
        found = rule(Calibration(confidence(search.probabilities, measure), search_hits, cumulative_gmacs))
        seen = Calibration(confidence(report.probabilities, measure), report_hits, cumulative_gmacs)
        outcomes = evaluate_many(seen, found.thresholds)
        top1[measure] = at_budgets(budgets, outcomes.mean_gmacs, outcomes.top1)
    top1["random"] = random_exit(budgets, report_hits.mean(axis=1), cumulative_gmacs)
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
