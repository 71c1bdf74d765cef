"""A step's loss and gradients: computed kernel by kernel, or on a GPU recorded once and replayed.

A step of a small network is thousands of kernels, each done before the CPU has launched the next: a CUDA graph is
launched as one.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from training.losses import CascadeLoss

# Kernels are compiled and libraries choose theirs in the first ones.
_WARM_UP_RUNS = 3

Loss = Callable[[Sequence[Tensor]], CascadeLoss]


class Gradients:
    """Computes `loss` of what it is given, and leaves its gradients alone in the `grad` of what `network` learns."""

    def __init__(self, loss: Loss, network: nn.Module) -> None:
        self._loss = loss
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def __call__(self, tensors: Sequence[Tensor]) -> CascadeLoss:
        for parameter in self._parameters:
            parameter.grad = None
        loss = self._loss(tensors)
        loss.total.backward()  # type: ignore[no-untyped-call]  # torch's own
        return loss


class GraphedGradients(Gradients):
    """The same as one CUDA graph, recorded for the shapes of the first call; other shapes go kernel by kernel.

    The loss it returns is overwritten by the next call. `loss` must neither wait for the device nor copy to it.
    """

    def __init__(self, loss: Loss, network: nn.Module) -> None:
        super().__init__(loss, network)
        self._buffers = list(network.buffers())
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._recorded: CascadeLoss | None = None
        self._grads: list[Tensor | None] = []

    def __call__(self, tensors: Sequence[Tensor]) -> CascadeLoss:
        if self._graph is None:
            self._record(tensors)
        assert self._graph is not None and self._recorded is not None
        if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in self._inputs]:
            return super().__call__(tensors)
        for static, fresh in zip(self._inputs, tensors, strict=True):
            static.copy_(fresh)
        self._graph.replay()
        for parameter, grad in zip(self._parameters, self._grads, strict=True):
            parameter.grad = grad
        return self._recorded

    def _record(self, tensors: Sequence[Tensor]) -> None:
        self._inputs = [tensor.clone() for tensor in tensors]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it without types
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            before = [buffer.clone() for buffer in self._buffers]
            for _ in range(_WARM_UP_RUNS):
                super().__call__(self._inputs)
            # Running statistics are to move once a step, and no further at each start of a run.
            for buffer, value in zip(self._buffers, before, strict=True):
                buffer.copy_(value)
            for parameter in self._parameters:
                parameter.grad = None
            # What products work in is to be the graph's own: it goes with the first graph of a stream that does.
            torch._C._cuda_clearCublasWorkspaces()
            self._graph = torch.cuda.CUDAGraph()
            # A thread that makes batches may go on meanwhile.
            with torch.cuda.graph(self._graph, stream=side, capture_error_mode="thread_local"):
                self._recorded = super().__call__(self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._grads = [parameter.grad for parameter in self._parameters]
