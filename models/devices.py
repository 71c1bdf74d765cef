"""The device that PyTorch takes where it is told none."""

import torch


def use(device: torch.device) -> None:
    """Streams, events and graphs that this thread makes from now on are that GPU's; a CPU, and "cuda" without a number,
    leave all as it is. Raises `ValueError` for a GPU that is not there."""
    if device.type != "cuda" or device.index is None:
        return
    count = torch.cuda.device_count()
    if device.index >= count:
        raise ValueError(f"there is no {device} here: PyTorch sees {count} GPU(s), numbered from 0")
    torch.cuda.set_device(device)
