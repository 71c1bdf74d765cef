"""Stages through PyTorch as the model is written: the reference that every other backend must agree with.

Shapes: B batch, S input side in px, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import Bundle
from models.dvt import State, load_bundle
from models.preprocess import Pixels
from service.backends.base import Capacity, Slot
from service.backends.layout import Part, state_layout
from service.backends.torch_arena import TorchArena


@dataclass(frozen=True)
class EagerOutput:
    """A computed batch: logits (B, C), and what the stage hands on, to be written where the batch came from."""

    logits: NDArray[np.float32]
    arena: TorchArena
    slots: Tensor
    parts: tuple[Part, ...]
    handed_on: Mapping[str, Tensor]

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        chosen = torch.tensor(rows, dtype=torch.int64, device=self.slots.device)
        values = {name: tensor.index_select(0, chosen) for name, tensor in self.handed_on.items()}
        self.arena.scatter(self.slots.index_select(0, chosen), self.parts, values)


class EagerBackend:
    """`device` is a torch device's name. On the CPU `threads` sets torch's thread count, which is the process's own."""

    name = "eager"

    def __init__(self, bundle: Bundle, device: str, threads: int, capacity: Capacity) -> None:
        if device == "cpu":
            torch.set_num_threads(threads)
        self._layout = state_layout(bundle.config)
        self.stages = self._layout.stages
        self.slot_bytes = self._layout.slot_bytes(torch.float32.itemsize)
        self.slots = capacity.slots(self.slot_bytes)
        self.buckets = capacity.buckets
        self._model = load_bundle(bundle.path).to(device)
        self._arena = TorchArena(self._layout, self.slots, torch.device(device), torch.float32)

    @property
    def slots_in_use(self) -> int:
        return self._arena.in_use

    def begin(self, pixels: Pixels) -> Slot:
        return self._arena.put(pixels)

    @torch.inference_mode()
    def run(self, stage: int, slots: Sequence[Slot]) -> EagerOutput:
        index = self._arena.index(slots)
        upstream = None
        if stage > 1:
            taken = self._arena.gather(index, self._layout.taken[stage - 1])
            upstream = State(taken.get("features"), taken.get("relations"))
        output = self._model.forward_stage(stage - 1, self._arena.images(index), upstream)
        logits = output.logits.float().cpu().numpy()
        parts = self._layout.handed_on(stage)
        return EagerOutput(logits, self._arena, index, parts, named(output.state, parts))

    def release(self, slot: Slot) -> None:
        self._arena.release(slot)


def named(state: State | None, parts: Sequence[Part]) -> dict[str, Tensor]:
    """The tensors of `state` that are `parts`, by name."""
    return {part.name: getattr(state, part.name) for part in parts}
