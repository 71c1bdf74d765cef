"""Running a bundle's ONNX graphs: what goes in and out of a stage, and the weights put into its session. No torch."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.config import DVTConfig

Weights = Mapping[str, NDArray[np.float32]]


def state_names(config: DVTConfig, k: int) -> list[str]:
    """What stage k (from 0) takes from the one before; empty for the first, and for k = K after the last."""
    if not 0 < k < config.exits:
        return []
    taken = (("features", config.reuse.features), ("relations", config.reuse.relations))
    return [name for name, is_on in taken if is_on]


def stage_weights(weights: Weights, k: int) -> dict[str, NDArray[np.float32]]:
    """Those of `weights` (state-dict name -> array) that stage k (from 0) may use: its own, and the common stem's."""
    return {name: array for name, array in weights.items() if name.startswith((f"stages.{k}.", "stem."))}


Provider = str | tuple[str, dict[str, str]]
"""One of ONNX Runtime's execution providers, with its options where it has any."""


def stage_session(
    graph: bytes,
    weights: Weights,
    k: int,
    options: ort.SessionOptions,
    providers: Sequence[Provider] = ("CPUExecutionProvider",),
) -> ort.InferenceSession:
    """A session of stage k's graph, which holds no weights, with those of `weights` injected.

    The session reads the arrays where they are: keep them alive, and unchanged, as long as it. Raises onnxruntime's
    errors if one is missing or of another shape.
    """
    # Not every stage needs all that it may use, and a name that a graph does not know is an error.
    chosen = {name: array for name, array in stage_weights(weights, k).items() if _has_initializer(graph, name)}
    options.add_external_initializers(list(chosen), [ort.OrtValue.ortvalue_from_numpy(a) for a in chosen.values()])
    return ort.InferenceSession(graph, options, providers=list(providers))


def _has_initializer(graph: bytes, name: str) -> bool:
    """Whether a serialised graph has an initializer of that name, found without the package `onnx`.

    Protobuf writes the name of a tensor as its tag (field 8, text: 0x42), its length in bytes and its text.
    """
    text = name.encode()
    assert len(text) < 128, "longer names have a length of two bytes"
    return bytes((0x42, len(text))) + text in graph
