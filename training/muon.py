"""Muon (Jordan et al. 2024): steps for matrices that are themselves orthogonal, all singular values near 1.

Shapes: n matrices of one shape (R, C). PyTorch's Muon takes one after the other, some 30 small kernels each; here those
of one shape go through together, which on a GPU is launched as often as a single one.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MuonConfig:
    """Muon moves matrices by orthogonal steps, all their singular values, whatever the gradient, `learning_rate` at its
    peak. A convolution's kernel is a matrix with a row for each output channel."""

    learning_rate: float = 0.1
    momentum: float = 0.6
    weight_decay: float = 0.1


class Muon(torch.optim.Muon):
    """PyTorch's Muon, which knows matrices only, on kernels too: through views that share their memory."""

    def __init__(self, weights: Sequence[nn.Parameter], config: MuonConfig) -> None:
        self._weights = weights
        self._matrices = [nn.Parameter(_as_matrix(weight.detach(), weight)) for weight in weights]
        for weight, matrix in zip(weights, self._matrices, strict=True):
            assert weight.data_ptr() == matrix.data_ptr(), "a copy would be trained, not the weight"
        super().__init__(
            self._matrices,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            adjust_lr_fn="original",
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # never a closure
        assert closure is None
        of_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight, matrix in zip(self._weights, self._matrices, strict=True):
            if weight.grad is not None:
                of_shape[matrix.shape].append((matrix, _as_matrix(weight.grad, weight)))
        for pairs in of_shape.values():
            self._step_together([matrix for matrix, _ in pairs], [gradient for _, gradient in pairs])

    def _step_together(self, matrices: list[Tensor], gradients: list[Tensor]) -> None:
        (group,) = self.param_groups
        rate, momentum = group["lr"], group["momentum"]
        buffers = [self._momentum_of(matrix) for matrix in matrices]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        ahead = torch.stack(torch._foreach_lerp(gradients, buffers, momentum))  # Nesterov's
        directions = (
            orthogonal(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"]).to(ahead.dtype).contiguous()
        )
        torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
        rows, columns = matrices[0].shape
        torch._foreach_add_(matrices, directions.unbind(), alpha=-rate * max(1, rows / columns) ** 0.5)

    def _momentum_of(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """The nearest orthogonal matrices to (n, R, C), roughly: singular values come near 1, not onto it. In bf16.

    Newton-Schulz iterations of a quintic, as in PyTorch's Muon and its author's: x <- a x + (b g + c g g) x, g = x x^T.
    """
    a, b, c = coefficients
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16()
    if is_tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def _as_matrix(values: Tensor, weight: Tensor) -> Tensor:
    """`values` (out, ...) as (out, n), in the order in which `weight` lies in memory: of itself it is a view."""
    channels_last = weight.ndim == 4 and not weight.is_contiguous()
    return (values.permute(0, 2, 3, 1) if channels_last else values).flatten(1)
