"""One replica as a queue that is served in batches: how long an image waits for its batch, and how large that is.

The bulk-service queue M/G[1,b]/1 of Bailey ("On queueing processes with bulk service", 1954) and Neuts ("A general
class of bulk queues with Poisson input", 1967): whoever finds the server free starts at once; a server that becomes
free takes all that wait, at most b. How long a batch takes depends on its size. Seen at the ends of batches the number
waiting is a Markov chain, solved here numerically (Chaudhry and Templeton, "A First Course in Bulk Queues", 1983), and
an image that comes in the middle of a batch waits for its rest and for the full batches before it.

Several lanes, after Tijms, van Hoorn and Federgruen ("Approximations for the steady-state probabilities in the M/G/c
queue", 1981): while all c lanes are busy the replica works like one lane c times as fast; the wait for the first of
them is the least of c rests; all are busy with the chance that Erlang's C gives for the utilisation. With b = 1 this is
their approximation of M/G/c; with one lane it is exact.

Images may come several at once (the survivors of one batch of the stage before): see `Arrivals`.

Letters: b largest batch, n size of a batch, c lanes, q images waiting at the end of a batch.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.planner.distributions import Arrivals, Durations, Floats, Lattice, sums

# Where within a batch an image comes.
_MOMENTS = 16
_MOST_WAITING = 1536
_NEVER = 1e-12


@dataclass(frozen=True)
class Waits:
    """Chances over a lattice: `by_size[n - 1]` of waiting so long and being then in a batch of n that nobody is left
    behind by; `in_backlog` of being in a full one among others."""

    by_size: list[Floats]
    in_backlog: Floats


@dataclass(frozen=True)
class _Kind:
    """Batches of one kind: how long they take, and `left[i]`: how often such a batch leaves i waiting, a batch."""

    durations: Durations
    left: Floats

    @property
    def often(self) -> float:
        return float(self.left.sum())


@dataclass(frozen=True)
class Station:
    """`durations[n - 1]`: how long a batch of n keeps a lane when nobody else waits; `full`, a batch of b while more
    wait.

    Raises `ValueError` where images come faster than full batches are computed.
    """

    arrivals: Arrivals
    durations: tuple[Durations, ...]
    full: Durations
    lanes: int

    def __post_init__(self) -> None:
        if self.full_load >= 1:
            raise ValueError(f"{self.arrivals.images_per_s:g} images/s are {self.full_load:.2f} times the capacity")

    @property
    def largest(self) -> int:
        return len(self.durations)

    @property
    def full_load(self) -> float:
        """Share of the capacity that is used, if all batches were full."""
        return self.arrivals.images_per_s * self.full.mean_s / (self.largest * self.lanes)

    @cached_property
    def utilisation(self) -> float:
        """Share of time in which a lane computes."""
        busy_s = sum(kind.durations.mean_s * kind.often for kind in self._kinds) / self.lanes
        return busy_s / (busy_s + float(self._chain[0]) / self.arrivals.groups_per_s)

    @cached_property
    def batch_sizes(self) -> Floats:
        """`[n]`: the share of batches that have n images."""
        sizes = np.array([0.0, *(kind.often for kind in self._kinds[:-1])])
        sizes[-1] += self._kinds[-1].often
        return np.asarray(sizes / sizes.sum(), np.float64)

    @cached_property
    def backlog_s(self) -> float:
        """For how long more than a full batch waits, once it does."""
        kind = self._kinds[-1]
        if not kind.often:
            return 0.0
        images = float(kind.left @ np.arange(len(kind.left))) / kind.often
        return images / (self.largest * self.lanes / self.full.mean_s) / (1 - self.full_load)

    def waits(self, lattice: Lattice) -> Waits:
        """Of an image."""
        b = self.largest
        by_size = np.zeros((b, lattice.size))
        blocks = np.zeros((self._states // b + 2, lattice.size))
        total_s = 0.0
        for kind in self._kinds:
            for seconds, chance in zip(*_columns(kind.durations.merged()), strict=True):
                often_s = chance * seconds * kind.often
                if often_s > 0:
                    total_s += often_s
                    self._meet(seconds, often_s, kind.left / kind.often, lattice, by_size, blocks)
        waiting = erlang_c(self.lanes, self.utilisation)
        by_size *= waiting / total_s
        blocks *= waiting / total_s
        for n, met in enumerate(self.arrivals.met[1:], start=1):
            # Who finds a lane free begins at once, with the group if a batch holds it.
            by_size[min(n, b) - 1, 0] += (1 - waiting) * met * min(1.0, b / n)
            for place in range(b, n):
                blocks[place // b, 0] += (1 - waiting) * met / n
        return Waits(list(by_size), self._behind_full(blocks, lattice))

    def _meet(
        self, seconds: float, often_s: float, left: Floats, lattice: Lattice, by_size: Floats, blocks: Floats
    ) -> None:
        """Adds the waits of images that come while a batch of so many seconds runs. Who came before them in it goes
        before them, and so does the queue that it left."""
        b, states = self.largest, self._states
        moments = (np.arange(_MOMENTS) + 0.5) / _MOMENTS
        before, beside = self.arrivals.company()
        came = self.arrivals.counts((1 - moments) * seconds / self.lanes, states)
        ahead = sums(sums(came, before), left)
        whole = self.arrivals.counts(np.array([seconds / self.lanes]), states)
        others = sums(sums(whole, beside), left)[0]
        waits_s, each_s = self._first_of_lanes(moments * seconds), often_s / _MOMENTS
        # With fewer than b in all, whoever comes is in the next batch, however many came before.
        for n in range(1, b):
            by_size[n - 1] += lattice.spread(waits_s, np.full(_MOMENTS, each_s * others[n - 1]))
        next_batch = ahead[:, :b].sum(axis=1)
        by_size[b - 1] += lattice.spread(waits_s, each_s * np.maximum(next_batch - others[: b - 1].sum(), 0.0))
        for block in range(1, len(blocks)):
            chances = ahead[:, block * b : (block + 1) * b].sum(axis=1)
            if chances.sum() < _NEVER:
                break
            blocks[block] += lattice.spread(waits_s, each_s * chances)

    def _first_of_lanes(self, rests_s: Floats) -> Floats:
        """The rest of a batch in a single lane as the least of c such rests: the same place in that distribution.

        Rests that an arrival meets have the equilibrium distribution of the durations T, F(t) = E min(t, T) / E T.
        """
        if self.lanes == 1:
            return rests_s
        seconds = np.concatenate([kind.durations.seconds for kind in self._kinds])
        often = np.concatenate([kind.durations.chances * kind.often for kind in self._kinds])
        corners = np.concatenate([[0.0], np.unique(seconds)])
        reached = np.minimum(corners[:, None], seconds[None, :]) @ often / (seconds @ often)
        place = np.minimum(np.interp(rests_s, corners, reached), 1.0)
        return np.asarray(np.interp(1 - (1 - place) ** (1 / self.lanes), reached, corners), np.float64)

    def _behind_full(self, blocks: Floats, lattice: Lattice) -> Floats:
        """`blocks[m]` are waits of those with m full batches before them; those batches are added (Horner's scheme)."""
        points = 2 * lattice.size
        batch = np.fft.rfft(lattice.spread(self.full.seconds / self.lanes, self.full.chances), points)
        spectrum = np.zeros(lattice.size + 1, np.complex128)
        for block in range(len(blocks) - 1, 0, -1):
            if spectrum.any() or blocks[block].any():
                spectrum = (spectrum + np.fft.rfft(blocks[block], points)) * batch
        return lattice.cut(np.fft.irfft(spectrum, points))

    @cached_property
    def _states(self) -> int:
        """Enough of them for the chain's tail to vanish."""
        most = self.largest + len(self.arrivals.sizes)
        return int(min(_MOST_WAITING, 4 * most + 14 * most / (1 - self.full_load)))

    @cached_property
    def _chain(self) -> Floats:
        """Chances of q at the end of a batch while one lane, c times as fast, serves."""
        states, b = self._states, self.largest
        steps = np.zeros((states, states))
        came = [self._during(each) for each in (*self.durations, self.full)]
        for q in range(1, states):
            left = max(0, q - b)
            steps[q, left:] = came[min(q - 1, b)][: states - left]
        # Whoever finds it idle is a group, and begins as one that has waited would.
        for n in range(1, len(self.arrivals.sizes)):
            steps[0] += self.arrivals.sizes[n] * steps[n]
        steps[:, -1] += np.maximum(0.0, 1.0 - steps.sum(axis=1))
        system, target = steps.T - np.eye(states), np.zeros(states)
        system[-1], target[-1] = 1.0, 1.0
        chances = np.maximum(np.linalg.solve(system, target), 0.0)
        return np.asarray(chances / chances.sum(), np.float64)

    def _during(self, durations: Durations) -> Floats:
        """Chances of how many come during a batch."""
        counts = self.arrivals.counts(durations.seconds / self.lanes, self._states)
        return np.asarray(durations.chances @ counts, np.float64)

    @cached_property
    def _kinds(self) -> tuple[_Kind, ...]:
        """Batches of 1 to b that leave nobody, and full ones that leave some."""
        begun, b, sizes = self._chain.copy(), self.largest, self.arrivals.sizes
        begun[0] = 0.0
        begun[1 : len(sizes)] += self._chain[0] * sizes[1:]
        left = begun[b:].copy()
        left[0] = 0.0
        return (*(_Kind(each, begun[n : n + 1]) for n, each in enumerate(self.durations, 1)), _Kind(self.full, left))


def erlang_c(servers: int, utilisation: float) -> float:
    """The chance that all of c servers are busy (Erlang 1917), by the recursion of Erlang's B."""
    offered, blocked = servers * utilisation, 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1 - utilisation * (1 - blocked))


def _columns(durations: Durations) -> tuple[list[float], list[float]]:
    return durations.seconds.tolist(), durations.chances.tolist()
