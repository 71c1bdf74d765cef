"""The weights that a run keeps: their exponential moving average."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def ema_decay_at(updates: int, decay: float) -> float:
    """The decay after so many updates: (1 + t) / (10 + t) until that passes `decay`, so that the start is forgotten."""
    return min(decay, (1 + updates) / (10 + updates))


class WeightAverage(AveragedModel):
    """A copy of `model` that follows its weights: `update_parameters(model)` after every step, `module` to use it.

    Buffers are those of the model at the last update. Its state_dict holds the count of updates, for a resumed run.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """PyTorch's own copies the count, which lies on the CPU, to the device at every update, and so waits until all
        that the device has been given to do is done."""
        updates = int(self.n_averaged)
        averages: list[Tensor] = list(self.module.parameters())
        weights: list[Tensor] = list(model.parameters())
        if updates == 0:
            torch._foreach_copy_(averages, weights)
        else:
            torch._foreach_lerp_(averages, weights, 1 - ema_decay_at(updates, self._decay))
        buffers = list(self.module.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(model.buffers()))
        self.n_averaged += 1
