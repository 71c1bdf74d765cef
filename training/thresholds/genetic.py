"""The genetic search that the paper describes (DVT, section 3.3) and never released, through pymoo.

The paper runs one search a budget. NSGA-II with cost and accuracy as its two objectives finds all budgets in one run.
Its point is cascades with four exits and more, where trying everything grows as n^(K-1).

What it gains where it searches is not what it gains elsewhere. On the small five-exit cascade of
tests/golden/five_exits.npz (2,500 images a split, mean over 20 budgets) it beat the published rule by 1.1 points on the
split searched, and on the other split by -0.4 points, or +0.1 with the two splits exchanged: no gain that could be
told from none. Judge a rule on held-out samples (`training.operating_points.cross_fitted_top1`) before preferring it.

Shapes: K exits, n samples, P individuals of a generation.
"""

from typing import Any

import numpy as np

from training.thresholds.calibration import Calibration, Floats, evaluate_many
from training.thresholds.exhaustive import best_last_threshold
from training.thresholds.frontier import Frontier, frontier_of, non_dominated
from training.thresholds.quantile import quantile_vectors

POPULATION = 200
GENERATIONS = 100


def genetic_rule(
    calibration: Calibration, seed: int = 0, population: int = POPULATION, generations: int = GENERATIONS
) -> Frontier:
    """The best of all vectors tried, the same for the same seed.

    A gene is the rank of an exit's threshold among the confidences that occur there: they crowd near 1, ranks do not.
    The first generation holds the published rule's vectors (59, which a population should exceed), so that the result
    is never worse than theirs; at the end the last threshold of each survivor, which one pass settles exactly, is set
    to its best values. Raises `ModuleNotFoundError` where pymoo (extra `genetic`) is not installed.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.optimize import minimize

    if calibration.exits == 1:
        return frontier_of(calibration, np.empty((1, 0)))
    genes = _Genes(calibration)
    archive = _Archive(calibration)

    class Thresholds(Problem):  # type: ignore[misc]  # pymoo ships no types
        def __init__(self) -> None:
            super().__init__(n_var=calibration.exits - 1, n_obj=2, xl=0.0, xu=1.0)

        def _evaluate(self, x: Floats, out: dict[str, Any], *args: object, **kwargs: object) -> None:
            out["F"] = archive.objectives(genes.decoded(x))

    first = np.random.default_rng(seed).random((population, calibration.exits - 1))
    published = genes.encoded(quantile_vectors(calibration))[:population]
    first[: len(published)] = published
    algorithm = NSGA2(pop_size=population, sampling=first, crossover=SBX(prob=0.9, eta=15), mutation=PM(eta=15))
    minimize(Thresholds(), algorithm, ("n_gen", generations), seed=seed, verbose=False)
    return best_last_threshold(calibration, np.unique(archive.frontier.thresholds[:, :-1], axis=0))


class _Genes:
    """Thresholds (P, K - 1) as relative ranks 0..1 (P, K - 1) among the confidences that occur, "never" on top."""

    def __init__(self, calibration: Calibration) -> None:
        self.values = [np.append(np.unique(row[np.isfinite(row)]), np.inf) for row in calibration.confidences[:-1]]

    def decoded(self, genes: Floats) -> Floats:
        sizes = np.array([len(values) for values in self.values])
        ranks = np.minimum((genes * sizes).astype(np.intp), sizes - 1)
        return np.stack([values[ranks[:, k]] for k, values in enumerate(self.values)], axis=1)

    def encoded(self, thresholds: Floats) -> Floats:
        ranks = [np.searchsorted(values, thresholds[:, k]) for k, values in enumerate(self.values)]
        return np.stack([(rank + 0.5) / len(values) for rank, values in zip(ranks, self.values, strict=True)], axis=1)


class _Archive:
    """The best of all individuals of all generations; a generation alone may lose what an earlier one had found."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self.frontier = Frontier(np.empty((0, calibration.exits - 1)), np.empty(0), np.empty(0))

    def objectives(self, thresholds: Floats) -> Floats:
        """What NSGA-II makes small, (P, 2): GMACs and minus top-1 of thresholds (P, K - 1)."""
        outcomes = evaluate_many(self.calibration, thresholds)
        known = self.frontier
        cost, top1 = np.append(known.mean_gmacs, outcomes.mean_gmacs), np.append(known.top1, outcomes.top1)
        kept = non_dominated(cost, top1)
        self.frontier = Frontier(np.concatenate((known.thresholds, thresholds))[kept], top1[kept], cost[kept])
        return np.stack((outcomes.mean_gmacs, -outcomes.top1), axis=1)
