"""Stages as CUDA graphs: one for each stage, bucket and lane, captured at the first batch and then launched as a whole.

A graph reads slot numbers from a buffer that never moves, gathers images and state from the arena by them, computes the
stage and leaves logits, their brief and what is handed on in buffers that never move either. The graphs of a lane share
one memory pool, since only one of them runs at a time. On a CPU, which has no graphs, the same buffers are used and the
stage is computed as it is: so everything but the capture can be tested without a GPU.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from models.bundle import Bundle
from models.compiling import COMPILER
from service.backends.base import Capacity, Precision, Slot
from service.backends.torch_backend import TorchBackend, TorchOutput, padded
from service.backends.torch_lanes import Lane, Numbers, StreamLane
from service.backends.torch_stages import Computed

# Runs before a capture: libraries allocate workspaces and choose their kernels in the first ones.
_WARM_UP_RUNS = 3

# PyTorch allows one capture at a time in a process, whatever the device.
_CAPTURING = threading.Lock()


class CudaGraphBackend(TorchBackend):
    """`precision` is that of weights, products and state."""

    name = "cudagraph"

    def __init__(
        self,
        bundle: Bundle,
        device: str,
        threads: int,
        capacity: Capacity,
        precision: Precision = "bfloat16",
        *,
        lanes: int = 1,
        compiler: str | None = None,
    ) -> None:
        super().__init__(bundle, device, threads, capacity, precision, lanes=lanes, compiler=compiler)
        self._graphs: dict[tuple[int, int], dict[Lane, StageGraph]] = {}
        on_cuda = self._network.device.type == "cuda"
        self._pools = {lane: torch.cuda.graph_pool_handle() if on_cuda else None for lane in self._lanes}

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> TorchOutput:
        self._make_graphs(stage, slots)
        return super().run(stage, slots, lane)

    def _make_graphs(self, stage: int, slots: Sequence[Slot]) -> None:
        batch = padded(slots, self.buckets)
        key = (stage, len(batch))
        if key in self._graphs:
            return
        with _CAPTURING:
            if key not in self._graphs:
                # For every lane at once: by the time that images come, none has to wait for a capture.
                self._graphs[key] = {lane: self._capture(stage, batch, lane) for lane in self._lanes}

    def _capture(self, stage: int, batch: Sequence[Slot], lane: Lane) -> "StageGraph":
        def compute(index: Tensor) -> Computed:
            taken = self._arena.gather(index, self._layout.taken[stage - 1])
            return self._network.compute(stage, self._arena.images(index), taken)

        with lane.working(after=(self._arena.arrivals, *self._lanes)):
            return StageGraph(compute, lane.numbers(Numbers.BATCH, batch), lane, self._pools[lane])

    def _compute(self, stage: int, slots: Sequence[Slot], lane: Lane) -> Computed:
        batch = padded(slots, self.buckets)
        return self._graphs[stage, len(batch)][lane].replay(lane.numbers(Numbers.BATCH, batch))


class CompiledCudaGraphBackend(CudaGraphBackend):
    """The same of compiled parts: fewer kernels in each graph."""

    name = "compiled-cudagraph"
    own_compiler = COMPILER


class StageGraph:
    """One stage at one batch size, made and replayed within the work of one lane.

    `index`: the lane's slots (B,); any that may be read, what is in them does not matter here.
    """

    def __init__(
        self,
        compute: Callable[[Tensor], Computed],
        index: Tensor,
        lane: Lane,
        pool: Any,  # torch's handle, whose type differs between its versions
    ) -> None:
        # Of a graph it would keep the whole backend alive, when another was quicker.
        self._compute = None if isinstance(lane, StreamLane) else compute
        self._graph: torch.cuda.CUDAGraph | None = None
        if not isinstance(lane, StreamLane):
            self._output = compute(index)
            return
        for _ in range(_WARM_UP_RUNS):
            compute(index)
        # What products work in is then allocated by the capture, in the lane's pool: what belongs to the stream instead
        # is let go as soon as any graph that was captured there is, under the others that go on using it.
        torch._C._cuda_clearCublasWorkspaces()
        self._graph = torch.cuda.CUDAGraph()
        # Other threads of the process, another device's engine say, may go on using theirs meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, stream=lane.stream, capture_error_mode="thread_local"):
            self._output = compute(index)

    def replay(self, index: Tensor) -> Computed:
        """The stage for these slots, as many as the graph was made for. The same buffers every time."""
        if self._graph is not None:
            self._graph.replay()
            return self._output
        assert self._compute is not None
        fresh = self._compute(index)
        self._output.logits.copy_(fresh.logits)
        self._output.brief.copy_(fresh.brief)
        for name, buffer in self._output.handed_on.items():
            buffer.copy_(fresh.handed_on[name])
        return self._output
