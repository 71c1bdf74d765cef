"""What every peer serves: the static twin through ONNX Runtime, with the preprocessing that we serve with. No torch.

Runs in a peer's own environment, with numpy, Pillow, ONNX Runtime and safetensors of the versions that we serve with.

Shapes: B batch, S input side in px, C classes.
"""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

from models import policy
from models.bundle import read_bundle
from models.graphs import stage_session
from models.preprocess import Pixels, preprocess

TOP_K = 5
_PREFIX = "PEER_"


@dataclass(frozen=True)
class PeerSettings:
    """`workers` processes compute with `threads` each; `decoders` decode where the server has such a stage of its own.

    They travel as environment variables `PEER_*`, since the servers make their worker processes in ways of their own.
    """

    bundle: str
    port: int
    workers: int
    threads: int
    decoders: int = 0
    batch: int = 8
    wait_ms: int = 5

    def to_environment(self) -> dict[str, str]:
        return {f"{_PREFIX}{name.upper()}": str(value) for name, value in vars(self).items()}

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> "PeerSettings":
        numbers = {
            name: int(environment[f"{_PREFIX}{name.upper()}"])
            for name in ("port", "workers", "threads", "decoders", "batch", "wait_ms")
        }
        return PeerSettings(bundle=environment[f"{_PREFIX}BUNDLE"], **numbers)


class StaticModel:
    """One session of the twin's only stage."""

    def __init__(self, bundle: str, threads: int) -> None:
        read = read_bundle(Path(bundle))
        if read.onnx is None or len(read.onnx) != 1:
            raise ValueError(f"{bundle} is no static bundle with its graph; the peers serve one stage")
        self.config = read.config
        self._temperature = read.profiles.exits[0].temperature if read.profiles is not None else 1.0
        # The session computes with these very arrays, which must live as long.
        self._weights = read.weights()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # As we serve: threads that spin while they wait would take the cores from those that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = stage_session(read.onnx[0].read_bytes(), self._weights, 0, options)

    def decode(self, data: bytes) -> Pixels:
        """Pixels (3, S, S) of an image file."""
        with Image.open(io.BytesIO(data)) as image:
            return preprocess(image, self.config.input)

    def classify(self, pixels: Sequence[Pixels]) -> list[dict[str, Any]]:
        """What is answered for each image of a batch: the best labels with their probabilities."""
        (logits,) = self._session.run(["logits"], {"image": np.stack(pixels)})
        probabilities = policy.softmax(np.asarray(logits, np.float64), self._temperature)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP_K]
        labels = self.config.labels
        return [
            {
                "predictions": [
                    {"label": labels[index], "index": int(index), "probability": float(row[index])} for index in top
                ]
            }
            for row, top in zip(probabilities, best, strict=True)
        ]
