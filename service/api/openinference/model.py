"""The served model in the protocol's words: its name and version, the tensors that it takes and gives.

Shapes: n images, C classes, S side of the input in px.
"""

from dataclasses import dataclass
from typing import Literal

from service.api.deps import Model, Service

VERSION = "1"
IMAGE, PIXELS = "image", "pixels"
PROBABILITIES = "probabilities"

Datatype = Literal["BYTES", "FP32", "INT32", "UINT8"]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor. `dims` without the first, which counts images."""

    name: str
    datatype: Datatype
    dims: tuple[int, ...]


def inputs_of(model: Model) -> tuple[TensorSpec, ...]:
    """What a request brings one of. `pixels` may be FP32 too, of which the protocol has no way to tell."""
    side = model.config.input.size_px
    return (TensorSpec(IMAGE, "BYTES", (1,)), TensorSpec(PIXELS, "UINT8", (3, side, side)))


def outputs_of(model: Model) -> tuple[TensorSpec, ...]:
    """What a request may ask for. There is no `gmacs` of a bundle that was never profiled."""
    outputs = [
        TensorSpec(PROBABILITIES, "FP32", (model.config.classes,)),
        TensorSpec("label", "BYTES", (1,)),
        TensorSpec("exit_number", "INT32", (1,)),
        TensorSpec("confidence", "FP32", (1,)),
        TensorSpec("gmacs", "FP32", (1,)),
        TensorSpec("reason", "BYTES", (1,)),
        TensorSpec("id", "BYTES", (1,)),
    ]
    return tuple(output for output in outputs if output.name != "gmacs" or model.full_gmacs is not None)


def largest_batch(service: Service) -> int:
    """Most images of one request."""
    return min(service.settings.max_images, service.admission.limits.permits)
