"""Confidence and the exit rule, pure numpy: training and serving decide with the same lines. No torch.

Shapes: n samples, C classes. Probabilities and confidences are 0..1.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Measure = Literal["max_softmax", "margin", "entropy"]
MEASURES: tuple[Measure, ...] = get_args(Measure)

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class ExitMeasure:
    """How logits become a confidence: the measure, and one softmax temperature an exit."""

    confidence: Measure
    temperatures: tuple[float, ...]

    @property
    def exits(self) -> int:
        return len(self.temperatures)


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities (..., C) of logits (..., C) divided by `temperature`; NaN logits give NaN."""
    scaled = logits / temperature
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    probabilities: Floats = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities


def confidence(probabilities: Floats, measure: Measure = "max_softmax") -> Floats:
    """Confidence (...,) of probabilities (..., C).

    `max_softmax`: the largest; `margin`: the largest minus the second; `entropy`: 1 - entropy / ln C. With a single
    class every measure is 1.
    """
    classes = probabilities.shape[-1]
    if measure == "max_softmax" or classes == 1:
        largest: Floats = probabilities.max(axis=-1)
        return largest
    if measure == "margin":
        top = np.partition(probabilities, classes - 2, axis=-1)
        margin: Floats = top[..., -1] - top[..., -2]
        return margin
    if measure == "entropy":
        logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
        certainty: Floats = 1.0 + (probabilities * logs).sum(axis=-1) / np.log(classes)
        return certainty
    raise ValueError(f"unknown confidence measure {measure!r}, known are {', '.join(MEASURES)}")


def leaves(confidences: Floats, threshold: float | None) -> NDArray[np.bool_]:
    """Which samples (n,) leave at an exit: confidence >= threshold. None is "never"; NaN never leaves."""
    if threshold is None:
        return np.zeros(confidences.shape, dtype=np.bool_)
    return confidences >= threshold
