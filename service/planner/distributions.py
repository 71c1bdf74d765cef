"""Times and numbers that are left to chance, as arrays of probabilities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Of the durations of one kind of batch, so many are told apart.
_MOST_DURATIONS = 12
# Less than this away from it, a process is as good as Poisson's.
_POISSON = 1e-3
# The least dispersion.
STEADIEST = 0.5


@dataclass(frozen=True)
class Lattice:
    """Times 0, step_s, 2 step_s, ...; a distribution over it is an array of `size` probabilities."""

    step_s: float
    size: int

    def spread(self, seconds: Floats, chances: Floats) -> Floats:
        """Chances at these times, each divided between the two nearest points so that the mean is kept."""
        at = np.minimum(seconds / self.step_s, self.size - 1.001)
        low = at.astype(np.int64)
        upper = chances * (at - low)
        out = np.bincount(low, chances - upper, self.size) + np.bincount(low + 1, upper, self.size)
        return np.asarray(out, np.float64)

    def at(self, seconds: float) -> Floats:
        """Always the same time."""
        return self.spread(np.array([seconds]), np.ones(1))

    def convolved(self, one: Floats, other: Floats) -> Floats:
        """Of the sum of two independent times."""
        points = 2 * self.size
        return self.cut(np.fft.irfft(np.fft.rfft(one, points) * np.fft.rfft(other, points), points))

    def cut(self, distribution: Floats) -> Floats:
        """What exceeds the lattice is left at its end."""
        kept = np.maximum(distribution[: self.size], 0.0)
        kept[-1] += max(0.0, float(distribution[self.size :].sum()))
        return kept

    def quantile(self, distribution: Floats, share: float) -> float:
        return float(np.searchsorted(np.cumsum(distribution), share * distribution.sum())) * self.step_s

    def mean(self, distribution: Floats) -> float:
        return float(distribution @ np.arange(self.size)) * self.step_s


@dataclass(frozen=True)
class Durations:
    """How long one batch keeps a lane: seconds with their chances."""

    seconds: Floats
    chances: Floats

    @property
    def mean_s(self) -> float:
        return float(self.seconds @ self.chances)

    def merged(self) -> "Durations":
        """Fewer of them, the mean kept."""
        if len(self.seconds) <= _MOST_DURATIONS:
            return self
        order = np.argsort(self.seconds)
        seconds, chances = self.seconds[order], self.chances[order]
        middle = np.cumsum(chances) - chances / 2
        group = np.minimum(middle * _MOST_DURATIONS, _MOST_DURATIONS - 1).astype(np.int64)
        total = np.bincount(group, chances, _MOST_DURATIONS)
        sums = np.bincount(group, chances * seconds, _MOST_DURATIONS)
        kept = total > 0
        return Durations(np.asarray(sums[kept] / total[kept], np.float64), np.asarray(total[kept], np.float64))


@dataclass(frozen=True)
class Arrivals:
    """Groups a second, and `sizes[n]`: the chance that a group has n images (`sizes[0]` is 0).

    `dispersion`: variance of the number of groups in a time over its mean; 1 for a Poisson process, less for a
    steadier one.
    """

    groups_per_s: float
    sizes: Floats
    dispersion: float = 1.0

    def __post_init__(self) -> None:
        assert STEADIEST <= self.dispersion <= 1, "groups come more steadily than can be computed"

    @property
    def mean_size(self) -> float:
        return float(self.sizes @ np.arange(len(self.sizes)))

    @property
    def images_per_s(self) -> float:
        return self.groups_per_s * self.mean_size

    @property
    def met(self) -> Floats:
        """`[n]`: the chance of an image to come in a group of n."""
        return np.asarray(self.sizes * np.arange(len(self.sizes)) / self.mean_size, np.float64)

    def counts(self, seconds: Floats, size: int) -> Floats:
        """(len(seconds), size): chances of so many images in a time, by their generating function: compound Poisson, or
        compound binomial where groups come more steadily."""
        points = 2 * size
        group = np.fft.rfft(self.sizes, points)[None, :] - 1.0
        means, steady = self.groups_per_s * seconds[:, None], 1 - self.dispersion
        if steady < _POISSON:
            spectrum = np.exp(means * group)
        else:
            # Of a whole number of trials, and sometimes one more, so that the mean is kept.
            trials = np.floor(means / steady)
            spectrum = (1 + steady * group) ** trials * (1 + (means - trials * steady) * group)
        return np.maximum(np.fft.irfft(spectrum, points, axis=1)[:, :size], 0.0)

    def company(self) -> tuple[Floats, Floats]:
        """Of an image: chances of how many of its group go before it, and of how many are in it beside it."""
        others = self.met[1:]
        before = np.cumsum((others / np.arange(1, len(self.sizes)))[::-1])[::-1]
        return np.asarray(before, np.float64), others


def single(images_per_s: float) -> Arrivals:
    """One at a time, as a Poisson process."""
    return Arrivals(images_per_s, np.array([0.0, 1.0]))


def binomial(n: int, share: float) -> Floats:
    """Chances that of n so many stay, each with this chance."""
    out: Floats = np.ones(1)
    for _ in range(n):
        out = np.convolve(out, np.array([1 - share, share]))
    return np.asarray(out, np.float64)


def thinned(counts: Floats, share: float) -> Floats:
    """Of a number with these chances, each stays with this chance."""
    out = np.zeros(len(counts))
    for number, chance in enumerate(counts):
        out[: number + 1] += chance * binomial(number, share)
    return np.asarray(out, np.float64)


def sums(rows: Floats, other: Floats) -> Floats:
    """Rows of chances of a number, with an independent number more; as long as the rows are."""
    if len(other) == 1:
        return np.asarray(rows * other[0], np.float64)
    size = rows.shape[1]
    points = size + len(other)
    spectrum = np.fft.rfft(rows, points, axis=1) * np.fft.rfft(other, points)[None, :]
    return np.asarray(np.maximum(np.fft.irfft(spectrum, points, axis=1)[:, :size], 0.0), np.float64)
