"""Learn then Test: threshold vectors whose risk is at most epsilon, but for a stated chance of error.

Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
Control" (2021). The hypothesis of a vector is that its risk lies *above* epsilon; to reject it is to certify the
vector. A loss is 0 or 1 for each sample, so its count is binomial and the p-value exact. The vectors are tested in an
order that was fixed on other samples, each at the full delta, until the first that is not rejected: none of the
certified ones is wrong but for a chance of delta.

Shapes: K exits, n samples, P threshold vectors.
"""

import math
from typing import assert_never

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

from models.profiles import Risk
from training.thresholds import Floats
from training.thresholds.calibration import Bools

Ints = NDArray[np.integer]


def harmless(risk: Risk, predicted: Ints, targets: Ints) -> Bools:
    """Whether leaving at each exit costs a sample nothing, (K, n), of predictions (K, n) for targets (n,).

    `disagreement`: an exit's label is not the last one's. `accuracy_drop`: it is wrong where the last one's is right.
    The share of samples that a cascade harms is its risk.
    """
    if risk == "disagreement":
        return np.asarray(predicted == predicted[-1])
    if risk == "accuracy_drop":
        correct = predicted == targets
        return np.asarray(correct | ~correct[-1])
    assert_never(risk)


def p_values(harmed: Ints, samples: int, epsilon: float) -> Floats:
    """For counts of harmed samples (P,) among n: the chance of so few if the risk were epsilon; (P,)."""
    values: Floats = binom.cdf(harmed, samples, epsilon)
    return values


def fixed_sequence(p_values: Floats, delta: float) -> int:
    """How many hypotheses are rejected, from the first on, before one is not."""
    kept = np.flatnonzero(~(p_values <= delta))
    return int(kept[0]) if len(kept) else len(p_values)


def upper_bound(harmed: int, samples: int, delta: float) -> float:
    """What the risk of one vector, chosen beforehand, lies below but for a chance of delta (Clopper and Pearson)."""
    return 1.0 if harmed >= samples else float(beta.ppf(1 - delta, harmed + 1, samples - harmed))


def samples_needed(epsilon: float, delta: float) -> int:
    """Samples, none of them harmed, that certify a risk of at most epsilon."""
    return math.ceil(math.log(delta) / math.log1p(-epsilon))
