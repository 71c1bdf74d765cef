"""What computes a stage. The engine moves opaque state handles; a backend owns the tensors behind them.

Shapes: B batch, S input side in px, C classes. Stages are numbered from 1.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NewType, Protocol

import numpy as np
from numpy.typing import NDArray

from models.preprocess import Pixels

State = NewType("State", object)
"""What one image carries to its next stage (the uint8 image, and later features and relations). Never changed in place,
so that a failed batch can be run again in parts."""


class BackendError(ValueError):
    """A bundle cannot be computed here: what is missing, and the way out."""


class StageOutput(Protocol):
    """One computed batch. The states of those that stay are taken with `keep`; the others cost nothing more."""

    @property
    def logits(self) -> NDArray[np.float32]:
        """(B, C)."""
        ...

    def keep(self, row: int) -> State:
        """The state of one image of the batch for the next stage; it does not hold on to the rest of the batch."""
        ...


class StageBackend(Protocol):
    """Called from one thread alone, the engine's. Nothing is stored on a backend between calls."""

    @property
    def name(self) -> str:
        """What the operator reads in `GET /model`."""
        ...

    @property
    def state_bytes(self) -> tuple[int, ...]:
        """Bytes of one image's state before stage 1, 2, ... K."""
        ...

    def begin(self, pixels: Pixels) -> State:
        """The state of an image (3, S, S) before stage 1."""
        ...

    def run(self, stage: int, states: Sequence[State]) -> StageOutput:
        """Compute one stage for a batch. Raises whatever the runtime raises; the states stay usable."""
        ...

    def release(self, state: State) -> None:
        """The image is done with: its memory may be used again."""
        ...


def peak_state_bytes(state_bytes: Sequence[int]) -> int:
    """What one image needs at its costliest hand-over, where the old state and the new exist together."""
    return max((old + new for old, new in pairwise(state_bytes)), default=state_bytes[0])
