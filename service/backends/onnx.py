"""Stages through ONNX Runtime on the CPU. No torch.

A graph file holds no weights: its session gets them from the bundle's one weights file (see `models.graphs`). Graph k
takes `image` and, of what stage k - 1 handed on, `features` and `relations`; it gives `logits` and what it hands on,
`next_features` and `next_relations`.

Shapes: B batch, S input side in px, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.bundle import Bundle
from models.graphs import Weights, stage_session
from models.preprocess import Pixels
from service.backends.arena import Arena
from service.backends.base import BackendError, Capacity, Slot
from service.backends.layout import Part, state_layout

IMAGE, LOGITS, NEXT = "image", "logits", "next_"


@dataclass(frozen=True)
class OnnxOutput:
    """A computed batch: logits (B, C), and what the stage hands on, to be written where the batch came from."""

    logits: NDArray[np.float32]
    arena: Arena
    slots: Sequence[Slot]
    parts: tuple[Part, ...]
    handed_on: Mapping[str, NDArray[np.float32]]

    def keep(self, rows: Sequence[int]) -> None:
        values = self.handed_on
        if len(rows) < len(self.slots):
            values = {name: array[np.asarray(rows, np.intp)] for name, array in values.items()}
        self.arena.scatter([self.slots[row] for row in rows], self.parts, values)


class OnnxBackend:
    """One session a stage. `threads` is what one stage's computation may use."""

    name = "onnx"

    def __init__(self, bundle: Bundle, threads: int, capacity: Capacity) -> None:
        if bundle.onnx is None:
            raise BackendError(
                f"{bundle.path} has no ONNX graphs: run `dvt export {bundle.path}`, or use --backend eager"
            )
        self._layout = state_layout(bundle.config)
        self.stages = self._layout.stages
        self.slot_bytes = self._layout.slot_bytes(np.dtype(np.float32).itemsize)
        self.slots = capacity.slots(self.slot_bytes)
        self.buckets = capacity.buckets
        # Sessions compute with these very arrays, which must live as long.
        self._weights = bundle.weights()
        self._sessions = tuple(_open_session(graph, self._weights, k, threads) for k, graph in enumerate(bundle.onnx))
        self._outputs = tuple(tuple(value.name for value in session.get_outputs()) for session in self._sessions)
        self._check_chain(bundle)
        self._arena = Arena(self._layout, self.slots)

    @property
    def slots_in_use(self) -> int:
        return self._arena.in_use

    def begin(self, pixels: Pixels) -> Slot:
        return self._arena.put(pixels)

    def run(self, stage: int, slots: Sequence[Slot]) -> OnnxOutput:
        feeds: dict[str, NDArray[Any]] = {IMAGE: self._arena.images(slots)}
        feeds |= self._arena.gather(slots, self._layout.taken[stage - 1])
        names = self._outputs[stage - 1]
        results: dict[str, Any] = dict(zip(names, self._sessions[stage - 1].run(names, feeds), strict=True))
        parts = self._layout.handed_on(stage)
        return OnnxOutput(
            results[LOGITS], self._arena, slots, parts, {part.name: results[NEXT + part.name] for part in parts}
        )

    def release(self, slot: Slot) -> None:
        self._arena.release(slot)

    def _check_chain(self, bundle: Bundle) -> None:
        """Each graph takes and gives just what the configuration says, batch first."""
        image = Part(IMAGE, self._layout.image, 0)
        logits = Part(LOGITS, (bundle.config.classes,), 0)
        for stage, session in enumerate(self._sessions, start=1):
            next_parts = (Part(NEXT + part.name, part.shape, 0) for part in self._layout.handed_on(stage))
            for what, values, parts in (
                ("takes", session.get_inputs(), (image, *self._layout.taken[stage - 1])),
                ("gives", session.get_outputs(), (logits, *next_parts)),
            ):
                found = {value.name: tuple(value.shape[1:]) for value in values}
                expected = {part.name: part.shape for part in parts}
                if found != expected:
                    raise BackendError(
                        f"{bundle.path}: stage {stage}'s graph {what} {found}, its config.json says {expected}: "
                        "run `dvt export` on the bundle"
                    )


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait would take the cores from those that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _open_session(graph: Path, weights: Weights, k: int, threads: int) -> ort.InferenceSession:
    try:
        return stage_session(graph.read_bytes(), weights, k, _options(threads))
    except Exception as error:  # ONNX Runtime's own exceptions share no base class of theirs.
        raise BackendError(
            f"{graph} cannot be loaded by ONNX Runtime {ort.__version__} ({error}): run `dvt export` on the bundle"
        ) from error
