"""Several ways to compute the same, each held against float64 and timed: what a choice between kernels is made from.

A way that is not close to float64 gets no time, whatever it takes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from benchmarks.gpu.document import Ceilings, WayMeasured
from benchmarks.gpu.roofline import Product, least
from models.device_rate import device_seconds
from service.backends.base import Precision

# Of the distance from float64 over its norm: several roundings of each type.
BOUNDS: Mapping[torch.dtype, float] = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}
# Sets of operands take turns, so that what one way reads has left the cache since: together so many times its size.
_CACHES = 3
_MOST_SETS = 512
_WARM_UP_PASSES = 3

T = TypeVar("T")
R = TypeVar("R")
Way = Callable[[T], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Case(Generic[T]):
    """What is computed. `draw` gives random operands by a seed, `exact` takes the first few images of them in float64.

    `ways` are made for a first set of operands: what one must import, prepare or compile is met when its turn comes.
    """

    name: str
    images: int
    precision: Precision
    product: Product
    draw: Callable[[int], T]
    exact: Way[T]
    ways: Mapping[str, Callable[[T], Way[T]]]

    @property
    def dtype(self) -> torch.dtype:
        return precision_dtype(self.precision)


def precision_dtype(precision: Precision) -> torch.dtype:
    """What PyTorch calls it."""
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def as_served(operand: Tensor, compute: Callable[[], R]) -> R:
    """`compute` under the autocast that backends have in the operand's precision; float32 and float64 need none."""
    is_half = operand.dtype in (torch.bfloat16, torch.float16)
    # No dtype that autocast does not know, even where it is off: it would warn.
    dtype = operand.dtype if is_half else None
    with torch.autocast(operand.device.type, dtype, enabled=is_half, cache_enabled=False):
        return compute()


def compiled(way: Way[T], compiler: str, mode: str | None = None) -> Way[T]:
    """By `torch.compile`, for the shapes of its first operands. `compiler` and `mode` are its backend and mode."""
    return torch.compile(way, fullgraph=True, dynamic=False, backend=compiler, mode=mode)


def measure(case: Case[T], ceilings: Ceilings, device: torch.device) -> list[WayMeasured]:
    """Each way, checked and timed. What one cannot do does not keep the others from being measured."""
    operands = [case.draw(0)]
    set_bytes = case.product.elements * case.dtype.itemsize
    operands += [case.draw(seed) for seed in range(1, sets_of(set_bytes, device))]
    expected = case.exact(operands[0])
    least_s = least([case.product], ceilings, case.dtype.itemsize).seconds
    measured = []
    for name, make in case.ways.items():
        error, seconds, reason = _checked_and_timed(make, operands, expected, BOUNDS[case.dtype], device)
        measured.append(WayMeasured(name, error, seconds, case.name, case.images, case.precision, least_s, reason))
    return measured


def sets_of(set_bytes: int, device: torch.device) -> int:
    """How many sets of operands leave nothing of one in the device's cache by the time of its next turn."""
    if device.type != "cuda":
        return 1
    cache_bytes: int = torch.cuda.get_device_properties(device).L2_cache_size
    return min(_MOST_SETS, 1 + _CACHES * cache_bytes // set_bytes)


def _checked_and_timed(
    make: Callable[[T], Way[T]], operands: Sequence[T], expected: Sequence[Tensor], bound: float, device: torch.device
) -> tuple[float | None, float | None, str | None]:
    # torch gives up compiling after so many shapes; each way has its own count.
    torch.compiler.reset()
    try:
        with torch.inference_mode():
            way = make(operands[0])
            error = relative_error(way(operands[0]), expected)
            if not error <= bound:
                return None, None, f"{error:.3g} from float64"
            return error, seconds_of_a_set(way, operands, device), None
    except Exception as error:  # Whatever a compiler or a launch raises: a way that cannot be had is a result.
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # Raises where the device itself is lost: that is no result.
        return None, None, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest distance of a tensor from its like in float64 (its first images), over that one's norm.

    NaN where anything that was found is none.
    """
    errors = []
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape[1:] == theirs.shape[1:]
        errors.append((ours[: len(theirs)].double() - theirs).norm() / theirs.norm())
        errors.append(torch.where(ours.isfinite().all(), 0.0, torch.nan).to(errors[0]))
    return float(torch.stack(errors).max())


def seconds_of_a_set(way: Way[T], operands: Sequence[T], device: torch.device) -> float:
    """The median of a pass over all sets, over their number; on CUDA as one captured graph, as stages are served.

    Between the kernels of a graph the device does not wait for the host.
    """

    def whole_pass() -> None:
        for each in operands:
            way(each)

    if device.type != "cuda":
        return device_seconds(whole_pass, device) / len(operands)
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it without types
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP_PASSES):
            whole_pass()
    torch.cuda.current_stream(device).wait_stream(side)
    # What products work in is to be the graph's own: it goes with the first graph of a stream that does.
    torch._C._cuda_clearCublasWorkspaces()
    graph = torch.cuda.CUDAGraph()
    # After a capture that failed, the one inside does not lead back.
    with torch.cuda.stream(side), torch.cuda.graph(graph, stream=side):
        whole_pass()
    return device_seconds(graph.replay, device) / len(operands)
