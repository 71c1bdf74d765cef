"""How weights move: AdamW without decay where it does harm, on demand Muon for the matrices; warm-up and cosine,
clipping.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.muon import Muon, MuonConfig

EMBEDDINGS = ("cls_token", "pos_embed")
# Matrices that Muon's large steps do not suit: they begin at nothing, or nearly so, and decide what is said or heard.
BY_ADAMW = (".head.", ".feature_reuse.", ".relation_reuse.")


@dataclass(frozen=True)
class OptimConfig:
    """`learning_rate` is the peak, reached after `warmup_steps` and falling to `final_share` of it at `total_steps`.

    `muon`: moves all that decays but heads and reuse, in AdamW's stead. `clip_norm` and `ema_decay` of 0 switch
    clipping and averaging off.
    """

    learning_rate: float
    total_steps: int
    warmup_steps: int = 0
    final_share: float = 0.01
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    ema_decay: float = 0.0
    muon: MuonConfig | None = None

    def __post_init__(self) -> None:
        if self.total_steps < 1 or not 0 <= self.warmup_steps < self.total_steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must lie in 0..total_steps {self.total_steps}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay {self.ema_decay} must lie in 0..1, 1 excluded")


def rate_share(step: int, config: OptimConfig) -> float:
    """The rate of update `step` (from 0) over the peak: a linear rise that begins above 0, then half a cosine."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    span = max(1, config.total_steps - 1 - config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / span)
    return config.final_share + (1 - config.final_share) * (1 + math.cos(math.pi * done)) / 2


class Optimizers:
    """All that moves a model's weights, as one: each trainable parameter is in just one group of one optimizer."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)
        self._peaks = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def set_rate(self, share: float) -> None:
        """Every group's rate as share of its peak."""
        for part, peaks in zip(self.parts, self._peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * share

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises `ValueError` if it is of other optimizers."""
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)


def build_optimizers(model: nn.Module, config: OptimConfig) -> Optimizers:
    """Over the trainable parameters, where they are now. AdamW's fused kernel is one pass over memory, on CPU too."""
    decayed, kept = split_parameters(model)
    by_muon: list[nn.Parameter] = []
    if config.muon is not None:
        by_muon = [parameter for name, parameter in decayed.items() if not any(part in f".{name}" for part in BY_ADAMW)]
    moved = set(map(id, by_muon))
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter for parameter in parameters.values() if id(parameter) not in moved],
            "weight_decay": decay,
        }
        for parameters, decay in ((decayed, config.weight_decay), (kept, 0.0))
    ]
    filled = [group for group in groups if group["params"]]
    parts: list[torch.optim.Optimizer] = []
    if filled:
        parts.append(torch.optim.AdamW(filled, lr=config.learning_rate, betas=config.betas, fused=True))
    if config.muon is not None and by_muon:
        parts.append(Muon(by_muon, config.muon))
    return Optimizers(parts)


def split_parameters(model: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The trainable ones by name: matrices and convolutions, which decay, and vectors (norms, biases) and embeddings of
    class and position, which do not."""
    decayed: dict[str, nn.Parameter] = {}
    kept: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_kept = parameter.ndim <= 1 or name.rpartition(".")[2] in EMBEDDINGS
            (kept if is_kept else decayed)[name] = parameter
    return decayed, kept


def clip_gradients(model: nn.Module, clip_norm: float) -> Tensor:
    """Scale all gradients to a total norm of at most `clip_norm` (0: leave them); returns the norm before."""
    return nn.utils.clip_grad_norm_(model.parameters(), clip_norm if clip_norm > 0 else math.inf)
