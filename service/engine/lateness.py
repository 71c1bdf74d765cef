"""How likely it is that an image is late at a load: waits by queueing theory, computation by the measured costs.

`shares` are of images that leave at each exit; a *load* is the share of all devices' capacity that images need, in full
batches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from service.engine.costs import Lanes, StageCosts, together_s


@dataclass(frozen=True)
class Path:
    """Of the `share` of images that leave at one exit of one device: what is computed for them takes so long."""

    seconds: float
    share: float


@dataclass(frozen=True)
class Mix:
    """Images that leave in these shares; to each of the devices go as many as it can compute beside the others."""

    shares: tuple[float, ...]
    devices: tuple[Lanes, ...]

    @property
    def work_s(self) -> float:
        """What all lanes of all devices together need for a mean image."""
        return together_s(map(self._work_s, self.devices))

    def late_chance(self, rate_per_s: float, objective_s: float) -> float:
        """Of an image that comes where so many come a second, all the time; 1 where they are more than can be done."""
        paths = self.paths(rate_per_s * self.work_s)
        return sum(path.share * self.wait_chance(rate_per_s, objective_s - path.seconds) for path in paths)

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
        lanes = sum(device.number for device in self.devices)
        waiting = math.pow(load, math.sqrt(2 * (lanes + 1)) - 1)
        return waiting * math.exp(-wait_s * (1 - load) / (self._unevenness() * work_s))

    def paths(self, load: float) -> list[Path]:
        """Device by device, exit by exit. Batches are as full as the load makes them; before each stage an image waits
        for a batch that is under way (a single image's wait is in the queue's tail already)."""
        return [
            Path(seconds, part * share)
            for device, part in zip(self.devices, self._parts(), strict=True)
            for seconds, share in zip(self._paths_s(device.costs, load), self.shares, strict=True)
        ]

    def nearly_all_s(self, load: float, share: float) -> float:
        """Computation that at most this share of images exceeds."""
        paths = sorted(self.paths(load), key=lambda path: path.seconds)
        gone = accumulate(path.share for path in paths)
        return next(path.seconds for path, so_far in zip(paths, gone, strict=True) if so_far >= 1 - share - 1e-9)

    def _parts(self) -> list[float]:
        """Of images, by the device that they go to."""
        each_s = list(map(self._work_s, self.devices))
        if not all(each_s):
            return [1 / len(each_s)] * len(each_s)
        rates = [1 / seconds for seconds in each_s]
        return [rate / sum(rates) for rate in rates]

    def _work_s(self, device: Lanes) -> float:
        """What one device alone needs for a mean image."""
        each_s = zip(self._reaching(), _each_s(device.costs), strict=True)
        return sum(reached * each for reached, each in each_s) / device.number

    def _paths_s(self, costs: StageCosts, load: float) -> list[float]:
        reaching = self._reaching()
        sizes = [max(1, math.ceil(min(load, 1.0) * costs.most(stage))) for stage in range(1, costs.stages + 1)]
        seconds = [costs.seconds(stage, images) for stage, images in enumerate(sizes, start=1)]
        under_way_s = sum(reached * each for reached, each in zip(reaching, seconds, strict=True)) / sum(reaching)
        behind_s = [load * under_way_s * (1 - 1 / images) for images in sizes]
        return list(accumulate(map(sum, zip(seconds, behind_s, strict=True))))

    def _reaching(self) -> list[float]:
        """Of images, by stage."""
        return [1.0, *(1.0 - left for left in accumulate(self.shares[:-1]))]

    def _unevenness(self) -> float:
        """(1 + c²) / 2, c the coefficient of variation of the work for an image."""
        mean_s = square = 0.0
        for device, part in zip(self.devices, self._parts(), strict=True):
            for share, done_s in zip(self.shares, accumulate(_each_s(device.costs)), strict=True):
                mean_s += part * share * done_s
                square += part * share * done_s * done_s
        return square / (2 * mean_s * mean_s) if mean_s > 0 else 0.5


def _each_s(costs: StageCosts) -> Sequence[float]:
    """Of an image in a full batch, by stage."""
    return [costs.seconds(stage, costs.most(stage)) / costs.most(stage) for stage in range(1, costs.stages + 1)]
