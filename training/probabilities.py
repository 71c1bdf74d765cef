"""What the exits think of a set of images, calibrated, and how threshold rules see it.

Shapes: K exits, n images, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.policy import Measure, confidence, softmax
from training.evaluate import ExitLogits
from training.thresholds import Calibration, Floats
from training.thresholds.calibration import Bools


@dataclass(frozen=True, eq=False)
class ExitProbabilities:
    """Calibrated probabilities (K, n, C) and targets (n,) of one set of images."""

    probabilities: Floats
    targets: NDArray[np.int64]

    @staticmethod
    def of(split: ExitLogits, temperatures: Sequence[float]) -> "ExitProbabilities":
        """Each exit's logits through a softmax of its temperature."""
        probabilities = [softmax(logits, t) for logits, t in zip(split.logits, temperatures, strict=True)]
        return ExitProbabilities(np.stack(probabilities), split.targets)

    @property
    def predicted(self) -> NDArray[np.intp]:
        """Each exit's label for each image, (K, n)."""
        return np.asarray(self.probabilities.argmax(axis=-1))

    @property
    def correct(self) -> Bools:
        """Whether that is the image's own, (K, n)."""
        return np.asarray(self.predicted == self.targets)

    def calibration(self, cumulative_gmacs: Floats, measure: Measure, good: Bools | None = None) -> Calibration:
        """For threshold rules, which want many to leave where `good` (K, n) is true, at little cost; by default where
        the label is correct."""
        good = self.correct if good is None else good
        return Calibration(confidence(self.probabilities, measure), good, cumulative_gmacs)
