"""What crosses the boundaries inside the service: frozen dataclasses, nothing of HTTP and nothing of a backend.

Shapes: S side of the input in px, C classes, K exits. Exits are numbered from 1. Times are of the monotonic clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal, NewType

import numpy as np
from numpy.typing import NDArray

ExitReason = Literal["confident", "final", "deadline", "max_exit", "guard"]

Thresholds = tuple[float | None, ...]

ContentKey = NewType("ContentKey", bytes)
"""Two images with one key have the same file, for the same model and owner."""

# So many are ranked sooner by Python itself: to sort, NumPy lets go of the interpreter's lock, and waits for it again.
_FEW_CLASSES = 32

Clock = Callable[[], float]
"""Monotonic seconds."""


@dataclass(frozen=True)
class ExitRule:
    """When an image leaves: at exit k with confidence >= thresholds[k-1] (None: never), at `max_exit` at the latest."""

    thresholds: Thresholds
    max_exit: int


@dataclass(frozen=True)
class RankedClass:
    """A class, by its number, and its probability."""

    index: int
    probability: float


@dataclass(frozen=True, eq=False)
class Ranking:
    """Classes by their probability, the best first, of equals the lower number first: all C, or the best k of them.

    Without `classes`, `probabilities` are those of all (C,) in the order of their numbers, ranked when somebody asks;
    with `classes` (k,), best first, they are of these. `of` is C.
    """

    probabilities: NDArray[np.floating]
    of: int
    classes: NDArray[np.integer] | None = None

    @property
    def label(self) -> int:
        """The best one's number."""
        return int(self.probabilities.argmax() if self.classes is None else self.classes[0])

    @property
    def held(self) -> int:
        """How many classes it tells of, from the best on."""
        return len(self.probabilities)

    @property
    def nbytes(self) -> int:
        return self.probabilities.nbytes + (0 if self.classes is None else self.classes.nbytes)

    def tells(self, count: int) -> bool:
        """Whether it holds so many classes, or all where there are fewer."""
        return self.held >= min(count, self.of)

    def best(self, count: int) -> list[RankedClass]:
        """The first so many; fewer where no more are held."""
        if self.classes is not None:
            return list(map(RankedClass, self.classes[:count].tolist(), self.probabilities[:count].tolist()))
        if self.of <= _FEW_CLASSES:
            ranked = sorted(enumerate(self.probabilities.tolist()), key=itemgetter(1), reverse=True)
            return [RankedClass(index, probability) for index, probability in ranked[:count]]
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return list(map(RankedClass, order.tolist(), self.probabilities[order].tolist()))

    def whole(self) -> NDArray[np.floating]:
        """Every class's probability (C,), by its number; of one that holds them all."""
        assert self.held == self.of, f"{self.held} classes of {self.of} are held"
        if self.classes is None:
            return self.probabilities
        probabilities = np.empty_like(self.probabilities)
        probabilities[self.classes] = self.probabilities
        return probabilities

    def alone(self) -> "Ranking":
        """The same with arrays of its own: a row would keep its whole batch's alive."""
        if self.probabilities.base is None and (self.classes is None or self.classes.base is None):
            return self
        return Ranking(self.probabilities.copy(), self.of, None if self.classes is None else self.classes.copy())


@dataclass(frozen=True)
class ExitTaken:
    """One exit's word on an image, and what the rule asked for there."""

    number: int
    ranking: Ranking
    confidence: float
    threshold: float | None

    @property
    def label(self) -> int:
        return self.ranking.label

    def alone(self) -> "ExitTaken":
        """The same, to be kept when its batch is gone."""
        ranking = self.ranking.alone()
        return self if ranking is self.ranking else ExitTaken(self.number, ranking, self.confidence, self.threshold)


@dataclass(frozen=True)
class StageRun:
    """An image at a stage: since when it waited, and when the batch of so many `images` that it was in was computed."""

    stage: int
    queued_s: float
    began_s: float
    ended_s: float
    images: int

    @property
    def seconds(self) -> float:
        """With the wait."""
        return self.ended_s - self.queued_s


@dataclass(frozen=True)
class JobTimes:
    """What was run for an image, in order."""

    runs: tuple[StageRun, ...] = ()

    @property
    def queue_s(self) -> float:
        """Waiting in stage queues altogether."""
        return sum(run.began_s - run.queued_s for run in self.runs)

    @property
    def stages_s(self) -> tuple[float, ...]:
        """Each stage's computation (of the batch that it was in)."""
        return tuple(run.ended_s - run.began_s for run in self.runs)


@dataclass(frozen=True)
class Answer:
    """What the engine says about one image; `stages_run`, what it cost, may be more than the exit it left at.

    Of those only the last were run for this answer, as many as `times` tells of; the others had been before.
    """

    exit: ExitTaken
    reason: ExitReason
    stages_run: int
    times: JobTimes

    @property
    def stages_before(self) -> int:
        # A deadline's answer may tell of a stage that ends just then in one place and not in the other.
        return max(0, self.stages_run - len(self.times.runs))
