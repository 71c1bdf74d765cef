"""What a CUDA device can do at most, measured: its matrix rate and its memory's. What all else there is held against.

    python -m benchmarks.ceilings

Random data: zeros run faster than anything real. The copy is several times the size of the cache.
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

_SIDE = 8192
_COPIED_BYTES = 4 * 2**30
_REPEATS = 20


@dataclass(frozen=True)
class Ceilings:
    """`matrix_tflops`: an 8192-cubed bf16 product, 2 operations a multiply-add. `copy_tb_per_s`: read plus written."""

    device: str
    torch: str
    matrix_tflops: float
    copy_tb_per_s: float


def measure(device: torch.device) -> Ceilings:
    """Medians of repeated runs, by the device's own clock."""
    left, right = (torch.randn(_SIDE, _SIDE, dtype=torch.bfloat16, device=device) for _ in range(2))
    product = torch.empty_like(left)
    matrix_s = device_seconds(lambda: torch.matmul(left, right, out=product))
    source = torch.randint(0, 256, (_COPIED_BYTES,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = device_seconds(lambda: target.copy_(source))
    return Ceilings(
        torch.cuda.get_device_name(device),
        torch.__version__,
        2 * _SIDE**3 / matrix_s / 1e12,
        2 * _COPIED_BYTES / copy_s / 1e12,
    )


def device_seconds(run: Callable[[], object], repeats: int = _REPEATS) -> float:
    """The median of what the device takes for `run`, between two events, after a few first runs."""
    for _ in range(3):
        run()
    timed = []
    for _ in range(repeats):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch's own
        began.record()
        run()
        ended.record()
        ended.synchronize()
        timed.append(began.elapsed_time(ended) / 1000)
    return float(statistics.median(timed))


if __name__ == "__main__":
    print(json.dumps(asdict(measure(torch.device("cuda"))), indent=2))  # its result
