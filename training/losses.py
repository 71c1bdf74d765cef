"""What a cascade is trained on: the sum of its exits' losses (DVT, section 3.3), with distillation as an option.

Shapes: K exits, B images, logits (B, classes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossConfig:
    """`exit_weights` has one entry an exit; empty means 1 each.

    With `distill_from`, an exit's loss is (1 - w) * cross entropy + w * T^2 * KL(teacher || exit), both softmaxes at
    temperature T (Hinton et al. 2015, arXiv 1503.02531). "last" teaches the exits before the last with the last one's
    logits, which get no gradient from it; "teacher" teaches all exits with logits that are handed in.
    """

    exit_weights: tuple[float, ...] = ()
    label_smoothing: float = 0.1
    distill_from: Literal["none", "last", "teacher"] = "none"
    distill_weight: float = 0.5
    distill_temperature: float = 1.0

    def __post_init__(self) -> None:
        if any(weight < 0 for weight in self.exit_weights) or (self.exit_weights and not any(self.exit_weights)):
            raise ValueError(f"exit_weights {self.exit_weights} must be 0 or more, and not all 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing {self.label_smoothing} must lie in 0..1, 1 excluded")
        if not 0 <= self.distill_weight <= 1:
            raise ValueError(f"distill_weight {self.distill_weight} must lie in 0..1")
        if self.distill_temperature <= 0:
            raise ValueError(f"distill_temperature {self.distill_temperature} must be above 0")


@dataclass(frozen=True, eq=False)
class CascadeLoss:
    """`total` is what to differentiate; `exits` (K,) are the exits' own losses before weighting, detached."""

    total: Tensor
    exits: Tensor


def cascade_loss(
    logits: Sequence[Tensor], targets: Tensor, config: LossConfig, *, teacher_logits: Tensor | None = None
) -> CascadeLoss:
    """The loss of K exits on class indices (B,) or soft targets (B, classes), averaged over the batch.

    Computed in float32 whatever the logits are. Raises `ValueError` if weights or the teacher do not fit the exits.
    """
    weights = config.exit_weights or (1.0,) * len(logits)
    if len(weights) != len(logits):
        raise ValueError(f"exit_weights has {len(weights)} entries for {len(logits)} exits; give one an exit")
    if (config.distill_from == "teacher") != (teacher_logits is not None):
        raise ValueError(f'teacher_logits go with distill_from="teacher", it is "{config.distill_from}"')
    if config.distill_from == "last":
        teacher_logits = logits[-1]
    losses = []
    for number, exit_logits in enumerate(logits, start=1):
        loss = F.cross_entropy(exit_logits.float(), targets, label_smoothing=config.label_smoothing)
        is_own_teacher = config.distill_from == "last" and number == len(logits)
        if teacher_logits is not None and not is_own_teacher:
            distance = _distance(exit_logits, teacher_logits, config.distill_temperature)
            loss = (1 - config.distill_weight) * loss + config.distill_weight * distance
        losses.append(loss)
    exits = torch.stack(losses)
    total = torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()
    return CascadeLoss(total, exits.detach())


def _distance(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(teacher || student), so that gradients keep their size whatever the temperature."""
    student = F.log_softmax(logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
