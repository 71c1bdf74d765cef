"""Graphs compute what PyTorch computes, hold no weights, and are not handed out when they differ."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from models.config import DVTConfig, ReuseConfig
from models.dvt import DVT, State
from models.export import ExportError, export_graphs
from models.graphs import stage_session, stage_weights, state_names
from tests.models.small_cascades import (
    CONV_STAGES,
    HYBRID_STAGES,
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

REUSE = ReuseConfig(feature_hidden=8, feature_dim=4, relation_expansion=2)
T2T = small_config(T2T_STAGES, REUSE, position="sinusoid")
CASCADES = {
    "t2t": T2T,
    "t2t, features alone": small_config(T2T_STAGES, replace(REUSE, relations=False), position="sinusoid"),
    "t2t, relations alone": small_config(T2T_STAGES, replace(REUSE, features=False), position="sinusoid"),
    "t2t, nothing reused": small_config(T2T_STAGES, NOTHING, position="sinusoid"),
    "t2t, one layer": small_config(T2T_STAGES, REUSE, position="sinusoid", depth=1),
    "patches": small_config([patch_stage(2), patch_stage(3), patch_stage(4)], REUSE),
    "patches, relations alone": small_config([patch_stage(grid) for grid in (2, 3, 4)], replace(REUSE, features=False)),
    "convolutions": small_config(CONV_STAGES, REUSE),
    "the hybrid's stem": small_config(HYBRID_STAGES, REUSE),
    "a stage of every kind": small_config(MIXED_STAGES, REUSE),
}
ONE_STAGE = small_config([patch_stage(2)], depth=1)


@dataclass(frozen=True)
class Exported:
    model: DVT
    graphs: list[bytes]


@pytest.fixture(scope="module", params=list(CASCADES.values()), ids=list(CASCADES))
def any_exported(request: pytest.FixtureRequest) -> Exported:
    model = small_cascade(request.param)
    return Exported(model, export_graphs(model))


@pytest.fixture(scope="module")
def exported() -> Exported:
    model = small_cascade(T2T)
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


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_graph_agrees_with_eager(any_exported: Exported, batch: int) -> None:
    model, weights = any_exported.model, weights_of(any_exported.model)
    for k, graph in enumerate(any_exported.graphs):
        inputs = inputs_of(model, k, pixels(batch, seed=7))
        expected = outputs_of(model, k, inputs)
        session = stage_session(graph, weights, k, ort.SessionOptions())
        assert [each.name for each in session.get_inputs()] == list(inputs)
        assert [each.name for each in session.get_outputs()] == list(expected)
        for found, (name, array) in zip(session.run(None, inputs), expected.items(), strict=True):
            np.testing.assert_allclose(found, array, rtol=1e-4, atol=2e-5, err_msg=f"stage {k + 1}, {name}")


@pytest.mark.parametrize("level", [0, 127, 255])
def test_an_image_of_one_colour_agrees_with_eager(exported: Exported, level: int) -> None:
    """Its patches have hardly any variance, and the graph gets that as a difference of two moments."""
    images = torch.full((2, 3, SIZE_PX, SIZE_PX), level, dtype=torch.uint8)
    images[1, :, :, SIZE_PX // 2 :] = 30
    for k, graph in enumerate(exported.graphs):
        inputs = inputs_of(exported.model, k, images)
        session = stage_session(graph, weights_of(exported.model), k, ort.SessionOptions())
        expected = outputs_of(exported.model, k, inputs)
        for found, array in zip(session.run(None, inputs), expected.values(), strict=True):
            np.testing.assert_allclose(found, array, rtol=1e-4, atol=1e-4)


def test_the_runtimes_optimisations_change_nothing(any_exported: Exported) -> None:
    weights = weights_of(any_exported.model)
    for k, graph in enumerate(any_exported.graphs):
        inputs = inputs_of(any_exported.model, k, pixels(2))
        plain = ort.SessionOptions()
        plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        one, other = (stage_session(graph, weights, k, o).run(None, inputs) for o in (plain, ort.SessionOptions()))
        for found, expected in zip(one, other, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


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


def test_graphs_hold_no_weights_and_name_all_they_need(any_exported: Exported) -> None:
    model, weights = any_exported.model, weights_of(any_exported.model)
    seen: set[str] = set()
    for k, graph in enumerate(any_exported.graphs):
        for initializer in onnx.load_from_string(graph).graph.initializer:
            name = initializer.name
            if name in weights:
                assert not initializer.raw_data and not initializer.float_data
                assert initializer.data_location == onnx.TensorProto.EXTERNAL
                assert name in stage_weights(weights, k)
                seen.add(name)
            else:
                assert len(initializer.raw_data) < 4096, f"{name} is no small constant"
    # Of a last block whose features nobody takes only the class token is computed, which reuses nothing.
    last_block = f"stages.{model.config.exits - 1}.blocks.{model.config.backbone.depth - 1}.feature_reuse."
    assert {name for name in weights if not name.startswith(last_block)} == seen


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


class NotWhatIsExported(DVT):
    """A network that was changed without its graph: what the comparison is there for."""

    def view(self, k: int, images: Tensor) -> Tensor:
        return super().view(k, images) * 1.01


@pytest.fixture
def wrong() -> DVT:
    model = NotWhatIsExported(ONE_STAGE)
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
    monkeypatch.setattr("models.dvt.DVT", NotWhatIsExported)
    assert dvt.main(["export", str(bundle.path)]) == 2
    assert read_bundle(bundle.path) == bundle
    assert "dvt export: stage 1, batch 1: logits differs from eager" in capsys.readouterr().err


def test_the_command_says_in_one_line_that_there_is_no_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dvt.main(["export", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("dvt export: there is no bundle at ")
