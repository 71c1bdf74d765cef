"""Graphs compute what PyTorch computes, hold no weights, and are not handed out when they differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import dvt
from models import export
from models.bundle import read_bundle, write_bundle
from models.config import DVTConfig
from models.dvt import DVT, State
from models.export import ExportError, export_graphs
from models.graphs import stage_session, stage_weights, state_names
from tests.models.small_cascades import (
    MIXED_STAGES,
    NOTHING,
    SIZE_PX,
    T2T_STAGES,
    patch_stage,
    pixels,
    small_cascade,
    small_config,
    weights_of,
)

# One layer each: exporting takes seconds a stage, and longer the more there is to trace.
CASCADES = {
    "t2t": small_config(T2T_STAGES, position="sinusoid", depth=1),
    "convolutions, then the hybrid's stem": small_config(MIXED_STAGES[:2], depth=1),
}
ONE_STAGE = small_config([patch_stage(2)], depth=1)


@dataclass(frozen=True)
class Exported:
    model: DVT
    graphs: list[bytes]


@pytest.fixture(scope="module", params=list(CASCADES.values()), ids=list(CASCADES))
def exported(request: pytest.FixtureRequest) -> Exported:
    model = small_cascade(request.param)
    return Exported(model, export_graphs(model))


@torch.inference_mode()
def inputs_of(model: DVT, k: int, images: Tensor) -> dict[str, NDArray[np.generic]]:
    """What stage k's graph takes for `images`, by name."""
    state: State | None = None
    for before in range(k):
        state = model.forward_stage(before, images, state).state
    parts = {"features": state.features, "relations": state.relations} if state is not None else {}
    return {"image": images.numpy(), **{name: part.numpy() for name, part in parts.items() if part is not None}}


@torch.inference_mode()
def outputs_of(model: DVT, k: int, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float32]]:
    """What eager makes of that, by the names that the graph uses."""
    parts = {name: torch.from_numpy(array) for name, array in inputs.items()}
    state = State(parts.get("features"), parts.get("relations")) if k else None
    output = model.forward_stage(k, parts["image"], state)
    handed_on = output.state or State(None, None)
    named = {"logits": output.logits, "next_features": handed_on.features, "next_relations": handed_on.relations}
    return {name: part.numpy() for name, part in named.items() if part is not None}


@pytest.mark.parametrize("batch", [1, 5])
def test_every_graph_agrees_with_eager(exported: Exported, batch: int) -> None:
    weights = weights_of(exported.model)
    for k, graph in enumerate(exported.graphs):
        inputs = inputs_of(exported.model, k, pixels(batch, seed=7))
        expected = outputs_of(exported.model, k, inputs)
        session = stage_session(graph, weights, k, ort.SessionOptions())
        assert [each.name for each in session.get_inputs()] == list(inputs)
        assert [each.name for each in session.get_outputs()] == list(expected)
        for found, (name, array) in zip(session.run(None, inputs), expected.items(), strict=True):
            np.testing.assert_allclose(found, array, rtol=1e-4, atol=1e-4, err_msg=f"stage {k + 1}, {name}")


def test_inputs_and_outputs_are_named_as_the_state_is(exported: Exported) -> None:
    first, second = (onnx.load_from_string(graph).graph for graph in exported.graphs)
    names = [[value.name for value in values] for values in (first.input, first.output, second.input, second.output)]
    assert names == [
        ["image"],
        ["logits", "next_features", "next_relations"],
        ["image", "features", "relations"],
        ["logits"],
    ]
    image = first.input[0].type.tensor_type
    assert image.elem_type == onnx.TensorProto.UINT8
    batch, *shape = image.shape.dim
    assert batch.dim_param and [side.dim_value for side in shape] == [3, SIZE_PX, SIZE_PX]


def test_graphs_hold_no_weights(exported: Exported) -> None:
    weights = weights_of(exported.model)
    seen: set[str] = set()
    for k, graph in enumerate(exported.graphs):
        for initializer in onnx.load_from_string(graph).graph.initializer:
            name = initializer.name
            if name in weights:
                assert not initializer.raw_data and not initializer.float_data
                assert initializer.data_location == onnx.TensorProto.EXTERNAL
                assert name in stage_weights(weights, k)
                seen.add(name)
        of_others = weights.keys() - stage_weights(weights, k).keys()
        assert not [name for name in of_others if name.encode() in graph], "what another stage has is not its business"
    assert seen == weights.keys()


