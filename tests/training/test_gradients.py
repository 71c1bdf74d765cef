"""A step's gradients are those of autograd, however they come about."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from training.gradients import Gradients, GraphedGradients
from training.losses import CascadeLoss, LossConfig, cascade_loss

on_gpu = pytest.mark.gpu


class Problem:
    """A small network, its loss, and batches for it, all on one device."""

    def __init__(self, device: str) -> None:
        torch.manual_seed(0)
        self.device = device
        self.network = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3)).to(device)
        self.parameters = list(self.network.parameters())

    def loss(self, tensors: Sequence[Tensor]) -> CascadeLoss:
        images, targets = tensors
        logits = self.network(images)
        return cascade_loss([logits, 2 * logits], targets, LossConfig(distill_from="last", distill_weight=0.5))

    def batch(self, seed: int, size: int = 4) -> list[Tensor]:
        draw = torch.Generator().manual_seed(seed)
        targets = torch.softmax(torch.randn(size, 3, generator=draw), 1)
        return [torch.randn(size, 8, generator=draw).to(self.device), targets.to(self.device)]

    def expected(self, batch: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(self.loss(batch).total, self.parameters)

    def found(self) -> list[Tensor]:
        assert all(parameter.grad is not None for parameter in self.parameters)
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]


@pytest.mark.parametrize(
    ("kind", "device"),
    [
        (Gradients, "cpu"),
        pytest.param(Gradients, "cuda", marks=on_gpu),
        pytest.param(GraphedGradients, "cuda", marks=on_gpu),
    ],
)
def test_gradients_are_of_the_last_batch_alone_also_when_weights_moved_and_its_size_is_another(
    kind: type[Gradients], device: str
) -> None:
    problem = Problem(device)
    gradients = kind(problem.loss, problem.parameters)
    for seed, size in enumerate((4, 4, 2, 4)):
        batch = problem.batch(seed, size)
        expected = problem.expected(batch)
        loss = gradients(batch)
        torch.testing.assert_close(float(loss.total.detach()), float(problem.loss(batch).total.detach()))
        for ours, theirs in zip(problem.found(), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        with torch.no_grad():
            for parameter, grad in zip(problem.parameters, problem.found(), strict=True):
                parameter.sub_(0.1 * grad)
