"""Stages through ONNX Runtime on the CPU, with state in the process's own memory. No torch.

Shapes: B batch, S input side in px, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.preprocess import Pixels
from service.backends.arena import Arena
from service.backends.base import Capacity, Slot
from service.backends.layout import Part
from service.backends.onnx_sessions import IMAGE, LOGITS, NEXT, open_sessions


@dataclass(frozen=True)
class OnnxOutput:
    """A computed batch: logits (B, C), and what the stage hands on, to be written where the batch came from."""

    logits: NDArray[np.float32]
    arena: Arena
    slots: Sequence[Slot]
    parts: tuple[Part, ...]
    handed_on: Mapping[str, NDArray[np.float32]]
    brief: ClassVar[None] = None

    def keep(self, rows: Sequence[int]) -> None:
        values = self.handed_on
        if len(rows) < len(self.slots):
            values = {name: array[np.asarray(rows, np.intp)] for name, array in values.items()}
        self.arena.scatter([self.slots[row] for row in rows], self.parts, values)


class OnnxBackend:
    """Computes `lanes` batches at once, each with `threads` threads; `spinning`: they wait busily for more of it.

    Lanes share sessions, which keep nothing of a run but the memory that it needed.
    """

    name = "onnx"

    def __init__(
        self, bundle: Bundle, threads: int, capacity: Capacity, *, lanes: int = 1, spinning: bool = False
    ) -> None:
        self._sessions = open_sessions(bundle, threads, ["CPUExecutionProvider"], spinning=spinning)
        self._layout = self._sessions.layout
        self._outputs = [[value.name for value in session.get_outputs()] for session in self._sessions.of_stage]
        self.stages = self._layout.stages
        self.lanes = lanes
        self.slot_bytes = self._layout.slot_bytes(np.dtype(np.float32).itemsize)
        self.slots = capacity.slots(self.slot_bytes)
        self.buckets = capacity.buckets
        self._arena = Arena(self._layout, self.slots)

    @property
    def slots_in_use(self) -> int:
        return self._arena.in_use

    def begin(self, pixels: Pixels) -> Slot:
        return self._arena.put(pixels)

    def run(self, stage: int, slots: Sequence[Slot], lane: int = 0) -> OnnxOutput:
        feeds: dict[str, NDArray[Any]] = {IMAGE: self._arena.images(slots)}
        feeds |= self._arena.gather(slots, self._layout.taken[stage - 1])
        names = self._outputs[stage - 1]
        results: dict[str, Any] = dict(zip(names, self._sessions.of_stage[stage - 1].run(names, feeds), strict=True))
        parts = self._layout.handed_on(stage)
        handed_on = {part.name: results[NEXT + part.name] for part in parts}
        return OnnxOutput(results[LOGITS], self._arena, slots, parts, handed_on)

    def release(self, slot: Slot) -> None:
        self._arena.release(slot)
