"""What crosses the boundaries inside the service: frozen dataclasses, nothing of HTTP and nothing of a backend.

Shapes: S side of the input in px, C classes, K exits. Exits are numbered from 1. Times are of the monotonic clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ExitReason = Literal["confident", "final", "deadline", "max_exit", "guard"]

Thresholds = tuple[float | None, ...]

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
    """What the engine says about one image; `stages_run`, what it cost, may be more than the exit it left at."""

    exit: ExitTaken
    reason: ExitReason
    stages_run: int
    times: JobTimes
