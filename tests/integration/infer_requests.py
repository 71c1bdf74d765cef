"""Requests of the Open Inference Protocol for a scripted cascade, and what its answers hold."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.service.cascades import SIZE_PX, picture

INFER = "/v2/models/small-bundle/infer"


def files(*kinds: int) -> dict[str, Any]:
    """A request in JSON for images of these kinds."""
    data = [base64.b64encode(picture(kind)).decode() for kind in kinds]
    return {"inputs": [{"name": "image", "shape": [len(kinds), 1], "datatype": "BYTES", "data": data}]}


def pixels(*kinds: int) -> NDArray[np.uint8]:
    images = np.zeros((len(kinds), 3, SIZE_PX, SIZE_PX), np.uint8)
    images[:, 0] = np.array(kinds)[:, None, None]
    return images


def with_pixels(array: NDArray[Any], datatype: str) -> tuple[bytes, dict[str, str]]:
    """A request with pixels as binary data: body and headers."""
    data = array.tobytes()
    tensor = {
        "name": "pixels",
        "shape": array.shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": len(data)},
    }
    text = json.dumps({"inputs": [tensor]}).encode()
    return text + data, {"Inference-Header-Content-Length": str(len(text))}


def tensors(document: dict[str, Any]) -> dict[str, Any]:
    return {output["name"]: output["data"] for output in document["outputs"]}


def exits(document: dict[str, Any]) -> Sequence[int]:
    found: Sequence[int] = tensors(document)["exit_number"]
    return found
