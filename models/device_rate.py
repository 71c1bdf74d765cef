"""How fast a device multiplies large matrices, measured: the ceiling that training and benchmarks are held against.

Random data: zeros run faster than anything real.
"""

import statistics
import time
from collections.abc import Callable

import torch

_REPEATS = 20
_CUDA_SIDE, _CPU_SIDE = 8192, 512


def matrix_tflops(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float:
    """TFLOP/s of a square product in `dtype`, two a multiply-accumulate: the median of repeated runs.

    8192 a side on a GPU (0.1 s in bf16); on a CPU 512, which tells its rate in a few hundredths of a second.
    """
    side = _CUDA_SIDE if device.type == "cuda" else _CPU_SIDE
    left, right = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    product = torch.empty_like(left)
    return 2 * side**3 / device_seconds(lambda: torch.matmul(left, right, out=product), device) / 1e12


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
