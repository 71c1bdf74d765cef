"""A backend whose stages are computed elsewhere: the engine above it batches, decides and answers as it always does.

A slot holds two references: to the image, and to what its last stage handed on. The arrays behind them go from stage to
stage without coming by here. What is lost with a replica is computed again: the stage that it was computing, by another
replica; a state that is gone, from the image. No Ray here: `Cluster` says what is needed of it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.preprocess import Pixels
from service.backends.base import Capacity, Slot, SlotPool
from service.backends.layout import StateLayout

Ref = Any
"""Of an array, or of a state, that lies in the cluster. Opaque."""

# Seconds before each further try. A call waits by itself while a stage has no replica at all; these are for losses that
# follow each other, and end where an image takes with it whatever computes it.
PAUSES_S = (0.1, 0.5, 1.0, 2.0)

T = TypeVar("T")


class ReplicaLostError(Exception):
    """The replica that was asked is gone; another one can be asked the same."""


class StateLostError(Exception):
    """What a stage handed on is gone with whoever held it."""


@dataclass(frozen=True)
class ImageRefs:
    """An image and what its last stage handed on: None before the first."""

    pixels: Ref
    state: Ref | None = None


class Answered(Protocol):
    """What a stage says of a batch: its logits (B, C) at once, its states a moment later."""

    @property
    def logits(self) -> NDArray[np.float32]: ...

    def states(self) -> Sequence[Ref]:
        """One an image, none after the last stage; waits. Raises `ReplicaLostError`. To be called once."""
        ...


class Cluster(Protocol):
    """Used by several threads at once."""

    def put(self, pixels: Pixels) -> Ref: ...

    def compute(self, stage: int, images: Sequence[ImageRefs]) -> Answered:
        """Waits for the logits. Raises `ReplicaLostError`, `StateLostError`, and whatever the stage raised."""
        ...


@dataclass(frozen=True)
class RemoteOutput:
    """A computed batch of `backend`; its states are asked for only where one goes on."""

    backend: "RemoteStages"
    stage: int
    slots: tuple[Slot, ...]
    answered: Answered
    brief: ClassVar[None] = None

    @property
    def logits(self) -> NDArray[np.float32]:
        return self.answered.logits

    def keep(self, rows: Sequence[int]) -> None:
        self.backend.keep(self, rows)


class RemoteStages:
    """Computes up to `lanes` batches at once, wherever `cluster` has them computed.

    `name` is that of what computes them, since profiles and certificates are bound to it.
    """

    def __init__(
        self,
        name: str,
        layout: StateLayout,
        cluster: Cluster,
        capacity: Capacity,
        lanes: int,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.stages = layout.stages
        self.lanes = lanes
        self.slot_bytes = layout.slot_bytes(np.dtype(np.float32).itemsize)
        self.slots = capacity.slots(self.slot_bytes)
        self.buckets = capacity.buckets
        self._image = layout.image
        self._cluster = cluster
        self._pool = SlotPool(self.slots)
        self._held: dict[Slot, ImageRefs] = {}
        self._pause = pause

    @property
    def slots_in_use(self) -> int:
        return self._pool.in_use

    def begin(self, pixels: Pixels) -> Slot:
        """Raises `ValueError` for an image of another shape: no stage is to find that out in the middle of a batch."""
        if pixels.shape != self._image:
            raise ValueError(f"an image of shape {pixels.shape}, the bundle takes {self._image}")
        with self._pool.taking() as slot:
            self._held[slot] = ImageRefs(self._cluster.put(pixels))
        return slot

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> RemoteOutput:
        """Raises `ReplicaLostError` or `StateLostError` where each try ends so, and whatever the stage raised."""
        answered = self._until_done(stage, slots, lambda answered: answered)
        return RemoteOutput(self, stage, tuple(slots), answered)

    def keep(self, output: RemoteOutput, rows: Sequence[int]) -> None:
        """Raises as `run` does."""
        if output.stage == self.stages:
            return
        try:
            states = output.answered.states()
        except ReplicaLostError:
            # It had said what it thinks of the images, but not handed them on. Another one does both.
            states = self._until_done(output.stage, output.slots, lambda answered: answered.states())
        for row in rows:
            slot = output.slots[row]
            self._held[slot] = replace(self._held[slot], state=states[row])

    def release(self, slot: Slot) -> None:
        del self._held[slot]
        self._pool.give_back(slot)

    def _until_done(self, stage: int, slots: Sequence[Slot], take: Callable[[Answered], T]) -> T:
        for pause_s in (*PAUSES_S, None):
            try:
                return take(self._cluster.compute(stage, [self._held[slot] for slot in slots]))
            except (ReplicaLostError, StateLostError) as error:
                if pause_s is None:
                    raise
                self._pause(pause_s)
                if isinstance(error, StateLostError):
                    self._compute_again(stage, slots)
        raise AssertionError("the last try returns or raises")

    def _compute_again(self, stage: int, slots: Sequence[Slot]) -> None:
        """All stages before this one, from the images on. One that is lost meanwhile is found out by the next try."""
        images = [ImageRefs(self._held[slot].pixels) for slot in slots]
        try:
            for earlier in range(1, stage):
                states = self._cluster.compute(earlier, images).states()
                images = [replace(image, state=state) for image, state in zip(images, states, strict=True)]
        except (ReplicaLostError, StateLostError):
            return
        self._held.update(zip(slots, images, strict=True))
