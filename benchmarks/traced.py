"""A stage's graph as PyTorch's exporter makes it from `models.dvt`: what the hand-written graphs are compared with."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor, nn

from models.dvt import DVT, State
from models.graph_writer import OPSET
from models.graphs import Weights, stage_weights, state_names


def trace_stage(model: DVT, k: int) -> bytes:
    """Stage k (from 0) without weights, as `models.graphs.stage_session` takes it. Minutes for twelve layers."""
    weights = stage_weights({name: tensor.numpy() for name, tensor in model.state_dict().items()}, k)
    arguments = _example(model, k)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        # The exporter's own optimiser turns a Performer block into a wrong one (torch 2.13, onnxscript 0.7.2).
        program = torch.onnx.export(
            _StageGraph(model, k),
            tuple(arguments),
            input_names=["image", *state_names(model.config, k)],
            output_names=["logits", *(f"next_{name}" for name in state_names(model.config, k + 1))],
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            dynamic_shapes=({0: batch}, *([tuple({0: batch} for _ in arguments[1:])] if arguments[1:] else ())),
        )
    assert program is not None
    return _without_weights(program.model_proto, weights)


class _StageGraph(nn.Module):
    """A stage with a flat list of tensors in and out, as a graph has it."""

    def __init__(self, model: DVT, k: int) -> None:
        super().__init__()
        self.model = model
        self.k = k

    def forward(self, image: Tensor, *handed_on: Tensor) -> tuple[Tensor, ...]:
        parts = dict(zip(state_names(self.model.config, self.k), handed_on, strict=True))
        state = State(parts.get("features"), parts.get("relations")) if self.k > 0 else None
        output = self.model.forward_stage(self.k, image, state)
        return (output.logits, *_flat(output.state))


def _flat(state: State | None) -> list[Tensor]:
    return [part for part in (state.features, state.relations) if part is not None] if state is not None else []


@torch.inference_mode()
def _example(model: DVT, k: int) -> list[Tensor]:
    side = model.config.input.size_px
    images = torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    state: State | None = None
    for before in range(k):
        state = model.forward_stage(before, images, state).state
    return [images, *(part.clone() for part in _flat(state))]


def _without_weights(proto: onnx.ModelProto, weights: Weights) -> bytes:
    graph = proto.graph
    renamed: dict[str, str] = {}
    for initializer in graph.initializer:
        name = initializer.name.removeprefix("model.")
        if name not in weights:
            continue
        renamed[initializer.name] = name
        initializer.name = name
        initializer.ClearField("raw_data")
        initializer.data_location = onnx.TensorProto.EXTERNAL
        initializer.external_data.add(key="location", value="model.safetensors")
    for node in graph.node:
        node.input[:] = [renamed.get(used, used) for used in node.input]
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
    graph.ClearField("value_info")
    data: bytes = proto.SerializeToString()
    return data


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks on standard output and warns through logging."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
