"""What a cascade costs: multiply-accumulates of one image, counted on the explicit-product path."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.dvt import DVT, State


def cumulative_gmacs(model: DVT) -> list[float]:
    """GMACs (1e9 multiply-accumulates) of one image when it leaves at each exit, stages before it included.

    Counted by PyTorch's flop counter (two flops a multiply-accumulate) in one real pass: convolutions and matrix
    products, those of the reuse operators included.
    """
    images = torch.zeros(1, 3, model.config.input.size_px, model.config.input.size_px, device=model.mean.device)
    totals: list[float] = []
    state: State | None = None
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        for k in range(model.config.exits):
            state = model.forward_stage(k, images, state).state
            totals.append(counter.get_total_flops() / 2 / 1e9)
    return totals


def stages_gmacs(model: DVT) -> float:
    """GMACs of one image through all stages, from what their tokenisers take: without the stem of a hybrid cascade."""
    images = torch.zeros(1, 3, model.config.input.size_px, model.config.input.size_px, device=model.mean.device)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        views = model.views(images)
        with FlopCounterMode(display=False) as counter:
            model.forward_views(views)
    model.train(was_training)
    return float(counter.get_total_flops() / 2 / 1e9)
