"""What a device would make of logits, by the lines that the host decides by."""

import numpy as np
from numpy.typing import NDArray

from models import policy
from models.policy import ExitMeasure
from service.backends.base import Brief


def brief_of(logits: NDArray[np.float32], measure: ExitMeasure, stage: int, classes: int) -> Brief:
    """Of logits (B, C), with the best `classes` of C."""
    with np.errstate(all="ignore"):
        probabilities = policy.softmax(logits.astype(np.float64), measure.temperatures[stage - 1])
        confidences = policy.confidence(probabilities, measure.confidence)
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :classes]
    return Brief(confidences, np.take_along_axis(probabilities, order, axis=-1), order, logits.shape[1])
