"""A bundle's graphs run one after another, to the last exit: what a service computes, for whole sets of images."""

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import Bundle
from models.graphs import stage_session, state_names


class OnnxCascade:
    """Called like the model: images (B, 3, S, S) uint8 to the logits (B, classes) of every exit.

    Raises `ValueError` for a bundle without graphs.
    """

    def __init__(self, bundle: Bundle) -> None:
        if bundle.onnx is None:
            raise ValueError(
                f"{bundle.path} has no ONNX graphs: run `dvt export {bundle.path}`, or use --backend eager"
            )
        self._config = bundle.config
        # The sessions read the weights where they are.
        self._weights = bundle.weights()
        self._sessions = [
            stage_session(graph.read_bytes(), self._weights, k, _options()) for k, graph in enumerate(bundle.onnx)
        ]

    def __call__(self, images: Tensor) -> list[Tensor]:
        pixels = images.numpy()
        state: dict[str, NDArray[np.float32]] = {}
        all_logits = []
        for k, session in enumerate(self._sessions):
            taken = {name: state[name] for name in state_names(self._config, k)}
            logits, *handed_on = session.run(None, {"image": pixels, **taken})
            all_logits.append(torch.from_numpy(logits))
            state = dict(zip(state_names(self._config, k + 1), handed_on, strict=True))
        return all_logits


def _options() -> ort.SessionOptions:
    """For one session, which puts its stage's weights into them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return options
