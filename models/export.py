"""One ONNX graph a stage, compared with eager before it is handed out.

A graph carries no weights: each initializer that is a weight of the model is marked as external data and keeps its
state-dict name, and whoever runs the graph injects model.safetensors. So a bundle holds its weights once, and stages
share those of a common stem in memory. See `models.graphs` for the other side, `models.graph_stage` for what is in it.

Shapes: B batch, dynamic in every graph. Inputs `image` (B, 3, S, S) uint8, from the second stage on `features`
and `relations` of the state; outputs `logits`, and but for the last stage `next_features` and `next_relations`.
"""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from models.dvt import DVT, State
from models.graph_stage import write_stage
from models.graphs import Weights, stage_session, stage_weights, state_names

COMPARED_BATCHES = (1, 3)
TOLERANCE = 1e-4


class ExportError(RuntimeError):
    """A graph does not do what eager does. The message names the stage, the output and the difference."""


def export_graphs(model: DVT) -> list[bytes]:
    """The graphs of all stages, from the first. Raises `ExportError` if one is further than 1e-4 from eager."""
    model = model.eval()
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    graphs = []
    for k in range(model.config.exits):
        shapes = {name: array.shape for name, array in stage_weights(weights, k).items()}
        graphs.append(write_stage(model.config, shapes, k))
    for batch in COMPARED_BATCHES:
        _compare(model, graphs, weights, batch)
    return graphs


def _flat(state: State | None) -> list[Tensor]:
    return [part for part in (state.features, state.relations) if part is not None] if state is not None else []


def _example(model: DVT, k: int, batch: int) -> list[Tensor]:
    """The inputs of stage k for `_images`: what the stages before it hand on."""
    images = _images(model.config.input.size_px, batch)
    state: State | None = None
    with torch.inference_mode():
        for before in range(k):
            state = model.forward_stage(before, images, state).state
    return [images, *(part.clone() for part in _flat(state))]


@torch.inference_mode()
def _outputs(model: DVT, k: int, arguments: Sequence[Tensor]) -> list[Tensor]:
    """What eager makes of a graph's inputs, in the order of its outputs."""
    parts = dict(zip(state_names(model.config, k), arguments[1:], strict=True))
    state = State(parts.get("features"), parts.get("relations")) if k > 0 else None
    output = model.forward_stage(k, arguments[0], state)
    return [output.logits, *_flat(output.state)]


def _images(side: int, count: int) -> Tensor:
    """Random pixels, but for every third image: one colour below a gradient, since what is flat has no variance."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, side, side), generator=generator).to(torch.uint8)
    images[2::3] = torch.linspace(0, 255, side).to(torch.uint8)
    images[2::3, :, side // 2 :] = 255
    return images


def _compare(model: DVT, graphs: Sequence[bytes], weights: Weights, batch: int) -> None:
    for k, graph in enumerate(graphs):
        arguments = _example(model, k, batch)
        names = ["image", *state_names(model.config, k)]
        expected = _outputs(model, k, arguments)
        session = stage_session(graph, weights, k, ort.SessionOptions())
        feeds = {name: tensor.numpy() for name, tensor in zip(names, arguments, strict=True)}
        for output, ours, theirs in zip(session.get_outputs(), session.run(None, feeds), expected, strict=True):
            difference = float(np.abs(ours - theirs.numpy()).max() / max(1.0, float(theirs.abs().max())))
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"stage {k + 1}, batch {batch}: {output.name} differs from eager by {difference:.2g} "
                    f"of its largest value, {TOLERANCE:.0e} is allowed; nothing was written"
                )
