"""Courses of samples at a known risk, and what bets on them come to: the figures that docs/guarantees.md quotes.

`python -m tests.service.engine.risks` prints them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.engine.evidence import ALPHA, bet, first_stakes, wealth

# Times 1/epsilon: the median of the samples after which a certificate with twice its risk is broken.
NOTICED_AT_2_EPSILON = 15.0


def samples_until_broken(
    epsilon: float, phases: Sequence[tuple[int, float]], *, courses: int, seed: int
) -> NDArray[np.int64]:
    """For each course how many samples broke the certificate, 0 where none did. `phases`: samples, and their risk."""
    random = np.random.default_rng(seed)
    stakes = np.tile(first_stakes(), (courses, 1))
    broken_after = np.zeros(courses, np.int64)
    samples = 0
    for length, risk in phases:
        for _ in range(length):
            stakes = bet(stakes, samples, random.random(courses) < risk, epsilon)
            samples += 1
            is_news = (broken_after == 0) & (wealth(stakes, samples, epsilon) >= 1 / ALPHA)
            broken_after[is_news] = samples
    return broken_after


def main() -> None:
    for epsilon in (0.005, 0.01, 0.02, 0.05):
        at_epsilon = samples_until_broken(epsilon, [(10_000, epsilon)], courses=1_000, seed=4)
        twice = samples_until_broken(epsilon, [(10_000, 2 * epsilon)], courses=1_000, seed=5)
        late = samples_until_broken(epsilon, [(20_000, epsilon / 2), (10_000, 2 * epsilon)], courses=200, seed=6)
        medians = [np.median(np.where(times > 0, times, np.inf)) for times in (twice, late)]
        print(  # noqa: T201
            f"epsilon {epsilon}: false alarms {np.mean(at_epsilon > 0):.4f}, at twice the risk after {medians[0]:.0f} "
            f"samples ({medians[0] * epsilon:.1f}/epsilon; {np.mean(twice > 0):.3f} noticed), the same after 20,000 "
            f"good ones {medians[1] - 20_000:.0f}"
        )


if __name__ == "__main__":
    main()
