"""What the torch backends have in common: slots on the device, a batch in, its brief out. They differ in `_compute`.

Shapes: B batch, S input side in px, C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.bundle import Bundle
from models.preprocess import Pixels
from service.backends.base import Brief, Capacity, Precision, Slot
from service.backends.layout import Part
from service.backends.torch_arena import TorchArena
from service.backends.torch_lanes import Lane, Numbers, open_lane
from service.backends.torch_readout import brief_of
from service.backends.torch_stages import Computed, TorchStages


@dataclass(frozen=True)
class TorchOutput:
    """A computed batch: its brief; logits (B, C) and what the stage hands on, on the device and with padding."""

    brief: Brief
    computed: Computed
    arena: TorchArena
    lane: Lane
    slots: Sequence[Slot]
    parts: tuple[Part, ...]

    @property
    def logits(self) -> NDArray[np.float32]:
        with self.lane.working():
            return self.lane.fetch(self.computed.logits[: len(self.slots)])

    def keep(self, rows: Sequence[int]) -> None:
        if not self.parts:
            return
        with self.lane.working():
            chosen = self.lane.numbers(Numbers.ROWS, rows)
            stayers = self.lane.numbers(Numbers.STAYERS, [self.slots[row] for row in rows])
            values = {name: tensor.index_select(0, chosen) for name, tensor in self.computed.handed_on.items()}
            self.arena.scatter(stayers, self.parts, values)
            self.lane.mark()


class TorchBackend(ABC):
    """`device` is a torch device's name. On the CPU `threads` sets torch's thread count, on a GPU float32 sets
    how convolutions are computed: both are the process's own. `compiler`: a backend of `torch.compile` that the
    network's parts go through; None: the kind's own, with none they are computed as they are written."""

    name: str
    own_compiler: str | None = None

    def __init__(
        self,
        bundle: Bundle,
        device: str,
        threads: int,
        capacity: Capacity,
        precision: Precision = "float32",
        *,
        lanes: int = 1,
        compiler: str | None = None,
    ) -> None:
        if device == "cpu":
            torch.set_num_threads(threads)
        elif precision == "float32":
            # Convolutions take the tensor cores' shortened float32 otherwise, and thresholds were measured without.
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # its stub lags behind
        self._network = TorchStages(bundle, torch.device(device), precision, compiler or self.own_compiler)
        self._layout = self._network.layout
        self.stages = self._layout.stages
        self.lanes = lanes
        self.slot_bytes = self._layout.slot_bytes(self._network.dtype.itemsize)
        self.slots = capacity.slots(self.slot_bytes)
        self.buckets = capacity.buckets
        self._arena = TorchArena(self._layout, self.slots, self._network.device, self._network.dtype)
        self._lanes = tuple(open_lane(self._network.device, self.buckets[-1]) for _ in range(lanes))
        if self._network.device.type == "cuda":
            # Weights were brought there and converted in another stream than those of the lanes.
            torch.cuda.synchronize(self._network.device)

    @property
    def slots_in_use(self) -> int:
        return self._arena.in_use

    def begin(self, pixels: Pixels) -> Slot:
        return self._arena.put(pixels)

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> TorchOutput:
        mine = self._lanes[lane]
        with mine.working(after=(self._arena.arrivals, *self._lanes)):
            computed = self._compute(stage, slots, mine)
            brief = brief_of(mine.fetch(computed.brief[: len(slots)]), computed.logits.shape[1])
        return TorchOutput(brief, computed, self._arena, mine, slots, self._layout.handed_on(stage))

    def release(self, slot: Slot) -> None:
        self._arena.release(slot)

    @abstractmethod
    def _compute(self, stage: int, slots: Sequence[Slot], lane: Lane) -> Computed:
        """The stage for these slots, in their order; rows beyond them are padding. Called within the lane's work."""


def padded(slots: Sequence[Slot], buckets: Sequence[int]) -> list[Slot]:
    """The batch filled up to the next bucket with its first slot again: real values, so no special cases arise."""
    size = next(bucket for bucket in buckets if bucket >= len(slots))
    return [*slots, *[slots[0]] * (size - len(slots))]
