"""What the exits think of a set of images, calibrated, and how threshold rules see it.

Shapes: K exits, n images, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.policy import Measure, confidence, softmax
from models.profiles import Risk
from training.evaluate import ExitLogits
from training.risk import harmless
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

    def calibration(self, cumulative_gmacs: Floats, measure: Measure) -> Calibration:
        """By hits: what a threshold vector costs, and its top-1."""
        return Calibration(confidence(self.probabilities, measure), self.correct, cumulative_gmacs)

    def calibration_by_harm(self, cumulative_gmacs: Floats, measure: Measure, risk: Risk) -> Calibration:
        """By harm: "correct" is where leaving costs the image nothing, so that top-1 is 1 - `risk`."""
        unharmed = harmless(risk, self.predicted, self.targets)
        return Calibration(confidence(self.probabilities, measure), unharmed, cumulative_gmacs)
