"""What an exit says, computed where its logits are: confidence and best classes. The torch twin of models/policy.py.

In float64, as there, since thresholds are compared in it.

Shapes: B batch, C classes, k of them.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.policy import Measure
from service.backends.base import Brief


def readout(logits: Tensor, temperature: float, measure: Measure, k: int) -> Tensor:
    """Of logits (B, C) one float64 tensor (B, 1 + 2k), so that one copy brings it to the host: the confidence, the best
    k <= C probabilities, the best first, and their classes' numbers, of equals the lower first.

    Logits that give no probabilities, NaN or infinite ones say, give NaN for all but the numbers.
    """
    classes = logits.shape[-1]
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    ranked, order = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    if measure == "max_softmax" or classes == 1:
        confidence = ranked[:, :1]
    elif measure == "margin":
        confidence = ranked[:, :1] - ranked[:, 1:2]
    else:
        confidence = 1.0 + torch.xlogy(probabilities, probabilities).sum(dim=-1, keepdim=True) / math.log(classes)
    return torch.cat((confidence, ranked[:, :k], order[:, :k].double()), dim=-1)


def brief_of(packed: NDArray[np.floating], classes: int) -> Brief:
    """The same on the host, of an array of its own; `classes` is C."""
    k = packed.shape[1] // 2
    return Brief(packed[:, 0], packed[:, 1 : 1 + k], packed[:, 1 + k :].astype(np.intp), classes)
