"""An inference request taken apart: JSON first, then the tensors' binary data in the same order.

Checked by hand: pydantic would collect every fault of a body made of faults.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.api.body import parse_json
from service.errors import BadJsonError, BadTensorError, EmptyBodyError, InvalidParameterError

HEADER_LENGTH = "Inference-Header-Content-Length"
_EXAMPLE = (
    'send JSON like {"inputs": [{"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": ["<base64>"]}]}, '
    "or a client of the Open Inference Protocol"
)
_MOST_INPUTS = _MOST_OUTPUTS = 16
_MOST_AXES = 8
_LONGEST_ID = 256
# More of either than any request needs beside its tensors' data.
_BESIDE = 1000


@dataclass(frozen=True)
class JsonLimits:
    """Lists and values that the data of tensors may need in JSON. Parsing takes many times their bytes in memory, and
    lets no other thread run meanwhile."""

    lists: int
    values: int


@dataclass(frozen=True)
class InputTensor:
    """One input as it was sent. `data`: its bytes, or what JSON had for them."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: memoryview | Sequence[Any]


@dataclass(frozen=True)
class AskedOutput:
    """One output that is wanted: as binary data or not (None: as the request says for all), or as so many classes."""

    name: str
    is_binary: bool | None
    classification: int | None


@dataclass(frozen=True)
class InferRequest:
    """`outputs` is empty where none was named, which means all."""

    id: str | None
    model_name: str | None
    parameters: Mapping[str, Any]
    inputs: tuple[InputTensor, ...]
    outputs: tuple[AskedOutput, ...]


def parse_request(body: bytes, header_length: str | None, limits: JsonLimits) -> InferRequest:
    """`header_length`: of the header, how many bytes of the (expanded) body are JSON; None for all of it.

    Raises `EmptyBodyError`, `BadJsonError`, `BadTensorError` or `InvalidParameterError`.
    """
    if not body:
        raise EmptyBodyError(f"the body has 0 bytes; {_EXAMPLE}")
    size = _header_size(header_length, len(body))
    text = body[:size]
    _check_json(text, limits)
    document = parse_json(text)
    top = _object(document, "the request", ("id", "model_name", "model_version", "parameters", "inputs", "outputs"))
    request_id, model_name = (_text(top, key, "the request") for key in ("id", "model_name"))
    if request_id is not None and len(request_id) > _LONGEST_ID:
        raise InvalidParameterError(f"id has {len(request_id)} characters, the limit is {_LONGEST_ID}")
    inputs, outputs = _list(top, "inputs", _MOST_INPUTS), _list(top, "outputs", _MOST_OUTPUTS)
    if not inputs:
        raise BadTensorError(f"the request has no `inputs`; {_EXAMPLE}")
    return InferRequest(
        request_id,
        model_name,
        _parameters(top, "the request"),
        _inputs(inputs, memoryview(body)[size:]),
        tuple(_output(value, f"outputs[{number}]") for number, value in enumerate(outputs)),
    )


def _header_size(header_length: str | None, body_bytes: int) -> int:
    if header_length is None:
        return body_bytes
    if not header_length.isdecimal() or len(header_length) > 18 or not 0 < int(header_length) <= body_bytes:
        raise BadTensorError(
            f"{HEADER_LENGTH} is {header_length[:64]!r}, but must be the size of the JSON at the start of the body, "
            f"which has {body_bytes} bytes (before any compression)"
        )
    return int(header_length)


def _check_json(text: bytes, limits: JsonLimits) -> None:
    lists, values = text.count(b"[") + text.count(b"{"), text.count(b",")
    if lists > limits.lists + _BESIDE:
        raise BadJsonError(f"the JSON has {lists} lists and objects, far more than its tensors can need; {_EXAMPLE}")
    if values > limits.values + _BESIDE:
        raise BadJsonError(f"the JSON has {values} commas, far more than its tensors can need; {_EXAMPLE}")


