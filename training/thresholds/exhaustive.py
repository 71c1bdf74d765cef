"""The oracle: every threshold vector that can make a difference on the given samples.

A threshold acts only through which samples are at or above it, so the confidences that occur (and "never") are all
the values worth trying. For fixed thresholds of the first K - 2 exits one pass over the samples, sorted by confidence
at exit K - 1, gives cost and hits for every value of the last threshold: with two thresholds n^2 steps in numpy
instead of n^2 evaluations of n samples each.

Shapes: K exits, n samples, R prefixes (thresholds of the first K - 2 exits) looked at together, V vectors.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.thresholds.calibration import BLOCK_CELLS, Calibration, Floats
from training.thresholds.frontier import Frontier, frontier_of, non_dominated

STEP_LIMIT = 2_500_000_000
"""Prefixes times samples, so 50,000 samples and two thresholds: about a minute and a half on one core."""

NOT_OFFERED = np.iinfo(np.int32).min


def exhaustive_rule(calibration: Calibration, grid: int | None = None) -> Frontier:
    """The exact frontier of a set, over all threshold vectors.

    With `grid`, each exit but the last two tries that many confidences, evenly spread over the samples, instead of
    all of them (the last threshold stays exact): for sets and cascades too large to try everything. Raises
    `ValueError` where the search would take more than `STEP_LIMIT` steps.
    """
    if calibration.exits == 1:
        return frontier_of(calibration, np.empty((1, 0)))
    candidates = [_candidates(row, grid) for row in calibration.confidences[:-2]]
    prefixes = int(np.prod([len(values) for values in candidates], dtype=np.float64))
    if prefixes * calibration.samples > STEP_LIMIT:
        raise ValueError(
            f"exhaustive search over {calibration.samples} samples and {calibration.exits - 1} thresholds needs "
            f"{prefixes * calibration.samples:.1e} steps, the limit is {STEP_LIMIT:.1e}; "
            "use fewer samples (--limit), or the genetic or the quantile rule"
        )
    rows = max(1, BLOCK_CELLS // calibration.samples)
    numbers = (np.arange(start, min(start + rows, prefixes)) for start in range(0, prefixes, rows))
    return _best_last(calibration, (_prefixes(candidates, block) for block in numbers))


def best_last_threshold(calibration: Calibration, prefixes: Floats) -> Frontier:
    """The frontier over all vectors that begin with one of prefixes (R, K - 2), K at least 2."""
    rows = max(1, BLOCK_CELLS // calibration.samples)
    return _best_last(calibration, (prefixes[start : start + rows] for start in range(0, len(prefixes), rows)))


def _best_last(calibration: Calibration, blocks: Iterable[Floats]) -> Frontier:
    sweep = _LastThreshold(calibration)
    found = _Found.none(calibration.exits - 1)
    for prefixes in blocks:
        found = found.with_better_of(sweep.best_of(prefixes))
    return frontier_of(calibration, found.thresholds)


def _candidates(confidences: Floats, grid: int | None) -> Floats:
    """Values to try as a threshold: the confidences (n,) that occur, or `grid` of them, and "never"."""
    ranked = np.sort(confidences[np.isfinite(confidences)])
    if grid is not None and len(ranked) > grid:
        ranked = ranked[np.linspace(0, len(ranked) - 1, grid).astype(np.intp)]
    return np.append(np.unique(ranked), np.inf)


def _prefixes(candidates: list[Floats], numbers: NDArray[np.intp]) -> Floats:
    """The `numbers`-th members (R,) of the product of `candidates`: (R, K - 2)."""
    columns = np.empty((len(numbers), len(candidates)))
    for k, values in enumerate(candidates):
        numbers, at = np.divmod(numbers, len(values))
        columns[:, k] = values[at]
    return columns


@dataclass(frozen=True)
class _Found:
    """Vectors (V, K - 1) with their total cost (V,) in GMACs and hits (V,) over all samples."""

    thresholds: Floats
    cost: Floats
    hits: Floats

    @staticmethod
    def none(thresholds: int) -> "_Found":
        return _Found(np.empty((0, thresholds)), np.empty(0), np.empty(0))

    def with_better_of(self, other: "_Found") -> "_Found":
        """What is not dominated among both."""
        cost, hits = np.append(self.cost, other.cost), np.append(self.hits, other.hits)
        kept = non_dominated(cost, hits)
        return _Found(np.concatenate((self.thresholds, other.thresholds))[kept], cost[kept], hits[kept])


class _LastThreshold:
    """All values of the threshold at exit K - 1, for many prefixes at a time.

    Samples are kept in falling confidence at that exit, so that "the first i leave there" is a prefix sum.
    """

    def __init__(self, calibration: Calibration) -> None:
        order = np.argsort(-calibration.confidences[-2], kind="stable")
        self.confidences = calibration.confidences[:, order]
        self.correct = calibration.correct[:, order]
        self.costs = calibration.cumulative_gmacs
        last = self.confidences[-2]
        # A threshold takes all samples of equal confidence, so counts inside a tie are not on offer; nor are samples
        # that had no confidence, all at -inf.
        self.offered = np.append(last[1:], -np.inf) < last
        self.gain = self.correct[-2].astype(np.int32) - self.correct[-1].astype(np.int32)

    def best_of(self, prefixes: Floats) -> _Found:
        """What is not dominated, within a prefix, among the vectors that begin with one of prefixes (R, K - 2)."""
        count, samples = len(prefixes), self.confidences.shape[1]
        staying = np.ones((count, samples), dtype=np.bool_)
        cost, hits = np.zeros(count), np.zeros(count)
        for k in range(prefixes.shape[1]):
            leaving = staying & (self.confidences[k] >= prefixes[:, k, None])
            cost += np.count_nonzero(leaving, axis=1) * self.costs[k]
            hits += np.count_nonzero(leaving & self.correct[k], axis=1)
            staying &= ~leaving
        cost += np.count_nonzero(staying, axis=1) * self.costs[-1]
        hits += np.count_nonzero(staying & self.correct[-1], axis=1)

        # Column i: the first i samples leave at exit K - 1, if they got there; column 0 is "never". Along a row the
        # cost falls, so a column counts only if it hits more than every column after it.
        gained = np.zeros((count, samples + 1), dtype=np.int32)
        np.cumsum(self.gain * staying, axis=1, dtype=np.int32, out=gained[:, 1:])
        gained[:, 1:][:, ~self.offered] = NOT_OFFERED
        best_after = np.full_like(gained, NOT_OFFERED)
        best_after[:, :-1] = np.maximum.accumulate(gained[:, :0:-1], axis=1)[:, ::-1]
        row, column = np.nonzero(gained > best_after)

        leavers = np.zeros((count, samples + 1), dtype=np.int32)
        np.cumsum(staying, axis=1, dtype=np.int32, out=leavers[:, 1:])
        last = np.append(np.inf, self.confidences[-2].astype(np.float64))[column]
        saved = leavers[row, column] * (self.costs[-1] - self.costs[-2])
        return _Found(np.column_stack((prefixes[row], last)), cost[row] - saved, hits[row] + gained[row, column])
