"""Slots in the process's own memory, as numpy arrays. Pages are taken from the system when they are first written.

Shapes: B batch, S input side in px, W elements of the widest hand-over.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.preprocess import Pixels
from service.backends.base import Slot, SlotPool
from service.backends.layout import Part, StateLayout

Floats = NDArray[np.float32]


class Arena:
    """Images (slots, 3, S, S) and what stages hand on (slots, W), allocated once; copies by index, never a loop."""

    def __init__(self, layout: StateLayout, slots: int) -> None:
        self._pool = SlotPool(slots)
        self._images = np.empty((slots, *layout.image), np.uint8)
        self._handed_on = np.empty((slots, layout.width), np.float32)

    @property
    def in_use(self) -> int:
        return self._pool.in_use

    def put(self, pixels: Pixels) -> Slot:
        with self._pool.taking() as slot:
            self._images[slot] = pixels
        return slot

    def release(self, slot: Slot) -> None:
        self._pool.give_back(slot)

    def images(self, slots: Sequence[Slot]) -> NDArray[np.uint8]:
        """(B, 3, S, S)."""
        return self._images[np.asarray(slots, np.intp)]

    def gather(self, slots: Sequence[Slot], parts: Sequence[Part]) -> dict[str, Floats]:
        """Name -> (B, *shape)."""
        index = np.asarray(slots, np.intp)
        return {
            part.name: self._handed_on[:, part.start : part.end][index].reshape(len(slots), *part.shape)
            for part in parts
        }

    def scatter(self, slots: Sequence[Slot], parts: Sequence[Part], values: Mapping[str, Floats]) -> None:
        """Write (B, *shape) of each part into the slots, in this order."""
        index = np.asarray(slots, np.intp)
        for part in parts:
            self._handed_on[:, part.start : part.end][index] = values[part.name].reshape(len(slots), part.size)
