"""Stages through PyTorch as the model is written: the reference that every other backend must agree with.

Shapes: B batch, S input side in px, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import Bundle
from models.dvt import State as Upstream
from models.dvt import load_bundle
from models.preprocess import Pixels
from service.backends.base import State


@dataclass(frozen=True)
class EagerState:
    """One image between stages: pixels (3, S, S) on the device, and what the last stage handed on, of one image."""

    image: Tensor
    features: Tensor | None = None
    relations: Tensor | None = None

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.image, self.features, self.relations) if tensor is not None)


@dataclass(frozen=True)
class EagerOutput:
    """A computed batch: logits (B, C), each image's pixels, and what the stage hands on."""

    logits: NDArray[np.float32]
    images: Sequence[Tensor]
    upstream: Upstream | None

    def keep(self, row: int) -> State:
        # Copies, since a view of one row would keep the whole batch alive.
        if self.upstream is None:
            return State(EagerState(self.images[row]))
        features, relations = self.upstream.features, self.upstream.relations
        return State(
            EagerState(
                self.images[row],
                None if features is None else features[row].clone(),
                None if relations is None else relations[row].clone(),
            )
        )


class EagerBackend:
    """`device` is a torch device's name. On the CPU `threads` sets torch's thread count, which is the process's own."""

    name = "eager"

    def __init__(self, bundle: Bundle, device: str, threads: int) -> None:
        if device == "cpu":
            torch.set_num_threads(threads)
        self._device = torch.device(device)
        self._model = load_bundle(bundle.path).to(self._device)
        size_px = bundle.config.input.size_px
        self.state_bytes = self._measure(np.zeros((3, size_px, size_px), np.uint8), bundle.config.exits)

    def begin(self, pixels: Pixels) -> State:
        return State(EagerState(torch.from_numpy(pixels).to(self._device)))

    @torch.inference_mode()
    def run(self, stage: int, states: Sequence[State]) -> EagerOutput:
        batch = [cast(EagerState, state) for state in states]
        images = torch.stack([state.image for state in batch])
        upstream = None
        if stage > 1:
            upstream = Upstream(
                _stack([state.features for state in batch]), _stack([state.relations for state in batch])
            )
        output = self._model.forward_stage(stage - 1, images, upstream)
        logits = output.logits.float().cpu().numpy()
        return EagerOutput(logits, [state.image for state in batch], output.state)

    def release(self, state: State) -> None:
        """Nothing to do: the tensors are counted by Python."""

    def _measure(self, pixels: Pixels, stages: int) -> tuple[int, ...]:
        """Bytes of a state before each stage, of one image sent all the way (which also warms the model up)."""
        state = self.begin(pixels)
        sizes = []
        for stage in range(1, stages + 1):
            sizes.append(cast(EagerState, state).size_bytes)
            state = self.run(stage, [state]).keep(0)
        return tuple(sizes)


def _stack(tensors: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present) if present else None
