"""How weights move: AdamW without decay where it does harm, warm-up and cosine, clipping, an average of the weights."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

EMBEDDINGS = ("cls_token", "pos_embed")

Tensors = list[Tensor] | tuple[Tensor, ...]


@dataclass(frozen=True)
class OptimConfig:
    """`learning_rate` is the peak, reached after `warmup_steps` and falling to `final_share` of it at `total_steps`.

    `clip_norm` and `ema_decay` of 0 switch clipping and averaging off.
    """

    learning_rate: float
    total_steps: int
    warmup_steps: int = 0
    final_share: float = 0.01
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.total_steps < 1 or not 0 <= self.warmup_steps < self.total_steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must lie in 0..total_steps {self.total_steps}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay {self.ema_decay} must lie in 0..1, 1 excluded")


def learning_rate(step: int, config: OptimConfig) -> float:
    """The rate of update `step` (from 0): a linear rise that begins above 0, then half a cosine."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    span = max(1, config.total_steps - 1 - config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / span)
    share = config.final_share + (1 - config.final_share) * (1 + math.cos(math.pi * done)) / 2
    return config.learning_rate * share


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters. Its fused kernel is one pass over memory, on CPU too."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices and convolutions decay; vectors (norms, biases) and embeddings of class and position do not."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_kept = parameter.ndim <= 1 or name.rpartition(".")[2] in EMBEDDINGS
            (kept if is_kept else decayed).append(parameter)
    groups = ((decayed, weight_decay), (kept, 0.0))
    return [{"params": parameters, "weight_decay": decay} for parameters, decay in groups if parameters]


def clip_gradients(model: nn.Module, clip_norm: float) -> Tensor:
    """Scale all gradients to a total norm of at most `clip_norm` (0: leave them); returns the norm before."""
    return nn.utils.clip_grad_norm_(model.parameters(), clip_norm if clip_norm > 0 else math.inf)


def ema_decay_at(updates: int, decay: float) -> float:
    """The decay after so many updates: (1 + t) / (10 + t) until that passes `decay`, so that the start is forgotten."""
    return min(decay, (1 + updates) / (10 + updates))


def weight_average(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that follows its weights: `update_parameters(model)` after every step, `module` to use it.

    Buffers are those of the model at the last update. Its state_dict holds the count of updates, for a resumed run.
    """

    def average(averages: Tensors, weights: Tensors, updates: Tensor | int) -> None:
        step = get_ema_multi_avg_fn(ema_decay_at(int(updates), decay))  # type: ignore[no-untyped-call]  # torch's own
        step(averages, weights, updates)

    return AveragedModel(model, multi_avg_fn=average)
