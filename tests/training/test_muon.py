"""Muon of many matrices at once is PyTorch's of each, and its steps are orthogonal."""

import pytest
import torch
from torch import nn

from training.muon import Muon, MuonConfig, orthogonal

CONFIG = MuonConfig(learning_rate=0.2, momentum=0.6, weight_decay=0.3)
COEFFICIENTS = (3.4445, -4.775, 2.0315)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_step_is_orthogonal_also_for_kernels_however_they_lie(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(4, 8, 3, 3).to(memory_format=memory_format))
    before = kernel.detach().clone()
    muon = Muon([kernel], MuonConfig(0.2, weight_decay=0.0))
    kernel.grad = torch.randn(4, 8, 3, 3)
    muon.step()
    step = (before - kernel.detach()).flatten(1) / 0.2
    # Newton-Schulz in bf16 brings singular values near 1, not onto it.
    assert torch.linalg.svdvals(step).sub(1).abs().max() < 0.35
    assert torch.nn.functional.cosine_similarity(step.flatten(), kernel.grad.flatten(), 0) > 0.9


def test_matrices_of_one_shape_move_together_as_they_would_one_by_one() -> None:
    torch.manual_seed(0)
    shapes = [(6, 4), (4, 6), (6, 4), (5, 5), (4, 6), (6, 4)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    together = Muon(ours, CONFIG)
    apart = torch.optim.Muon(theirs, lr=0.2, momentum=0.6, weight_decay=0.3, adjust_lr_fn="original")
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        together.step()
        apart.step()  # type: ignore[no-untyped-call]  # torch's own
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0.01)


def test_a_weight_without_a_gradient_stays_where_it_is() -> None:
    idle, moved = (nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    moved.grad = torch.randn(2, 3)
    Muon([idle, moved], CONFIG).step()
    assert torch.equal(idle, torch.ones(2, 3))
    assert not torch.equal(moved, torch.ones(2, 3))


@pytest.mark.parametrize("shape", [(3, 8, 5), (3, 5, 8), (1, 4, 4)])
def test_matrices_do_not_mix(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    together = orthogonal(matrices, COEFFICIENTS, 5, 1e-7)
    assert together.shape == shape
    alone = torch.cat([orthogonal(each[None], COEFFICIENTS, 5, 1e-7) for each in matrices])
    torch.testing.assert_close(together.float(), alone.float(), rtol=0, atol=0.02)
    assert orthogonal(torch.zeros(shape), COEFFICIENTS, 5, 1e-7).isfinite().all()
