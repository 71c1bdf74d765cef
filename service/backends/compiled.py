"""Stages through `torch.compile`, part by part: layers and tokenisers, whatever the batch.

The first batches wait for compilation, minutes in all on a small CPU: warm-up takes it.
"""

from models.compiling import COMPILER
from service.backends.eager import EagerBackend


class CompiledBackend(EagerBackend):
    """The same of compiled parts."""

    name = "compiled"
    own_compiler = COMPILER
