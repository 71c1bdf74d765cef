"""Slots on a torch device. On the CPU pages are taken from the system when they are first written.

Shapes: B batch, S input side in px, W elements of the widest hand-over.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from models.preprocess import Pixels
from service.backends.base import Slot, SlotPool
from service.backends.layout import Part, StateLayout
from service.backends.torch_lanes import open_lane, pinned


class TorchArena:
    """Images (slots, 3, S, S) and what stages hand on (slots, W), allocated once; copies by index on the device.

    `arrivals`: the lane by which images come to the device.
    """

    def __init__(self, layout: StateLayout, slots: int, device: torch.device, dtype: torch.dtype) -> None:
        self._pool = SlotPool(slots)
        self.arrivals = open_lane(device, 1)
        shape = (slots, *layout.image)
        self._images = torch.empty(shape, dtype=torch.uint8, device=device)
        self._handed_on = torch.empty((slots, layout.width), dtype=dtype, device=device)
        # To a CUDA device images go through pinned memory, a place of its own for each slot, so nothing waits for it.
        self._is_copied = device.type == "cuda"
        self._pinned = pinned(shape, torch.uint8) if self._is_copied else self._images
        self._host = self._pinned.numpy()

    @property
    def in_use(self) -> int:
        return self._pool.in_use

    def put(self, pixels: Pixels) -> Slot:
        with self._pool.taking() as slot:
            self._host[slot] = pixels
            if self._is_copied:
                with self.arrivals.working():
                    self._images[slot].copy_(self._pinned[slot], non_blocking=True)
                    self.arrivals.mark()
        return slot

    def release(self, slot: Slot) -> None:
        self._pool.give_back(slot)

    def images(self, index: Tensor) -> Tensor:
        """(B, 3, S, S)."""
        return self._images.index_select(0, index)

    def gather(self, index: Tensor, parts: Sequence[Part]) -> dict[str, Tensor]:
        """Name -> (B, *shape)."""
        return {part.name: self._of(part).index_select(0, index).reshape(-1, *part.shape) for part in parts}

    def scatter(self, index: Tensor, parts: Sequence[Part], values: Mapping[str, Tensor]) -> None:
        """Write (B, *shape) of each part into the slots, in this order."""
        for part in parts:
            self._of(part).index_copy_(0, index, values[part.name].reshape(-1, part.size))

    def _of(self, part: Part) -> Tensor:
        return self._handed_on[:, part.start : part.end]
