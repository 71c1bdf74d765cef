"""What the stages of one replica do with a batch: how long it keeps a lane, and when each of its images is answered.

Images that are not answered at a stage go on to the next one in the same replica. As long as nobody waits behind them
they go at once, in a batch of their own (the schedule runs the oldest first); while a full batch waits, survivors are
merged until their batch is full too, so each costs what it does in a full batch. That is the schedule of
service/engine/batching.py in two rules.

Letters: n images of a batch of the first stage, m survivors at a later stage, f full batch of that stage.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from service.engine.batching import MERGE_PASSES
from service.engine.costs import StageCosts
from service.planner.distributions import Durations, Floats, Lattice, binomial, thinned


@dataclass(frozen=True)
class Leg:
    """Consecutive stages that one replica computes.

    `leaving[k]`: the share of images that come to its stage k + 1 which leave there; what comes to the last and does
    not leave goes on to the next leg. `backlog_cycles`: how many full batches of the first stage follow one another,
    when they do.
    """

    costs: StageCosts
    leaving: tuple[float, ...]
    lanes: int
    backlog_cycles: float = math.inf

    @property
    def reaching(self) -> tuple[float, ...]:
        """Of the images of this leg, the share that comes to each of its stages."""
        return (1.0, *accumulate((1 - share for share in self.leaving[:-1]), lambda a, b: a * b))

    @property
    def largest(self) -> int:
        return self.costs.most(1)

    def durations(self, n: int) -> Durations:
        """Of a batch that nobody waits behind."""
        return self._durations(n, alone=True)

    def full(self) -> Durations:
        """Of a full batch while others wait."""
        return self._durations(self.largest, alone=False)

    def _durations(self, n: int, *, alone: bool) -> Durations:
        seconds, chances = np.array([self.costs.seconds(1, n)]), np.ones(1)
        left = np.array([n])
        for stage in range(2, self.costs.stages + 1):
            stays = 1 - self.leaving[stage - 2]
            merged = self._merging[stage - 2]
            took = [self._alone_s(stage, m) if alone else m * merged.each_s for m in range(n + 1)]
            rows = [
                (at + took[m], chance * how_likely, m)
                for at, chance, before in zip(seconds, chances, left, strict=True)
                for m, how_likely in enumerate(binomial(int(before), stays))
            ]
            seconds, chances, left = _gathered(rows)
        return Durations(seconds, chances).merged()

    def answered(self, lattice: Lattice, n: int, backlog_s: float | None = None) -> tuple[Floats, Floats]:
        """Since its batch began, for an image in a batch of n: when it is answered, and when it is handed on (chances
        over the lattice that include that of leaving so). `backlog_s`: for how long full batches wait, on average, if
        any does.
        """
        began = lattice.at(self.costs.seconds(1, n))
        here, out, company = began, self.leaving[0] * began, binomial(n - 1, 1.0)
        for stage in range(2, self.costs.stages + 1):
            stays = 1 - self.leaving[stage - 2]
            company = thinned(company, stays)
            seconds, chances = self._own(stage, company) if backlog_s is None else self._merged(stage, backlog_s)
            here = stays * lattice.convolved(here, lattice.spread(seconds, chances))
            out = out + self.leaving[stage - 1] * here
        return out, (1 - self.leaving[-1]) * here

    def _own(self, stage: int, company: Floats) -> tuple[Floats, Floats]:
        """Of an image whose fellow survivors are so many: the end of its batch, one of several that lanes share."""
        rows = []
        full = self.costs.most(stage)
        for others, chance in enumerate(company):
            m = others + 1
            for number, first in enumerate(range(0, m, full)):
                images = min(full, m - first)
                ends_s = number / self.lanes * self.costs.seconds(stage, full) + self.costs.seconds(stage, images)
                rows.append((ends_s, chance * images / m))
        return np.array([end for end, _ in rows]), np.array([chance for _, chance in rows])

    def _merged(self, stage: int, backlog_s: float) -> tuple[Floats, Floats]:
        """An image waits for its batch to fill, for its oldest to become impatient, or for the backlog to end, which it
        does as a memoryless one would."""
        merging = self._merging[stage - 2]
        moments = (np.arange(8) + 0.5) / 8
        ends_s = -np.log(1 - moments) * backlog_s
        waits_s = np.minimum((moments * merging.wait_s)[:, None], ends_s[None, :]).ravel()
        return waits_s + merging.size * merging.each_s, np.full(64, 1 / 64)

    @cached_property
    def _merging(self) -> tuple["_Merging", ...]:
        """Of the stages after the first while full batches of the first follow one another: survivors gather until they
        fill a batch, at most for the patience of the schedule. How long a cycle is depends on how well they merge."""
        b, patience_s = self.largest, MERGE_PASSES * self.costs.pass_s
        cycle_s = self.costs.seconds(1, b) / self.lanes
        merging: tuple[_Merging, ...] = ()
        for _ in range(8):
            merging = tuple(self._merges(stage, b, cycle_s, patience_s) for stage in range(2, self.costs.stages + 1))
            deep_s = sum(b * self.reaching[number] * each.each_s for number, each in enumerate(merging, start=1))
            cycle_s = (self.costs.seconds(1, b) + deep_s) / self.lanes
        return merging

    def _merges(self, stage: int, b: int, cycle_s: float, patience_s: float) -> "_Merging":
        full, a_cycle = self.costs.most(stage), b * self.reaching[stage - 1]
        if full == 1 or a_cycle == 0:
            return _Merging(full, self._each_s(stage), 0.0)
        patience_s = min(patience_s, cycle_s * self.backlog_cycles)
        fills_s = cycle_s * max(0.0, full / a_cycle - 1)
        if fills_s <= patience_s:
            return _Merging(full, self._each_s(stage), fills_s)
        size = max(1, round(a_cycle * (1 + patience_s / cycle_s)))
        return _Merging(size, self.costs.seconds(stage, size) / size, patience_s)

    def _alone_s(self, stage: int, m: int) -> float:
        full = self.costs.most(stage)
        rest = m % full
        return (m // full) * self.costs.seconds(stage, full) + (self.costs.seconds(stage, rest) if rest else 0.0)

    def _each_s(self, stage: int) -> float:
        return self.costs.seconds(stage, self.costs.most(stage)) / self.costs.most(stage)


@dataclass(frozen=True)
class _Merging:
    """A later stage's batches during a backlog: their size, seconds of one image, and how long the first of them
    waits."""

    size: int
    each_s: float
    wait_s: float


def _gathered(rows: Sequence[tuple[float, float, int]]) -> tuple[Floats, Floats, Floats]:
    """Rows of (seconds, chance, survivors) as columns, the hopeless ones left out."""
    kept = [row for row in rows if row[1] > 1e-9]
    columns = np.array(kept)
    return columns[:, 0], columns[:, 1] / columns[:, 1].sum(), columns[:, 2].astype(np.int64)
