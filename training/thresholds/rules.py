"""The three rules by name, behind one interface."""

from typing import Literal, Protocol, get_args

from training.thresholds.calibration import Calibration
from training.thresholds.exhaustive import exhaustive_rule
from training.thresholds.frontier import Frontier
from training.thresholds.genetic import genetic_rule
from training.thresholds.quantile import quantile_rule

RuleName = Literal["exhaustive", "quantile", "genetic"]
RULE_NAMES: tuple[RuleName, ...] = get_args(RuleName)


class ThresholdRule(Protocol):
    """Finds threshold vectors on a set of samples."""

    def __call__(self, calibration: Calibration, /) -> Frontier:
        """The vectors worth having, by cost and accuracy on these samples."""


def threshold_rule(name: RuleName) -> ThresholdRule:
    """`quantile` is the published one, `exhaustive` the exact one for up to three exits, `genetic` for more."""
    match name:
        case "exhaustive":
            return exhaustive_rule
        case "quantile":
            return quantile_rule
        case "genetic":
            return genetic_rule
