"""How likely it is that an image is late at a load: waits by queueing theory, computation by the measured costs.

`shares` are of images that leave at each exit; a *load* is the share of the device's capacity that images need, in full
batches.
"""

import math
from dataclasses import dataclass
from itertools import accumulate

from service.engine.costs import StageCosts


@dataclass(frozen=True)
class Mix:
    """Images that leave in these shares, on a device whose `lanes` compute a batch each."""

    shares: tuple[float, ...]
    costs: StageCosts
    lanes: int

    @property
    def work_s(self) -> float:
        """What all lanes together need for a mean image."""
        return sum(reached * each for reached, each in zip(self._reaching(), self._each_s(), strict=True)) / self.lanes

    def late_chance(self, rate_per_s: float, objective_s: float) -> float:
        """Of an image that comes where so many come a second, all the time; 1 where they are more than can be done."""
        paths_s = self.paths_s(rate_per_s * self.work_s)
        chances = [self.wait_chance(rate_per_s, objective_s - path_s) for path_s in paths_s]
        return sum(share * chance for share, chance in zip(self.shares, chances, strict=True))

    def wait_chance(self, rate_per_s: float, wait_s: float) -> float:
        """That an image waits longer, before a lane is free for it.

        Waits have the exponential tail of an M/G/c queue in heavy traffic (Kingman 1962: mean work a lane, and how
        uneven it is), images that wait at all the share that Sakasegawa (1977) gives for c servers.
        """
        work_s, load = self.work_s, rate_per_s * self.work_s
        if wait_s < 0 or load >= 1:
            return 1.0
        if work_s == 0:
            return 0.0
        waiting = math.pow(load, math.sqrt(2 * (self.lanes + 1)) - 1)
        return waiting * math.exp(-wait_s * (1 - load) / (self._unevenness() * work_s))

    def paths_s(self, load: float) -> list[float]:
        """Computation of an image by the exit it leaves at. Batches are as full as the load makes them; before each
        stage it waits for a batch that is under way (a single image's wait is in the queue's tail already)."""
        costs, reaching = self.costs, self._reaching()
        sizes = [max(1, math.ceil(min(load, 1.0) * costs.most(stage))) for stage in range(1, costs.stages + 1)]
        seconds = [costs.seconds(stage, images) for stage, images in enumerate(sizes, start=1)]
        under_way_s = sum(reached * each for reached, each in zip(reaching, seconds, strict=True)) / sum(reaching)
        behind_s = [load * under_way_s * (1 - 1 / images) for images in sizes]
        return list(accumulate(map(sum, zip(seconds, behind_s, strict=True))))

    def nearly_all_s(self, load: float, share: float) -> float:
        """Computation that at most this share of images exceeds."""
        left = accumulate(self.shares)
        return next(path_s for path_s, gone in zip(self.paths_s(load), left, strict=True) if gone >= 1 - share - 1e-9)

    def _reaching(self) -> list[float]:
        """Of images, by stage."""
        return [1.0, *(1.0 - left for left in accumulate(self.shares[:-1]))]

    def _each_s(self) -> list[float]:
        """Of an image in a full batch, by stage."""
        costs = self.costs
        return [costs.seconds(stage, costs.most(stage)) / costs.most(stage) for stage in range(1, costs.stages + 1)]

    def _unevenness(self) -> float:
        """(1 + c²) / 2, c the coefficient of variation of the work for an image."""
        done_s = list(accumulate(self._each_s()))
        mean_s = sum(share * each for share, each in zip(self.shares, done_s, strict=True))
        square = sum(share * each * each for share, each in zip(self.shares, done_s, strict=True))
        return square / (2 * mean_s * mean_s) if mean_s > 0 else 0.5
