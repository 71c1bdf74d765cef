"""What a stage costs: seconds of stage k at batch size b, seeded by the warm-up, then a running estimate.

The schedule asks it whether a job can still meet its deadline and whether a fuller batch would be worth waiting for;
admission asks it when a place will be free. Written by the lanes in turn, read by any thread: every value is one float.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# Share of a new measurement in the estimate; a quarter of that moves the stage as a whole, since what slows one size
# down (a neighbour on the machine, a throttled clock) slows them all.
_NEWS = 0.1
_NEWS_OF_STAGE = 0.25
# Share of one image in the estimate of how many stay: one either stays or does not, so it takes many to tell.
_NEWS_OF_STAYING = 0.02
# A batch that took so many times its estimate met an accident (a swapped page, a paused machine) and counts no more.
_OUTLIER = 4.0
# A batch counts as worth its time when images a second are within the first share of the best size's, and as full when
# they are within the second: more images would only wait for each other.
_WORTH, _FULL = 0.98, 0.999
_WORTH_EVERY = 64


class StageCosts:
    """Of K stages and batches of 1 to `max_batch` images. Before anything was measured every cost is 0.

    Without a seed the first batch stands for all sizes, in proportion, and only a full batch counts as worth its time.
    """

    def __init__(self, stages: int, max_batch: int) -> None:
        self.stages = stages
        self.max_batch = max_batch
        self._seconds = [[0.0] * (max_batch + 1) for _ in range(stages)]
        self._pace = [1.0] * stages
        self._worth = [max_batch] * stages
        self._most = [max_batch] * stages
        self._seeded = [False] * stages
        self._stay = [1.0] * stages
        self._observed = [0] * stages

    def seconds(self, stage: int, images: int) -> float:
        """Of one batch; beyond `max_batch` as if it were computed in full batches."""
        row = self._seconds[stage - 1]
        if images > self.max_batch:
            return row[self.max_batch] * self._pace[stage - 1] * images / self.max_batch
        return row[images] * self._pace[stage - 1]

    def worth(self, stage: int) -> int:
        """The fewest images that are computed nearly as well together as any larger batch."""
        return self._worth[stage - 1]

    def most(self, stage: int) -> int:
        """The fewest images that are computed as well together as any larger batch: a full batch."""
        return self._most[stage - 1]

    @property
    def pass_s(self) -> float:
        """One full batch through every stage."""
        return sum(self.seconds(stage, self.most(stage)) for stage in range(1, self.stages + 1))

    def seed(self, stage: int, measured: Mapping[int, float]) -> None:
        """Seconds of batches of some sizes. Between two sizes a straight line; below and above in proportion."""
        assert measured and all(images >= 1 and seconds > 0 for images, seconds in measured.items())
        self._fill(stage, measured)
        self._seeded[stage - 1] = True
        self._weigh(stage)

    def observe(self, stage: int, images: int, seconds: float) -> None:
        """A batch took so long. Of no effect where it took no time (a clock that stands still)."""
        if seconds <= 0:
            return
        expected = self.seconds(stage, images)
        if expected == 0.0:
            self._fill(stage, {images: seconds})
            return
        surprise = min(max(seconds / expected, 1 / _OUTLIER), _OUTLIER) - 1.0
        self._seconds[stage - 1][min(images, self.max_batch)] *= 1.0 + _NEWS * (1 - _NEWS_OF_STAGE) * surprise
        self._pace[stage - 1] *= 1.0 + _NEWS * _NEWS_OF_STAGE * surprise
        self._observed[stage - 1] += 1
        if self._seeded[stage - 1] and self._observed[stage - 1] % _WORTH_EVERY == 0:
            self._weigh(stage)

    def observe_stay(self, stage: int, images: int, stayed: int) -> None:
        """Of a batch so many went on to the next stage."""
        share = 1 - (1 - _NEWS_OF_STAYING) ** images
        self._stay[stage - 1] += share * (stayed / images - self._stay[stage - 1])

    def work_s(self, waiting: Sequence[int]) -> float:
        """Until so many images before each stage are done, in full batches, as many leaving early as lately did."""
        to_the_end, work = 0.0, 0.0
        for stage in range(self.stages, 0, -1):
            each = self.seconds(stage, self.most(stage)) / self.most(stage)
            to_the_end = each + (self._stay[stage - 1] * to_the_end if stage < self.stages else 0.0)
            work += waiting[stage - 1] * to_the_end
        return work

    def _weigh(self, stage: int) -> None:
        rates = [images / seconds if seconds > 0 else 0.0 for images, seconds in enumerate(self._seconds[stage - 1])]
        best = max(rates)
        for sizes, share in ((self._worth, _WORTH), (self._most, _FULL)):
            sizes[stage - 1] = next(images for images, rate in enumerate(rates) if images and rate >= share * best)

    def _fill(self, stage: int, measured: Mapping[int, float]) -> None:
        sizes = sorted(measured)
        row = [0.0]
        for images in range(1, self.max_batch + 1):
            place = bisect_left(sizes, images)
            if place == len(sizes):
                row.append(measured[sizes[-1]] * images / sizes[-1])
            elif sizes[place] == images or place == 0:
                row.append(measured[sizes[place]] * images / sizes[place])
            else:
                low, high = sizes[place - 1], sizes[place]
                share = (images - low) / (high - low)
                row.append(measured[low] * (1 - share) + measured[high] * share)
        self._seconds[stage - 1] = row
        self._pace[stage - 1] = 1.0


@dataclass(frozen=True)
class Lanes:
    """Those of one device: `number` batches at once, each of which takes what `costs` says."""

    costs: StageCosts
    number: int

    @property
    def newcomer_s(self) -> float:
        """What all of them together need for an image that goes as deep as images lately did."""
        return self.costs.work_s((1, *(0,) * (self.costs.stages - 1))) / self.number


def together_s(each_s: Iterable[float]) -> float:
    """Of one piece of work, side by side on devices that alone would need so long; 0 where one takes no time."""
    seconds = list(each_s)
    return 1 / sum(1 / each for each in seconds) if all(seconds) else 0.0
