"""Stages through `torch.compile`, part by part: layers and tokenisers, whatever the batch.

The first batches wait for compilation, minutes in all on a small CPU: warm-up takes it.
"""

from models.bundle import Bundle
from models.compiling import COMPILER
from service.backends.base import Capacity, Precision
from service.backends.eager import EagerBackend


class CompiledBackend(EagerBackend):
    """`compiler` is a backend of `torch.compile`."""

    name = "compiled"

    def __init__(
        self,
        bundle: Bundle,
        device: str,
        threads: int,
        capacity: Capacity,
        precision: Precision = "float32",
        *,
        lanes: int = 1,
        compiler: str = COMPILER,
    ) -> None:
        super().__init__(bundle, device, threads, capacity, precision, lanes=lanes, compiler=compiler)
