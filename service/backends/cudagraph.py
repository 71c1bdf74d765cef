"""Stages as CUDA graphs: one for each stage and bucket, captured at its first batch, launched as a whole from then on.

A graph reads slot numbers from a buffer that never moves, gathers images and state from the arena by them, computes the
stage and leaves logits and what is handed on in buffers that never move either. All graphs share one memory pool, since
only one runs at a time. On a CPU, which has no graphs, the same buffers are used and the stage is computed as it is: so
everything but the capture can be tested without a GPU.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from models.bundle import Bundle
from service.backends.base import Capacity, Precision, Slot
from service.backends.torch_backend import TorchBackend, padded
from service.backends.torch_stages import Computed

# Runs before a capture: libraries allocate workspaces and choose their kernels in the first ones.
_WARM_UP_RUNS = 3


class CudaGraphBackend(TorchBackend):
    """`precision` is that of weights, products and state."""

    name = "cudagraph"

    def __init__(
        self, bundle: Bundle, device: str, threads: int, capacity: Capacity, precision: Precision = "bfloat16"
    ) -> None:
        super().__init__(bundle, device, threads, capacity, precision)
        self._graphs: dict[tuple[int, int], StageGraph] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._network.device.type == "cuda" else None

    def _compute(self, stage: int, slots: Sequence[Slot]) -> Computed:
        batch = padded(slots, self.buckets)
        key = (stage, len(batch))
        if key not in self._graphs:

            def compute(index: Tensor) -> Computed:
                taken = self._arena.gather(index, self._layout.taken[stage - 1])
                return self._network.compute(stage, self._arena.images(index), taken)

            self._graphs[key] = StageGraph(compute, batch, self._network.device, self._pool)
        return self._graphs[key].replay(batch)


class StageGraph:
    """One stage at one batch size. `slots` are any that may be read; what is in them does not matter here."""

    def __init__(
        self,
        compute: Callable[[Tensor], Computed],
        slots: Sequence[Slot],
        device: torch.device,
        pool: Any,  # torch's handle, whose type differs between its versions
    ) -> None:
        self._compute = compute
        on_cuda = device.type == "cuda"
        self._host_index = torch.tensor(slots, dtype=torch.int64, pin_memory=on_cuda)
        self._index = self._host_index.to(device, copy=True)
        self._graph = torch.cuda.CUDAGraph() if on_cuda else None
        if self._graph is None:
            self._output = compute(self._index)
            return
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it without types
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP_RUNS):
                compute(self._index)
        torch.cuda.current_stream(device).wait_stream(side)
        # Other threads of the process, another model's engine say, may go on using the device meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._output = compute(self._index)

    def replay(self, slots: Sequence[Slot]) -> Computed:
        """The stage for as many slots as the graph was made for. The same buffers every time."""
        # The last batch's logits were waited for, so the copy of its numbers is done and this one may be filled.
        self._host_index.copy_(torch.tensor(slots, dtype=torch.int64))
        self._index.copy_(self._host_index, non_blocking=True)
        if self._graph is not None:
            self._graph.replay()
            return self._output
        fresh = self._compute(self._index)
        self._output.logits.copy_(fresh.logits)
        for name, buffer in self._output.handed_on.items():
            buffer.copy_(fresh.handed_on[name])
        return self._output
