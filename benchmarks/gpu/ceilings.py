"""What a device can do at most, measured: its matrix rate and its memory's. What all else there is held against.

    python -m benchmarks.gpu.ceilings

Random data: zeros run faster than anything real. The copy is several times the size of the cache.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime

import torch

from benchmarks.gpu.document import Ceilings
from models.device_rate import device_seconds, matrix_tflops


def measure(device: torch.device) -> Ceilings:
    """Medians of repeated runs, by the device's own clock. On a CPU, for a try, of small sizes."""
    on_cuda = device.type == "cuda"
    copied_bytes = 4 * 2**30 if on_cuda else 2**26
    source = torch.randint(0, 256, (copied_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = device_seconds(lambda: target.copy_(source), device)
    return Ceilings(
        device_name(device),
        torch.__version__,
        matrix_tflops(device),
        2 * copied_bytes / copy_s / 1e12,
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    )


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    print(json.dumps(asdict(measure(torch.device("cuda"))), indent=2))
