"""The device that PyTorch takes where it is told none."""

import torch


def use(device: torch.device) -> None:
    """Streams, events and graphs that this thread makes from now on are that GPU's; a CPU, and "cuda" without a number,
    leave all as it is."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
