"""What crosses the boundaries inside the service: frozen dataclasses, nothing of HTTP and nothing of a backend.

Shapes: S side of the input in px, C classes, K exits. Exits are numbered from 1. Times are of the monotonic clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NewType

import numpy as np
from numpy.typing import NDArray

ExitReason = Literal["confident", "final", "deadline", "max_exit", "guard"]

Thresholds = tuple[float | None, ...]

ContentKey = NewType("ContentKey", bytes)
"""Two images with one key have the same file, for the same model and owner."""

Clock = Callable[[], float]
"""Monotonic seconds."""


@dataclass(frozen=True)
class ExitRule:
    """When an image leaves: at exit k with confidence >= thresholds[k-1] (None: never), at `max_exit` at the latest."""

    thresholds: Thresholds
    max_exit: int


@dataclass(frozen=True)
class ExitTaken:
    """One exit's word on an image: its probabilities (C,), and what the rule asked for there."""

    number: int
    probabilities: NDArray[np.floating]
    confidence: float
    threshold: float | None

    @property
    def label(self) -> int:
        return int(self.probabilities.argmax())


@dataclass(frozen=True)
class JobTimes:
    """Seconds: waiting in stage queues altogether, and each stage's computation (of the batch that it was in)."""

    queue_s: float
    stages_s: tuple[float, ...]


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
        return max(0, self.stages_run - len(self.times.stages_s))
