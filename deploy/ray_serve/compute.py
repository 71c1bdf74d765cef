"""What a replica of one stage computes with: a batch of images and what the stage before handed on. No Ray.

Shapes: B batch, S input side in px, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.preprocess import Pixels
from service.backends.base import BackendError
from service.backends.onnx_sessions import IMAGE, LOGITS, NEXT, open_one_session
from service.settings import Settings

State = Mapping[str, NDArray[np.float32]]
"""Of one image: what a stage hands on, by name (features, relations)."""


@dataclass(frozen=True)
class Computed:
    """A batch: logits (B, C), and each image's state for the next stage; none after the last."""

    logits: NDArray[np.float32]
    states: tuple[State, ...]


class StageComputer(Protocol):
    """One stage, one batch at a time."""

    def run(self, images: Sequence[Pixels], states: Sequence[State]) -> Computed:
        """`images`: (3, S, S) each; `states` of them, empty mappings before stage 1. Raises what the runtime raises."""
        ...


class OnnxStage:
    """Stage `stage` (from 1) through ONNX Runtime on the CPU. Raises `BackendError`."""

    def __init__(self, bundle: Bundle, stage: int, threads: int) -> None:
        opened = open_one_session(bundle, stage, threads, ["CPUExecutionProvider"])
        self._opened = opened
        self._session = opened.of_stage[0]
        self._taken = tuple(part.name for part in opened.layout.taken[stage - 1])
        self._handed_on = tuple(part.name for part in opened.layout.handed_on(stage))

    def run(self, images: Sequence[Pixels], states: Sequence[State]) -> Computed:
        feeds: dict[str, NDArray[Any]] = {IMAGE: np.stack(images)}
        feeds |= {name: np.stack([state[name] for state in states]) for name in self._taken}
        names = [LOGITS, *(NEXT + name for name in self._handed_on)]
        logits, *values = self._session.run(names, feeds)
        if not self._handed_on:
            return Computed(logits, ())
        states = tuple(dict(zip(self._handed_on, row, strict=True)) for row in zip(*values, strict=True))
        return Computed(logits, states)


def open_onnx_stage(settings: Settings, bundle: Bundle, stage: int, cpus: float) -> StageComputer:
    """As the settings ask. Raises `BackendError` for what only the whole engine can do."""
    if settings.device not in ("auto", "cpu") or settings.backend not in ("auto", "onnx"):
        raise BackendError(
            "one deployment a stage computes with ONNX Runtime on CPUs: DVT_BACKEND=onnx, DVT_DEVICE=cpu; "
            "for GPUs deploy replicas of the whole service"
        )
    return OnnxStage(bundle, stage, settings.threads or max(1, int(cpus)))
