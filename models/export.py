"""One ONNX graph a stage, compared with eager before it is handed out.

A graph carries no weights: each initializer that is a weight of the model is marked as external data and keeps its
state-dict name, and whoever runs the graph injects model.safetensors. So a bundle holds its weights once, and stages
share those of a common stem in memory. See `models.graphs` for the other side.

Shapes: B batch, dynamic in every graph. Inputs `image` (B, 3, S, S) uint8, from the second stage on `features`
and `relations` of the state; outputs `logits`, and but for the last stage `next_features` and `next_relations`.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from models.dvt import DVT, State
from models.graphs import Weights, stage_session, stage_weights, state_names

OPSET = 20
COMPARED_BATCHES = (1, 3)
TOLERANCE = 1e-4


class ExportError(RuntimeError):
    """A graph does not do what eager does. The message names the stage, the output and the difference."""


def export_graphs(model: DVT) -> list[bytes]:
    """The graphs of all stages, from the first. Raises `ExportError` if one is further than 1e-4 from eager."""
    model = model.eval()
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    graphs = [_without_weights(_export_stage(model, k), stage_weights(weights, k)) for k in range(model.config.exits)]
    for batch in COMPARED_BATCHES:
        _compare(model, graphs, weights, batch)
    return graphs


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


def _export_stage(model: DVT, k: int) -> onnx.ModelProto:
    arguments = _example(model, k, batch=2)
    names = ["image", *state_names(model.config, k)]
    outputs = ["logits", *(f"next_{name}" for name in state_names(model.config, k + 1))]
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        # The exporter's own optimiser turns a Performer block into a wrong one (torch 2.13, onnxscript 0.7.2).
        program = torch.onnx.export(
            _StageGraph(model, k),
            tuple(arguments),
            input_names=names,
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            dynamic_shapes=({0: batch}, *([tuple({0: batch} for _ in arguments[1:])] if arguments[1:] else ())),
        )
    assert program is not None
    return program.model_proto


def _example(model: DVT, k: int, batch: int) -> list[Tensor]:
    """The inputs of stage k for random pixels: what the stages before it hand on."""
    side = model.config.input.size_px
    pixels = torch.randint(0, 256, (batch, 3, side, side), generator=torch.Generator().manual_seed(batch))
    images = pixels.to(torch.uint8)
    state: State | None = None
    with torch.inference_mode():
        for before in range(k):
            state = model.forward_stage(before, images, state).state
    return [images, *(part.clone() for part in _flat(state))]


def _without_weights(proto: onnx.ModelProto, weights: Weights) -> bytes:
    """The graph with every weight under its state-dict name and its data left out."""
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
    unused = weights.keys() - set(renamed.values())
    assert not any(name.startswith("stages.") for name in unused), "a stage's graph uses all of its own weights"
    for node in graph.node:
        node.input[:] = [renamed.get(used, used) for used in node.input]
    # What the exporter tells of itself, all parameters of the whole cascade included, is half of the file.
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    data: bytes = proto.SerializeToString()
    return data


def _compare(model: DVT, graphs: Sequence[bytes], weights: Weights, batch: int) -> None:
    for k, graph in enumerate(graphs):
        arguments = _example(model, k, batch)
        with torch.inference_mode():
            expected = _StageGraph(model, k)(*arguments)
        names = ["image", *state_names(model.config, k)]
        session = stage_session(graph, weights, k, ort.SessionOptions())
        feeds = {name: tensor.numpy() for name, tensor in zip(names, arguments, strict=True)}
        for output, ours, theirs in zip(session.get_outputs(), session.run(None, feeds), expected, strict=True):
            difference = float(np.abs(ours - theirs.numpy()).max() / max(1.0, float(theirs.abs().max())))
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"stage {k + 1}, batch {batch}: {output.name} differs from eager by {difference:.2g} "
                    f"of its largest value, {TOLERANCE:.0e} is allowed; nothing was written"
                )


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
