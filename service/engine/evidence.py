"""Evidence against a certificate: bets that it is wrong, sample by sample, which may be looked at at any time.

Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024). The bets are fair where the
risk is exactly epsilon, and lose where it is lower: while the certificate is true the wealth, 1 at first, is not
expected to grow, whatever is known of the past. So it ever reaches 1/alpha with a chance of at most alpha (Ville's
inequality), however often one looks, and having reached it is evidence of that strength.

A bet at odds k is the likelihood ratio of a risk whose odds are k times those of epsilon. Several are held at once,
since nobody knows by how much a certificate is wrong. Half of the wealth is staked at the start; the rest is a reserve
that is staked little by little, for ever: bets that lost for a year are worth nothing, later ones notice what breaks
then (docs/adr/0009).

Shapes: J bets; (...) independent courses of samples, of which a service has one and a test thousands.
"""

import math

import numpy as np
from numpy.typing import NDArray

# The chance that a certificate which holds is ever called broken: about that of one claim of a bundle to be wrong.
ALPHA = 0.01
ODDS = (1.5, 2.5, 6.0)

_AT_ONCE = 0.5
# Of the reserve, half is staked by 3 times so many samples; in units of 1/epsilon, in which evidence grows.
_RESERVE_SAMPLES = 20.0

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


def first_stakes() -> Floats:
    """On each bet (J,), before the first sample."""
    return np.full(len(ODDS), _AT_ONCE / len(ODDS))


def reserve(samples: int, epsilon: float) -> float:
    """What is not staked after so many samples."""
    return (1 - _AT_ONCE) / math.sqrt(1 + samples * epsilon / _RESERVE_SAMPLES)


def bet(stakes: Floats, samples: int, disagreed: Bools, epsilon: float) -> Floats:
    """The stakes (..., J) after `samples` samples and one more, which disagreed or not (...)."""
    odds = np.array(ODDS)
    fresh = (reserve(samples, epsilon) - reserve(samples + 1, epsilon)) / len(ODDS)
    won = np.where(np.asarray(disagreed)[..., np.newaxis], odds, 1.0)
    staked: Floats = (stakes + fresh) * won / (1 + (odds - 1) * epsilon)
    return staked


def wealth(stakes: Floats, samples: int, epsilon: float) -> Floats:
    """All that there is after so many samples (...), staked or not: 1 at first, 1/alpha is a proof."""
    total: Floats = stakes.sum(axis=-1) + reserve(samples, epsilon)
    return total
