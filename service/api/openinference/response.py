"""Results as the tensors that were asked for, and those as a body: JSON first, then binary data in the same order.

Shapes: n images, C classes.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.deps import Model
from service.api.openinference.model import PROBABILITIES, VERSION, Datatype, TensorSpec, outputs_of
from service.api.openinference.request import AskedOutput
from service.api.schemas import ImageResult
from service.errors import BadTensorError
from service.types import Ranking

_DTYPES: Mapping[Datatype, Any] = {"BYTES": object, "FP32": "<f4", "INT32": "<i4", "UINT8": "u1"}
_ONE_OF_A_RESULT: Mapping[str, Callable[[ImageResult], object]] = {
    "label": lambda result: result.predictions[0].label,
    "exit_number": lambda result: result.exit.number,
    "confidence": lambda result: result.exit.confidence,
    "gmacs": lambda result: result.compute.gmacs,
    "reason": lambda result: result.exit.reason,
    "id": lambda result: result.id,
}


@dataclass(frozen=True)
class Answered:
    """One image: its result, and the classes as the exit ranks them, of which that quotes the best."""

    result: ImageResult
    ranking: Ranking


@dataclass(frozen=True)
class OutputTensor:
    """`values`: numbers in the datatype's own form, or strings (n, k)."""

    name: str
    datatype: str
    values: NDArray[Any]
    is_binary: bool

    def as_bytes(self) -> bytes:
        if self.datatype != "BYTES":
            return self.values.tobytes()
        encoded = (text.encode() for text in self.values.ravel().tolist())
        return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


@dataclass(frozen=True)
class Body:
    """`json_bytes`: how much of it is JSON; None where all is."""

    data: bytes
    json_bytes: int | None


def choose_outputs(
    asked: Sequence[AskedOutput], known: Sequence[TensorSpec], *, all_binary: bool
) -> tuple[AskedOutput, ...]:
    """What is to be given, and each in which form. Raises `BadTensorError` for what the model does not give."""
    chosen = asked or tuple(AskedOutput(spec.name, None, None) for spec in known)
    names = [output.name for output in chosen]
    for output in chosen:
        if output.name not in {spec.name for spec in known}:
            raise BadTensorError(
                f"there is no output {output.name[:64]!r}, only {', '.join(spec.name for spec in known)}"
            )
        if names.count(output.name) > 1:
            raise BadTensorError(f"the output {output.name!r} is asked for twice")
        if output.classification is not None and output.name != PROBABILITIES:
            raise BadTensorError(f"`classification` is for the output {PROBABILITIES!r}, not for {output.name!r}")
    return tuple(
        AskedOutput(output.name, all_binary if output.is_binary is None else output.is_binary, output.classification)
        for output in chosen
    )


def tensors_of(answers: Sequence[Answered], outputs: Sequence[AskedOutput], model: Model) -> tuple[OutputTensor, ...]:
    """The outputs (as `choose_outputs` gives them) of n images."""
    datatypes = {spec.name: spec.datatype for spec in outputs_of(model)}
    return tuple(_tensor(answers, output, datatypes[output.name], model.config.labels) for output in outputs)


def _tensor(
    answers: Sequence[Answered], output: AskedOutput, datatype: Datatype, labels: Sequence[str]
) -> OutputTensor:
    rows: list[Any]
    if output.classification is not None:
        datatype = "BYTES"
        rows = [_best(answer.ranking, output.classification, labels) for answer in answers]
    elif output.name == PROBABILITIES:
        rows = [answer.ranking.whole() for answer in answers]
    else:
        rows = [[_ONE_OF_A_RESULT[output.name](answer.result)] for answer in answers]
    return OutputTensor(output.name, datatype, np.array(rows, _DTYPES[datatype]), bool(output.is_binary))


def classes_of(outputs: Sequence[AskedOutput], model: Model) -> int:
    """How many of the best classes an exit has to tell of, for these outputs."""
    asked = (output.classification or model.config.classes if output.name == PROBABILITIES else 1 for output in outputs)
    return min(max(asked), model.config.classes)


def _best(ranking: Ranking, classes: int, labels: Sequence[str]) -> list[str]:
    """The most probable classes, the first first, each as `value:index:label`."""
    return [f"{best.probability:f}:{best.index}:{labels[best.index]}" for best in ranking.best(classes)]


def write_body(
    model_name: str, request_id: str | None, parameters: Mapping[str, object], tensors: Sequence[OutputTensor]
) -> Body:
    """The answer to a request."""
    entries: list[dict[str, object]] = []
    binary: list[bytes] = []
    for tensor in tensors:
        entry: dict[str, object] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.values.shape),
        }
        if tensor.is_binary:
            data = tensor.as_bytes()
            entry["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            entry["data"] = tensor.values.ravel().tolist()
        entries.append(entry)
    document: dict[str, object] = {"model_name": model_name, "model_version": VERSION}
    if request_id is not None:
        document["id"] = request_id
    text = json.dumps({**document, "parameters": parameters, "outputs": entries}, separators=(",", ":")).encode()
    return Body(b"".join((text, *binary)), len(text) if binary else None)
