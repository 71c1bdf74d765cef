"""What goes out under `/v2`, for those who check it and for /docs."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Live(_Answer):
    live: bool


class Ready(_Answer):
    ready: bool


class ModelReady(_Answer):
    name: str
    ready: bool


class ServerMetadata(_Answer):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(_Answer):
    """`shape` begins with -1, for any number of images."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(_Answer):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class VersionPolicy(_Answer):
    latest: dict[str, int]


class InputConfig(_Answer):
    """`dims` without the images. Of the inputs a request has one, so each is optional."""

    name: str
    data_type: str
    format: str
    dims: list[int]
    optional: bool


class OutputConfig(_Answer):
    """`labels` of the classes, where the output has one value a class."""

    name: str
    data_type: str
    dims: list[int]
    labels: list[str] = []


class ModelConfig(_Answer):
    """After the message ModelConfig of model_config.proto, with labels in place of a file of them."""

    name: str
    platform: str
    backend: str
    version_policy: VersionPolicy
    max_batch_size: int
    input: list[InputConfig]
    output: list[OutputConfig]


class IndexEntry(_Answer):
    name: str
    version: str
    state: str
    reason: str


class Duration(_Answer):
    """How often, and nanoseconds altogether."""

    count: int
    ns: int


class InferenceStatistics(_Answer):
    """`success` and `fail` count requests; the others images, those of `POST /classify` among them."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class BatchStatistics(_Answer):
    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(_Answer):
    """Since the start. `last_inference` is in milliseconds of the epoch."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class StatisticsResponse(_Answer):
    model_stats: list[ModelStatistics]


class InferOutput(_Answer):
    """With `data`, flat and row by row, or with the parameter `binary_data_size`."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] = {}
    data: list[Any] = []


class InferResponse(_Answer):
    """`parameters` tell the id of the request in the log, and what decided, as `budget` of `POST /classify` does."""

    model_name: str
    model_version: str
    id: str = ""
    parameters: dict[str, str | int]
    outputs: list[InferOutput]


_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string", "enum": ["image", "pixels"]},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"type": "string", "enum": ["BYTES", "UINT8", "FP32"]},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}
INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "parameters": {"type": "object"},
                        "inputs": {"type": "array", "items": _TENSOR},
                        "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
                    },
                }
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}

ERRORS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "What is wrong, under the status that `POST /classify` would answer with.",
        "content": {
            "application/json": {
                "schema": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
            }
        },
    }
}
"""What a path may answer besides its result, for /docs."""
