"""Stages through `torch.compile`: one compiled function for each stage and bucket, smaller batches padded.

The first batch of a stage and bucket waits for its compilation, a minute or more on a small CPU: warm-up takes it.
"""

from collections.abc import Callable, Sequence
from types import FunctionType

import torch
from torch import Tensor

from models.bundle import Bundle
from service.backends.base import Capacity, Precision, Slot
from service.backends.torch_backend import TorchBackend, padded
from service.backends.torch_stages import Computed

Function = Callable[..., tuple[Tensor, ...]]


class CompiledBackend(TorchBackend):
    """`compiler` is a backend of `torch.compile`."""

    name = "compiled"

    def __init__(
        self,
        bundle: Bundle,
        device: str,
        threads: int,
        capacity: Capacity,
        precision: Precision = "float32",
        compiler: str = "inductor",
    ) -> None:
        super().__init__(bundle, device, threads, capacity, precision)
        self._compiler = compiler
        self._functions: dict[tuple[int, int], Function] = {}

    def _compute(self, stage: int, slots: Sequence[Slot]) -> Computed:
        batch = padded(slots, self.buckets)
        index = self._arena.index(batch)
        taken = self._arena.gather(index, self._layout.taken[stage - 1])
        key = (stage, len(batch))
        if key not in self._functions:
            self._functions[key] = self._compile(stage)
        logits, *handed_on = self._functions[key](self._arena.images(index), *taken.values())
        names = [part.name for part in self._layout.handed_on(stage)]
        return Computed(logits, dict(zip(names, handed_on, strict=True)))

    def _compile(self, stage: int) -> Function:
        names = [part.name for part in self._layout.taken[stage - 1]]
        network = self._network

        def compute(images: Tensor, *taken: Tensor) -> tuple[Tensor, ...]:
            computed = network.compute(stage, images, dict(zip(names, taken, strict=True)))
            return (computed.logits, *computed.handed_on.values())

        # torch counts compilations for each code object and gives up after eight; every function gets one of its own.
        own = FunctionType(compute.__code__.replace(), globals(), "compute", None, compute.__closure__)
        return torch.compile(own, fullgraph=True, dynamic=False, backend=self._compiler)
