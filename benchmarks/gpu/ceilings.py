"""What a device can do at most, measured: its matrix rate and its memory's. What all else there is held against.

    python -m benchmarks.gpu.ceilings

Random data: zeros run faster than anything real. The copy is several times the size of the cache.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict

import torch

from benchmarks.gpu.document import Ceilings

_REPEATS = 20


def measure(device: torch.device) -> Ceilings:
    """Medians of repeated runs, by the device's own clock. On a CPU, for a try, of small sizes."""
    on_cuda = device.type == "cuda"
    side, copied_bytes = (8192, 4 * 2**30) if on_cuda else (512, 2**26)
    left, right = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    product = torch.empty_like(left)
    matrix_s = device_seconds(lambda: torch.matmul(left, right, out=product), device)
    source = torch.randint(0, 256, (copied_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = device_seconds(lambda: target.copy_(source), device)
    return Ceilings(
        torch.cuda.get_device_name(device) if on_cuda else "cpu",
        torch.__version__,
        2 * side**3 / matrix_s / 1e12,
        2 * copied_bytes / copy_s / 1e12,
    )


def device_seconds(run: Callable[[], object], device: torch.device, repeats: int = _REPEATS) -> float:
    """The median of what the device takes for `run`, after a few first runs: between two events, on a CPU by its
    clock."""
    for _ in range(3):
        run()
    timed = [_event_seconds(run) if device.type == "cuda" else _clock_seconds(run) for _ in range(repeats)]
    return float(statistics.median(timed))


def _event_seconds(run: Callable[[], object]) -> float:
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    began.record()
    run()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1000


def _clock_seconds(run: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    run()
    return time.perf_counter() - began_s


if __name__ == "__main__":
    print(json.dumps(asdict(measure(torch.device("cuda"))), indent=2))
