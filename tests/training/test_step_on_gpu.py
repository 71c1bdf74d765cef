"""A step of training never waits for a GPU: between two looks at the loss the CPU runs ahead of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.architectures import build_config
from models.dvt import DVT
from training.augment import AugmentConfig
from training.average import WeightAverage
from training.data import DecodedImages
from training.devices import placed
from training.folders import ImageList
from training.gradients import Gradients, GraphedGradients
from training.inputs import PixelInputs
from training.losses import CascadeLoss, LossConfig, cascade_loss
from training.mix import MixConfig
from training.muon import MuonConfig
from training.optim import OptimConfig, build_optimizers, clip_gradients, rate_share

LOSS = LossConfig(distill_from="last", distill_weight=0.5)
OPTIM = OptimConfig(1e-3, total_steps=100, warmup_steps=2, ema_decay=0.9, muon=MuonConfig())
AUGMENT = AugmentConfig("shift", operations=1, erase_probability=0.5, mix=MixConfig(cutmix_alpha=1.0, mixup_alpha=0.2))
IMAGES, BATCH = 32, 8


class Steps:
    """The parts of a step as the trainer puts them together, on one device."""

    def __init__(self, device: torch.device) -> None:
        torch.manual_seed(0)
        config = build_config("dvt_micro", ("a", "b"))
        self.model = placed(DVT(config), device)
        listed = ImageList(Path(), ("a", "b"), tuple(map(str, range(IMAGES))), np.arange(IMAGES) % 2)
        pixels = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
        self.inputs = PixelInputs(DecodedImages(pixels, listed, ()).on(device), config, AUGMENT, device)
        self.optimizers = build_optimizers(self.model, OPTIM)
        self.average = WeightAverage(self.model, OPTIM.ema_decay)
        kind = GraphedGradients if device.type == "cuda" else Gradients
        self.gradients = kind(self.loss, self.model)

    def loss(self, tensors: Sequence[Tensor]) -> CascadeLoss:
        targets, images = tensors
        with torch.autocast(images.device.type, torch.bfloat16):
            logits = self.model(images)
        return cascade_loss(logits, targets, LOSS)

    def do(self, step: int) -> Tensor:
        batch = self.inputs.batch(np.arange(BATCH) + step % 4 * BATCH, 0, (0, step, 0))
        assert isinstance(batch.inputs, Tensor)
        self.optimizers.set_rate(rate_share(step, OPTIM))
        loss = self.gradients([batch.targets, batch.inputs])
        clip_gradients(self.model, OPTIM.clip_norm)
        self.optimizers.step()
        self.average.update_parameters(self.model)
        return loss.total.detach()


@contextmanager
def an_error_to_wait(device: torch.device) -> Iterator[None]:
    """Where PyTorch would wait for the GPU it raises instead."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_step_does_not_wait_for_the_device(device: str) -> None:
    where = torch.device(device)
    steps = Steps(where)
    for step in range(3):  # kernels are chosen, the graph is recorded
        steps.do(step)
    before = next(steps.average.module.parameters()).clone()
    with an_error_to_wait(where):
        losses = [steps.do(step) for step in range(3, 8)]
    assert all(loss.isfinite() for loss in losses)
    assert not torch.equal(before, next(steps.average.module.parameters()))
