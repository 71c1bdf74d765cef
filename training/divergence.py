"""When a run has gone wrong: told from the losses that the log gets anyway, so that it costs no look at the device.

A loss that is not finite, or one that has jumped most of the way back to where nothing is learnt, or far above that,
and stays there. A run that merely learns nothing has not diverged.
"""

import math
import statistics
from collections import deque
from typing import Literal

from training.losses import LossConfig

# In logged losses, of which there is one every ten steps: what has to be high in the median to have diverged, what has
# to be high to hold checkpoints back, and what tells where the run began.
WINDOW, RECENT, FIRST = 20, 5, 5

# See `LossWatch`.
LOST_SHARE = 0.6
LEAST_GAIN = 0.05
SPREADS = 4
EXPLODED = 1.5
# A beginning above so many times chance is no measure of it.
FIRST_AT_MOST = 3.0

Health = Literal["fine", "suspicious", "diverged"]


class DivergedError(Exception):
    """The run has gone wrong and cannot be mended by going on. The message names step, loss and learning rate."""


def chance_loss(config: LossConfig, exits: int, classes: int) -> float:
    """The loss of a network that finds all classes equally likely; what a teacher adds to it is not known here."""
    weights = config.exit_weights or (1.0,) * exits
    total = 0.0
    for number, weight in enumerate(weights, start=1):
        has_teacher = config.distill_from == "teacher" or (config.distill_from == "last" and number < len(weights))
        total += weight * (1 - config.distill_weight if has_teacher else 1.0) * math.log(classes)
    return total


class LossWatch:
    """Judges each logged loss in the light of those before it; fed with a log's losses it knows what that run knew.

    Let best be the lowest median of `WINDOW` losses so far, and level the loss at which nothing is learnt: chance, or
    what the first losses say where that is higher, as with a teacher. Once best lies below level by `LEAST_GAIN` of it,
    the run has diverged when the median of `WINDOW` losses has lost `LOST_SHARE` of the way from level to best, and is
    `SPREADS` times their spread above best; at any time, when it lies at `EXPLODED` times level.
    Single losses may be as high as they like: with mixed images, or at the peak of the rate, they are.
    """

    def __init__(self, chance: float) -> None:
        self._chance = chance
        self._level = chance
        self._first: list[float] = []
        self._window: deque[float] = deque(maxlen=WINDOW)
        self.best = math.inf
        self.limit = EXPLODED * chance

    @property
    def level(self) -> float:
        """The loss at which nothing is learnt."""
        return self._level

    @property
    def median(self) -> float:
        """Of the last `WINDOW` losses, or of as many as there are."""
        return statistics.median(self._window)

    @property
    def is_high(self) -> bool:
        """Whether the last losses are those of a run that has diverged."""
        return len(self._window) == WINDOW and self.median > self.limit

    def see(self, loss: float) -> Health:
        """What to think of the run after one more logged loss."""
        if not math.isfinite(loss):
            return "diverged"
        self._window.append(loss)
        if len(self._first) < FIRST:
            self._first.append(loss)
            if len(self._first) == FIRST:
                began = min(statistics.median(self._first), FIRST_AT_MOST * self._chance)
                self._level = max(self._chance, began)
                self.limit = EXPLODED * self._level
        if self.is_high:
            return "diverged"
        if len(self._window) < WINDOW:
            return "fine"
        if self.median < self.best:
            self.best = self.median
            gain = self._level - self.best
            if gain > LEAST_GAIN * self._level:
                spread = statistics.pstdev(self._window)
                self.limit = self.best + max(LOST_SHARE * gain, SPREADS * spread)
        recent = statistics.median(list(self._window)[-RECENT:])
        return "suspicious" if recent > self.limit else "fine"
