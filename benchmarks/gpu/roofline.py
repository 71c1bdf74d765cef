"""The least time that a stage can take on a device: what its matrix products must compute, and what they must move.

Everything between two products could be fused into them, so only they are counted: each takes the longer of its
operations at the device's matrix rate and its bytes (every input read once, every output written once) at the rate of
its memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.gpu.document import Ceilings
from models.config import DVTConfig
from models.dvt import DVT, State


@dataclass(frozen=True)
class Product:
    """One matrix product or convolution: operations (2 a multiply-add), and elements that go in and out."""

    operations: int
    elements: int


def products_of(config: DVTConfig, batch: int) -> list[tuple[Product, ...]]:
    """Of each stage, for a batch. Nothing is computed: only shapes go through."""
    with torch.device("meta"):
        model = DVT(config).eval()
        images = torch.empty((batch, 3, config.input.size_px, config.input.size_px))
    counted = []
    state: State | None = None
    with torch.no_grad():
        for stage in range(config.exits):
            with _counting() as products:
                state = model.forward_stage(stage, images, state).state
            counted.append(tuple(products))
    return counted


@dataclass(frozen=True)
class Least:
    """The least seconds of a stage's products, by the ceiling that holds each of them back."""

    matrix_seconds: float
    memory_seconds: float

    @property
    def seconds(self) -> float:
        return self.matrix_seconds + self.memory_seconds


def least(products: Sequence[Product], ceilings: Ceilings, element_bytes: int) -> Least:
    """Summed over the products: each takes the longer of computing and moving."""
    matrix_s = memory_s = 0.0
    for product in products:
        computing_s = product.operations / (ceilings.matrix_tflops * 1e12)
        moving_s = product.elements * element_bytes / (ceilings.copy_tb_per_s * 1e12)
        if computing_s >= moving_s:
            matrix_s += computing_s
        else:
            memory_s += moving_s
    return Least(matrix_s, memory_s)


@contextmanager
def _counting() -> Iterator[list[Product]]:
    products: list[Product] = []
    with _Counting(products):
        yield products


class _Counting(TorchDispatchMode):
    def __init__(self, products: list[Product]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self._products = products

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        output = func(*args, **kwargs)
        operations = flop_registry.get(func.overloadpacket)
        if operations is not None:
            tensors = [each for each in tree_leaves((args, kwargs, output)) if isinstance(each, Tensor)]
            elements = sum(tensor.numel() for tensor in tensors)
            self._products.append(Product(int(operations(*args, **kwargs, out_val=output)), elements))
        return output