def test_other_weights_of_the_same_shapes_run_in_the_same_graphs(exported: Exported) -> None:
    other = small_cascade(exported.model.config)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.7)
    session = stage_session(exported.graphs[0], weights_of(other), 0, ort.SessionOptions())
    inputs = inputs_of(other, 0, pixels(2))
    found = session.run(["logits"], inputs)[0]
    np.testing.assert_allclose(found, outputs_of(other, 0, inputs)["logits"], rtol=1e-4, atol=1e-4)


def test_a_session_without_one_of_its_weights_is_an_error(exported: Exported) -> None:
    weights = weights_of(exported.model)
    del weights["stages.0.head.bias"]
    with pytest.raises(Exception, match=r"stages.0.head.bias|external data"):
        stage_session(exported.graphs[0], weights, 0, ort.SessionOptions())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (small_config(T2T_STAGES), [[], ["features", "relations"], []]),
        (small_config(T2T_STAGES, NOTHING), [[], [], []]),
        (small_config([patch_stage(2)]), [[], []]),
    ],
)
def test_a_stage_takes_what_the_one_before_hands_on(config: DVTConfig, expected: list[list[str]]) -> None:
    assert [state_names(config, k) for k in range(config.exits + 1)] == expected


def test_stages_without_reuse_take_the_image_alone() -> None:
    model = small_cascade(small_config([patch_stage(1), patch_stage(2)], NOTHING, depth=1))
    graphs = export_graphs(model)
    inputs = inputs_of(model, 1, pixels(2))
    found = stage_session(graphs[1], weights_of(model), 1, ort.SessionOptions()).run(None, inputs)
    assert len(found) == 1 and list(inputs) == ["image"]
    np.testing.assert_allclose(found[0], outputs_of(model, 1, inputs)["logits"], rtol=1e-4, atol=1e-4)


class WrongWhenExported(DVT):
    """What the exporter traces is not what runs: what its optimiser once did to a Performer block."""

    def view(self, k: int, images: Tensor) -> Tensor:
        view = super().view(k, images)
        return view * 1.01 if torch.compiler.is_exporting() else view


@pytest.fixture
def wrong() -> DVT:
    model = WrongWhenExported(ONE_STAGE)
    model.load_state_dict(small_cascade(ONE_STAGE).state_dict())
    return model


def test_a_graph_that_differs_from_eager_is_not_handed_out(wrong: DVT) -> None:
    with pytest.raises(ExportError, match=r"stage 1, batch 1: logits differs from eager by .*nothing was written"):
        export_graphs(wrong)


def test_a_graph_that_gives_nan_is_not_handed_out(exported: Exported) -> None:
    weights = weights_of(exported.model) | {"stages.0.head.bias": np.full(5, np.nan, np.float32)}
    with pytest.raises(ExportError, match="stage 1, batch 2: logits differs from eager by nan"):
        export._compare(exported.model, exported.graphs, weights, batch=2)


def test_the_command_writes_graphs_and_their_hashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_cascade(ONE_STAGE)
    bundle = write_bundle(tmp_path / "small", model.config, weights_of(model), readme="kept")
    assert dvt.main(["export", str(bundle.path)]) == 0
    found = read_bundle(bundle.path)
    assert found.onnx == (bundle.path / "onnx" / "stage1.onnx",)
    assert "onnx/stage1.onnx" in (bundle.path / "SHA256SUMS").read_text()
    assert (found.weights_sha256, found.config_sha256) == (bundle.weights_sha256, bundle.config_sha256)
    assert (bundle.path / "README.md").read_text() == "kept"
    inputs = inputs_of(model, 0, pixels(3))
    session = stage_session(found.onnx[0].read_bytes(), found.weights(), 0, ort.SessionOptions())
    np.testing.assert_allclose(
        session.run(None, inputs)[0], outputs_of(model, 0, inputs)["logits"], rtol=1e-4, atol=1e-4
    )
    output = capsys.readouterr()
    assert output.out == ""
    assert "1 graphs, each equal to PyTorch within 1e-4" in output.err


def test_the_command_writes_nothing_when_a_graph_differs(
    tmp_path: Path, wrong: DVT, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_bundle(tmp_path / "small", wrong.config, weights_of(wrong), readme="")
    monkeypatch.setattr("models.dvt.DVT", WrongWhenExported)
    assert dvt.main(["export", str(bundle.path)]) == 2
    assert read_bundle(bundle.path) == bundle
    assert "dvt export: stage 1, batch 1: logits differs from eager" in capsys.readouterr().err


def test_the_command_says_in_one_line_that_there_is_no_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dvt.main(["export", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("dvt export: there is no bundle at ")
