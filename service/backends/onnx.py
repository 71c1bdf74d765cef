"""Stages through ONNX Runtime on the CPU. No torch.

A graph file holds no weights: its session gets them from the bundle's one weights file (see `models.graphs`). Graph k
takes `image` and, of what stage k - 1 handed on, `features` and `relations`; it gives `logits` and what it hands on,
`next_features` and `next_relations`.

Shapes: B batch, S input side in px, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.bundle import Bundle
from models.graphs import Weights, stage_session
from models.preprocess import Pixels
from service.backends.base import BackendError, State

IMAGE, LOGITS, NEXT = "image", "logits", "next_"

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class OnnxState:
    """One image between stages: `image` (3, S, S) and what the last stage handed on, without the batch axis."""

    arrays: Arrays

    @property
    def size_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


@dataclass(frozen=True)
class OnnxOutput:
    """A computed batch: logits (B, C), what each image carried, and what the stage hands on, as the next names it."""

    logits: NDArray[np.float32]
    images: Sequence[NDArray[np.uint8]]
    handed_on: Arrays

    def keep(self, row: int) -> State:
        # Copies, since a view of one row would keep the whole batch alive.
        rows = {name: array[row].copy() for name, array in self.handed_on.items()}
        return State(OnnxState({IMAGE: self.images[row], **rows}))


class OnnxBackend:
    """One session a stage. `threads` is what one stage's computation may use."""

    name = "onnx"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        if bundle.onnx is None:
            raise BackendError(
                f"{bundle.path} has no ONNX graphs: run `dvt export {bundle.path}`, or use --backend eager"
            )
        # Sessions compute with these very arrays, which must live as long.
        self._weights = bundle.weights()
        self._sessions = tuple(_open_session(graph, self._weights, k, threads) for k, graph in enumerate(bundle.onnx))
        self._inputs = tuple(tuple(value.name for value in session.get_inputs()) for session in self._sessions)
        self._outputs = tuple(tuple(value.name for value in session.get_outputs()) for session in self._sessions)
        self._check_chain(bundle)
        size_px = bundle.config.input.size_px
        self.state_bytes = self._measure(np.zeros((3, size_px, size_px), np.uint8))

    def begin(self, pixels: Pixels) -> State:
        return State(OnnxState({IMAGE: pixels}))

    def run(self, stage: int, states: Sequence[State]) -> OnnxOutput:
        images = [cast(OnnxState, state).arrays for state in states]
        feeds = {name: np.stack([arrays[name] for arrays in images]) for name in self._inputs[stage - 1]}
        names = self._outputs[stage - 1]
        results: dict[str, Any] = dict(zip(names, self._sessions[stage - 1].run(names, feeds), strict=True))
        logits = results.pop(LOGITS)
        handed_on = {name.removeprefix(NEXT): array for name, array in results.items()}
        return OnnxOutput(logits, [arrays[IMAGE] for arrays in images], handed_on)

    def release(self, state: State) -> None:
        """Nothing to do: the arrays are counted by Python."""

    def _measure(self, pixels: Pixels) -> tuple[int, ...]:
        """Bytes of a state before each stage, of one image sent all the way (which also warms the sessions up)."""
        state = self.begin(pixels)
        sizes = []
        for stage in range(1, len(self._sessions) + 1):
            sizes.append(cast(OnnxState, state).size_bytes)
            state = self.run(stage, [state]).keep(0)
        return tuple(sizes)

    def _check_chain(self, bundle: Bundle) -> None:
        """Each stage needs nothing but the image and what the stage before hands on."""
        offered: set[str] = set()
        for number, (inputs, outputs) in enumerate(zip(self._inputs, self._outputs, strict=True), start=1):
            strange = set(inputs) - offered - {IMAGE}
            if strange or LOGITS not in outputs:
                raise BackendError(
                    f"{bundle.path}: stage {number}'s graph takes {', '.join(inputs)}, gives {', '.join(outputs)}; "
                    f"the one before hands on {', '.join(sorted(offered)) or 'nothing'}: run `dvt export` on the bundle"
                )
            offered = {name.removeprefix(NEXT) for name in outputs if name.startswith(NEXT)}


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
