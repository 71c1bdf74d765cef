"""Stages through PyTorch as the model is written: the reference that every other backend must agree with."""

from collections.abc import Sequence

from service.backends.base import Slot
from service.backends.torch_backend import TorchBackend
from service.backends.torch_lanes import Lane, Numbers
from service.backends.torch_stages import Computed


class EagerBackend(TorchBackend):
    """Computes a batch at the size that it has."""

    name = "eager"

    def _compute(self, stage: int, slots: Sequence[Slot], lane: Lane) -> Computed:
        index = lane.numbers(Numbers.BATCH, slots)
        taken = self._arena.gather(index, self._layout.taken[stage - 1])
        return self._network.compute(stage, self._arena.images(index), taken)
