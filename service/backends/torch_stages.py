"""A bundle's network on a torch device, in a precision, one stage at a time.

In half precision the linear layers and convolutions are stored and computed so; what needs more (normalisation,
softmax, a Performer's random features) stays in float32, as autocast and the model itself have it. State is kept in the
same precision.

Shapes: B batch, S input side in px, C classes, k of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.bundle import Bundle
from models.compiling import compile_parts, make_room
from models.dvt import State, load_bundle
from service.backends.base import BRIEF_CLASSES, Precision
from service.backends.layout import state_layout
from service.backends.torch_readout import readout


@dataclass(frozen=True)
class Computed:
    """A stage's logits (B, C) in float32, what its exit says by them (B, 1 + 2k) as `readout` packs it, and what it
    hands on, by name; all on the device."""

    logits: Tensor
    brief: Tensor
    handed_on: Mapping[str, Tensor]


class TorchStages:
    """`compute` runs under `torch.inference_mode`, which the caller enters. `compiler`: a backend of `torch.compile`
    that parts of the network go through; None computes them as they are written."""

    def __init__(self, bundle: Bundle, device: torch.device, precision: Precision, compiler: str | None = None) -> None:
        self.layout = state_layout(bundle.config)
        self.device = device
        self.dtype: torch.dtype = getattr(torch, precision)
        self._measure = bundle.measure
        self._brief_classes = min(bundle.config.classes, BRIEF_CLASSES)
        self._model = load_bundle(bundle.path).to(device)
        self._is_half = precision != "float32"
        if self._is_half:
            for module in self._model.modules():
                if isinstance(module, (nn.Linear, nn.Conv2d)):
                    module.to(self.dtype)
        self._is_compiled = compiler is not None
        if compiler is not None:
            compile_parts(self._model, compiler, any_batch=True)

    def compute(self, stage: int, images: Tensor, taken: Mapping[str, Tensor]) -> Computed:
        """Stage `stage` (from 1) of uint8 images (B, 3, S, S) with what the stage before handed on."""
        upstream = State(taken.get("features"), taken.get("relations")) if stage > 1 else None
        if self._is_compiled:
            make_room()
        # No cache: a captured graph must not hold on to tensors that the cache lets go.
        with torch.autocast(self.device.type, self.dtype, enabled=self._is_half, cache_enabled=False):
            output = self._model.forward_stage(stage - 1, images, upstream)
        parts = self.layout.handed_on(stage)
        handed_on = {part.name: getattr(output.state, part.name).to(self.dtype) for part in parts}
        logits = output.logits.float()
        temperature = self._measure.temperatures[stage - 1]
        brief = readout(logits, temperature, self._measure.confidence, self._brief_classes)
        return Computed(logits, brief, handed_on)
