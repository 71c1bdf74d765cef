"""Where to leave: rules that find threshold vectors on held-out samples, and what a vector costs and achieves."""

from training.thresholds.calibration import (
    Calibration,
    Floats,
    Outcome,
    Outcomes,
    calibration_of,
    evaluate_many,
    evaluate_thresholds,
)
from training.thresholds.exhaustive import exhaustive_rule
from training.thresholds.frontier import Frontier, best_vectors, frontier_of
from training.thresholds.genetic import genetic_rule
from training.thresholds.quantile import quantile_rule, quantile_shares, quantile_thresholds
from training.thresholds.rules import RULE_NAMES, ThresholdRule, threshold_rule

__all__ = [
    "RULE_NAMES",
    "Calibration",
    "Floats",
    "Frontier",
    "Outcome",
    "Outcomes",
    "ThresholdRule",
    "best_vectors",
    "calibration_of",
    "evaluate_many",
    "evaluate_thresholds",
    "exhaustive_rule",
    "frontier_of",
    "genetic_rule",
    "quantile_rule",
    "quantile_shares",
    "quantile_thresholds",
    "threshold_rule",
]