def _inputs(values: Sequence[object], binary: memoryview) -> tuple[InputTensor, ...]:
    tensors: list[InputTensor] = []
    start = 0
    for number, value in enumerate(values):
        where = f"inputs[{number}]"
        tensor = _object(value, where, ("name", "shape", "datatype", "parameters", "data"))
        name, datatype = (_text(tensor, key, where) for key in ("name", "datatype"))
        if name is None or datatype is None:
            raise BadTensorError(f"{where} needs a `name`, a `shape` and a `datatype`")
        size = _binary_size(tensor, where)
        if size is None:
            data: memoryview | list[Any] | None = tensor.get("data")
            if not isinstance(data, list):
                raise BadTensorError(
                    f"{where} has neither a list `data` nor the parameter `binary_data_size`; send one of them"
                )
        else:
            data, has_data = binary[start : start + size], tensor.get("data") is not None
            if has_data or len(data) < size:
                raise BadTensorError(
                    f"{where} says binary_data_size {size}, but "
                    + ("has `data` too" if has_data else f"{len(data)} bytes of binary data are left for it")
                )
            start += size
        tensors.append(InputTensor(name, datatype, _shape(tensor.get("shape"), where), data))
    if start < len(binary):
        raise BadTensorError(
            f"the binary data after the JSON has {len(binary)} bytes, the inputs claim {start} of them "
            f"(binary_data_size); is {HEADER_LENGTH} the size of the JSON?"
        )
    return tuple(tensors)


def _binary_size(tensor: Mapping[str, Any], where: str) -> int | None:
    parameters = _parameters(tensor, where)
    if any(key.startswith("shared_memory") for key in parameters):
        raise BadTensorError(f"{where} is in shared memory, which this service does not read; send its data")
    # How some clients note for themselves what they have encoded.
    unknown = next((key for key in parameters if key not in ("binary_data_size", "content_type")), None)
    if unknown is not None:
        raise InvalidParameterError(f"{where} has no parameter {unknown[:64]!r}, only `binary_data_size`")
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise BadTensorError(f"{where} says binary_data_size {_shown(size)}, expected a number of bytes")
    return size


def _shape(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_AXES:
        raise BadTensorError(f"{where} needs a `shape`: a list of 1 to {_MOST_AXES} sizes")
    wrong = next((size for size in value if type(size) is not int or size < 0), None)
    if wrong is not None:
        raise BadTensorError(f"{where} has the size {_shown(wrong)} in its shape, expected whole numbers from 0 up")
    return tuple(value)


def _output(value: object, where: str) -> AskedOutput:
    output = _object(value, where, ("name", "parameters"))
    name = _text(output, "name", where)
    if name is None:
        raise BadTensorError(f"{where} needs a `name`")
    parameters = _parameters(output, where)
    if any(key.startswith("shared_memory") for key in parameters):
        raise BadTensorError(f"{where} asks for shared memory, which this service does not write")
    unknown = next((key for key in parameters if key not in ("binary_data", "classification")), None)
    if unknown is not None:
        raise InvalidParameterError(
            f"{where} has no parameter {unknown[:64]!r}, only `binary_data` and `classification`"
        )
    classification = parameters.get("classification")
    if classification is not None and (type(classification) is not int or classification < 1):
        raise InvalidParameterError(f"classification is {_shown(classification)}, expected a number from 1 up")
    return AskedOutput(name, flag(parameters, "binary_data"), classification)


def flag(parameters: Mapping[str, Any], name: str) -> bool | None:
    """A parameter that is true or false, None where it is not given. Raises `InvalidParameterError`."""
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidParameterError(f"{name} is {_shown(value)}, expected true or false")
    return value


def _object(value: object, where: str, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadJsonError(f"{where} must be a JSON object; {_EXAMPLE}")
    unknown = next((key for key in value if key not in known), None)
    if unknown is not None:
        raise BadJsonError(f"{where} has no key {unknown[:64]!r}, only {', '.join(known)}")
    return value


def _parameters(holder: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadJsonError(f"the `parameters` of {where} must be a JSON object")
    return parameters


def _list(holder: Mapping[str, Any], key: str, most: int) -> list[Any]:
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadJsonError(f"`{key}` must be a list; {_EXAMPLE}")
    if len(value) > most:
        raise BadTensorError(f"the request has {len(value)} {key}, the limit is {most}")
    return value


def _text(holder: Mapping[str, Any], key: str, where: str) -> str | None:
    value = holder.get(key)
    if value is not None and not isinstance(value, str):
        raise BadJsonError(f"the `{key}` of {where} must be a string")
    return value


def _shown(value: object) -> str:
    return repr(value)[:64] if isinstance(value, (int, float, str)) else f"a {type(value).__name__}"
